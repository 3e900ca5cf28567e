"""A picture of how a job's frames come out, refreshed while it runs."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from frameswap.errors import UnwritableFile

__all__ = ["Preview"]

INTERVAL_S: Final = 1.0
LONGEST_PX: Final = 640


class Preview:
    """Writes the newest frame to a file, once a second at most.

    Args:
        path: `.jpg` or `.png`; it is replaced as a whole, so a reader never sees half of one.

    Raises:
        UnwritableFile: another suffix, or no such folder.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            raise UnwritableFile(f"a preview is written as .jpg or .png, not {path.name!r}")
        if not path.parent.is_dir():
            raise UnwritableFile(f"the preview's folder {path.parent} does not exist")
        self._path = path
        self._shown_s: float | None = None

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Take a finished frame, (H*3/2, W) uint8 I420; a preview that fails fails no job."""
        now_s = time.monotonic()
        if self._shown_s is not None and now_s - self._shown_s < INTERVAL_S:
            return
        self._shown_s = now_s
        image = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_I420)
        factor = LONGEST_PX / max(image.shape[:2])
        if factor < 1.0:
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        temporary = self._path.with_name(f".{self._path.stem[:32]}.preview{self._path.suffix}")
        with suppress(cv2.error):
            # Not `imwrite`, which says of a file on a full disk that it is written.
            _, encoded = cv2.imencode(self._path.suffix, image)
            try:
                temporary.write_bytes(encoded.tobytes())
                temporary.replace(self._path)
            except OSError:
                with suppress(OSError):
                    temporary.unlink()
