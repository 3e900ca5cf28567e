"""face_detector and face_locator as served graphs: planted networks, NumPy as the judge."""

import dataclasses
import functools
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import skimage

from fetching import weights
from graphs import face_detector
from graphs.alignment import TEMPLATES
from graphs.contract import (
    DETECTED_FRAME,
    FRAME_FORMATS,
    MODEL_SPECS,
    OPSET,
    SCORE_COLUMN,
    FaceOrder,
    Option,
)
from networks.detectors import DETECTORS
from networks.swappers import SWAPPERS
from tests.detector_networks import SCENE_STEP, empty_scene, place_face, plant, random_scene
from tests.graphs.evaluation import open_session
from tests.reference import detection as reference

SWAPPER = SWAPPERS["image_swapper_256"]
SIDE = SWAPPER.crop_size
TEMPLATE = TEMPLATES[SWAPPER.template] * SIDE
YUNET = DETECTORS["yunet"]

# Coordinates up to 3840 px divided by a scale down to 1/6: float32 steps of 2.4e-4 px and rounding
COORDINATE_TOLERANCE = 5e-3
# a warp's shift adds numbers of a few thousand pixels in float32
WARP_TOLERANCE = 5e-3
# crops of smooth pictures: 5e-3 px of position times a slope of a few levels per pixel
CROP_TOLERANCE = 2e-3

EMPTY, FEW, MANY, RANDOM, EDGES = range(5)


def face_points(box, seed, *, noise=0.02):
    """Five landmarks that look like a face in `box`, not quite a template."""
    box = np.asarray(box, dtype=np.float64)
    points = TEMPLATES["ffhq_512"] + np.random.default_rng(seed).normal(0, noise, (5, 2))
    return box[:2] + points * (box[2:] - box[:2])


def put(outputs, detector, box, score, seed, **where):
    place_face(detector, outputs, box=box, landmarks=face_points(box, seed), score=score, **where)


@functools.cache
def scenes(detector_name):
    """Outputs of the planted scenes: letterbox coordinates, faces inside 640 x 360."""
    detector = DETECTORS[detector_name]
    few, many, edges = (empty_scene(detector) for _ in range(3))
    put(few, detector, (60, 70, 160, 200), 0.9, 1)
    put(few, detector, (300, 100, 460, 290), 0.8, 2, level=2)
    put(few, detector, (500, 40, 540, 96), 0.7, 3, level=0)
    put(few, detector, (304, 104, 462, 292), 0.75, 4, level=1)
    put(few, detector, (200, 200, 240, 250), 0.45, 5)
    for index in range(20):
        column, row = index % 7, index // 7
        left, top = 10 + 88 * column, 8 + 112 * row
        box = (left, top, left + 60 + index, top + 80 + index)
        put(many, detector, box, 0.55 + 0.02 * index, 10 + index)
    put(edges, detector, (-60, -40, 50, 90), 0.95, 40)
    put(edges, detector, (570, 280, 700, 420), 0.9, 41)
    put(edges, detector, (280, -30, 360, 50), 0.85, 42)
    return [empty_scene(detector), few, many, random_scene(detector, 7), edges]


@functools.cache
def detector_session(
    frame_format, detector_name="yunet", *, with_swapper=True, pixel_boost=1, runtime="tensorrt"
):
    detector = DETECTORS[detector_name]
    model = face_detector.build(
        frame_format,
        detector,
        plant(detector, scenes(detector_name)),
        swapper=SWAPPER if with_swapper else None,
        pixel_boost=pixel_boost,
        runtime=runtime,
    )
    return open_session(model)


# The ways to read a frame; BGR has one.
every_way = pytest.mark.parametrize(
    ("frame_format", "runtime"),
    [("i420", "tensorrt"), ("i420", "onnxruntime_gpu"), ("bgr", "tensorrt")],
)


