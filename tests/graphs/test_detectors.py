"""Detector rows and decoding: literals, and NumPy written from each family's contract."""

import dataclasses

import numpy as np
import pytest

from fetching.weights import WEIGHTS
from graphs.detections import decode_candidates, decode_landmarks
from networks.detectors import DEFAULT_DETECTOR, DETECTORS, check_outputs
from tests.detector_networks import empty_scene, random_scene
from tests.graphs.evaluation import evaluate
from tests.reference import detection as reference


def test_the_default_may_be_used_by_everyone():
    weight = WEIGHTS[DETECTORS[DEFAULT_DETECTOR].weight]
    assert weight.licence == "MIT"
    assert not weight.needs_acceptance


@pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS.keys())
def test_every_detector_has_its_weights_listed(detector):
    assert WEIGHTS[detector.weight].role == "detector"
    assert DETECTORS[detector.name] is detector
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        detector.mean = 1.0


@pytest.mark.parametrize(
    ("name", "order", "mean", "std", "anchors", "total", "outputs"),
    [
        ("yunet", "bgr", 0.0, 1.0, 1, 8400, 12),
        ("scrfd_2.5g", "rgb", 127.5, 128.0, 2, 16800, 9),
        ("det_10g", "rgb", 127.5, 128.0, 2, 16800, 9),
        ("yoloface_8n", "bgr", 0.0, 255.0, 1, 8400, 1),
    ],
)
def test_rows_hold_the_published_numbers(name, order, mean, std, anchors, total, outputs):
    row = DETECTORS[name]
    assert (row.channel_order, row.mean, row.std) == (order, mean, std)
    assert (row.anchors_per_cell, row.anchor_count) == (anchors, total)
    assert len(row.output_widths) == outputs
    assert row.strides == (8, 16, 32)
    assert (row.score_threshold, row.nms_threshold) == (0.5, 0.4)


def test_anchors_lie_on_cell_corners_row_by_row_and_twice_where_a_cell_has_two():
    points = DETECTORS["scrfd_2.5g"].anchor_points()
    assert points[:4].tolist() == [[0, 0], [0, 0], [8, 0], [8, 0]]
    assert points[160].tolist() == [0, 8]
    assert points[12800:12804].tolist() == [[0, 0], [0, 0], [16, 0], [16, 0]]
    assert points[-1].tolist() == [608, 608]
    strides = DETECTORS["scrfd_2.5g"].anchor_strides()
    assert strides[[0, 12799, 12800, 15999, 16000, 16799]].tolist() == [8, 8, 16, 16, 32, 32]
    table = reference.cell_table()
    np.testing.assert_array_equal(DETECTORS["yunet"].anchor_points(), table[:, :2] * table[:, 2:])


@pytest.mark.parametrize("name", DETECTORS)
def test_candidates_decode_as_the_contract_says(name):
    detector = DETECTORS[name]
    scenes = [random_scene(detector, seed) for seed in (1, 2)]
    batches = [np.stack(pair).astype(np.float32) for pair in zip(*scenes, strict=True)]
    chosen = np.random.default_rng(3).integers(0, detector.anchor_count, (2, 16))

    def piece(op, index, *outputs):
        found = decode_candidates(op, detector, outputs)
        wide = op.Expand(op.Unsqueeze(index, [2]), [1, 1, 10])
        rows = op.GatherElements(found.landmark_rows, wide, axis=1)
        return [found.scores, found.boxes, decode_landmarks(op, detector, rows, index)]

    scores, boxes, landmarks = evaluate(piece, chosen, *batches)
    for row, scene in enumerate(scenes):
        expected = reference.DECODERS[detector.family](scene)
        np.testing.assert_allclose(scores[row], expected[0], atol=1e-6)
        # float32 of coordinates up to 1000
        np.testing.assert_allclose(boxes[row].T, expected[1], atol=5e-4)
        flat = expected[2][chosen[row]].reshape(16, 10)
        np.testing.assert_allclose(landmarks[row], flat, atol=5e-4)


def test_the_yunet_score_is_a_geometric_mean_of_clipped_factors():
    detector = DETECTORS["yunet"]
    scene = empty_scene(detector)
    scene[0][:4, 0] = [0.25, 1.5, 0.81, -0.2]
    scene[3][:4, 0] = [1.0, 0.49, 1.0, 1.0]
    outputs = [values[None] for values in scene]
    scores = evaluate(lambda op, *o: decode_candidates(op, detector, o).scores, *outputs)[0]
    np.testing.assert_allclose(scores[0, :4], [0.5, 0.7, 0.9, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("yunet", [["B", 8400, 1]]),
        ("scrfd_2.5g", [["B", n, w] for w in (1, 4) for n in (12800, 3200, 800)]),
        ("scrfd_2.5g", [["B", n, w] for w in (1, 10, 4) for n in (12800, 3200, 800)]),
        ("yoloface_8n", [["B", 5, 8400]]),
    ],
)
def test_a_network_with_other_outputs_is_refused_by_name(name, shapes):
    with pytest.raises(ValueError, match=rf"detector {name} must have .* is it the right file\?"):
        check_outputs(DETECTORS[name], shapes)


def test_outputs_are_known_by_position_whatever_they_are_called():
    shapes = [[None, n, w] for w in (1, 4, 10) for n in (12800, 3200, 800)]
    check_outputs(DETECTORS["det_10g"], shapes)
    check_outputs(DETECTORS["yoloface_8n"], [["B", 20, None]])
