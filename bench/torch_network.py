"""The same architecture in PyTorch, compiled: what a fused implementation reaches on this GPU."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn import functional


class StyledNetwork(nn.Module):
    """inswapper_128's layers, random weights, style vectors given: [B, 3, 128, 128] in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        conv = nn.Conv2d
        self.channels = c
        self.encoder = nn.ModuleList(
            [
                conv(3, c // 8, 7),
                conv(c // 8, c // 4, 3, 1, 1),
                conv(c // 4, c // 2, 3, 2, 1),
                conv(c // 2, c, 3, 2, 1),
            ]
        )
        self.blocks = nn.ModuleList([conv(c, c, 3, bias=False) for _ in range(12)])
        self.decoder = nn.ModuleList(
            [
                conv(c, c // 2, 3, 1, 1),
                conv(c // 2, c // 4, 3, 1, 1),
                conv(c // 4, c // 8, 3, 1, 1),
                conv(c // 8, 3, 7),
            ]
        )

    def forward(self, target: Tensor, style: Tensor) -> Tensor:
        styles = style.view(-1, 24, self.channels, 1, 1)
        x = leaky(self.encoder[0](reflect(target, 3)))
        for layer in list(self.encoder)[1:]:
            x = leaky(layer(x))
        for block in range(6):
            y = x
            for half in range(2):
                index = 2 * block + half
                y = self.blocks[index](reflect(y, 1)).float()
                y = y - y.mean((2, 3), keepdim=True)
                y = y * torch.rsqrt((y * y).mean((2, 3), keepdim=True) + 1e-8)
                y = (y * styles[:, 2 * index] + styles[:, 2 * index + 1]).half()
                if half == 0:
                    y = y.relu()
            x = x + y
        x = leaky(self.decoder[0](double(x)))
        x = leaky(self.decoder[1](double(x)))
        x = leaky(self.decoder[2](x))
        return torch.sigmoid(self.decoder[3](reflect(x, 3)))


def leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2)


def reflect(x: Tensor, pixels: int) -> Tensor:
    return functional.pad(x, (pixels,) * 4, mode="reflect")


def double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear")


def measure_compiled(batch: int, seconds: float, *, channels: int) -> float:
    """Faces a second in float16, channels last, replayed as a CUDA graph."""
    network = StyledNetwork(channels).cuda().half().to(memory_format=torch.channels_last).eval()
    target = torch.rand(batch, 3, 128, 128, device="cuda", dtype=torch.half)
    target = target.to(memory_format=torch.channels_last)
    style = torch.rand(batch, 24 * channels, device="cuda", dtype=torch.half)
    with torch.inference_mode():
        compiled = torch.compile(network)
        for _ in range(3):
            compiled(target, style)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            compiled(target, style)
        for _ in range(3):
            graph.replay()
        torch.cuda.synchronize()
        runs, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            graph.replay()
            torch.cuda.synchronize()
            runs += 1
        return runs * batch / (time.perf_counter() - start)
