"""face_landmarker against NumPy, with generated networks of every row's contract."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import onnx
import pytest

from engines.compilers import choose_compiler
from engines.precision import to_fp16
from engines.profiles import AxisRange, ProfileLimits, make_profile
from engines.rounding import with_explicit_rounding
from engines.shapes import MAX_ELEMENTS, check_elements
from graphs import face_landmarker
from graphs.contract import (
    FACE_COLUMNS,
    MAX_DETECTIONS,
    OPTION_COUNT,
    SCORE_COLUMN,
    Option,
    Refinement,
)
from networks.face_points import LEFT_EYE_AND_BROW, LIPS, RIGHT_EYE_AND_BROW
from networks.landmarkers import LANDMARKERS, Landmarker
from networks.passes import CPU_LANDMARKER_PASSES, GPU_LANDMARKER_PASSES
from tests.graphs.evaluation import open_session
from tests.landmark_networks import landmarker_network
from tests.reference import geometry
from tests.reference import landmarks as reference

VIEWED = [name for name, row in LANDMARKERS.items() if row.input == "view"]
NAMES = list(LANDMARKERS)
BATCH, SLOTS = 2, 4
# Frame pixels up to 4000 in float32, after a network whose points are off by 1e-4 px.
COORDINATE_TOLERANCE = 0.01
ANGLE_TOLERANCE = 0.05


@functools.cache
def session_of(name: str, *, skip_empty: bool = True):
    row = LANDMARKERS[name]
    return open_session(
        face_landmarker.build(row, landmarker_network(name), skip_empty=skip_empty)
    )


def make_feeds(row: Landmarker, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Two frames: four faces in the first, one in the second."""
    random = np.random.default_rng(seed)
    faces = np.zeros((BATCH, MAX_DETECTIONS, FACE_COLUMNS), np.float32)
    for frame, count in enumerate((6, 1)):
        for index in range(count):
            side, x, y = random.uniform(40, 400), *random.uniform(100, 1500, 2)
            points = (reference.UPRIGHT - 0.5 + random.normal(0, 0.02, (5, 2))) * side + [x, y]
            box = [x - 0.4 * side, y - side / 2, x + 0.4 * side, y + side / 2]
            faces[frame, index] = [*box, 0.9, *points.reshape(-1)]
    warps = np.zeros((BATCH, SLOTS, 2, 3), np.float32)
    framing, size = row.framing, row.view_size or 256
    for frame in range(BATCH):
        for slot in range(SLOTS):
            warps[frame, slot] = reference.view_warp(
                faces[frame, slot],
                scale=1.4 if framing is None else framing.scale,
                shift=0.0 if framing is None else framing.shift,
                turned=framing is None or framing.turned,
                size=size,
            )
    options = np.zeros((BATCH, OPTION_COUNT), np.float32)
    feeds = {"view_warps": warps, "detections": faces, "options": options}
    feeds["views"] = np.zeros((BATCH, SLOTS, 3, 1, 1), np.float32)
    if row.input == "view":
        views = random.random((BATCH, SLOTS, 3, size, size), np.float32)
        # from dark to bright
        views **= 10 ** random.uniform(-1, 1, (BATCH, SLOTS, 3, 1, 1)).astype(np.float32)
        views *= warps.any(axis=(2, 3))[:, :, None, None, None]
        feeds["views"] = views
    return feeds


