"""What ncnn itself makes of a small picture with Real-ESRGAN's files: the reference of a test.

    python -m pip install ncnn==1.0.20261020    # an environment of its own: it is no dependency
    python tests/oracles/ncnn_upscale.py FOLDER_OF_THE_FILES tests/reference/real_esrgan.npz

FOLDER_OF_THE_FILES holds the .param and .bin of `frameswap models fetch realesrgan_x4plus
realesr_animevideov3_x4` (`weights` in the cache). In float32, without ncnn's faster forms.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ncnn
import numpy as np

STEMS = ("REALESRGAN_X4PLUS_UP4X", "REALESRGAN_ANIMAVIDEOV3_UP4X")


def picture() -> np.ndarray:
    """(3, 12, 16) float32 in [0, 1]: edges, a slope and some noise."""
    y, x = np.mgrid[:12, :16]
    red = ((x // 4 + y // 5) % 2).astype(np.float64)
    green = x / 15
    blue = np.random.default_rng(4).random((12, 16))
    return np.stack([red, green, blue]).astype(np.float32)


def upscale(folder: Path, stem: str) -> np.ndarray:
    net = ncnn.Net()
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic",
                 "use_bf16_storage", "use_winograd_convolution", "use_sgemm_convolution",
                 "use_packing_layout", "use_vulkan_compute"):  # fmt: skip
        setattr(net.opt, name, False)
    net.load_param(str(folder / f"{stem}.param"))
    net.load_model(str(folder / f"{stem}.bin"))
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(picture()).clone())
    _, found = extractor.extract("output")
    return np.array(found, np.float32)


if __name__ == "__main__":
    made = {stem: upscale(Path(sys.argv[1]), stem) for stem in STEMS}
    np.savez_compressed(sys.argv[2], picture=picture(), **made)
    print({name: value.shape for name, value in made.items()})
