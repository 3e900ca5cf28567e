"""The peers' way on a GPU: a thread a frame, every network at batch 1, OpenCV between the calls.

Written from FaceFusion's loop (facefusion@33cc6b40: face_detector.py, face_store.py,
face_helper.py, face_masker.py, face_swapper/core.py, core.py's thread pool): ONNX Runtime with
NumPy arrays in and out, one session for all threads. Left out are the four networks that it runs
for every face beside detector and swapper, decoding and encoding. Two forms:

    as published    a semaphore lets one thread detect at a time, a frame with a face is hashed four
                    times, the mask is made for each face, pixels are divided in float64
    spared          the same pictures without any of that: what a careful author could have written
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from graphs.alignment import TEMPLATES
from graphs.contract import DEFAULT_BOX_BLUR, DETECTOR_SIZE
from networks.detectors import DETECTORS

Image = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
SIZE: Final = 128
FRAME_HASHES: Final = 4
"""Of a frame with a face: its faces are kept by its content's hash, and looked up that often."""


class PeerPipeline:
    """Swaps the largest face of a BGR frame, by YuNet and an inswapper-contract network.

    Args:
        detector, swapper: the networks, batch 1 as published.
        providers: ONNX Runtime's, as `InferenceSession` takes them.
        spared: without the work that the pictures do not need.
    """

    def __init__(
        self,
        detector: onnx.ModelProto,
        swapper: onnx.ModelProto,
        providers: Sequence[Any],
        *,
        spared: bool = False,
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
        self._mask = make_box_mask(SIZE) if spared else None
        self._one_at_a_time: Any = nullcontext() if spared else threading.Semaphore(1)
        self._spared = spared

    @property
    def providers(self) -> list[str]:
        """What ONNX Runtime runs the swapper with."""
        return list(self._swapper.get_providers())

    def swap(self, frame: Image, latent: FloatArray) -> tuple[Image, bool]:
        """One frame (H, W, 3), and whether it had a face. latent: [1, 512], projected."""
        for _ in range(0 if self._spared else FRAME_HASHES):
            zlib.crc32(frame.tobytes())
        landmarks = self.detect(frame)
        if landmarks is None:
            return frame, False
        warp, _ = cv2.estimateAffinePartial2D(
            landmarks, self._template, method=cv2.RANSAC, ransacReprojThreshold=100
        )
        view = cv2.warpAffine(
            frame, warp, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        crop = np.asarray(view, np.uint8)
        white = np.float32(255.0) if self._spared else np.float64(255.0)
        target = (crop[None, :, :, ::-1].transpose(0, 3, 1, 2) / white).astype(np.float32)
        output = self._swapper.run(None, {"target": target, "source": latent})[0][0]
        swapped = np.clip(output, 0.0, 1.0).transpose(1, 2, 0)[:, :, ::-1].astype(np.float32)
        levels = np.ascontiguousarray(swapped * 255.0)
        mask = self._mask_of(crop, levels)
        return self._after(self._paste(frame, levels, warp, mask), landmarks), True

    def _mask_of(self, crop: Image, swapped: FloatArray) -> FloatArray:
        """How much of the swapped crop is shown, (S, S); crops (S, S, 3) BGR, 8-bit scale."""
        return make_box_mask(SIZE) if self._mask is None else self._mask

    def _after(self, frame: Image, landmarks: FloatArray) -> Image:
        """What is done to a frame with a swapped face."""
        return frame

    def detect(self, frame: Image) -> FloatArray | None:
        """Landmarks (5, 2) of the largest face, frame pixels; None without one."""
        height, width = frame.shape[:2]
        scale = min(DETECTOR_SIZE / height, DETECTOR_SIZE / width)
        new_width, new_height = int(width * scale), int(height * scale)
        canvas = np.zeros((DETECTOR_SIZE, DETECTOR_SIZE, 3), np.uint8)
        canvas[:new_height, :new_width] = cv2.resize(frame, (new_width, new_height))
        blob = canvas.transpose(2, 0, 1)[None].astype(np.float32)
        with self._one_at_a_time:
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
        return np.asarray(landmarks * (height / new_height), np.float32)

    @staticmethod
    def _paste(
        frame: Image, swapped: FloatArray, warp: npt.NDArray[Any], made: FloatArray
    ) -> Image:
        """`frame` with a square crop laid on. made: its mask."""
        size = len(swapped)
        height, width = frame.shape[:2]
        inverse = cv2.invertAffineTransform(warp)
        corners = np.array([[0, 0, 1], [size, 0, 1], [size, size, 1], [0, size, 1]]) @ inverse.T
        left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
        right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int), (width, height))
        inverse[:, 2] -= (left, top)
        area = (int(right - left), int(bottom - top))
        mask = cv2.warpAffine(made, inverse, area).clip(0, 1)[..., None]
        face = cv2.warpAffine(swapped, inverse, area, borderMode=cv2.BORDER_REPLICATE)
        result = frame.copy()
        region = result[top:bottom, left:right]
        region[:] = region * (1 - mask) + face * mask
        return result


def make_box_mask(size: int, blur: float = DEFAULT_BOX_BLUR) -> FloatArray:
    """(S, S) float32 in [0, 1]: ones within a zero border, blurred (FaceFusion's box mask)."""
    amount = int(size * 0.5 * blur)
    border = max(amount // 2, 1)
    mask = np.zeros((size, size), np.float32)
    mask[border:-border, border:-border] = 1.0
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), amount * 0.25), np.float32)


def frames_per_second(
    pipeline: PeerPipeline, frame: Image, latent: FloatArray, *, threads: int, seconds: float
) -> float:
    """Frames a second of `threads` threads that take frames from one queue."""
    deadline = time.perf_counter() + seconds

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < deadline:
            if not pipeline.swap(frame, latent)[1]:
                raise RuntimeError("the benchmark's frame should hold a face that is found")
            done += 1
        return done

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(work, range(threads)))
    return done / (time.perf_counter() - start)
