"""Write the network that serving wants: `python -m training.export --weights W --output FILE`.

Inputs: `target` [N, 3, 256, 256] RGB 0..1, aligned to arcface_128; `target_landmarks` [N, 478, 3],
crop pixels / 256; `source` [N, 198042], the source's crop (3 x 256 x 256) and then its landmarks
(478 x 3) / 256, flat. Outputs: `output` [N, 3, 256, 256] RGB 0..1; `mask` [N, 1, 256, 256], 0..1,
which `output` has been blended with: outside it, `output` is the target moved by a few pixels.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from training.checkpoints import SWAPPER_FILE, load_swapper
from training.face_mesh import CROP, POINTS
from training.networks import Swapper

OPSET: Final = 18
PIXELS: Final = 3 * CROP * CROP
SOURCE_SIZE: Final = PIXELS + 3 * POINTS
INPUTS: Final = ("target", "target_landmarks", "source")
OUTPUTS: Final = ("output", "mask")
TOLERANCE: Final = 1e-3
"""Most that ONNX Runtime may differ from PyTorch: both are float32, but they sum in another order,
and a warp that differs by 1e-4 px shows at an edge."""


class Served(nn.Module):
    """The swapper with the inputs and outputs of its contract."""

    def __init__(self, swapper: Swapper) -> None:
        super().__init__()
        self.swapper = swapper

    def forward(
        self, target: Tensor, target_landmarks: Tensor, source: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See the module's docstring."""
        crop = source[:, :PIXELS].reshape(-1, 3, CROP, CROP)
        landmarks = source[:, PIXELS:].reshape(-1, POINTS, 3) * CROP
        swapped = self.swapper(target, target_landmarks * CROP, crop, landmarks)
        return swapped.image.clamp(0, 1), swapped.mask


def pack_source(crop: Tensor, landmarks: Tensor) -> Tensor:
    """(N, 3, 256, 256) RGB 0..1 and (N, 478, 3) px to (N, 198042)."""
    return torch.cat([crop.flatten(1), landmarks.flatten(1) / CROP], 1)


def export_network(swapper: Swapper, path: Path) -> None:
    """Write the ONNX file, float32, with a free batch N."""
    served = Served(swapper).eval()
    shapes = ((2, 3, CROP, CROP), (2, POINTS, 3), (2, SOURCE_SIZE))
    example = tuple(torch.rand(*shape) for shape in shapes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # The TorchScript exporter is on its way out, but the new one fixes the batch in GridSample.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            served,
            example,
            str(path),
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "N"} for name in INPUTS + OUTPUTS},
            dynamo=False,
        )
    _state_output_shapes(path)


def _state_output_shapes(path: Path) -> None:
    """The exporter leaves all but the batch of the outputs open."""
    network = onnx.load(str(path))
    for output, channels in zip(network.graph.output, (3, 1), strict=True):
        sizes = output.type.tensor_type.shape.dim[1:]
        for size, value in zip(sizes, (channels, CROP, CROP), strict=True):
            size.dim_value = value
    onnx.checker.check_model(network, full_check=True)
    onnx.save(network, str(path))


def export_error(swapper: Swapper, path: Path, inputs: tuple[Tensor, Tensor, Tensor]) -> float:
    """The largest difference of any output between ONNX Runtime and PyTorch."""
    with torch.inference_mode():
        wanted = [value.numpy() for value in Served(swapper).eval()(*inputs)]
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=True)}
    given = session.run(list(OUTPUTS), feed)
    return max(float(np.abs(a - b).max()) for a, b in zip(wanted, given, strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, compare on random input, and say how large and how near it is."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export", description="Write the swapper as ONNX."
    )
    parser.add_argument("--weights", type=Path, required=True, help="a folder with swapper.npz")
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file to write")
    options = parser.parse_args(arguments)
    swapper, step = load_swapper(options.weights / SWAPPER_FILE)
    export_network(swapper, options.output)
    torch.manual_seed(0)
    shape = swapper.retargeter.mean.view(1, POINTS, 3)
    landmarks = shape + torch.randn(3, POINTS, 3)
    crops = torch.rand(2, 3, 3, CROP, CROP)
    source = pack_source(crops[1], landmarks.flip(0))
    error = export_error(swapper, options.output, (crops[0], landmarks / CROP, source))
    size = options.output.stat().st_size / 1e6
    print(f"{options.output}: step {step}, {size:.1f} MB, differs from PyTorch by {error:.1e}")
    return 0 if error <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
