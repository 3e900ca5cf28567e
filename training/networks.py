"""The swapper: landmarks retargeted, the source's pixels warped, a U-Net that repaints and masks.

1. The retargeter gives the target's pose and expression the source's face shape.
2. The warper moves the target's and the source's pixels to those landmarks.
3. The U-Net sees both, what each pixel shows, and how far the source was moved; it paints the face
   and says where it covers the target.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.face_mesh import OPENINGS, POINTS
from training.warping import Warper, blur, enlarge, sample_pixels

SHAPE_INPUTS: Final = 64
SHAPE_OUTPUTS: Final = 48
CHANNELS: Final = (48, 96, 176, 256)
"""Of the U-Net's four sizes, largest image first; half of each is the small variant."""
BLOCKS: Final = (1, 2, 2, 3)
IMAGE_INPUTS: Final = 16
"""Target 3, source 3, source in the target's light 3, labels 5, flow 2."""


class Prepared(NamedTuple):
    """What the U-Net sees, all (B, C, 256, 256), and the landmarks that it is to show.

    target: RGB 0..1, warped. source: 6 channels, the warped source and the same in the target's
    coarse light. labels: 5 in [0, 1]. flow: source displacement / 32 px. landmarks: (B, 478, 2) px.
    source_at: positions in the source crop, px.
    """

    target: Tensor
    source: Tensor
    labels: Tensor
    flow: Tensor
    landmarks: Tensor
    source_at: Tensor


