"""The peers' way with one network more: an occluder, a parser or an enhancer, one call a face.

Written from FaceFusion (facefusion@33cc6b40: face_masker.py, processors/modules/face_enhancer): the
network at batch 1, NumPy arrays in and out, OpenCV around it. Its enhancer runs under the same
semaphore as its detector, and mixes whole frames.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

import cv2
import numpy as np
import onnx
import onnxruntime

from bench.peer_way import FloatArray, Image, PeerPipeline, make_box_mask
from graphs.alignment import TEMPLATES
from networks.swappers import IMAGENET_MEAN, IMAGENET_STD

Kind = Literal["occluder", "parser", "enhancer"]

_FACE_CLASSES = (1, 2, 3, 4, 5, 6, 10, 11, 12, 13)
_BLEND = 0.8
_MASK_SIDE, _PARSED_SIDE, _ENHANCED_SIDE = 256, 512, 512


class PeerWithExtra(PeerPipeline):
    """Args: `kind` says what `network` does; for the others see `PeerPipeline`."""

    def __init__(
        self,
        detector: onnx.ModelProto,
        swapper: onnx.ModelProto,
        providers: Sequence[Any],
        *,
        kind: Kind,
        network: onnx.ModelProto,
        spared: bool = False,
    ) -> None:
        super().__init__(detector, swapper, providers, spared=spared)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._kind = kind
        self._extra = onnxruntime.InferenceSession(
            network.SerializeToString(), options, providers=list(providers)
        )
        self._given = self._extra.get_inputs()[0].name
        self._box = make_box_mask(_ENHANCED_SIDE) if spared else None
        self._enhancing: Any = nullcontext() if spared else threading.Semaphore(1)
        self._around = (TEMPLATES["ffhq_512"] * _ENHANCED_SIDE).astype(np.float32)

    def _run(self, picture: np.ndarray[Any, Any]) -> FloatArray:
        fed = np.ascontiguousarray(picture, np.float32)
        return np.asarray(self._extra.run(None, {self._given: fed})[0], np.float32)

    def _mask_of(self, crop: Image, swapped: FloatArray) -> FloatArray:
        box = super()._mask_of(crop, swapped)
        size = len(box)
        if self._kind == "occluder":
            seen = cv2.resize(crop, (_MASK_SIDE, _MASK_SIDE))[None].astype(np.float32) / 255
            return np.minimum(box, _soft(self._run(seen)[0, :, :, 0], size))
        if self._kind == "parser":
            seen = cv2.resize(swapped, (_PARSED_SIDE, _PARSED_SIDE))[:, :, ::-1] / 255
            seen = (seen - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
            parts = self._run(seen.transpose(2, 0, 1)[None])[0].argmax(0)
            return np.minimum(box, _soft(np.isin(parts, _FACE_CLASSES), size))
        return box

    def _after(self, frame: Image, landmarks: FloatArray) -> Image:
        if self._kind != "enhancer":
            return frame
        side = _ENHANCED_SIDE
        warp, _ = cv2.estimateAffinePartial2D(
            landmarks, self._around, method=cv2.RANSAC, ransacReprojThreshold=100
        )
        crop = cv2.warpAffine(
            frame, warp, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        seen = (crop[:, :, ::-1].astype(np.float32) / 255 - 0.5) / 0.5
        with self._enhancing:
            made = self._run(seen.transpose(2, 0, 1)[None])[0]
        made = ((made.clip(-1, 1) + 1) / 2 * 255).round().transpose(1, 2, 0)[:, :, ::-1]
        mask = make_box_mask(side) if self._box is None else self._box
        pasted = self._paste(frame, np.ascontiguousarray(made, np.float32), warp, mask)
        return np.asarray(cv2.addWeighted(frame, 1 - _BLEND, pasted, _BLEND, 0), np.uint8)


def _soft(mask: np.ndarray[Any, Any], size: int) -> FloatArray:
    resized = cv2.resize(mask.astype(np.float32), (size, size))
    blurred = cv2.GaussianBlur(resized.clip(0, 1), (0, 0), 5)
    return np.asarray((blurred.clip(0.5, 1) - 0.5) * 2, np.float32)