def picture(height, width, scene, seed):
    """A smooth BGR picture (H, W, 3) uint8 whose top left corner says which scene is planted."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (8, 8, 3)).astype(np.float32)
    smooth = np.clip(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255)
    corner = max(8, height // 40)
    smooth[:corner, :corner] = scene * SCENE_STEP
    return np.rint(smooth).astype(np.uint8)


def to_frame(bgr, frame_format):
    return bgr if frame_format == "bgr" else cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)


def ask(session, frames, options=None, slots=1):
    """Outputs by name for a list of frames."""
    batch = np.stack(frames)
    if options is None:
        options = np.zeros((len(frames), 8), dtype=np.float32)
    feeds = {"frame": batch, "options": options}
    if any(value.name == "source" for value in session.get_inputs()):
        feeds["source"] = np.zeros((len(frames), slots, SWAPPER.source_length), np.float32)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def expect(frame, frame_format, scene, options, slots, detector_name="yunet"):
    """What the oracle says of one frame: faces, warps and crops."""
    height = frame.shape[0] if frame_format == "bgr" else frame.shape[0] * 2 // 3
    family = DETECTORS[detector_name].family
    planted = scenes(detector_name)[scene]
    faces = reference.find_faces(family, planted, height, frame.shape[1], options)
    aligned = reference.align_faces(frame, frame_format, faces, slots, TEMPLATE, SIDE, options)
    return faces, aligned


def check(answer, row, frame, frame_format, scene, options, detector_name="yunet"):
    slots = answer["warps"].shape[1]
    faces, aligned = expect(frame, frame_format, scene, options, slots, detector_name)
    np.testing.assert_allclose(answer["faces"][row], faces, atol=COORDINATE_TOLERANCE)
    np.testing.assert_allclose(answer["warps"][row], aligned.warps, atol=WARP_TOLERANCE)
    np.testing.assert_allclose(answer["crops"][row], aligned.crops, atol=CROP_TOLERANCE)
    np.testing.assert_array_equal(answer[DETECTED_FRAME][row], frame)
    return faces


@every_way
@pytest.mark.parametrize(
    ("height", "width"),
    # H mod 4 = 2 puts the end of U in mid-row; the last is 4K
    [(64, 64), (66, 90), (98, 64), (360, 640), (720, 1280), (1078, 1918), (2160, 3840)],
)
def test_faces_warps_and_crops_are_the_oracles_at_every_size(frame_format, runtime, height, width):
    frame = to_frame(picture(height, width, FEW, height), frame_format)
    answer = ask(detector_session(frame_format, runtime=runtime), [frame], slots=4)
    faces = check(answer, 0, frame, frame_format, FEW, np.zeros(8))
    # five were planted: one overlaps a better one, one is below the threshold
    assert (faces[:, 4] > 0).sum() == 3


@pytest.mark.parametrize("name", DETECTORS)
def test_every_family_is_decoded_suppressed_and_aligned(name):
    for scene in (FEW, MANY, RANDOM):
        frame = picture(480, 640, scene, 11)
        answer = ask(detector_session("bgr", name), [frame], slots=2)
        faces = check(answer, 0, frame, "bgr", scene, np.zeros(8), name)
        assert (faces[:, 4] > 0).sum() >= 3


@every_way
def test_every_row_of_a_batch_keeps_its_own_scene_and_options(frame_format, runtime):
    rows = [
        (FEW, {Option.FACE_ORDER: FaceOrder.SMALLEST_FIRST, Option.COLOR_RANGE: 1}),
        (MANY, {Option.FACE_ORDER: FaceOrder.RIGHT_TO_LEFT, Option.SCORE_THRESHOLD: 0.8}),
        (EMPTY, {Option.COLOR_MATRIX: 3}),
        (FEW, {Option.SCORE_THRESHOLD: 0.3, Option.NMS_THRESHOLD: 1.0}),
        (EDGES, {Option.CHROMA_LOCATION: 2, Option.FACE_ORDER: FaceOrder.BOTTOM_TO_TOP}),
        (RANDOM, {Option.CHROMA_LOCATION: 1, Option.COLOR_MATRIX: 2, Option.NMS_THRESHOLD: 0.1}),
    ]
    options = np.zeros((len(rows), 8), dtype=np.float32)
    for row, (_, given) in enumerate(rows):
        for name, value in given.items():
            options[row, name] = value
    frames = []
    for row, (scene, given) in enumerate(rows):
        bgr = picture(360, 640, scene, 20 + row)
        frame = to_frame(bgr, frame_format)
        if frame_format == "i420" and given.get(Option.COLOR_RANGE):
            # a full range frame shows the scene's grey in its luma as it is
            frame[:9, :9] = scene * SCENE_STEP
        frames.append(frame)
    answer = ask(detector_session(frame_format, runtime=runtime), frames, options, slots=5)
    counts = []
    for row, (scene, _) in enumerate(rows):
        faces = check(answer, row, frames[row], frame_format, scene, options[row])
        counts.append(int((faces[:, 4] > 0).sum()))
    assert counts[:5] == [3, 7, 0, 5, 3]


@pytest.mark.parametrize("slots", range(1, 17))
def test_slot_k_holds_the_kth_face(slots):
    frame = picture(360, 640, MANY, 31)
    answer = ask(detector_session("bgr"), [frame], slots=slots)
    assert answer["crops"].shape == (1, slots, 3, SIDE, SIDE)
    faces = answer["faces"][0]
    # twenty were planted
    assert (faces[:, 4] > 0).all()
    areas = (faces[:, 2] - faces[:, 0]) * (faces[:, 3] - faces[:, 1])
    assert (np.diff(areas) <= 0).all()
    aligned = reference.align_faces(frame, "bgr", faces, slots, TEMPLATE, SIDE, np.zeros(8))
    np.testing.assert_allclose(answer["warps"][0], aligned.warps, atol=WARP_TOLERANCE)
    last = slots - 1
    np.testing.assert_allclose(answer["crops"][0, last], aligned.crops[last], atol=CROP_TOLERANCE)


@pytest.mark.parametrize("frame_format", FRAME_FORMATS)
def test_without_a_face_everything_is_empty_and_the_frame_is_untouched(frame_format):
    frame = to_frame(picture(66, 90, EMPTY, 41), frame_format)
    answer = ask(detector_session(frame_format), [frame, frame], slots=3)
    for name in ("faces", "warps", "crops"):
        assert not answer[name].any()
    assert answer[DETECTED_FRAME].dtype == np.uint8
    np.testing.assert_array_equal(answer[DETECTED_FRAME], [frame, frame])


def test_a_face_partly_outside_is_cropped_with_the_edge_repeated():
    frame = picture(360, 640, EDGES, 51)
    answer = ask(detector_session("bgr"), [frame], slots=3)
    faces = check(answer, 0, frame, "bgr", EDGES, np.zeros(8))
    # boxes are not clipped to the frame
    assert faces[:3, 0].min() < 0
    assert faces[:3, 2].max() > 640


@pytest.mark.parametrize("frame_format", FRAME_FORMATS)
@pytest.mark.parametrize("name", [Option.FACE_ORDER, Option.COLOR_MATRIX, Option.CHROMA_LOCATION])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 9.0, 0.5])
def test_refused_options_turn_faces_into_nan_in_their_own_row_only(frame_format, name, value):
    frame = to_frame(picture(66, 90, FEW, 61), frame_format)
    options = np.zeros((3, 8), dtype=np.float32)
    options[1, name] = value
    session = detector_session(frame_format)
    answer = ask(session, [frame] * 3, options)
    assert np.isnan(answer["faces"][1]).all()
    assert not answer["warps"][1].any()
    assert not answer["crops"][1].any()
    alone = ask(session, [frame])
    for row in (0, 2):
        for output in ("faces", "warps", "crops"):
            np.testing.assert_array_equal(answer[output][row], alone[output][0])


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("group", [2, 3])
def test_a_broken_box_or_landmark_is_not_a_face(poison, group):
    outputs = empty_scene(YUNET)
    put(outputs, YUNET, (60, 70, 160, 200), 0.9, 1)
    put(outputs, YUNET, (300, 100, 460, 290), 0.8, 2)
    hit = int(outputs[1].argmax())
    outputs[group * 3 + 1][hit, 1] = poison
    model = face_detector.build("bgr", YUNET, plant(YUNET, [outputs]), swapper=SWAPPER)
    frame = picture(360, 640, 0, 71)
    answer = ask(open_session(model), [frame], slots=2)
    assert np.isfinite(answer["faces"]).all()
    np.testing.assert_allclose(answer["faces"][0, 0, :5], [300, 100, 460, 290, 0.8], atol=1e-3)
    assert not answer["faces"][0, 1:].any()
    assert not answer["crops"][0, 1].any()
    assert np.isfinite(answer["crops"]).all()


def test_landmarks_in_one_point_are_a_face_without_a_warp():
    outputs = empty_scene(YUNET)
    place_face(YUNET, outputs, box=(60, 70, 160, 200), landmarks=np.full((5, 2), 100.0), score=0.9)
    model = face_detector.build("bgr", YUNET, plant(YUNET, [outputs]), swapper=SWAPPER)
    answer = ask(open_session(model), [picture(360, 640, 0, 81)])
    assert answer["faces"][0, 0, 4] > 0
    assert not answer["warps"].any()
    assert not answer["crops"].any()


def test_the_locator_finds_the_same_faces_and_needs_no_source():
    frame = picture(360, 640, MANY, 91)
    session = detector_session("bgr", with_swapper=False)
    assert [value.name for value in session.get_inputs()] == ["frame", "options"]
    assert [value.name for value in session.get_outputs()] == ["faces", DETECTED_FRAME]
    faces = ask(detector_session("bgr"), [frame])["faces"]
    np.testing.assert_array_equal(ask(session, [frame])["faces"], faces)


def test_a_boosted_crop_is_the_same_face_in_more_pixels():
    swapper = SWAPPERS["inswapper_128"]
    sessions = [
        open_session(
            face_detector.build(
                "i420", YUNET, plant(YUNET, scenes("yunet")), swapper=swapper, pixel_boost=boost
            )
        )
        for boost in (1, 2)
    ]
    frame = to_frame(picture(360, 640, FEW, 95), "i420")
    source = np.zeros((1, 1, 512), np.float32)
    options = np.zeros((1, 8), np.float32)
    feeds = {"frame": frame[None], "source": source, "options": options}
    small, large = (session.run(["warps", "crops"], feeds) for session in sessions)
    assert small[1].shape == (1, 1, 3, 128, 128)
    assert large[1].shape == (1, 1, 3, 256, 256)
    # templates scale with the side: the same matrix twice as large
    np.testing.assert_allclose(large[0], 2 * small[0], rtol=1e-5)
    np.testing.assert_allclose(large[1][..., ::2, ::2], small[1], atol=CROP_TOLERANCE)


def test_a_boost_that_the_swapper_does_not_have_is_refused():
    with pytest.raises(ValueError, match="image_swapper_256 takes a pixel boost of 1, but 2 was"):
        face_detector.build(
            "bgr", YUNET, plant(YUNET, scenes("yunet")[:1]), swapper=SWAPPER, pixel_boost=2
        )


def test_another_detectors_network_is_refused():
    network = plant(DETECTORS["yoloface_8n"], [empty_scene(DETECTORS["yoloface_8n"])])
    with pytest.raises(ValueError, match="detector yunet must have 12 outputs"):
        face_detector.build("bgr", YUNET, network)


def build_model(frame_format, *, locator=False):
    network = plant(YUNET, [scenes("yunet")[FEW]])
    return face_detector.build(frame_format, YUNET, network, swapper=None if locator else SWAPPER)


@pytest.mark.parametrize(
    ("name", "frame_format"),
    [("face_detector_i420", "i420"), ("face_detector_bgr", "bgr"), ("face_locator_bgr", "bgr")],
)
def test_tensors_are_the_contracts(name, frame_format):
    model = build_model(frame_format, locator=name.startswith("face_locator"))
    assert model.graph.name == name
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    onnx.checker.check_model(model, full_check=True)
    spec = MODEL_SPECS[name]
    types = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}
    letters = {"S": SIDE, "D": SWAPPER.source_length}
    for values, specs in ((model.graph.input, spec.inputs), (model.graph.output, spec.outputs)):
        assert {value.name for value in values} == {tensor.name for tensor in specs}
        for tensor in specs:
            value = next(value for value in values if value.name == tensor.name)
            assert value.type.tensor_type.elem_type == types[tensor.dtype]
            dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            assert dims == ["B", *(letters.get(str(dim), dim) for dim in tensor.dims)]


@pytest.mark.parametrize("frame_format", FRAME_FORMATS)
def test_the_same_graph_is_the_same_bytes(frame_format):
    first, second = (build_model(frame_format).SerializeToString() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("frame_format", FRAME_FORMATS)
def test_bytes_are_only_cast_or_passed_through(frame_format):
    model = build_model(frame_format)
    readers = sorted(node.op_type for node in model.graph.node if "frame" in node.input)
    assert readers == ["Cast", "Identity"]
    operators = {node.op_type for node in model.graph.node}
    # what a compiler's parser lacks, or cannot give a shape to
    assert not operators & {"NonZero", "NonMaxSuppression", "Loop", "If", "TopK", "Unique"}


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime_gpu"])
@pytest.mark.parametrize("frame_format", FRAME_FORMATS)
def test_what_is_written_for_onnx_runtime_gives_the_same_numbers(frame_format, runtime):
    network = plant(YUNET, scenes("yunet"))
    model = face_detector.build(frame_format, YUNET, network, swapper=SWAPPER, runtime=runtime)
    if runtime == "onnxruntime":
        assert "Cast" not in {node.op_type for node in model.graph.node if "frame" in node.input}
    session = open_session(model)
    for scenes_shown in ((EMPTY,), (FEW, EDGES), (MANY, EMPTY, RANDOM)):
        frames = [to_frame(picture(90, 150, scene, 98), frame_format) for scene in scenes_shown]
        ours = ask(session, frames, slots=2)
        for name, values in ask(detector_session(frame_format), frames, slots=2).items():
            if name == "crops" and runtime == "onnxruntime_gpu":
                np.testing.assert_allclose(ours[name], values, atol=CROP_TOLERANCE)
            else:
                np.testing.assert_array_equal(ours[name], values)


def test_a_frame_that_is_sampled_shows_yunet_the_same_faces():
    """Landmarks stay where they are to a hundredth of what half precision may move them."""
    weights.fetch(YUNET.weight)
    network = weights.load_network(YUNET.weight)
    photo = cv2.imread(str(Path(skimage.__file__).parent / "data" / "astronaut.png"))
    large = cv2.resize(photo, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    for image in (photo, large):
        frame = to_frame(image, "i420")
        found = [
            ask(open_session(face_detector.build("i420", YUNET, network, runtime=runtime)),
                [frame])["faces"][0]
            for runtime in ("onnxruntime", "onnxruntime_gpu")
        ]  # fmt: skip
        assert (found[0][:, SCORE_COLUMN] > 0).sum() == 1
        np.testing.assert_allclose(found[1], found[0], atol=1e-3, rtol=0)


def test_metadata_says_what_the_graph_was_built_for():
    entries = {entry.key: entry.value for entry in build_model("bgr").metadata_props}
    assert entries["detector"] == "yunet"
    assert entries["swapper"] == SWAPPER.name
    assert entries["crop_size"] == str(SIDE)


def test_rows_of_data_decide_the_crop():
    swapper = dataclasses.replace(SWAPPER, template="arcface_112_v1", crop_size=64)
    model = face_detector.build("bgr", YUNET, plant(YUNET, scenes("yunet")), swapper=swapper)
    frame = picture(360, 640, FEW, 97)
    answer = ask(open_session(model), [frame])
    faces = answer["faces"][0]
    template = TEMPLATES["arcface_112_v1"] * 64
    aligned = reference.align_faces(frame, "bgr", faces, 1, template, 64, np.zeros(8))
    np.testing.assert_allclose(answer["warps"][0], aligned.warps, atol=WARP_TOLERANCE)
    np.testing.assert_allclose(answer["crops"][0], aligned.crops, atol=2 * CROP_TOLERANCE)
