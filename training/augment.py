"""Geometry and light changed at random: similarities, shapes, lids, colour, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from training import face_mesh
from training.dice import Dice, on_device, per_image
from training.faces import Faces
from training.warping import blur, enlarge, pixel_grid

_MIDDLE: Final = 127.5
_CLOSED: Final = 0.94
"""The share of an eye's opening that is gone when it is shut; the lashes need the rest."""


@dataclass(frozen=True)
class Similarity:
    """p -> matrix @ (p - middle) + middle + shift, of crop px: (B, 2, 2) and (B, 2)."""

    matrix: Tensor
    shift: Tensor

    def move(self, landmarks: Tensor) -> Tensor:
        """(B, 478, 3) px; depth is scaled along."""
        xy = torch.einsum("bij,bnj->bni", self.matrix, landmarks[..., :2] - _MIDDLE)
        depth = landmarks[..., 2:] * self._determinant().abs().sqrt()[:, None, None]
        return torch.cat([xy + _MIDDLE + self.shift[:, None], depth], -1)

    def origin(self, at: Tensor) -> Tensor:
        """Where the pixels (1 or B, 2, H, W) come from: (B, 2, H, W) px."""
        offset = at - _MIDDLE - self.shift[:, :, None, None]
        # By hand: torch.linalg.inv waits for the GPU to say whether it succeeded.
        a, b, c, d = (self.matrix[:, i, j] for i in (0, 1) for j in (0, 1))
        adjugate = torch.stack([torch.stack([d, -b], 1), torch.stack([-c, a], 1)], 1)
        inverse = adjugate / self._determinant()[:, None, None]
        return torch.einsum("bij,bjhw->bihw", inverse, offset) + _MIDDLE

    def _determinant(self) -> Tensor:
        m = self.matrix
        return m[:, 0, 0] * m[:, 1, 1] - m[:, 0, 1] * m[:, 1, 0]


def _turn(cos: Tensor, sin: Tensor) -> Tensor:
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)


def random_similarity(
    dice: Dice, batch: int, *, angle: float, scale: float, shift_px: float, flip: Tensor
) -> Similarity:
    """Standard deviations in radians, of the scale's logarithm, and in px; (B,) `flip` mirrors."""
    turn, size = dice.normal(batch) * angle, torch.exp(dice.normal(batch) * scale)
    mirror = torch.diag_embed(torch.stack([1 - 2 * flip, torch.ones_like(flip)], 1))
    matrix = _turn(size * turn.cos(), size * turn.sin()) @ mirror
    return Similarity(matrix, dice.normal(batch, 2) * shift_px)


def align_five_points(landmarks: Tensor) -> Similarity:
    """The similarity that puts the landmarks' own five points (B, 478, 3) onto the template."""
    five = landmarks[:, on_device(face_mesh.FIVE_POINTS, landmarks.device), :2]
    flat = tuple(float(value) * face_mesh.CROP for value in face_mesh.ARCFACE_128.ravel())
    template = on_device(flat, landmarks.device).view(5, 2)
    from_mean, to_mean = five.mean(1), template.mean(0)
    p, q = five - from_mean[:, None], template - to_mean
    spread = (p**2).sum((1, 2))
    cos = (p * q).sum((1, 2)) / spread
    sin = (p[..., 0] * q[:, 1] - p[..., 1] * q[:, 0]).sum(1) / spread
    matrix = _turn(cos, sin)
    moved = torch.einsum("bij,bj->bi", matrix, _MIDDLE - from_mean)
    return Similarity(matrix, to_mean + moved - _MIDDLE)


def random_rotation(dice: Dice, batch: int, *, yaw: float, pitch: float) -> Tensor:
    """(B, 3, 3) small head turns; standard deviations in radians."""
    y, p = dice.normal(batch) * yaw, dice.normal(batch) * pitch
    zero, one = torch.zeros_like(y), torch.ones_like(y)
    about_y = torch.stack([y.cos(), zero, y.sin(), zero, one, zero, -y.sin(), zero, y.cos()], 1)
    about_x = torch.stack([one, zero, zero, zero, p.cos(), -p.sin(), zero, p.sin(), p.cos()], 1)
    return about_y.view(-1, 3, 3) @ about_x.view(-1, 3, 3)


def neutral_shape(faces: Faces, rows: Tensor) -> Tensor:
    """(B, 478, 3): the rows' landmarks with pose, size and place taken away."""
    moved = (faces.landmarks[rows] - faces.shift[rows][:, None]) @ faces.rotation[rows]
    return moved / faces.scale[rows][:, None, None]


def place_shape(faces: Faces, rows: Tensor, shape: Tensor, turn: Tensor | None = None) -> Tensor:
    """Upright shapes (B, 478, 3) in the rows' poses, turned by (B, 3, 3) before: crop px."""
    rotation = faces.rotation[rows] if turn is None else faces.rotation[rows] @ turn
    placed = shape @ rotation.transpose(1, 2) * faces.scale[rows][:, None, None]
    return placed + faces.shift[rows][:, None]


def close_eyes(landmarks: Tensor, amount: Tensor) -> Tensor:
    """What a landmarker sees of eyes that `lid_offsets` closed by `amount` (B,): (B, 478, 3) px.

    It never sees them shut: at 1 the opening that it reports is 0.37 of the open eye's, at 0.5
    0.75 (mean of eight faces). The crease above the upper lid and the irises follow in part.
    """
    amount = 0.63 * amount**1.3
    upper, lower, crease, iris = (
        on_device(points, landmarks.device)
        for points in (face_mesh.UPPER_LIDS, face_mesh.LOWER_LIDS,
                       face_mesh.LID_CREASES, face_mesh.IRISES)
    )  # fmt: skip
    step = (landmarks[:, lower, :2] - landmarks[:, upper, :2]) * amount[:, None, None]
    moved = landmarks.clone()
    moved[:, upper, :2] += step
    moved[:, crease, :2] += step * 0.33
    middles = landmarks[:, lower, :2].view(len(landmarks), 2, 7, 2).mean(2)
    towards = middles.repeat_interleave(5, 1) - landmarks[:, iris, :2]
    moved[:, iris, :2] += towards * amount[:, None, None] * 0.5
    return moved


