"""The network that is written from the project's own weights, against NumPy, part by part.

The whole of it is compared with PyTorch in tests/training.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnxscript import GraphBuilder

from networks.frameswap_network import build_network, read_weights
from networks.frameswap_network.composition import compose, prepare
from networks.frameswap_network.warping import (
    Warped,
    canonical_face,
    mean_mesh,
    retarget,
    warp_crops,
)
from tests.graphs.evaluation import open_session
from tests.reference import frameswap

Array = npt.NDArray[np.float32]
POSITION = 2e-3
"""px: float32 sums over 478 landmarks, and positions near 256 rounded to 1.5e-5 a step."""
PICTURE = 2e-4
"""Of values in [0, 1]: positions that differ by 1e-3 px, where an edge is a tenth a pixel."""
ROUNDING = 1e-5


def packed(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return frameswap.small_weights()


@pytest.fixture(scope="module")
def faces(weights: dict[str, Any]) -> tuple[Array, Array]:
    """Meshes of two targets and two sources, px: [2, 478, 3] each, neither of them the mean."""
    draw = np.random.default_rng(2)
    inputs = weights["retargeter.inputs"].astype(np.float64)
    basis = inputs / (inputs**2).sum(1, keepdims=True)
    meshes = weights["retargeter.mean"] + draw.normal(size=(4, 64)) @ basis
    meshes = meshes.reshape(4, 478, 3).astype(np.float32)
    return meshes[:2], meshes[2:]


def run(trace: Callable[..., list[ir.Value]], feeds: dict[str, Array]) -> list[npt.NDArray[Any]]:
    """What a part of the network answers: a graph of that part alone, in ONNX Runtime."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="part")
    builder = GraphBuilder(graph)
    given = [
        builder.input(name, ir.DataType.FLOAT, ["N", *array.shape[1:]])
        for name, array in feeds.items()
    ]
    for position, value in enumerate(trace(builder.op, *given)):
        builder.add_output(value, f"out_{position}")
    model = ir.to_proto(ir.Model(graph, ir_version=9))
    return [np.asarray(value) for value in open_session(model).run(None, feeds)]


def test_a_face_is_retargeted_and_stays_as_open_as_it_was(
    weights: dict[str, Any], faces: tuple[Array, Array]
) -> None:
    arrays = read_weights(packed(weights))
    target, source = faces
    (goal,) = run(
        lambda op, a, b: [retarget(op, arrays, a, b)], {"target": target, "source": source}
    )
    for row in range(2):
        expected = frameswap.retarget(weights, target[row], source[row])
        assert np.abs(expected - target[row, :, :2]).max() > 2
        np.testing.assert_allclose(goal[row], expected, rtol=0, atol=POSITION)
        for upper, lower in frameswap.OPENINGS:
            gaps = [mesh[row, upper, :2] - mesh[row, lower, :2] for mesh in (goal, target)]
            np.testing.assert_allclose(*gaps, rtol=0, atol=POSITION)


def test_without_landmarks_a_face_gets_the_likeliest_mesh_of_its_five_points(
    weights: dict[str, Any], faces: tuple[Array, Array]
) -> None:
    arrays = read_weights(packed(weights))
    five = np.stack([frameswap.five_points(mesh) for mesh in faces[0]]).astype(np.float32)
    marks = faces[0] / np.float32(256)
    marks[1] = 0.0
    (found,) = run(
        lambda op, marks, five: [mean_mesh(op, arrays, marks, five)],
        {"marks": marks, "five": five / np.float32(256)},
    )
    np.testing.assert_allclose(found[0], faces[0][0], rtol=0, atol=POSITION)
    expected = frameswap.likely_mesh(weights, five[1].astype(np.float64))
    np.testing.assert_allclose(found[1], expected, rtol=0, atol=POSITION)
    # It is nearer to the face than the mean is, which is all that five points can do.
    guesses = (found[1], weights["retargeter.mean"].reshape(478, 3))
    errors = [np.linalg.norm((guess - faces[0][1])[:, :2], axis=1).mean() for guess in guesses]
    assert errors[0] < 0.6 * errors[1]


def test_labels_cover_what_polygons_cover(weights: dict[str, Any]) -> None:
    points, unit = frameswap.canonical(weights)
    face = canonical_face(weights["mean_shape"])
    np.testing.assert_allclose(face.points, points, rtol=0, atol=1e-6)
    assert face.px_per_unit == pytest.approx(unit, rel=1e-6)
    # OpenCV counts a polygon's own border in: a quarter of a label's pixel all around.
    assert np.abs(face.labels[0] - frameswap.oval_label(points)).mean() < 0.01
    face_label, mouth, eyes, lips, brows = face.labels
    assert (mouth + lips + eyes + brows <= face_label + 1e-6).all()
    assert all(label.max() == 1 for label in face.labels)