class Retargeter(nn.Module):
    """Target's landmarks with the source's face shape, by a small network between two fixed PCAs.

    How far eyes and mouth are open is the target's: what the network says of that is off by a
    pixel, which is a tenth of an open eye.

    Buffers: mean (1434,), inputs (64, 1434), outputs (48, 956): see `training.retarget`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3 * POINTS))
        self.register_buffer("inputs", torch.zeros(SHAPE_INPUTS, 3 * POINTS))
        self.register_buffer("outputs", torch.zeros(SHAPE_OUTPUTS, 2 * POINTS))
        self.register_buffer("openings", openings_matrix(), persistent=False)
        self.net = nn.Sequential(
            nn.Linear(2 * SHAPE_INPUTS, 384),
            nn.SiLU(),
            nn.Linear(384, 384),
            nn.SiLU(),
            nn.Linear(384, SHAPE_OUTPUTS),
        )

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """(B, 478, 3) and (B, 478, 3) landmarks, crop px: (B, 478, 2) px."""
        shapes = [
            torch.matmul(points.flatten(1) - self.mean, self.inputs.t())
            for points in (target, source)
        ]
        move = torch.matmul(self.net(torch.cat(shapes, 1)), self.outputs)
        goal = target[..., :2] + move.view(-1, POINTS, 2)
        return goal + torch.matmul(self.openings, target[..., :2] - goal)


def openings_matrix() -> Tensor:
    """(478, 478): times the difference of two faces, what gives one the other's openings.

    Of each pair of points, both move by half of what their distance lacks.
    """
    matrix = torch.zeros(POINTS, POINTS)
    for upper, lower in OPENINGS:
        for point, other in ((upper, lower), (lower, upper)):
            matrix[point, point] = 0.5
            matrix[point, other] = -0.5
    return matrix


class ResidualBlock(nn.Module):
    """x + conv(conv(x)), with a gate a channel between the two where `gated`.

    The gate is bounded (0 to 2): unbounded multiplicative gates exploded in training.
    """

    def __init__(self, channels: int, *, gated: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, 1, 1)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1)
        wide = (nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.gate = nn.Sequential(*wide) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        hidden = F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2)
        if self.gate is not None:
            gate = 2 * torch.sigmoid(self.gate(hidden.mean((2, 3))).clamp(-4, 4))
            hidden = hidden * gate[:, :, None, None]
        return x + self.second(hidden)


class Generator(nn.Module):
    """The U-Net; with `CHANNELS` 7.9 million parameters and 19 GFLOP a face."""

    def __init__(self, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        c, n = channels, BLOCKS
        self.entry = nn.Conv2d(IMAGE_INPUTS * 4, c[0], 3, 1, 1)
        self.encoders = nn.ModuleList(
            nn.Sequential(*[ResidualBlock(c[k], gated=k >= 2) for _ in range(n[k])])
            for k in range(4)
        )
        self.down = nn.ModuleList(nn.Conv2d(c[k], c[k + 1], 3, 2, 1) for k in range(3))
        self.up = nn.ModuleList(nn.Conv2d(c[k + 1], c[k], 1) for k in (2, 1, 0))
        self.decoders = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * c[k], c[k], 1), *[ResidualBlock(c[k]) for _ in range(n[k])])
            for k in (2, 1, 0)
        )
        self.exit = nn.Conv2d(c[0], 64, 3, 1, 1)
        wide, narrow = nn.Conv2d(16 + 9, 24, 3, 1, 1), nn.Conv2d(24, 16, 3, 1, 1)
        self.fine = nn.Sequential(wide, nn.LeakyReLU(0.2), narrow, nn.LeakyReLU(0.2))
        self.head = nn.Conv2d(16, 5, 3, 1, 1)
        self._start()

    def _start(self) -> None:
        # PyTorch's own initialisation is too small here: nothing was learned from it.
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                nn.init.zeros_(module.bias)
                if name.endswith(".second"):
                    module.weight.data *= 0.3
                if name.startswith("up."):
                    module.weight.data *= 0.7
        nn.init.normal_(self.head.weight, 0, 0.004)
        self.head.bias.data[3:] = torch.tensor([2.0, 1.5])

    def forward(self, target: Tensor, source: Tensor, labels: Tensor, flow: Tensor) -> Paint:
        """The fields of `Prepared`: RGB (B, 3, 256, 256) and mask logits (B, 1, 256, 256)."""
        x = torch.cat([target * 2 - 1, source * 2 - 1, labels, flow], 1)
        hidden, skipped = self.entry(F.pixel_unshuffle(x, 2)), []
        for k, encoder in enumerate(self.encoders):
            hidden = encoder(hidden)
            if k < 3:
                skipped.append(hidden)
                hidden = self.down[k](hidden)
        for up, decoder in zip(self.up, self.decoders, strict=True):
            hidden = F.interpolate(up(hidden), scale_factor=2.0, mode="bilinear")
            hidden = decoder(torch.cat([hidden, skipped.pop()], 1))
        hidden = F.pixel_shuffle(self.exit(F.leaky_relu(hidden, 0.2)), 2)
        hidden = torch.cat([hidden, target * 2 - 1, source * 2 - 1], 1)
        out = self.head(self.fine(hidden)).float()
        # The picture starts between the lit source and the target; the network adds to it.
        share = torch.sigmoid(out[:, 4:5])
        rgb = source[:, 3:].float() * share + target.float() * (1 - share) + out[:, :3]
        return Paint(rgb, out[:, 3:4])


class Paint(NamedTuple):
    """rgb: (B, 3, 256, 256), about 0..1. mask_logits: (B, 1, 256, 256)."""

    rgb: Tensor
    mask_logits: Tensor


class Swapped(NamedTuple):
    """image: (B, 3, 256, 256) RGB, about 0..1. mask: (B, 1, 256, 256) in [0, 1]."""

    image: Tensor
    mask: Tensor


class Swapper(nn.Module):
    """Retargeter, warper and U-Net together."""

    def __init__(
        self, mean_shape: npt.NDArray[np.float32], channels: tuple[int, ...] = CHANNELS
    ) -> None:
        super().__init__()
        self.warper = Warper(mean_shape)
        self.retargeter = Retargeter()
        self.generator = Generator(channels)

    def prepare(
        self,
        target: Tensor,
        target_landmarks: Tensor,
        source: Tensor,
        source_landmarks: Tensor,
        landmarks: Tensor | None = None,
    ) -> Prepared:
        """Warp both crops to the swap's landmarks.

        Args:
            target: (B, 3, 256, 256) RGB 0..1.
            target_landmarks: (B, 478, 3) crop px.
            source: (B, 3, 256, 256) RGB 0..1.
            source_landmarks: (B, 478, 3) crop px.
            landmarks: (B, 478, 2) px to use instead of the retargeter's.
        """
        if landmarks is None:
            landmarks = self.retargeter(target_landmarks, source_landmarks)
        warper = self.warper
        values = torch.cat(
            [
                target_landmarks[..., :2] - landmarks,
                warper.canonical - (landmarks - warper.middle) / warper.px_per_unit,
                source_landmarks[..., :2] - landmarks,
            ],
            -1,
        )
        fields = warper.fields(landmarks, values, anchored=4)
        warped = sample_pixels(target, warper.positions(fields[:, :2]))
        source_at = warper.positions(fields[:, 4:6])
        moved = sample_pixels(source, source_at)
        labels = warper.labels(fields[:, 2:4])
        flow = enlarge(fields[:, 4:6]).clamp(-48, 48) / 32.0
        return Prepared(warped, light(warped, moved, labels), labels, flow, landmarks, source_at)

    def paint(self, prepared: Prepared) -> Swapped:
        """The swap of prepared crops, under the tight mask."""
        painted = self.generator(prepared.target, prepared.source, prepared.labels, prepared.flow)
        return compose(prepared, painted)

    def forward(
        self, target: Tensor, target_landmarks: Tensor, source: Tensor, source_landmarks: Tensor
    ) -> Swapped:
        """As `prepare`, then `paint`."""
        return self.paint(self.prepare(target, target_landmarks, source, source_landmarks))


def light(target: Tensor, source: Tensor, labels: Tensor) -> Tensor:
    """The warped source, and the same in the target's coarse light: (B, 6, 256, 256)."""
    cover = near_face(labels)

    def coarse(x: Tensor) -> Tensor:
        return enlarge(blur(F.avg_pool2d(x, 16), 3))

    change = coarse((target - source) * cover) / (coarse(cover) + 0.02)
    return torch.cat([source, (source + change).clamp(0, 1)], 1)


