"""Planes of a decoder's or encoder's picture to and from one contiguous I420 array.

Sizes: the picture is (H, W), maybe odd; its chroma planes are (ceil(H/2), ceil(W/2)). The array
is (He*3/2, We) with He and We rounded up to even numbers: all of Y, then U, then V.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["even", "pack_planes", "split_planes"]


def even(size: int) -> int:
    """Round up to an even number."""
    return size + size % 2


def split_planes(array: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Views of Y (He, We), U and V (He/2, We/2) in an I420 array (He*3/2, We), C-contiguous.

    Chroma is cut from the flat tail: when He is not a multiple of four, U ends in mid-row.
    """
    rows, width = array.shape
    height = rows * 2 // 3
    quarter = height * width // 4
    flat = array.reshape(-1)
    chroma = flat[height * width :]
    return [
        flat[: height * width].reshape(height, width),
        chroma[:quarter].reshape(height // 2, width // 2),
        chroma[quarter:].reshape(height // 2, width // 2),
    ]


def pack_planes(planes: Sequence[NDArray[np.uint8]], out: NDArray[np.uint8]) -> None:
    """Copy Y, U and V into an I420 array; an odd last row or column of Y is repeated.

    Args:
        planes: (H, W), (ceil(H/2), ceil(W/2)) twice; uint8, rows may be padded.
        out: (He*3/2, We) uint8, C-contiguous.
    """
    height, width = planes[0].shape
    luma, *chroma = split_planes(out)
    luma[:height, :width] = planes[0]
    luma[:height, width:] = planes[0][:, -1:]
    luma[height:] = luma[height - 1 : height]
    for target, plane in zip(chroma, planes[1:], strict=True):
        target[...] = plane
