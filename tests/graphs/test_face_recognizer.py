"""face_recognizer against the NumPy oracle, insightface's ArcFaceONNX and a real compiler."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest

from engines.compilers import choose_compiler
from engines.profiles import AxisRange, ProfileLimits, make_profile
from graphs import face_recognizer
from graphs.contract import FACE_COLUMNS, LANDMARK_COLUMN, MAX_DETECTIONS, SCORE_COLUMN
from networks.recognizers import RECOGNIZERS
from tests.generated_networks import recognizer_network
from tests.graphs.evaluation import open_session
from tests.reference import swapping

FRAME_HEIGHT, FRAME_WIDTH = 150, 206
# Crops in float32 against float64, through a small network; embeddings are unit vectors.
ROUNDING = 5e-5


def make_frames(count: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(11)
    noise = rng.integers(0, 256, (count, 15, 20, 3), dtype=np.uint8)
    size = (FRAME_WIDTH, FRAME_HEIGHT)
    return np.stack([np.asarray(cv2.resize(image, size), np.uint8) for image in noise])


def make_landmarks(
    angle_degrees: float, scale: float, shift: tuple[float, float]
) -> swapping.Array:
    """Five points of an upright face, turned and moved, and moved apart a little."""
    points, _ = swapping.TEMPLATES["arcface_112_v2"]
    centred = np.array(points).reshape(5, 2) - 56
    angle = np.deg2rad(angle_degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    noise = np.random.default_rng(2).normal(size=(5, 2))
    landmarks: swapping.Array = centred @ turn.T * scale + np.array(shift) + noise
    return landmarks


LANDMARKS = [
    make_landmarks(0, 0.8, (100, 70)),
    make_landmarks(-35, 0.4, (60, 60)),
    # Partly outside the frame: edge pixels are repeated there.
    make_landmarks(170, 1.3, (190, 20)),
]


def make_faces() -> npt.NDArray[np.float32]:
    """Three frames: a face in row 0 of each, and another one in row 1, which is not looked at."""
    faces = np.zeros((3, MAX_DETECTIONS, FACE_COLUMNS), np.float32)
    faces[:, :2, SCORE_COLUMN] = 0.9
    for row, landmarks in enumerate(LANDMARKS):
        faces[row, 0, LANDMARK_COLUMN:] = landmarks.reshape(-1)
        faces[row, 1, LANDMARK_COLUMN:] = LANDMARKS[row - 1].reshape(-1)
    return faces


def run_graph(
    model: onnx.ModelProto, frames: npt.NDArray[np.uint8], faces: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    return np.asarray(open_session(model).run(None, {"frame": frames, "faces": faces})[0])


@pytest.mark.parametrize(
    ("name", "shift", "scale"), [("sface", 0.0, 255.0), ("w600k_r50", 127.5, 255.0)]
)
def test_an_embedding_is_the_networks_answer_for_the_aligned_crop_at_unit_length(
    name: str, shift: float, scale: float
) -> None:
    network = recognizer_network(name)
    frames, faces = make_frames(3), make_faces()
    result = run_graph(face_recognizer.build(RECOGNIZERS[name], network), frames, faces)
    session = open_session(network)
    for row, landmarks in enumerate(LANDMARKS):
        matrix = swapping.fit(landmarks, "arcface_112_v2", 112)
        crop = swapping.warp(frames[row], matrix, 112) * scale
        image = (crop - shift) / (127.5 if shift else 1.0)
        (raw,) = session.run(None, {network.graph.input[0].name: image[None].astype(np.float32)})
        np.testing.assert_allclose(result[row], swapping.unit(raw[0]), rtol=0, atol=ROUNDING)
    assert np.abs(result[0] @ result[1]) < 0.99


@pytest.mark.parametrize("name", RECOGNIZERS)
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_frame_without_a_usable_first_face_gives_zeros(name: str, value: float) -> None:
    faces = make_faces()
    faces[1] = value
    faces[2, 0, SCORE_COLUMN] = 0.0
    model = face_recognizer.build(RECOGNIZERS[name], recognizer_network(name))
    result = run_graph(model, make_frames(3), faces)
    assert np.linalg.norm(result[0]) == pytest.approx(1, abs=1e-5)
    assert not result[1:].any()


def test_infinite_landmarks_of_a_scored_face_give_zeros_and_no_crash() -> None:
    faces = make_faces()
    faces[0, 0, LANDMARK_COLUMN] = np.inf
    faces[1, 0, LANDMARK_COLUMN + 9] = np.nan
    model = face_recognizer.build(RECOGNIZERS["sface"], recognizer_network("sface"))
    result = run_graph(model, make_frames(3), faces)
    assert not result[:2].any()
    assert result[2].any()


# insightface 2.1 calls a function that scikit-image 2.2 will drop.
@pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")
def test_insightface_gives_the_same_embedding(tmp_path: Path) -> None:
    arcface: Any = importlib.import_module("insightface.model_zoo.arcface_onnx")
    align: Any = importlib.import_module("insightface.utils.face_align")
    network = recognizer_network("w600k_r50")
    path = tmp_path / "w600k_r50.onnx"
    onnx.save(network, path)
    peer = arcface.ArcFaceONNX(str(path), session=open_session(network))
    frames, faces = make_frames(3)[:1], make_faces()[:1]
    crop = align.norm_crop(frames[0], LANDMARKS[0].astype(np.float32))
    theirs = swapping.unit(peer.get_feat(crop).flatten())
    model = face_recognizer.build(RECOGNIZERS["w600k_r50"], network)
    (ours,) = run_graph(model, frames, faces)
    # Their crop is rounded to whole grey levels: 0.3 of 127.5 levels a pixel at random.
    assert float(ours @ theirs) > 0.9999


def test_an_embedding_does_not_depend_on_the_rest_of_its_batch() -> None:
    model = face_recognizer.build(RECOGNIZERS["sface"], recognizer_network("sface"))
    frames, faces = make_frames(3), make_faces()
    together = run_graph(model, frames, faces)
    for row in range(3):
        alone = run_graph(model, frames[row : row + 1], faces[row : row + 1])
        # 1e-6: sums of another batch size in another order.
        np.testing.assert_allclose(alone[0], together[row], rtol=0, atol=1e-6)


def test_the_file_of_another_recognizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sface should take .* answer \[\[128\]\].*\[\[512\]\]"):
        face_recognizer.build(RECOGNIZERS["sface"], recognizer_network("w600k_r50"))


def test_building_twice_gives_the_same_bytes() -> None:
    network = recognizer_network("sface")
    first, second = (
        face_recognizer.build(RECOGNIZERS["sface"], network).SerializeToString() for _ in range(2)
    )
    assert first == second


def test_a_real_compiler_takes_the_graph() -> None:
    model = face_recognizer.build(RECOGNIZERS["sface"], recognizer_network("sface"))
    plan = choose_compiler("tensorrt_rtx").compile(
        model.SerializeToString(),
        profile=make_profile(model, ProfileLimits(batch=AxisRange(1, 1, 2))),
        compute_capabilities=["8.9"],
    )
    assert len(plan.data) > 1000