def mirror_prepared(prepared: Prepared) -> Prepared:
    """The pixels of a pair as a mirror shows them; landmarks and `source_at` stay."""
    flow = torch.cat([-prepared.flow[:, :1], prepared.flow[:, 1:]], 1)
    target, source, labels, flow = (
        x.flip(-1) for x in (prepared.target, prepared.source, prepared.labels, flow)
    )
    return prepared._replace(target=target, source=source, labels=labels, flow=flow)


def near_face(labels: Tensor) -> Tensor:
    """The face's oval grown by about 8 px, soft: (B, 1, 256, 256) in [0, 1]."""
    return (blur(blur(labels[:, :1], 17), 9) * 3.0).clamp(0, 1)


def near_eyes_and_brows(labels: Tensor) -> Tensor:
    """Eyes and brows grown by some 3 px: (B, 1, 256, 256) in [0, 1]."""
    both = (labels[:, 2:3] + labels[:, 4:5]).clamp(0, 1)
    return (blur(both, 7) * 3).clamp(0, 1)


def reach(labels: Tensor) -> Tensor:
    """Where the swap may cover the target: 0 on the oval, 1 from about 10 px inside.

    A mask that ended outside the oval let the identity loss draw coloured lines along the rim. One
    that is 4 px wider gains 0.008 of dlib's distance to the source, and shows the rim.
    """
    return ((blur(blur(labels[:, :1], 13), 13) - 0.5) * 2.2).clamp(0, 1)


def compose(prepared: Prepared, painted: Paint) -> Swapped:
    """The painted face over the warped target."""
    mask = torch.sigmoid(painted.mask_logits.float()) * reach(prepared.labels)
    image = mask * painted.rgb.float() + (1 - mask) * prepared.target
    return Swapped(image, mask)
