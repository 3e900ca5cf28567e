"""Photos: read upright with what belongs to them, written with a note of what was done."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from frameswap.errors import UnreadableFile, UnwritableFile
from frameswap.input_file import check_file
from frameswap.output_file import output_file
from frameswap.photo_encoding import ALPHA_SUFFIXES, PHOTO_SUFFIXES, encode_photo
from frameswap.photo_metadata import PhotoMetadata, is_animated, read_metadata
from frameswap.picture_header import picture_size
from frameswap.provenance import Edit, write_xmp

__all__ = [
    "PHOTO_SUFFIXES",
    "Photo",
    "check_photo_output",
    "describe_losses",
    "is_photo",
    "open_photo",
    "read_photo",
    "write_photo",
]

_MOST_EXIF_IN_JPEG: Final = 65527
_COMPARED: Final = 1 << 20
"""Pixels, about, by which it is seen how a photo with transparency is turned."""
_NO_METADATA: Final = PhotoMetadata()
_TURNS: Final = {
    # EXIF orientation -> (transposed, then mirrored left to right, then top to bottom).
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


MOST_PIXELS: Final = 1 << 28
"""Of a photo: phones make 200 million, and a few kB can claim, and decode to, any number."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as it is read.

    image: (H, W, 3) uint8 BGR, upright; 16 bits have become 8.
    alpha: (H, W) uint8, 255 opaque; None where the file has no transparency.
    deep: whether the file has more than 8 bits a channel.
    """

    image: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None = None
    deep: bool = False
    metadata: PhotoMetadata = field(default_factory=PhotoMetadata)
    name: str = "the photo"


def is_photo(path: Path) -> bool:
    """Whether a file is a still picture that OpenCV reads, by its first bytes.

    A GIF counts as video, and so do a WebP and a PNG of several pictures.
    """
    if not path.is_file() or path.suffix.lower() == ".gif":
        return False
    if not cv2.haveImageReader(str(path)):
        return False
    with path.open("rb") as file:
        # What tells an animation stands at the beginning.
        return is_animated(file.read(65536)) is None


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Read a photo upright, as its EXIF orientation says.

    Returns:
        (H, W, 3) uint8 BGR; 16 bits become 8, transparency is left out.

    Raises:
        UnreadableFile: missing, empty, damaged, no picture, or too large to be decoded.
    """
    return open_photo(path).image


def open_photo(path: Path) -> Photo:
    """Read a photo upright, with its transparency and its metadata.

    Raises:
        UnreadableFile: missing, empty, damaged, no picture, or too large to be decoded.
    """
    content = _read_content(path)
    image = _decode(content, path)
    metadata = read_metadata(content.tobytes(), name=path.name)
    stored = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    alpha = None
    if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
        if content[:2].tobytes() in (b"II", b"MM"):
            stored = _decode_tiff(content, path)
        pixels = _upright(stored, image)
        image = np.ascontiguousarray(pixels[..., :3])
        opaque = bool((pixels[..., 3] == 255).all())
        alpha = None if opaque else np.ascontiguousarray(pixels[..., 3])
    deep = stored is not None and stored.dtype != np.uint8
    if metadata.turned != 1:
        image = _turn(image, metadata.turned)
        alpha = None if alpha is None else _turn(alpha[..., None], metadata.turned)[..., 0]
    return Photo(image, alpha, deep, metadata, path.name)


def _read_content(path: Path) -> NDArray[np.uint8]:
    check_file(path, "photo")
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
    size = picture_size(content.data)
    if size is None:
        # What does not say its size could have any.
        raise UnreadableFile(_undecodable(path))
    if math.prod(size) > MOST_PIXELS:
        raise UnreadableFile(
            f"{path} says that it has {size[0]} x {size[1]} pixels, and photos of up to "
            f"{MOST_PIXELS / 1e6:.0f} million are read: scale it down"
        )
    return content


