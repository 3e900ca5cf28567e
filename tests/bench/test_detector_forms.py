"""The form that the GPU's bench times is the served detector still."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bench.detector_forms import in_half_until
from bench.gpu_models import detector_feeds
from fetching import weights
from graphs import face_detector
from graphs.contract import LANDMARK_COLUMN, SCORE_COLUMN
from networks.detectors import DETECTORS
from networks.landmarkers import LANDMARKERS
from tests.graphs.evaluation import open_session


@pytest.fixture(scope="module")
def served() -> onnx.ModelProto:
    detector = DETECTORS["yunet"]
    weights.fetch(detector.weight)
    return face_detector.build(
        "i420", detector, weights.load_network(detector.weight),
        landmarker=LANDMARKERS["face_mesh_attention"], runtime="onnxruntime_gpu",
    )  # fmt: skip


def faces(model: onnx.ModelProto) -> np.ndarray:
    (found,) = open_session(model).run(["detections"], detector_feeds(1))
    assert (found[0, :, SCORE_COLUMN] > 0).sum() == 1
    return np.asarray(found[0, 0])


@pytest.mark.parametrize("pooling", [1, 2, 3])
def test_stages_in_half_move_landmarks_less_than_the_gate_allows(
    served: onnx.ModelProto, pooling: int
) -> None:
    half = in_half_until(served, pooling)
    shift = np.abs(faces(half) - faces(served))[LANDMARK_COLUMN:]
    assert 0 < shift.max() < 0.1
    onnx.checker.check_model(half)
