"""The gate between a typed graph and a published one, on a real photo."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import skimage
from onnx import parser

from engines import deployment
from engines.errors import FidelityError, FramesError
from engines.fidelity import FidelityReport, OutputError, check_report, measure
from engines.precision import to_fp16
from engines.samples import Sample, Samples, bgr_to_i420, read_frames
from engines.served_graphs import ServedGraph, served_graphs
from engines.typed_graphs import FLOAT32_NETWORKS, YARDSTICK, model_precision
from fetching import weights
from graphs.contract import SCORE_COLUMN

DEPLOYMENT = deployment.resolve(swapper="image_swapper_256", detector="yunet", detectors=("yunet",))
GRAPHS = served_graphs(DEPLOYMENT, YARDSTICK)


def author(model: str, graphs: Mapping[str, ServedGraph] = GRAPHS) -> onnx.ModelProto:
    for name in graphs[model].weights:
        weights.fetch(name)
    return graphs[model].author(weights.load_network)


def portrait() -> np.ndarray:
    """NASA's portrait of Eileen Collins, public domain: one face.

    Twice as large, so that the face lies beyond 256 px, where float16 counts in quarters.
    """
    (frame,) = read_frames([Path(skimage.__file__).parent / "data" / "astronaut.png"])
    return np.asarray(cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))


@pytest.fixture(scope="module")
def samples() -> Samples:
    """The portrait, and an empty frame."""
    return Samples(author, [portrait(), np.full((128, 192, 3), 80, np.uint8)])


def in_float16_throughout(model: str, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """A careless typing: geometry, coordinates and all."""
    # Its "less than anything" constants may become minus infinity; they still are.
    monkeypatch.setattr("engines.precision._LARGEST", math.inf)
    with np.errstate(over="ignore"):
        return to_fp16(author(model), prefix="")


def test_float16_coordinates_are_caught(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = in_float16_throughout("face_locator_bgr", monkeypatch)
    report = measure("face_locator_bgr", "fp16", broken, samples.of("face_locator_bgr"))
    sentence = r"face_locator_bgr in fp16 strays .* a landmark moved by .*, at most 0\.1 px wanted"
    with pytest.raises(FidelityError, match=sentence):
        check_report(report, allow_worse=False)
    check_report(report, allow_worse=True)


def test_float16_coordinates_of_the_crops_are_caught(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = in_float16_throughout("face_aligner_bgr", monkeypatch)
    report = measure("face_aligner_bgr", "fp16", broken, samples.of("face_aligner_bgr"))
    assert report.crop_psnr_db is not None
    assert report.crop_psnr_db < 50


def test_float16_points_of_a_mesh_are_caught(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = in_float16_throughout("face_landmarker", monkeypatch)
    report = measure("face_landmarker", "fp16", broken, samples.of("face_landmarker"))
    assert report.landmark_px is not None
    assert report.landmark_px > 0.1
    with pytest.raises(FidelityError, match=r"a landmark moved by .*, at most 0\.1 px wanted"):
        check_report(report, allow_worse=False)


@pytest.mark.parametrize("model", ["face_recognizer", "face_landmarker", "face_swapper"])
def test_the_default_networks_pass_in_float16(model: str, samples: Samples) -> None:
    typed = to_fp16(author(model))
    report = measure(model, "fp16", typed, samples.of(model))
    assert report.misses == ()
    check_report(report, allow_worse=False)


@pytest.mark.parametrize("name", ["frameswap_256", "frameswap_256_small"])
def test_our_own_networks_pass_in_float16(name: str) -> None:
    own = deployment.resolve(swapper=name, detector="yunet", detectors=("yunet",))
    write = partial(author, graphs=served_graphs(own, YARDSTICK))
    typed, samples = to_fp16(write("face_swapper")), Samples(write, [portrait()])
    report = measure("face_swapper", "fp16", typed, samples.of("face_swapper"))
    assert report.misses == ()
    # 98 and 101 dB are seen; what equals fp32 was not typed
    assert report.crop_psnr_db < 120


def test_yunet_stays_float32_because_of_its_landmarks() -> None:
    assert "yunet" in FLOAT32_NETWORKS
    assert model_precision(GRAPHS["face_detector_i420"], "fp16") == "fp32"
    assert model_precision(GRAPHS["face_recognizer"], "int8") == "fp16"
    assert model_precision(GRAPHS["face_swapper"], "int8") == "int8"
    assert model_precision(GRAPHS["face_blender_bgr"], "fp16") == "fp32"


@pytest.mark.parametrize("model", GRAPHS)
def test_a_float32_graph_equals_itself(model: str, samples: Samples) -> None:
    report = measure(model, "fp32", author(model), samples.of(model))
    assert {error.worst for error in report.outputs.values()} == {0.0}
    assert report.misses == ()


def test_every_model_is_fed_what_the_ensembles_would_feed_it(samples: Samples) -> None:
    shown, empty = samples.of("face_swapper")
    assert (shown.feeds["faces"][0, :, SCORE_COLUMN] > 0).sum() == 1
    assert not empty.feeds["faces"].any()
    blended, untouched = samples.of("face_blender_i420")
    assert (blended.expected["swapped_frame"] != blended.feeds["frame"]).any()
    np.testing.assert_array_equal(untouched.expected["swapped_frame"], untouched.feeds["frame"])


def test_frames_without_any_face_are_refused() -> None:
    blank = Samples(author, [np.full((128, 192, 3), 80, np.uint8)])
    with pytest.raises(FramesError, match="no face was found in the 1 frames to check with"):
        blank.of("face_swapper")


# x is answered as `detections`, so a test can say what a typed detector would have found.
ECHO = """
<ir_version: 9, opset_import: ["": 18]>
echo (float[B, 16, 15] x) => (float[B, 16, 15] detections) { detections = Identity (x) }
"""


def faces(landmark: float, score: float = 0.9) -> np.ndarray:
    rows = np.zeros((1, 16, 15), np.float32)
    rows[0, 0] = landmark
    rows[0, 0, SCORE_COLUMN] = score
    return rows


def test_the_shift_of_a_landmark_is_measured_in_pixels() -> None:
    sample = Sample({"x": faces(100.3)}, {"detections": faces(100.0)})
    report = measure("face_locator_bgr", "fp16", parser.parse_model(ECHO), [sample])
    # 0.3 px in x and in y.
    assert report.landmark_px == pytest.approx(0.3 * math.sqrt(2), abs=1e-4)


def test_a_lost_face_is_an_endless_shift() -> None:
    sample = Sample({"x": faces(0.0, score=0.0)}, {"detections": faces(100.0)})
    report = measure("face_locator_bgr", "fp16", parser.parse_model(ECHO), [sample])
    assert report.landmark_px == math.inf
    with pytest.raises(FidelityError, match="a landmark moved by inf px"):
        check_report(report, allow_worse=False)


def test_a_nan_is_caught_wherever_it_is() -> None:
    sample = Sample({"x": faces(math.nan)}, {"detections": faces(100.0)})
    report = measure("face_locator_bgr", "fp16", parser.parse_model(ECHO), [sample])
    with pytest.raises(FidelityError, match="an output is not a number where fp32 gives one"):
        check_report(report, allow_worse=False)


def test_a_report_survives_json() -> None:
    report = FidelityReport(
        model="face_swapper",
        precision="fp16",
        samples=2,
        outputs={"swapped_crops": OutputError(worst=0.01, mean=0.001)},
        crop_psnr_db=math.inf,
        misses=("one",),
    )
    text = json.dumps(report.as_facts(), allow_nan=False)
    assert FidelityReport.from_facts(json.loads(text)) == report


def test_a_limit_that_is_just_held_passes() -> None:
    report = FidelityReport(
        model="face_recognizer", precision="fp16", samples=1, outputs={}, cosine=0.9999
    )
    check_report(report, allow_worse=False)
    missed = replace(report, misses=("cosine is 0.999800, at least 0.9999 wanted",))
    with pytest.raises(FidelityError, match="--allow-worse"):
        check_report(missed, allow_worse=False)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("frame.png", b"not a picture", "is not a picture that OpenCV can read"),
        ("missing", None, "does not exist: --frames takes pictures and folders of them"),
        ("folder/notes.txt", b"text", "there is no picture in the folder"),
    ],
)
def test_frames_that_cannot_be_read_are_refused(
    name: str, content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(FramesError, match=sentence):
        read_frames([path.parent if "/" in name else path])


def test_a_frame_smaller_than_any_face_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    cv2.imwrite(str(path), np.zeros((40, 100, 3), np.uint8))
    with pytest.raises(FramesError, match="is 100x40: frames have at least 64x64 pixels"):
        read_frames([path])


def test_an_i420_frame_has_half_as_many_rows_again() -> None:
    assert bgr_to_i420(np.zeros((64, 96, 3), np.uint8)).shape == (96, 96)
