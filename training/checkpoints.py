"""Weights and checkpoints on disk.

Weights are .npz files of float16 arrays without pickles: `generator.*`, `retargeter.*` and
`mean_shape` in one file, `discriminator.*` in another, and `step`, the number of steps they have
been trained. A checkpoint is what a run needs to go on, optimisers and random state included; it
stays on the machine that trains.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.discriminator import Discriminator
from training.networks import Swapper

SWAPPER_FILE: Final = "swapper.npz"
DISCRIMINATOR_FILE: Final = "discriminator.npz"
STUDENT: Final = "small"
"""The folder of the narrower swapper, beside the large one's files."""

Array = npt.NDArray[Any]


def write_atomically(path: Path, write: Any) -> None:
    """`write(file)` into a file beside `path`, which then takes its place; all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Tensors, numbers and dictionaries of them."""
    write_atomically(path, lambda file: torch.save(dict(state), file))


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save_checkpoint` wrote; no code in the file is run."""
    return torch.load(path, map_location=device, weights_only=True)


def save_swapper(path: Path, swapper: Swapper, mean_shape: Array, step: int) -> None:
    """Generator, retargeter and mean shape in float16."""
    arrays = _half("generator", swapper.generator) | _half("retargeter", swapper.retargeter)
    arrays |= {"mean_shape": mean_shape.astype(np.float32), "step": np.array(step)}
    write_atomically(path, lambda file: np.savez(file, **arrays))


def save_discriminator(path: Path, discriminator: Discriminator, step: int) -> None:
    """The discriminator in float16."""
    arrays = _half("discriminator", discriminator) | {"step": np.array(step)}
    write_atomically(path, lambda file: np.savez(file, **arrays))


def load_swapper(path: Path) -> tuple[Swapper, int]:
    """The swapper on the CPU in float32, and the steps it has been trained."""
    with np.load(path, allow_pickle=False) as stored:
        arrays: dict[str, Array] = {key: stored[key] for key in stored.files}
    channels = tuple(arrays[f"generator.encoders.{k}.0.first.bias"].size for k in range(4))
    swapper = Swapper(arrays["mean_shape"], channels)
    swapper.generator.load_state_dict(_floats(arrays, "generator"))
    swapper.retargeter.load_state_dict(_floats(arrays, "retargeter"))
    return swapper, int(arrays["step"])


def load_discriminator(path: Path) -> Discriminator:
    """The discriminator on the CPU in float32."""
    with np.load(path, allow_pickle=False) as stored:
        arrays: dict[str, Array] = {key: stored[key] for key in stored.files}
    discriminator = Discriminator()
    discriminator.load_state_dict(_floats(arrays, "discriminator"))
    return discriminator


def _half(name: str, module: nn.Module) -> dict[str, Array]:
    state = module.state_dict()
    return {f"{name}.{key}": value.cpu().half().numpy() for key, value in state.items()}


def _floats(arrays: Mapping[str, Array], name: str) -> dict[str, Tensor]:
    start = f"{name}."
    return {
        key.removeprefix(start): torch.from_numpy(value.astype(np.float32))
        for key, value in arrays.items()
        if key.startswith(start)
    }
