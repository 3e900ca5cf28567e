"""The model repositories that the cells serve, built when first asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bench import gpu_repository
from bench.gpu.results import NotRun
from engines.targets import TARGETS, TargetName


@dataclass(frozen=True)
class Form:
    """One repository: of which precision and target, and how large its crops are.

    swapper: whose contract. crop_size: side of the network's own crop, pixels; pixel_boost: how
    often it tiles a larger one.
    extra: the network that it has beside, see `bench.gpu_repository.deployment`; "" for none.
    """

    precision: Literal["fp16", "fp32"] = "fp16"
    target: TargetName = "cuda"
    crop_size: int = 128
    pixel_boost: int = 1
    swapper: str = gpu_repository.PUBLISHED
    extra: str = ""

    @property
    def side(self) -> int:
        """Of the crops between detector, swapper and blender, pixels."""
        return self.crop_size * self.pixel_boost


OWN: Final = "frameswap_256"
OWN_REFERENCE: Final = "frameswap_256 reference"
FORMS: Final = {
    "fp16": Form(),
    "fp32": Form("fp32"),
    "reference": Form("fp32", "cpu"),
    "256 pixels": Form(crop_size=256),
    "pixel boost 2": Form(pixel_boost=2),
    "pixel boost 4": Form(pixel_boost=4),
    "occluder": Form(extra="xseg_1"),
    "parser": Form(extra="bisenet_resnet_34"),
    "enhancer": Form(extra="gfpgan_1.4"),
    "super-resolution animevideov3": Form(extra="realesr_animevideov3_x4"),
    "super-resolution x4plus": Form(extra="realesrgan_x4plus"),
    OWN: Form(crop_size=256, swapper=OWN),
    OWN_REFERENCE: Form("fp32", "cpu", crop_size=256, swapper=OWN),
}
TENSORRT: Final = "tensorrt"


class Repositories:
    """Folders of the forms under `work`.

    tensorrt: a repository of the target `tensorrt`, where the user has one.
    """

    def __init__(self, work: Path, tensorrt: Path | None = None) -> None:
        self._work = work
        self._tensorrt = tensorrt

    def __call__(self, name: str) -> Path:
        """The folder of a form, complete.

        Raises:
            NotRun: it cannot be made here.
        """
        if name == TENSORRT:
            if self._tensorrt is None:
                raise NotRun("no repository of TensorRT plans was given (--tensorrt-repository)")
            return self._tensorrt
        form, folder = FORMS[name], self._work / f"repository_{name.replace(' ', '_')}"
        # Written last: a build that was cut short, or of other graphs, is made again.
        if not gpu_repository.is_current(folder):
            start = time.perf_counter()
            gpu_repository.build(
                folder,
                precision=form.precision,
                target=form.target,
                pixel_boost=form.pixel_boost,
                crop_size=form.crop_size,
                swapper=form.swapper,
                extra=form.extra,
            )
            print(f"{folder}: {time.perf_counter() - start:.0f} s", flush=True)
        return folder

    def swapper(self, name: str) -> Path:
        """The swapper's graph."""
        return self(name) / "face_swapper" / "1" / TARGETS[FORMS[name].target].filename
