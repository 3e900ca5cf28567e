"""The face recognisers this project can serve, one row of data each.

A recogniser takes an aligned RGB crop and answers an embedding whose cosine compares people. Rows
are looked up by name; adding one whose contract is the same kind needs no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Recognizer:
    """One recogniser: network input = (crop - mean) / std, crop being RGB in [0, 1].

    weight: key in `fetching.weights.WEIGHTS`.
    crop_size: side of the square crop, pixels.
    template: key in `graphs.alignment.TEMPLATES`, where the five landmarks land in the crop.
    mean, std: one value for all three channels, in the crop's [0, 1] scale.
    embedding_length: E, the length of the network's output.
    """

    name: str
    weight: str
    crop_size: int
    template: str
    mean: float
    std: float
    embedding_length: int


SFACE: Final = Recognizer(
    name="sface",
    weight="sface",
    crop_size=112,
    template="arcface_112_v2",
    # RGB 0..255: the network subtracts and scales for itself (OpenCV Zoo, face_recognition_sface).
    mean=0.0,
    std=1.0 / 255.0,
    embedding_length=128,
)

W600K_R50: Final = Recognizer(
    name="w600k_r50",
    weight="w600k_r50",
    crop_size=112,
    template="arcface_112_v2",
    # (RGB 0..255 - 127.5) / 127.5: insightface@2.1 model_zoo/arcface_onnx.py.
    mean=0.5,
    std=0.5,
    embedding_length=512,
)

RECOGNIZERS: Final[Mapping[str, Recognizer]] = MappingProxyType(
    {row.name: row for row in (SFACE, W600K_R50)}
)
"""Every recogniser by name."""

DEFAULT_RECOGNIZER: Final = SFACE.name
