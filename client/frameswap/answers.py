"""What a server's answers mean: outputs as arrays, faces, verdicts and swapped frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import (
    FACE_COLUMNS,
    FACES,
    MAX_DETECTIONS,
    SCORE_COLUMN,
    SWAPPED_FRAME,
    VERDICTS,
    Verdict,
)
from frameswap.errors import BadOptions, ServerFault
from frameswap.frames import Frame
from frameswap.padding import cut_frame

__all__ = [
    "SwappedFrame",
    "found_faces",
    "is_row",
    "read_frame",
    "read_rows",
    "read_verdicts",
    "take_output",
]


@dataclass(frozen=True, eq=False)
class SwappedFrame:
    """A finished frame.

    frame: uint8, shape and format of the frame that was sent; pixels outside the blend are its. It
        may lie in shared memory, which is used again when nobody holds it any more.
    faces: (F, 15) float32, the faces found, in the order asked for: x1 y1 x2 y2, score, five
        landmarks x y; pixels.
    original: the frame that was sent.
    verdicts: of each face, whether it was swapped, or why not.
    """

    frame: NDArray[np.uint8]
    faces: NDArray[np.float32]
    original: Frame
    verdicts: tuple[Verdict, ...] = ()


def take_output(outputs: Mapping[str, Any], name: str, address: str) -> NDArray[Any]:
    """One output of an answer.

    Raises:
        ServerFault: it is not there.
    """
    array = outputs.get(name)
    if array is None:
        # Triton drops an output that a step did not produce, without an error.
        raise ServerFault(
            f"the server at {address} did not return the output {name}: one of its models is "
            f"broken; look at its log"
        )
    return np.asarray(array)


def read_rows(outputs: Mapping[str, Any], address: str) -> NDArray[np.float32]:
    """(M, 15) float32: all rows of `faces`.

    Raises:
        ServerFault: there are no such rows.
        BadOptions: the server could not use the options.
    """
    faces = take_output(outputs, FACES, address).reshape(-1, FACE_COLUMNS)
    if len(faces) != MAX_DETECTIONS:
        raise ServerFault(f"the server returned {len(faces)} rows of faces")
    _check_used(faces)
    return np.array(faces, np.float32)


def is_row(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows (R, 15) hold a face: bool (R,)."""
    return np.asarray(rows[:, SCORE_COLUMN] > 0.0)


def found_faces(outputs: Mapping[str, Any], address: str) -> NDArray[np.float32]:
    """(F, 15) float32: the rows of `faces` that hold a face.

    Raises:
        As `read_rows`.
    """
    rows = read_rows(outputs, address)
    return rows[is_row(rows)]


def read_verdicts(
    outputs: Mapping[str, Any], held: NDArray[np.bool_], address: str
) -> tuple[Verdict, ...]:
    """A verdict for each row that holds a face: those of `held`, bool (M,), as `is_row` says.

    Raises:
        ServerFault: there are no such verdicts.
        BadOptions: the server could not use the options.
    """
    codes = take_output(outputs, VERDICTS, address).reshape(-1)
    if len(codes) != MAX_DETECTIONS:
        raise ServerFault(f"the server returned {len(codes)} verdicts")
    _check_used(codes)
    try:
        return tuple(Verdict(int(code)) for code in codes[held])
    except ValueError as error:
        raise ServerFault(f"the server returned a verdict that is none: {error}") from error


def _check_used(values: NDArray[Any]) -> None:
    if np.isnan(values).any():
        raise BadOptions(
            "the server could not use the options of the request: an option has a value that "
            "it does not know, or the source is not finite"
        )


def read_frame(
    frame: Frame, sent: tuple[int, ...], outputs: Mapping[str, Any], address: str
) -> NDArray[np.uint8]:
    """The swapped frame, uint8 of the frame's shape; a view where nothing was cut off.

    Args:
        sent: the shape that it was padded to.

    Raises:
        ServerFault: it has another type or size.
    """
    swapped = take_output(outputs, SWAPPED_FRAME, address)
    if swapped.dtype != np.uint8 or swapped.size != math.prod(sent):
        raise ServerFault(
            f"the server returned a frame of {swapped.dtype} {swapped.shape} for one of "
            f"uint8 {sent}"
        )
    return cut_frame(swapped.reshape(sent), frame)