def test_crops_are_moved_by_kernel_regression(
    weights: dict[str, Any], faces: tuple[Array, Array]
) -> None:
    arrays = read_weights(packed(weights))
    (target_marks, source_marks), draw = faces, np.random.default_rng(0)
    small = draw.random((4, 3, 16, 16))
    crops = np.stack([frameswap.enlarge(frameswap.enlarge(crop)[:, ::4, ::4]) for crop in small])
    crops = np.float32(crops)
    goal = np.stack(
        [
            frameswap.retarget(weights, one, other)
            for one, other in zip(target_marks, source_marks, strict=True)
        ]
    )

    def trace(op: Any, *given: ir.Value) -> list[ir.Value]:
        warped = warp_crops(op, arrays, *given)
        return [warped.target, warped.source, warped.labels, warped.flow]

    feeds = {
        "target": crops[:2], "source": crops[2:], "target_marks": target_marks,
        "source_marks": source_marks, "goal": goal.astype(np.float32),
    }  # fmt: skip
    moved, sourced, labels, flow = run(trace, feeds)
    x, y = np.meshgrid(np.arange(256.0), np.arange(256.0))
    points, unit = frameswap.canonical(weights)
    for row in range(2):
        at = goal[row]
        for found, crop, marks, anchored in (
            (moved, crops[row], target_marks, True), (sourced, crops[2 + row], source_marks, False)
        ):  # fmt: skip
            shift = frameswap.regress(weights, at, marks[row, :, :2] - at, anchored=anchored)
            shift = frameswap.enlarge(shift)
            expected = frameswap.sample(crop, x + shift[0], y + shift[1], border=True)
            assert np.abs(crop - expected).max() > 0.1
            np.testing.assert_allclose(found[row], expected, rtol=0, atol=PICTURE)
        np.testing.assert_allclose(flow[row], shift.clip(-48, 48) / 32, rtol=0, atol=POSITION / 32)
        middle = np.array([127.5, 140.0])
        offset = points - (at - middle) / unit
        coarse = frameswap.regress(weights, at, offset, anchored=True)
        line = (np.arange(64) + 0.5) * 4 - 0.5
        nodes = np.stack(np.meshgrid(line, line))
        place = frameswap.enlarge(coarse + (nodes - middle.reshape(2, 1, 1)) / unit)
        u, v = (place + 1) * 64 - 0.5
        drawn = canonical_face(weights["mean_shape"]).labels
        expected = frameswap.sample(drawn, u, v, border=False)
        np.testing.assert_allclose(labels[row], expected, rtol=0, atol=1e-3)


def test_light_and_the_mask_are_window_means() -> None:
    draw = np.random.default_rng(1)
    target, source = np.float32(draw.random((2, 2, 3, 256, 256)))
    labels = np.zeros((2, 5, 256, 256), np.float32)
    labels[0, 0, 60:230, 50:200] = 1
    labels[1, 0, :150, 90:] = 0.7
    painted = np.float32(draw.normal(size=(2, 5, 256, 256)))

    def trace(op: Any, *given: ir.Value) -> list[ir.Value]:
        warped = Warped(given[0], given[1], given[2], given[3])
        prepared = prepare(op, warped)
        return [prepared.lit, prepared.seen, *compose(op, warped, prepared.lit, given[4])]

    feeds = {
        "target": target, "source": source, "labels": labels,
        "flow": np.float32(draw.normal(size=(2, 2, 256, 256))), "painted": painted,
    }  # fmt: skip
    lit, seen, image, mask = run(trace, feeds)

    def coarse(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        blocks = x.astype(np.float64).reshape(16, 16, 16, 16).mean((1, 3))
        return frameswap.enlarge(frameswap.window_mean(blocks, 3)[None])[0]

    for row in range(2):
        oval = labels[row, 0].astype(np.float64)
        near = (3 * frameswap.window_mean(frameswap.window_mean(oval, 17), 9)).clip(0, 1)
        cover = coarse(near) + 0.02
        change = np.stack([coarse(d * near) / cover for d in target[row] - source[row]])
        expected = (source[row] + change).clip(0, 1)
        np.testing.assert_allclose(lit[row], expected, rtol=0, atol=ROUNDING)
        pictures = np.concatenate([target[row], source[row], expected]) * 2 - 1
        wanted = np.concatenate([pictures, labels[row], feeds["flow"][row]])
        np.testing.assert_allclose(seen[row], wanted, rtol=0, atol=ROUNDING)
        soft = frameswap.window_mean(frameswap.window_mean(oval, 13), 13)
        reach = ((soft - 0.5) * 2.2).clip(0, 1)
        shown = reach / (1 + np.exp(-painted[row, 3].astype(np.float64)))
        np.testing.assert_allclose(mask[row, 0], shown, rtol=0, atol=ROUNDING)
        share = 1 / (1 + np.exp(-painted[row, 4].astype(np.float64)))
        rgb = expected * share + target[row] * (1 - share) + painted[row, :3]
        whole = (shown * rgb + (1 - shown) * target[row]).clip(0, 1)
        np.testing.assert_allclose(image[row], whole, rtol=0, atol=ROUNDING)


def test_the_network_follows_the_widths_of_its_weights(weights: dict[str, Any]) -> None:
    network = build_network(packed(weights))
    onnx.checker.check_model(network, full_check=True)
    convolutions = [node for node in network.graph.node if node.op_type == "Conv"]
    assert not [node.name for node in convolutions if node.name.startswith("float32/")]
    assert build_network(packed(weights)).SerializeToString() == network.SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a whole .npz file"),
        (b"PK\x03\x04 cut off", "not a whole .npz file"),
        (packed({"step": np.array(3)}), "no weights of the project's swapper: generator.entry"),
    ],
)
def test_other_files_are_refused_in_one_sentence(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network(content)
