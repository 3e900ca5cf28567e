"""Things in front of a face, drawn at random: what a swap must leave alone.

Each is a signed distance in pixels (positive inside), so that all kinds are drawn for the whole
batch at once and one is picked for each face. The evaluation draws its own, of other shapes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training import face_mesh
from training.dice import Dice, on_device, per_image
from training.faces import Faces
from training.warping import blur, enlarge, pixel_grid, sample_pixels

KINDS: Final = ("blob", "bar", "edge", "hand", "glasses", "microphone", "fringe")
ON_TARGETS: Final = (0.20, 0.08, 0.10, 0.32, 0.14, 0.08, 0.08)
ON_SOURCES: Final = (0.08, 0.04, 0.04, 0.04, 0.42, 0.00, 0.38)
"""How often each kind is drawn."""


class Occluder(NamedTuple):
    """alpha: (B, 1, 256, 256) in [0, 1]. colour: (B, 3, 256, 256) RGB 0..1."""

    alpha: Tensor
    colour: Tensor

    def over(self, images: Tensor) -> Tensor:
        """(B, 3, 256, 256) with the occluder in front."""
        return images * (1 - self.alpha) + self.colour * self.alpha


class _Canvas:
    """The pixels, and one smooth noise (B, 256, 256) that makes outlines uneven."""

    def __init__(self, dice: Dice, batch: int) -> None:
        self.dice, self.batch = dice, batch
        pixels = pixel_grid(device=dice.device)
        self.x, self.y = pixels[:, 0], pixels[:, 1]
        self.wave = enlarge(dice.normal(batch, 1, 7, 7))[:, 0]

    def between(self, low: float, high: float) -> Tensor:
        """(B, 1, 1) uniform."""
        return self.dice.uniform(self.batch, 1, 1, low=low, high=high)

    def rod(self, x: Tensor, y: Tensor, angle: Tensor, length: Tensor, radius: Tensor) -> Tensor:
        """A capsule from (x, y) px along `angle`: signed distance (B, 256, 256)."""
        along = (self.x - x) * angle.cos() + (self.y - y) * angle.sin()
        nearest = torch.minimum(along.clamp_min(0), length)
        dx, dy = self.x - x - nearest * angle.cos(), self.y - y - nearest * angle.sin()
        return radius - torch.sqrt(dx**2 + dy**2 + 1e-3)


def _blob(canvas: _Canvas) -> Tensor:
    x, y, radius = canvas.between(30, 226), canvas.between(60, 250), canvas.between(20, 75)
    squared = (canvas.x - x) ** 2 + (canvas.y - y) ** 2
    return (canvas.wave * 0.8 + 1.0 - squared / radius**2) * 18


def _bar(canvas: _Canvas) -> Tensor:
    x, y = canvas.between(0, 256), canvas.between(30, 256)
    angle, radius = canvas.between(0, 6.2832), canvas.between(2, 22)
    return canvas.rod(x, y, angle, canvas.between(60, 260), radius) + canvas.wave * 3


def _edge(canvas: _Canvas) -> Tensor:
    angle = canvas.between(0, 6.2832)
    along = (canvas.x - 128) * angle.cos() + (canvas.y - 140) * angle.sin()
    return along - canvas.between(30, 100) + canvas.wave * 8


def _hand(canvas: _Canvas) -> Tensor:
    """A palm, four fingers bent at one joint, and a thumb, anywhere and any way up."""
    x, y, angle = canvas.between(20, 236), canvas.between(90, 270), canvas.between(2.6, 6.8)
    radius, bend = canvas.between(5, 13), canvas.between(-0.5, 0.5)
    inside = canvas.rod(x, y, angle + torch.pi, radius * 2, radius * canvas.between(2.6, 3.8))
    # Fingers of a fist are short, and close to each other; a spread hand's are not.
    length, spread = radius * canvas.between(1.2, 4.5), canvas.between(0.0, 0.22)
    thumb = (canvas.between(0, 1) < 0.5).float() * 2 - 1
    for k in (-1.5, -0.5, 0.5, 1.5):
        side, towards = k * radius * 1.85, angle + k * spread
        inside = _finger(canvas, inside, (x - side * angle.sin(), y + side * angle.cos()),
                         (towards, bend), (length * (1.15 - 0.12 * abs(k)), radius))  # fmt: skip
    side = thumb * radius * 2.6
    root = (x - side * angle.sin(), y + side * angle.cos())
    shape = (length * 0.7, radius * 1.1)
    inside = _finger(canvas, inside, root, (angle + thumb * 0.8, -thumb * 0.4), shape)
    return inside + canvas.wave


def _finger(
    canvas: _Canvas,
    inside: Tensor,
    root: tuple[Tensor, Tensor],
    ways: tuple[Tensor, Tensor],
    shape: tuple[Tensor, Tensor],
) -> Tensor:
    """`inside` and two rods; `ways`: direction and bend, radians. `shape`: of a rod, px."""
    (x, y), (angle, bend), (length, radius) = root, ways, shape
    joint = (x + length * angle.cos(), y + length * angle.sin())
    inside = torch.maximum(inside, canvas.rod(x, y, angle, length, radius))
    return torch.maximum(inside, canvas.rod(*joint, angle + bend, length * 0.8, radius * 0.9))


def _glasses(canvas: _Canvas, landmarks: Tensor) -> Tensor:
    """Two rings on the eyes, a third of them filled, a bridge and arms."""
    eyes = [
        landmarks[:, on_device(eye, landmarks.device), :2].mean(1)
        for eye in (face_mesh.RIGHT_EYE, face_mesh.LEFT_EYE)
    ]
    apart = (eyes[1] - eyes[0]).norm(dim=1)[:, None, None]
    radius, width = apart * canvas.between(0.30, 0.43), canvas.between(1.0, 5.0)
    flat, power = canvas.between(0.9, 1.5), canvas.between(2.0, 5.0)
    filled = (canvas.between(0, 1) < 0.35).float()
    inside = torch.full_like(canvas.wave, -99.0)
    for eye in eyes:
        dx = (canvas.x - eye[:, 0, None, None]).abs()
        dy = (canvas.y - eye[:, 1, None, None] - 3).abs() * flat
        round_ = (dx**power + dy**power + 1e-3) ** (1 / power)
        ring = width - (round_ - radius).abs()
        lens = (radius - round_) * filled - 99 * (1 - filled)
        inside = torch.maximum(inside, torch.maximum(ring, lens))
    step = eyes[1] - eyes[0]
    angle = torch.atan2(step[:, 1], step[:, 0])[:, None, None]
    start = eyes[0] + step * (radius[:, :, 0] / apart[:, :, 0])
    x, y = start[:, 0, None, None], start[:, 1, None, None]
    inside = torch.maximum(inside, canvas.rod(x, y, angle, apart - 2 * radius, width))
    for side in (-1, 1):
        end = eyes[max(side, 0)] + side * step * (radius[:, :, 0] / apart[:, :, 0])
        x, y = end[:, 0, None, None], end[:, 1, None, None]
        outwards = angle + (0 if side > 0 else torch.pi)
        arm = canvas.rod(x, y, outwards, apart * canvas.between(0.3, 0.7), width * 0.8)
        inside = torch.maximum(inside, arm)
    return inside


def _microphone(canvas: _Canvas) -> Tensor:
    """A ball before the mouth on a stick from below."""
    x, y, angle = canvas.between(80, 176), canvas.between(175, 235), canvas.between(0.6, 2.5)
    radius = canvas.between(14, 34)
    ball = radius - torch.sqrt((canvas.x - x) ** 2 + (canvas.y - y) ** 2)
    stick = canvas.rod(x, y, angle, canvas.between(100, 200), radius * canvas.between(0.35, 0.7))
    return torch.maximum(ball, stick)


def _fringe(canvas: _Canvas, landmarks: Tensor) -> Tensor:
    """Hair from the top down to about the brows, its lower edge uneven and slanted."""
    both = on_device(face_mesh.LEFT_BROW + face_mesh.RIGHT_BROW, landmarks.device)
    brows = landmarks[:, both, 1].mean(1)
    line = brows[:, None, None] - canvas.between(-12, 22)
    slant = (canvas.x - 128) * canvas.between(-0.35, 0.35)
    return line + slant + canvas.wave * canvas.between(2, 12) - canvas.y


def draw_occluders(
    dice: Dice,
    faces: Faces,
    landmarks: Tensor,
    *,
    rate: float,
    kinds: tuple[float, ...],
    own: Tensor,
) -> Occluder:
    """One occluder a face for a share `rate` of the batch.

    Args:
        dice: the draws.
        faces: other photos lend their texture.
        landmarks: (B, 478, 2 or 3) px, where eyes and brows are.
        rate: how many faces have one.
        kinds: how often each of `KINDS` is drawn.
        own: (B, 3, 256, 256) the faces' images: half the fringes are of their hair, and half the
            hands of about their skin's colour.
    """
    batch = len(landmarks)
    canvas = _Canvas(dice, batch)
    drawn = torch.stack(
        [
            _blob(canvas),
            _bar(canvas),
            _edge(canvas),
            _hand(canvas),
            _glasses(canvas, landmarks),
            _microphone(canvas),
            _fringe(canvas, landmarks),
        ],
        1,
    )
    kind = dice.weighted(on_device(kinds, dice.device), batch)
    picked = drawn[torch.arange(batch, device=dice.device), kind][:, None]
    alpha = (picked / 2 + 0.5).clamp(0, 1) * per_image(dice.chance(rate, batch))
    colour = _colour(dice, faces, kind, canvas)
    likely = dice.chance(0.5, batch)
    for name, of_own in (("fringe", _own_hair(canvas, own)),
                         ("hand", _own_skin(canvas, own, landmarks))):  # fmt: skip
        share = per_image(likely * (kind == KINDS.index(name)).float())
        colour = colour + (of_own - colour) * share
    return Occluder(blur(alpha, 3), colour)


def _own_hair(canvas: _Canvas, images: Tensor) -> Tensor:
    """What lies at a crop's upper border, mostly hair, pulled down over the forehead."""
    x = canvas.x + canvas.wave * canvas.between(1, 6)
    y = canvas.y.expand_as(x) * canvas.between(0.08, 0.25)
    return sample_pixels(images, torch.stack([x, y], 1))