def lid_offsets(landmarks: Tensor, amount: Tensor) -> Tensor:
    """How much higher in the photo the pixels of a face with closing eyes lie.

    Portraits have open eyes, so without this no training pair shows a blink; the landmarks' own
    warp is too coarse, as it cannot squeeze ten pixels into one. In each column the eye is squeezed
    towards the lower lid and the skin above the upper lid is stretched over it.

    Args:
        landmarks: (B, 478, 3) crop px, eyes open.
        amount: (B,) in [0, 1].

    Returns:
        (B, 1, 256, 256) px, to be added to y when the photo is sampled; 0 away from the eyes.
    """
    x = torch.arange(face_mesh.CROP, device=landmarks.device).float()
    offsets = landmarks.new_zeros(len(landmarks), face_mesh.CROP, face_mesh.CROP)
    for eye in (slice(0, 7), slice(7, 14)):
        lids = [landmarks[:, on_device(points[eye], landmarks.device), :2]
                for points in (face_mesh.UPPER_LIDS, face_mesh.LOWER_LIDS)]  # fmt: skip
        upper, lower = (_along_columns(lid, x) for lid in lids)
        left, right = (getattr(lids[0][..., 0], end)(1)[:, None] for end in ("amin", "amax"))
        inside = ((x - left + 4) / 4).clamp(0, 1) * ((right + 4 - x) / 4).clamp(0, 1)
        gap = (lower - upper).clamp_min(0.5)
        closed = upper + gap * _CLOSED * (amount[:, None] * inside)
        top = upper - 1.2 * gap - 4
        y, upper, closed, lower, top = (
            x[:, None],
            *(column[:, None] for column in (upper, closed, lower, top)),
        )
        eyeball = upper + (y - closed) * (lower - upper) / (lower - closed)
        lid = top + (y - top) * (upper - top) / (closed - top)
        origin = torch.where(y < closed, lid, eyeball)
        offsets = offsets + torch.where((y > top) & (y < lower), origin - y, 0.0)
    return offsets[:, None]


def _along_columns(points: Tensor, x: Tensor) -> Tensor:
    """(B, 7, 2) px along a lid: its y in each column, (B, 256)."""
    weights = torch.softmax(-((x[None, :, None] - points[:, None, :, 0]) ** 2) / 8, dim=-1)
    return (weights * points[:, None, :, 1]).sum(-1)


def landmark_noise(dice: Dice, faces: Faces, landmarks: Tensor) -> Tensor:
    """The error of a landmarker: 0.3 px a point, and a little wrong expression."""
    batch = len(landmarks)
    wrong = (dice.normal(batch, faces.shapes.expression.shape[0]) * 3.0) @ faces.shapes.expression
    return landmarks + dice.normal(*landmarks.shape) * 0.3 + wrong.view(landmarks.shape)


def change_light(dice: Dice, images: Tensor, strength: float) -> Tensor:
    """Gamma, gain, colour cast and saturation, and from 0.7 on a slope of light; RGB 0..1."""
    batch = len(images)
    some = per_image(dice.chance(0.8, batch)) * strength

    def factor(channels: int, deviation: float) -> Tensor:
        return torch.exp(dice.normal(batch, channels, 1, 1) * deviation * some)

    lit = images.clamp(1e-3, 1) ** factor(1, 0.22) * (factor(1, 0.12) * factor(3, 0.06))
    grey = lit.mean(1, keepdim=True)
    colourful = factor(1, 0.25) * per_image(1 - dice.chance(0.06 * strength, batch))
    lit = grey + (lit - grey) * colourful
    if strength > 0.7:
        direction = dice.uniform(batch, high=2 * torch.pi)
        offset = (pixel_grid(device=images.device) - _MIDDLE) / 128
        along = offset[:, :1] * per_image(direction.cos()) + offset[:, 1:] * per_image(
            direction.sin()
        )
        lit = lit * torch.exp(along * per_image(dice.uniform(batch, low=-0.5, high=0.5) * strength))
    return lit.clamp(0, 1)


def cast_shadow(dice: Dice, images: Tensor, rate: float) -> Tensor:
    """A patch of shadow or strong light, its edge hard or soft, on a share `rate`; RGB 0..1.

    A source's own must not be carried along: the target's light is what counts.
    """
    batch = len(images)
    wave = enlarge(dice.normal(batch, 1, 5, 5)) - dice.normal(batch, 1, 1, 1) * 0.5
    patch = torch.sigmoid(wave * dice.uniform(batch, 1, 1, 1, low=1.0, high=10.0))
    strength = dice.uniform(batch, low=-0.9, high=0.4) * dice.chance(rate, batch)
    return (images * torch.exp(patch * per_image(strength))).clamp(0, 1)


def soften(dice: Dice, images: Tensor) -> Tensor:
    """Blur and noise for a third of the batch each; RGB 0..1."""
    batch = len(images)
    share = per_image(dice.chance(0.35, batch) * dice.uniform(batch))
    softened = images + (blur(images, 5) - images) * share
    amount = per_image(dice.chance(0.3, batch) * dice.uniform(batch) * 0.04)
    return (softened + dice.normal(*images.shape) * amount).clamp(0, 1)
