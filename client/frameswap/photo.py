"""Photos: read upright, written with a note of what was done."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from frameswap.errors import UnreadableFile, UnwritableFile
from frameswap.input_file import check_file
from frameswap.output_file import output_file
from frameswap.picture_header import picture_size
from frameswap.provenance import Edit, write_xmp

__all__ = [
    "PHOTO_SUFFIXES",
    "check_photo_output",
    "describe_losses",
    "is_photo",
    "read_photo",
    "write_photo",
]

PHOTO_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
"""The formats that can be written with their metadata."""

_ENCODER_OPTIONS: Final = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    # Above 100 OpenCV writes WebP without loss.
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101],
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
}


MOST_PIXELS: Final = 1 << 28
"""Of a photo: phones make 200 million, and a few kB can claim, and decode to, any number."""


def is_photo(path: Path) -> bool:
    """Whether a file is a still picture that OpenCV reads, by its first bytes.

    A GIF counts as video: it may hold many pictures, and PyAV reads it.
    """
    return path.is_file() and path.suffix.lower() != ".gif" and bool(cv2.haveImageReader(str(path)))


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Read a photo upright, as its EXIF orientation says.

    Returns:
        (H, W, 3) uint8 BGR; 16 bits become 8, transparency is left out.

    Raises:
        UnreadableFile: missing, empty, damaged, no picture, or too large to be decoded.
    """
    check_file(path, "photo")
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
    size = picture_size(content.data)
    if size is not None and math.prod(size) > MOST_PIXELS:
        raise UnreadableFile(
            f"{path} says that it has {size[0]} x {size[1]} pixels, and photos of up to "
            f"{MOST_PIXELS / 1e6:.0f} million are read: scale it down"
        )
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error as error:
        # Above 2^30 pixels, among others.
        raise UnreadableFile(f"{path} cannot be decoded as a photo: {error.err}") from error
    if image is None:
        raise UnreadableFile(
            f"{path} is damaged, cut off, or no picture that OpenCV reads (PNG, JPEG, WebP and "
            f"others)"
        )
    return np.asarray(image, np.uint8)


def describe_losses(path: Path) -> list[str]:
    """Sentences about what `read_photo` does not keep of a photo that it can read."""
    stored = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    losses = []
    if stored is not None and stored.dtype != np.uint8:
        losses.append(f"{path.name} has more than 8 bits a channel: the result has 8")
    if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
        losses.append(f"{path.name} has transparency: the result has none")
    return losses


def check_photo_output(path: Path) -> None:
    """Raise UnwritableFile unless the suffix is a format that we write."""
    if path.suffix.lower() not in PHOTO_SUFFIXES:
        raise UnwritableFile(
            f"a photo is written as {', '.join(PHOTO_SUFFIXES)}, not {path.suffix or path.name!r}"
        )


def write_photo(path: Path, image: NDArray[np.uint8], *, edit: Edit, force: bool) -> None:
    """Write a photo whole, with XMP metadata that says how it was edited.

    Args:
        image: (H, W, 3) uint8 BGR.

    Raises:
        UnwritableFile: another format, an output that exists, a full disk.
    """
    check_photo_output(path)
    suffix = path.suffix.lower()
    xmp = write_xmp(edit)
    if suffix == ".png":
        # OpenCV 5.0 takes this text as a C string, and would write what follows it in memory.
        xmp += b"\0"
    elif suffix in (".jpg", ".jpeg"):
        # It writes a bare APP1 segment; the name that makes it XMP is left to the caller
        # (Adobe, XMP Specification Part 3, 1.1.3).
        xmp = b"http://ns.adobe.com/xap/1.0/\0" + xmp
    try:
        _, encoded = cv2.imencodeWithMetadata(
            suffix,
            image,
            [cv2.IMAGE_METADATA_XMP],
            [np.frombuffer(xmp, np.uint8)],
            _ENCODER_OPTIONS[suffix],
        )
    except cv2.error as error:
        # WebP ends at 16383 pixels a side.
        raise UnwritableFile(
            f"a photo of {image.shape[1]} x {image.shape[0]} pixels cannot be written as {suffix}: "
            f"{error.err or 'the encoder refused it'}; try .png"
        ) from error
    with output_file(path, force=force) as temporary:
        encoded.tofile(temporary)
