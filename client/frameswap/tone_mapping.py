"""HDR video to SDR: BT.2020 in PQ or HLG becomes BT.709, by one table of colours.

The table is a cube over the coded R'G'B' of the input. Each of its points is brought to light
(SMPTE ST 2084; ARIB STD-B67 with BT.2100's OOTF for a display of 1000 cd/m2), compressed by
Hable's filmic curve on the brightest channel of BT.709's primaries (BT.2407), and coded for a
display of gamma 2.4 (BT.1886). FFmpeg's `lut3d` looks it up.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frameswap.picture_graph import PictureGraph

__all__ = ["HLG", "PQ", "ToneMapper", "tone_map"]

PQ: Final = 16
HLG: Final = 18
"""AVColorTransferCharacteristic, ITU-T H.273."""
_POINTS: Final = 65
_WHITE: Final = 100.0
"""cd/m2 that SDR shows as 1.0."""
PEAK: Final = 1000.0
"""cd/m2 that the curve maps to SDR's white: what most HDR10 and all HLG video is graded for."""
_TO_BT709: Final = np.array(
    # ITU-R BT.2407, 2.2: BT.2020's primaries to BT.709's, linear light.
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)


def tone_map(coded: NDArray[np.float64], transfer: int) -> NDArray[np.float64]:
    """Map HDR colours to SDR ones.

    Args:
        coded: (..., 3) R'G'B' of BT.2020 in [0, 1]. transfer: PQ or HLG.

    Returns:
        (..., 3) R'G'B' of BT.709 in [0, 1].
    """
    light = (_pq_light(coded) if transfer == PQ else _hlg_light(coded)) / _WHITE
    light = np.maximum(light @ _TO_BT709.T, 0.0)
    brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    light = light * (_hable(brightest) / _hable(np.array(PEAK / _WHITE)) / brightest)
    # What a display does to BT.709's values, backwards (ITU-R BT.1886, with black at 0).
    return np.asarray(np.power(np.clip(light, 0.0, 1.0), 1 / 2.4), np.float64)


def _pq_light(coded: NDArray[np.float64]) -> NDArray[np.float64]:
    """cd/m2 of PQ (SMPTE ST 2084, 5.2)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = np.power(coded, 1 / m2)
    ratio = np.maximum(power - c1, 0.0) / (c2 - c3 * power)
    return np.asarray(10000.0 * np.power(ratio, 1 / m1), np.float64)


def _hlg_light(coded: NDArray[np.float64]) -> NDArray[np.float64]:
    """cd/m2 of HLG on a display of PEAK (ITU-R BT.2100-2, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return np.asarray(PEAK * scene * np.power(luminance, 0.2)[..., None], np.float64)


def _hable(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """The filmic curve (J. Hable, Uncharted 2: HDR Lighting, GDC 2010)."""
    a, b, c, d, e, f = 0.15, 0.50, 0.10, 0.20, 0.02, 0.30
    top = light * (light * a + b * c) + d * e
    return np.asarray(top / (light * (light * a + b) + d * f) - e / f, np.float64)


class ToneMapper:
    """Frames of an HDR stream to SDR, 8-bit 4:2:0 of BT.709 in limited range."""

    def __init__(self, transfer: int, *, full_range: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="frameswap-")
        table = Path(self._folder.name) / "table.cube"
        _write_cube(table, transfer)
        source = "full" if full_range else "limited"
        self._graph = PictureGraph(
            [
                ("scale", f"in_color_matrix=bt2020:in_range={source}:out_range=full"
                 ":flags=bicubic+accurate_rnd+full_chroma_int"),
                ("format", "pix_fmts=gbrp12le"),
                ("lut3d", f"file={table}:interp=tetrahedral"),
                ("scale", "out_color_matrix=bt709:in_range=full:out_range=limited"
                 ":flags=bicubic+accurate_rnd+full_chroma_int"),
                ("format", "pix_fmts=yuv420p"),
            ]
        )  # fmt: skip

    def __enter__(self) -> ToneMapper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the table's file."""
        self._folder.cleanup()

    def convert(self, frame: Any) -> Any:
        """Map one frame of PyAV's; returns another, yuv420p."""
        return self._graph.convert(frame)


def _write_cube(path: Path, transfer: int) -> None:
    """Write the table as Adobe's cube text, red running fastest."""
    axis = np.linspace(0.0, 1.0, _POINTS)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    mapped = tone_map(np.stack([red, green, blue], axis=-1).reshape(-1, 3), transfer)
    with path.open("w", encoding="ascii") as file:
        file.write(f"LUT_3D_SIZE {_POINTS}\n")
        np.savetxt(file, mapped, fmt="%.6f")