def _own_skin(canvas: _Canvas, images: Tensor, landmarks: Tensor) -> Tensor:
    """A cheek's mean colour, lighter or darker, with little else to tell it from a face."""
    dice, batch = canvas.dice, canvas.batch
    cell = 16
    cheek = landmarks[:, face_mesh.CHEEK, :2, None, None]
    tone = sample_pixels(F.avg_pool2d(images, cell), (cheek + 0.5) / cell - 0.5)
    tone = tone * torch.exp(dice.normal(batch, 1, 1, 1) * 0.2 + dice.normal(batch, 3, 1, 1) * 0.03)
    return (tone * (1 + canvas.wave[:, None] * canvas.between(0, 0.12)[:, None])).clamp(0, 1)


def _colour(dice: Dice, faces: Faces, kind: Tensor, canvas: _Canvas) -> Tensor:
    """Another photo's texture, its skin, one colour, or (worn things, hair) dark with streaks."""
    batch = len(kind)
    pixels = pixel_grid(device=dice.device)
    skin = per_image(dice.chance(0.4, batch) * (kind != KINDS.index("fringe")).float())
    # Skin is a cheek, much enlarged; other textures come from anywhere in the photo.
    zoom = torch.exp(dice.normal(batch, 1, 1, 1) * 0.5) * (1 - 0.8 * skin)
    cheek = on_device((-38.0, 40.0), dice.device).view(1, 2, 1, 1)
    anywhere = dice.normal(batch, 2, 1, 1) * 60
    at = (pixels - 127.5) * zoom + 127.5 + cheek * skin + anywhere * (1 - skin)
    photo = faces.pixels[dice.integers(len(faces), batch)].float() / 255
    texture = sample_pixels(photo, at, offset=float(face_mesh.MARGIN))
    wave = canvas.wave[:, None]
    plain = dice.uniform(batch, 3, 1, 1) + wave * 0.05
    streaks = F.interpolate(dice.normal(batch, 1, 4, 128), size=wave.shape[-2:], mode="bilinear")
    tint = on_device((1.15, 1.0, 0.85), dice.device).view(1, 3, 1, 1)
    grey = dice.uniform(batch, 1, 1, 1, low=0.02, high=0.5)
    dark = grey * (1 + 0.35 * streaks) * tint ** dice.uniform(batch, 1, 1, 1, high=2.5)
    worn = (kind >= KINDS.index("glasses")).float()
    is_dark = per_image(worn * dice.chance(0.7, batch))
    is_plain = per_image(dice.chance(0.35, batch)) * (1 - is_dark)
    is_texture = 1 - is_dark - is_plain
    return (dark * is_dark + plain * is_plain + texture * is_texture).clamp(0, 1)
