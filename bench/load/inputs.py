"""What perf_analyzer sends again and again: raw files of one real request, a file an input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from frameswap import FaceSwapper
from frameswap.contract import FRAME, OPTION_COUNT, OPTIONS, SOURCE, SWAP_MODELS

from bench.scenes import Scene
from demo.photos import read_photo


@dataclass(frozen=True, eq=False)
class LoadScene:
    """One request. frame: (H*3/2, W) uint8 I420. source: (K, D) float32, as the server made it."""

    frame: npt.NDArray[np.uint8]
    source: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """Files that are written. shapes: of the inputs whose shape a request decides."""

    model: str
    folder: Path
    shapes: dict[str, tuple[int, ...]]


def make_scene(swapper: FaceSwapper, width: int, height: int, *, faces: int = 1) -> LoadScene:
    """A frame with `faces` painted faces, and Newton's source for each of them.

    Raises:
        FrameswapError: the server does not encode the source.
    """
    frame = Scene("load", width=width, height=height, faces=faces, slots=faces).i420()
    vector = swapper.encode_source(read_photo("newton")).vector
    return LoadScene(frame, np.repeat(vector[None].astype(np.float32), faces, axis=0))


def write_inputs(scene: LoadScene, folder: Path) -> Inputs:
    """Write the raw files, little-endian, without a batch axis."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, npt.NDArray[Any]] = {
        FRAME: scene.frame,
        SOURCE: scene.source,
        OPTIONS: np.zeros(OPTION_COUNT, np.float32),
    }
    for name, array in arrays.items():
        np.ascontiguousarray(array).tofile(folder / name)
    # perf_analyzer refuses a shape for an input whose shape the config fixes.
    shapes = {name: arrays[name].shape for name in (FRAME, SOURCE)}
    return Inputs(SWAP_MODELS["i420"], folder, shapes)