def _decode(content: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error as error:
        # Above 2^30 pixels, among others.
        raise UnreadableFile(f"{path} cannot be decoded as a photo: {error.err}") from error
    if image is None:
        raise UnreadableFile(_undecodable(path))
    return np.asarray(image, np.uint8)


def _undecodable(path: Path) -> str:
    return (
        f"{path} is damaged, cut off, or no picture that OpenCV reads (PNG, JPEG, WebP and others)"
    )


def _decode_tiff(content: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """(H, W, 4) uint8 BGRA of a TIFF as it is stored; OpenCV multiplies colours by their alpha."""
    try:
        container: Any = av.open(io.BytesIO(content.tobytes()), format="tiff_pipe")
        with container:
            frame = next(container.decode(video=0))
            return np.asarray(frame.to_ndarray(format="bgra"), np.uint8)
    except (av.error.FFmpegError, StopIteration, ValueError) as error:
        raise UnreadableFile(f"{path} cannot be decoded as a photo: {error}") from error


def _upright(stored: NDArray[np.generic], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) uint8 BGRA of a stored picture with alpha, upright as `image` (H, W, 3) is.

    Which decoders turn what they return with its alpha differs, so the colours beside it are
    asked: of the eight ways to turn it, that one is right in which they are the image's.
    """
    if stored.dtype == np.uint8:
        pixels = stored.astype(np.uint8)
    elif stored.dtype == np.uint16:
        pixels = (stored.astype(np.uint16) // 257).astype(np.uint8)
    else:
        pixels = np.clip(np.asarray(stored, np.float64) * 255.0, 0.0, 255.0).astype(np.uint8)
    turned = (_turned(pixels, orientation) for orientation in _TURNS)
    fitting = [way for way in turned if way.shape[:2] == image.shape[:2]]
    # Not every pixel of a large photo, eight times: a grid of them, the same in each.
    step = max(1, math.isqrt(image.shape[0] * image.shape[1] // _COMPARED))
    shown = image[::step, ::step].astype(np.int16)
    right = min(
        fitting, key=lambda way: int(np.abs(way[::step, ::step, :3] - shown).sum(dtype=np.int64))
    )
    return np.ascontiguousarray(right)


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Make pixels (H, W, C) upright that are stored in one of EXIF's orientations."""
    return np.ascontiguousarray(_turned(pixels, orientation))


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The same, without a copy."""
    transposed, mirrored_x, mirrored_y = _TURNS[orientation]
    pixels = pixels.transpose(1, 0, 2) if transposed else pixels
    pixels = pixels[:, ::-1] if mirrored_x else pixels
    return pixels[::-1] if mirrored_y else pixels


def describe_losses(photo: Photo, output: Path) -> list[str]:
    """Sentences about what of a photo the result will not keep."""
    suffix, name, metadata = output.suffix.lower(), photo.name, photo.metadata
    losses = list(metadata.notes)
    if photo.deep:
        losses.append(f"{name} has more than 8 bits a channel: the result has 8")
    if photo.alpha is not None and suffix not in ALPHA_SUFFIXES:
        losses.append(
            f"{name} has transparency: {suffix} cannot hold it; {', '.join(ALPHA_SUFFIXES)} can"
        )
    if suffix == ".bmp":
        kinds = [
            kind
            for kind, part in (("colour profile", metadata.icc), ("EXIF data", metadata.exif))
            if part
        ]
        losses.append(
            "a .bmp cannot say that it was edited"
            + (f", nor hold {name}'s {' and '.join(kinds)}" if kinds else "")
        )
    if metadata.png_colours and not metadata.icc and suffix != ".png":
        tags = sorted({kind.decode() for kind, _ in metadata.png_colours} - {"sRGB"})
        if tags:
            losses.append(f"the colour tags of {name} ({', '.join(tags)}) are kept in .png only")
    if suffix in (".jpg", ".jpeg") and len(metadata.exif or b"") > _MOST_EXIF_IN_JPEG:
        losses.append(f"the EXIF data of {name} is larger than a JPEG holds and is left out")
    return losses


def check_photo_output(path: Path) -> None:
    """Raise UnwritableFile unless the suffix is a format that we write."""
    if path.suffix.lower() not in PHOTO_SUFFIXES:
        raise UnwritableFile(
            f"a photo is written as {', '.join(PHOTO_SUFFIXES)}, not {path.suffix or path.name!r}"
        )


def write_photo(
    path: Path,
    image: NDArray[np.uint8],
    *,
    edit: Edit,
    force: bool,
    alpha: NDArray[np.uint8] | None = None,
    metadata: PhotoMetadata = _NO_METADATA,
    quality: int | None = None,
) -> None:
    """Write a photo whole, with XMP metadata that says how it was edited.

    Args:
        image: (H, W, 3) uint8 BGR.
        alpha: (H, W) uint8; left out where the format has no transparency.
        metadata: the input's, to be kept.
        quality: 1 to 100 of a format with losses; None takes a JPEG input's for a JPEG, 95 for
            another JPEG, 90 for AVIF, and writes WebP without loss.

    Raises:
        UnwritableFile: another format, an output that exists, a full disk.
    """
    check_photo_output(path)
    suffix = path.suffix.lower()
    if alpha is not None and suffix in ALPHA_SUFFIXES:
        image = np.dstack([image, alpha])
    try:
        encoded = encode_photo(
            suffix, image, metadata=metadata, xmp=write_xmp(edit), quality=quality
        )
    except cv2.error as error:
        # WebP ends at 16383 pixels a side.
        raise UnwritableFile(
            f"a photo of {image.shape[1]} x {image.shape[0]} pixels cannot be written as {suffix}: "
            f"{error.err or 'the encoder refused it'}; try .png"
        ) from error
    with output_file(path, force=force) as temporary:
        temporary.write_bytes(encoded)
