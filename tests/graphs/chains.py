"""A detector and an aligner in a row, without a landmark network between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort

from graphs import face_aligner, face_detector
from graphs.contract import DETECTED_FRAME, MAX_VIEWS, FrameFormat
from graphs.frames import Runtime
from networks.detectors import Detector
from networks.landmarkers import point_count
from networks.swappers import Swapper
from tests.graphs.evaluation import open_session


@dataclass(frozen=True)
class Chain:
    """Both sessions; asked as one, with the frame that the detector hands on."""

    detector: ort.InferenceSession
    aligner: ort.InferenceSession

    def run(self, frame: np.ndarray, options: np.ndarray, slots: int = 1) -> dict[str, np.ndarray]:
        """`faces` and what the aligner answers for that many slots."""
        found = ask(self.detector, {"frame": frame, "options": options})
        length = self.aligner.get_inputs()[3].shape[2]
        feeds = {
            "frame": found[DETECTED_FRAME],
            "faces": found["detections"],
            "landmarks": np.zeros((len(frame), MAX_VIEWS, point_count(None), 3), np.float32),
            "source": np.ones((len(frame), slots, length), np.float32),
            "options": options,
        }
        return {"faces": found["detections"], **ask(self.aligner, feeds)}


def ask(session: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def make_chain(
    frame_format: FrameFormat,
    detector: Detector,
    network: onnx.ModelProto,
    *,
    swapper: Swapper,
    pixel_boost: int = 1,
    runtime: Runtime = "tensorrt",
) -> Chain:
    return Chain(
        open_session(face_detector.build(frame_format, detector, network, runtime=runtime)),
        open_session(
            face_aligner.build(frame_format, swapper, pixel_boost=pixel_boost, runtime=runtime)
        ),
    )