def run(session, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = ["faces", "landmarks", "pose"]
    return dict(zip(names, session.run(names, feeds), strict=True))


def network_says(name: str, image: np.ndarray) -> tuple[np.ndarray, bool]:
    """Points (P, 3) in view pixels (`fan_68_5`: sides of the template), and whether it sees a face.

    From the contracts: MediaPipe's graphs, and FaceFusion 3.8.1's face_landmarker.py.
    """
    network = landmarker_network(name)
    session = open_session(network)
    outputs = [value.name for value in network.graph.output]
    found = dict(zip(outputs, session.run(None, {network.graph.input[0].name: image}), strict=True))
    if name == "face_landmarker_v2":
        return found["Identity"].reshape(478, 3), found["Identity_1"].item() > 0
    if name == "face_mesh_attention":
        points = np.zeros((478, 3))
        points[:468] = found["output_mesh_identity"].reshape(468, 3)
        for part, index in (("lips", LIPS), ("left_eye", LEFT_EYE_AND_BROW),
                            ("right_eye", RIGHT_EYE_AND_BROW)):  # fmt: skip
            points[list(index), :2] = found[f"output_{part}"].reshape(-1, 2)
        for part, first, contour in (("left_iris", 468, LEFT_EYE_AND_BROW[:16]),
                                     ("right_iris", 473, RIGHT_EYE_AND_BROW[:16])):  # fmt: skip
            points[first : first + 5, :2] = found[f"output_{part}"].reshape(5, 2)
            points[first : first + 5, 2] = points[list(contour), 2].mean()
        return points, found["conv_faceflag"].item() > 0
    if name == "fan_68_5":
        flat = found["output"].reshape(68, 2)
        return np.concatenate([flat, np.zeros((68, 1))], axis=1), True
    raw = found["landmarks"].reshape(68, 3)
    points = np.concatenate([raw[:, :2] / 64 * 256, np.zeros((68, 1))], axis=1)
    if name == "2dfan4":
        mean = found["heatmaps"].max(axis=(2, 3)).mean()
        return points, np.interp(mean, [0, 0.9], [0, 1]) > 0.5
    return points, np.interp(raw[:, 2].mean(), [0, 0.95], [0, 1]) > 0.5


def expected_row(row: Landmarker, feeds: dict[str, np.ndarray], frame: int, slot: int):
    """(landmarks (P, 3), five (5, 2), pose (3,)) or None where there are none."""
    detection = feeds["detections"][frame, slot].astype(np.float64)
    if not detection[SCORE_COLUMN] > 0:
        return None
    warp = feeds["view_warps"][frame, slot]
    if row.input == "view":
        image = feeds["views"][frame, slot]
        fed = image[::-1] if row.channel_order == "bgr" else image
    else:
        warp = geometry.fit_least_squares(detection[5:].reshape(5, 2), reference.UPRIGHT)
        fed = detection[5:].reshape(5, 2) @ warp[:, :2].T + warp[:, 2]
    points, seen = network_says(row.name, np.ascontiguousarray(fed[None]).astype(np.float32))
    if not seen:
        return None
    landmarks = reference.to_frame(points, warp)
    five = np.array([landmarks[list(index), :2].mean(axis=0) for index in row.five])
    places = np.array([p.place for p in row.pose_points]) * [1, -1, -1]
    weights = np.array([p.weight for p in row.pose_points])
    index = [p.index for p in row.pose_points]
    return landmarks, five, reference.pose(landmarks[index, :2], places, weights)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("skip_empty", [True, False])
def test_landmarks_lie_in_the_frame_and_rows_are_refined(name: str, skip_empty: bool) -> None:
    row = LANDMARKERS[name]
    feeds = make_feeds(row)
    found = run(session_of(name, skip_empty=skip_empty), feeds)
    assert found["landmarks"].shape == (BATCH, SLOTS, row.point_count, 3)
    assert found["pose"].shape == (BATCH, SLOTS, 3)
    seen = 0
    for frame in range(BATCH):
        for slot in range(SLOTS):
            detection, refined = feeds["detections"][frame, slot], found["faces"][frame, slot]
            landmarks, pose = found["landmarks"][frame, slot], found["pose"][frame, slot]
            expected = expected_row(row, feeds, frame, slot)
            np.testing.assert_array_equal(refined[:5], detection[:5])
            if expected is None:
                assert not landmarks.any()
                assert not pose.any()
                np.testing.assert_array_equal(refined, detection)
                continue
            seen += 1
            np.testing.assert_allclose(landmarks, expected[0], atol=COORDINATE_TOLERANCE)
            np.testing.assert_allclose(
                refined[5:].reshape(5, 2), expected[1], atol=COORDINATE_TOLERANCE
            )
            np.testing.assert_allclose(pose, expected[2], atol=ANGLE_TOLERANCE)
    assert seen >= 2
    np.testing.assert_array_equal(found["faces"][:, SLOTS:], feeds["detections"][:, SLOTS:])


@pytest.mark.parametrize("name", VIEWED)
def test_some_of_the_generated_views_show_no_face_to_the_network(name: str) -> None:
    row = LANDMARKERS[name]
    feeds = make_feeds(row)
    rows = [expected_row(row, feeds, 0, slot) is None for slot in range(SLOTS)]
    assert 0 < sum(rows) < SLOTS


def test_without_refinement_faces_are_the_detections() -> None:
    feeds = make_feeds(LANDMARKERS["face_mesh_attention"])
    feeds["options"][0, Option.REFINEMENT] = Refinement.NONE
    found = run(session_of("face_mesh_attention"), feeds)
    np.testing.assert_array_equal(found["faces"][0], feeds["detections"][0])
    assert found["landmarks"][0].any()
    assert (found["faces"][1] != feeds["detections"][1]).any()


@pytest.mark.parametrize("name", NAMES)
def test_a_face_does_not_depend_on_the_rest_of_its_batch(name: str) -> None:
    feeds = make_feeds(LANDMARKERS[name], seed=1)
    together = run(session_of(name), feeds)
    for frame in range(BATCH):
        alone = run(session_of(name), {k: v[frame : frame + 1] for k, v in feeds.items()})
        for key, value in alone.items():
            # convolutions over a batch may add up in another order
            np.testing.assert_allclose(value[0], together[key][frame], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("skip_empty", [True, False])
def test_a_batch_without_faces_gives_zeros(name: str, skip_empty: bool) -> None:
    feeds = {key: np.zeros_like(value) for key, value in make_feeds(LANDMARKERS[name]).items()}
    for value in run(session_of(name, skip_empty=skip_empty), feeds).values():
        np.testing.assert_array_equal(value, 0.0)


def test_passes_change_no_number() -> None:
    name = "face_mesh_attention"
    network, feeds = landmarker_network(name), make_feeds(LANDMARKERS[name])
    model = face_landmarker.build(LANDMARKERS[name], network, passes=CPU_LANDMARKER_PASSES)
    exact = run(session_of(name), feeds)
    for key, value in run(open_session(model), feeds).items():
        np.testing.assert_array_equal(value, exact[key])


def test_passes_for_a_gpu_move_no_landmark() -> None:
    name = "face_mesh_attention"
    network, feeds = landmarker_network(name), make_feeds(LANDMARKERS[name])
    model = face_landmarker.build(LANDMARKERS[name], network, passes=GPU_LANDMARKER_PASSES)
    exact, found = run(session_of(name), feeds), run(open_session(model), feeds)
    # Sums of convolutions in another order, as of a batch of another size.
    for key, value in found.items():
        np.testing.assert_allclose(value, exact[key], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", VIEWED)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("skip_empty", [True, False])
def test_nan_in_a_view_stays_in_its_row(name: str, value: float, skip_empty: bool) -> None:
    feeds = make_feeds(LANDMARKERS[name])
    session = session_of(name, skip_empty=skip_empty)
    clean = run(session, feeds)
    feeds["views"][0, 1] = value
    feeds["views"][1, 3] = value  # where there is no face
    found = run(session, feeds)
    for key, result in found.items():
        assert np.isfinite(result).all(), key
        kept = [slot for slot in range(SLOTS) if slot != 1]
        np.testing.assert_allclose(result[0, kept], clean[key][0, kept], rtol=0, atol=2e-3)
        np.testing.assert_allclose(result[1], clean[key][1], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_refused_options_pass_through(name: str) -> None:
    feeds = make_feeds(LANDMARKERS[name])
    feeds["detections"][0] = np.nan
    feeds["view_warps"][0] = 0.0
    found = run(session_of(name), feeds)
    assert np.isnan(found["faces"][0]).all()
    assert not found["landmarks"][0].any()
    assert not found["pose"][0].any()
    assert np.isfinite(found["faces"][1]).all()


@pytest.mark.parametrize("name", VIEWED)
@pytest.mark.parametrize("entry", [np.nan, np.inf, 0.0, 1e-30])
def test_a_warp_without_an_inverse_leaves_the_detection(name: str, entry: float) -> None:
    feeds = make_feeds(LANDMARKERS[name])
    feeds["view_warps"][0, 0] = entry
    found = run(session_of(name), feeds)
    np.testing.assert_array_equal(found["faces"][0, 0], feeds["detections"][0, 0])
    assert not found["landmarks"][0, 0].any()
    assert np.isfinite(found["pose"]).all()


@pytest.mark.parametrize("slots", [1, MAX_DETECTIONS])
def test_any_number_of_rows_is_taken(slots: int) -> None:
    row = LANDMARKERS["face_mesh_attention"]
    feeds = make_feeds(row)
    for key in ("views", "view_warps"):
        repeats = -(-slots // SLOTS)
        feeds[key] = np.concatenate([feeds[key]] * repeats, axis=1)[:, :slots]
    found = run(session_of(row.name), feeds)
    assert found["landmarks"].shape[1] == found["pose"].shape[1] == slots
    assert found["faces"].shape == feeds["detections"].shape


def test_the_file_of_another_landmarker_is_refused() -> None:
    rows = LANDMARKERS
    with pytest.raises(ValueError, match=r"face_mesh_attention should answer conv_faceflag"):
        face_landmarker.build(
            rows["face_mesh_attention"], landmarker_network("face_landmarker_v2")
        )
    with pytest.raises(ValueError, match=r"2dfan4 should take \[\[3, 256, 256\]\].*\[\[5, 2\]\]"):
        face_landmarker.build(rows["2dfan4"], landmarker_network("fan_68_5"))


def test_without_a_network_faces_are_the_detections_and_nothing_is_known() -> None:
    feeds = make_feeds(LANDMARKERS["fan_68_5"])
    found = run(open_session(face_landmarker.build_without_network()), feeds)
    np.testing.assert_array_equal(found["faces"], feeds["detections"])
    assert found["landmarks"].shape == (BATCH, SLOTS, 478, 3)
    assert found["pose"].shape == (BATCH, SLOTS, 3)
    assert not found["landmarks"].any()
    assert not found["pose"].any()


@pytest.mark.parametrize("name", NAMES)
def test_building_twice_gives_the_same_bytes(name: str) -> None:
    network = landmarker_network(name)
    first, second = (
        face_landmarker.build(LANDMARKERS[name], network).SerializeToString() for _ in range(2)
    )
    assert first == second


def every_node(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                nodes += every_node(attribute.g)
    return nodes


@pytest.mark.parametrize("name", VIEWED)
def test_coordinates_are_made_in_float32_behind_a_network_in_float16(name: str) -> None:
    model = to_fp16(face_landmarker.build(LANDMARKERS[name], landmarker_network(name)))
    nodes = every_node(model.graph)
    typed = {node.op_type for node in nodes if node.name.startswith("network/")}
    assert "Conv" in typed or name == "2dfan4"  # whose one convolution answers its heat maps
    made = {node.name for node in nodes if node.name.startswith(face_landmarker.COORDINATES)}
    assert made
    feeds = make_feeds(LANDMARKERS[name])
    exact, typed = run(session_of(name), feeds), run(open_session(with_explicit_rounding(model)),
                                                     feeds)  # fmt: skip
    for slot in range(SLOTS):
        moved = np.abs(exact["landmarks"][:, slot] - typed["landmarks"][:, slot])[..., :2]
        scale = np.linalg.norm(feeds["view_warps"][:, slot, 0, :2], axis=1)
        # pixels of the view; a network of noise answers with less care than one that was trained
        assert (moved.max(axis=(1, 2)) * scale).max() < 0.25


LIMITS = ProfileLimits(batch=AxisRange(1, 4, 8), views=AxisRange(1, 4, 4))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("half", [False, True])
def test_a_real_compiler_takes_the_graph(name: str, half: bool) -> None:
    model = face_landmarker.build(LANDMARKERS[name], landmarker_network(name))
    model = to_fp16(model) if half else model
    profile = make_profile(model, LIMITS)
    largest = {tensor: shapes.max for tensor, shapes in profile.items()}
    assert check_elements(model, largest).largest.elements <= MAX_ELEMENTS
    plan = choose_compiler("tensorrt_rtx").compile(
        model.SerializeToString(), profile=profile, compute_capabilities=["8.9"]
    )
    assert len(plan.data) > 1000


def test_rows_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LANDMARKERS["2dfan4"].unit = 1.0  # type: ignore[misc]
