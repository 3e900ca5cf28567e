"""The peers' way on a GPU: a thread a frame, every network at batch 1, OpenCV between the calls.

Written from FaceFusion's loop (facefusion@33cc6b40: face_detector.py, face_helper.py,
face_swapper/core.py, core.py's thread pool) with what costs it nothing done well: the mask is made
once, only the region of a face is pasted, nothing is hashed, no network runs that a swap does not
need. ONNX Runtime with NumPy arrays in and out, one session for all threads.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from graphs.contract import DETECTOR_SIZE
from graphs.detectors import DETECTORS
from graphs.face_blender import box_mask_profile
from graphs.geometry import TEMPLATES

Image = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
SIZE: Final = 128


class PeerPipeline:
    """Swaps the largest face of a BGR frame, by YuNet and an inswapper-contract network.

    Args:
        detector, swapper: the networks, batch 1 as published.
        providers: ONNX Runtime's, as `InferenceSession` takes them.
    """

    def __init__(
        self, detector: onnx.ModelProto, swapper: onnx.ModelProto, providers: Sequence[Any]
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._detector, self._swapper = (
            onnxruntime.InferenceSession(
                network.SerializeToString(), options, providers=list(providers)
            )
            for network in (detector, swapper)
        )
        self._input = self._detector.get_inputs()[0].name
        row = DETECTORS["yunet"]
        self._points, self._strides = row.anchor_points(), row.anchor_strides()
        self._template = (TEMPLATES["arcface_128"] * SIZE).astype(np.float32)
        profile = box_mask_profile(SIZE)
        self._mask = np.outer(profile, profile).astype(np.float32)

    @property
    def providers(self) -> list[str]:
        """What ONNX Runtime runs the swapper with."""
        return list(self._swapper.get_providers())

    def swap(self, frame: Image, latent: FloatArray) -> tuple[Image, bool]:
        """One frame (H, W, 3), and whether it had a face. latent: [1, 512], projected."""
        landmarks = self.detect(frame)
        if landmarks is None:
            return frame, False
        warp, _ = cv2.estimateAffinePartial2D(
            landmarks, self._template, method=cv2.RANSAC, ransacReprojThreshold=100
        )
        crop = cv2.warpAffine(
            frame, warp, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        target = crop[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255.0
        output = self._swapper.run(None, {"target": target, "source": latent})[0][0]
        swapped = np.clip(output, 0.0, 1.0).transpose(1, 2, 0)[:, :, ::-1].astype(np.float32)
        return self._paste(frame, np.ascontiguousarray(swapped * 255.0), warp), True

    def detect(self, frame: Image) -> FloatArray | None:
        """Landmarks (5, 2) of the largest face, frame pixels; None without one."""
        height, width = frame.shape[:2]
        scale = min(DETECTOR_SIZE / height, DETECTOR_SIZE / width)
        new_width, new_height = int(width * scale), int(height * scale)
        canvas = np.zeros((DETECTOR_SIZE, DETECTOR_SIZE, 3), np.uint8)
        canvas[:new_height, :new_width] = cv2.resize(frame, (new_width, new_height))
        blob = canvas.transpose(2, 0, 1)[None].astype(np.float32)
        outputs = self._detector.run(None, {self._input: blob})
        classes, objects, boxes, points = (
            np.concatenate([output[0] for output in outputs[start : start + 3]])
            for start in (0, 3, 6, 9)
        )
        scores = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
        found = np.flatnonzero(scores >= 0.5)
        if not len(found):
            return None
        stride = self._strides[found, None]
        center = boxes[found, :2] * stride + self._points[found]
        extent = np.exp(boxes[found, 2:]) * stride
        corners = np.concatenate([center - extent / 2, extent], axis=1)
        kept = np.array(cv2.dnn.NMSBoxes(corners.tolist(), scores[found].tolist(), 0.5, 0.4))
        anchor = found[kept[np.argmax(extent[kept].prod(axis=1))]]
        landmarks = points[anchor].reshape(5, 2) * self._strides[anchor] + self._points[anchor]
        return (landmarks * (height / new_height)).astype(np.float32)

    def _paste(self, frame: Image, swapped: FloatArray, warp: npt.NDArray[Any]) -> Image:
        height, width = frame.shape[:2]
        inverse = cv2.invertAffineTransform(warp)
        corners = np.array([[0, 0, 1], [SIZE, 0, 1], [SIZE, SIZE, 1], [0, SIZE, 1]]) @ inverse.T
        left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
        right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int), (width, height))
        inverse[:, 2] -= (left, top)
        area = (int(right - left), int(bottom - top))
        mask = cv2.warpAffine(self._mask, inverse, area).clip(0, 1)[..., None]
        face = cv2.warpAffine(swapped, inverse, area, borderMode=cv2.BORDER_REPLICATE)
        result = frame.copy()
        region = result[top:bottom, left:right]
        region[:] = region * (1 - mask) + face * mask
        return result


def frames_per_second(
    pipeline: PeerPipeline, frame: Image, latent: FloatArray, *, threads: int, seconds: float
) -> float:
    """Frames a second of `threads` threads that take frames from one queue."""
    deadline = time.perf_counter() + seconds

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < deadline:
            _, had_face = pipeline.swap(frame, latent)
            if not had_face:
                raise RuntimeError("the benchmark's frame should hold a face that is found")
            done += 1
        return done

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(work, range(threads)))
    return done / (time.perf_counter() - start)
