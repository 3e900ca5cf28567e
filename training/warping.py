"""Images and fields moved by face landmarks: kernel regression on a 64 x 64 grid, no rasteriser.

A field is known at the 478 landmarks and wanted everywhere. Each grid point takes the mean of the
landmarks' values with weights w = (e^2 / (d^2 + e^2))^2, where d is the distance in pixels and e
comes from the spacing of the landmarks around the one in question. One matrix product gives all
fields at once; ONNX and every runtime have the operators.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import face_mesh

GRID: Final = 64
LABELS: Final = ("face", "mouth", "eyes", "lips", "brows")
_BORDER_WEIGHT: Final = 1.5
_BORDER_SOFTNESS_PX2: Final = 64.0
_CANONICAL: Final = 128


def sample_pixels(images: Tensor, at: Tensor, *, offset: float = 0.0) -> Tensor:
    """Bilinear samples; beyond the border the border's pixel.

    Args:
        images: (B, C, S, S).
        at: (B, 2, H, W) float32, pixels of the image less `offset`, x then y.

    Returns:
        (B, C, H, W).
    """
    grid = (at + (offset + 0.5)) * (2.0 / images.shape[-1]) - 1
    return F.grid_sample(
        images, grid.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )


def enlarge(images: Tensor) -> Tensor:
    """(B, C, h, w) of any size to (B, C, 256, 256), bilinear."""
    size = (face_mesh.CROP, face_mesh.CROP)
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def blur(images: Tensor, size: int) -> Tensor:
    """The mean over a `size` x `size` window (odd), over fewer pixels at the border."""
    return F.avg_pool2d(images, size, 1, size // 2, count_include_pad=False)


def pixel_grid(size: int = face_mesh.CROP, device: torch.device | None = None) -> Tensor:
    """(1, 2, size, size) float32: each pixel's own x and y."""
    line = torch.arange(size, device=device).float()
    return torch.stack([line[None, :].expand(size, size), line[:, None].expand(size, size)])[None]


class CanonicalFace(NamedTuple):
    """points: (478, 2) in [-1, 1]; labels: (5, 128, 128) in [0, 1]; px_per_unit: of a crop."""

    points: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    px_per_unit: float


def canonical_face(mean_shape: npt.NDArray[np.float32]) -> CanonicalFace:
    """The mean face (478, 3), mouth opened, and what each of its pixels shows (`LABELS`)."""
    points = mean_shape[:, :2].astype(np.float64)
    # The mean mouth is closed; its inside needs an area to be a label.
    for k, point in enumerate(face_mesh.LOWER_LIP_INNER):
        points[point, 1] += 6.0 * (1 - abs(k - 4) / 5.0)
    points -= (points.max(0) + points.min(0)) / 2
    px_per_unit = float(np.abs(points).max() * 1.25)
    points /= px_per_unit
    side = 4 * _CANONICAL

    def fill(*outlines: tuple[int, ...]) -> npt.NDArray[np.float32]:
        image = np.zeros((side, side), np.uint8)
        for outline in outlines:
            corners = np.round(((points[list(outline)] + 1) / 2 * side - 0.5) * 16)
            cv2.fillPoly(image, [corners.astype(np.int32)], 255, lineType=cv2.LINE_8, shift=4)
        small = cv2.resize(image, (_CANONICAL, _CANONICAL), interpolation=cv2.INTER_AREA)
        return small.astype(np.float32) / 255

    mouth = fill(face_mesh.LIPS_INNER)
    lips = np.clip(fill(face_mesh.LIPS_OUTER) - mouth, 0, 1)
    eyes = fill(face_mesh.RIGHT_EYE, face_mesh.LEFT_EYE)
    brows = fill(face_mesh.RIGHT_BROW, face_mesh.LEFT_BROW)
    labels = np.stack([fill(face_mesh.OVAL), mouth, eyes, lips, brows])
    return CanonicalFace(points.astype(np.float32), labels, px_per_unit)


class Warper(nn.Module):
    """Fields over a crop from values at its landmarks. No parameters; buffers from a mean shape."""

    def __init__(self, mean_shape: npt.NDArray[np.float32]) -> None:
        super().__init__()
        face = canonical_face(mean_shape)
        self.px_per_unit = face.px_per_unit
        flat = torch.from_numpy(np.ascontiguousarray(mean_shape[:, :2], np.float32))
        spacing = torch.cdist(flat, flat).sort(1).values[:, 1:5].mean(1) * 0.8
        centre = (torch.arange(GRID).float() + 0.5) * (face_mesh.CROP / GRID) - 0.5
        x, y = centre[None, :].expand(GRID, GRID), centre[:, None].expand(GRID, GRID)
        nodes = torch.stack([x, y], -1).reshape(-1, 2)
        middle = torch.tensor([127.5, 140.0])
        straight = ((nodes - middle) / face.px_per_unit).t().reshape(1, 2, GRID, GRID)
        for name, buffer in (
            ("middle", middle),
            ("canonical", torch.from_numpy(face.points)),
            ("canonical_labels", torch.from_numpy(face.labels)[None]),
            ("softness", spacing.clamp(2.5, 10.0) ** 2),
            ("nodes", nodes),
            ("straight", straight.clone()),
            ("border", _border()),
            ("pixels", pixel_grid()),
        ):
            # All follow from the mean shape, so no checkpoint needs them.
            self.register_buffer(name, buffer, persistent=False)

    def weights(self, points: Tensor, softness: Tensor | float) -> Tensor:
        """(B, N, 2) points, px: (B, 4096, N) weights at the grid's nodes, not normalised."""
        dx = self.nodes[:, 0][None, :, None] - points[..., 0][:, None, :]
        dy = self.nodes[:, 1][None, :, None] - points[..., 1][:, None, :]
        falling = softness / (dx**2 + dy**2 + softness)
        return falling * falling

    def fields(self, points: Tensor, values: Tensor, *, anchored: int) -> Tensor:
        """Values known at landmarks, everywhere.

        Args:
            points: (B, 478, 2) float32, crop pixels.
            values: (B, 478, C) float32; the first `anchored` channels fade to 0 at the border.

        Returns:
            (B, C, 64, 64) float32.
        """
        weights = self.weights(points, self.softness)
        total = weights.sum(-1, keepdim=True)
        pull = self.weights(self.border[None], _BORDER_SOFTNESS_PX2).sum(-1, keepdim=True)
        summed = torch.matmul(weights, values)
        held = summed[..., :anchored] / (total + pull * _BORDER_WEIGHT)
        mean = torch.cat([held, summed[..., anchored:] / total], -1)
        return mean.transpose(1, 2).reshape(points.shape[0], -1, GRID, GRID)

    def positions(self, displacement: Tensor) -> Tensor:
        """(B, 2, 64, 64) displacements in px: (B, 2, 256, 256) crop positions to sample at."""
        return self.pixels + enlarge(displacement)

    def labels(self, canonical_offset: Tensor) -> Tensor:
        """(B, 2, 64, 64) offsets, canonical units: (B, 5, 256, 256) labels in [0, 1]."""
        grid = enlarge(canonical_offset + self.straight).permute(0, 2, 3, 1)
        images = self.canonical_labels.expand(grid.shape[0], -1, -1, -1)
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def _border() -> Tensor:
    """(48, 2) points around the crop, 24 px outside, where displacements are 0."""
    line = torch.linspace(-24, 279, 12)
    low, high = torch.full_like(line, -24), torch.full_like(line, 279)
    sides = ((line, low), (line, high), (low, line), (high, line))
    return torch.cat([torch.stack(side, 1) for side in sides])
