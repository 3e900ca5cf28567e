"""Fit the retargeter on pairs of faces; seconds on a GPU, a minute or two on a CPU.

What sets two faces apart besides pose is partly the people, partly their expressions, and mostly
both: is it a wide mouth, or a smile? `person_share` says how much of a difference is the people's,
from how much the photos of one person differ. So much is moved towards the source; but mouth and
eyes, which speak and look, stay where the target has them, and the outline, outside of which the
target is shown as it is, moves half as far.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training import face_mesh
from training.augment import (
    Similarity,
    align_five_points,
    neutral_shape,
    place_shape,
    random_rotation,
    random_similarity,
)
from training.dice import Dice
from training.faces import Faces
from training.networks import SHAPE_INPUTS, SHAPE_OUTPUTS, Retargeter

_EXPRESSIVE: Final = 2.0
"""Strangers' photos differ so many times more in expression than the few people's who have two."""
_HELD: Final = (
    (face_mesh.LIPS_INNER + face_mesh.LIPS_OUTER, 16.0, 0.0),
    (face_mesh.LEFT_EYE + face_mesh.RIGHT_EYE + face_mesh.IRISES, 7.0, 0.0),
    (face_mesh.OVAL, 15.0, 0.5),
)
"""Points; from so many px away the face moves the whole way; the share of it that they move."""

_NOISE_PX: Final = 0.4
"""Standard deviation of a landmarker's error."""
_DRAWS: Final = 120
"""Batches of pairs that are drawn; then they repeat."""
_RATE: Final = 1.5e-3


class LandmarkPairs(NamedTuple):
    """target, source: (B, 478, 3) crop px. truth: (B, 478, 2) px, the source in target's pose."""

    target: Tensor
    source: Tensor
    truth: Tensor


class Likeness:
    """How faces move when they take another person's shape and keep their own expression."""

    def __init__(self, faces: Faces) -> None:
        shapes, device = faces.shapes, faces.landmarks.device
        self.coordinates = torch.cat([faces.expression, faces.identity], 1)
        self.bases = torch.cat([shapes.expression, shapes.identity])
        self.share = person_share(self.coordinates.cpu(), faces.person.cpu()).to(device)
        self.mean = torch.from_numpy(shapes.mean).to(device)
        self.free = free_points(self.mean)

    def move(self, rows: Tensor, others: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        """What takes the upright shapes of the crops `rows` towards the `others`: (B, 478, 3) px.

        `strength` is 1 for the whole way; a number or (B, 1).
        """
        change = (self.coordinates[others] - self.coordinates[rows]) @ self.share.t() * strength
        middle = self.mean[None] + face_mesh.CROP / 2
        moved = middle + self._shape(change)
        # Crops are aligned by five points, so where these are sets no person apart.
        step = align_five_points(moved).move(moved) - align_five_points(middle).move(middle)
        return step * self.free

    def express(self, rows: Tensor, others: Tensor, strength: Tensor) -> Tensor:
        """What gives upright shapes something of the others' expressions: (B, 478, 3) px."""
        change = self.coordinates[others] - self.coordinates[rows]
        return self._shape((change - change @ self.share.t()) * strength)

    def _shape(self, coordinates: Tensor) -> Tensor:
        return (coordinates @ self.bases).view(-1, *self.mean.shape)


def person_share(coordinates: Tensor, person: Tensor) -> Tensor:
    """How much of a difference of two shapes the people make, not their expressions.

    Args:
        coordinates: (N, D) of shapes.
        person: (N,) whose they are; some have several.

    Returns:
        (D, D), to be multiplied with a difference. Its eigenvalues are in [0, 1]: 1 less the ratio
        of the variances within people and of all, times `_EXPRESSIVE`.

    Raises:
        ValueError: nobody has two photos.

    Source: Prince and Elder, "Probabilistic linear discriminant analysis for inferences about
    identity", 2007.
    """
    table, who = coordinates.double(), np.asarray(person)
    groups = [table[np.flatnonzero(who == one)] for one in np.unique(who)]
    several = [group - group.mean(0) for group in groups if len(group) > 1]
    if not several:
        raise ValueError("nobody has two photos; what is expression cannot be told")
    apart = torch.cat(several)
    within = apart.t() @ apart / (len(apart) - len(several))
    centred = table - table.mean(0)
    total = centred.t() @ centred / len(table)
    # Directions that hardly occur say nothing.
    total = total + torch.eye(len(total), dtype=total.dtype) * total.diagonal().sum() * 1e-4
    root = torch.linalg.cholesky(total)
    whitened = torch.linalg.solve_triangular(root, within, upper=False)
    ratios, axes = torch.linalg.eigh(torch.linalg.solve_triangular(root, whitened.t(), upper=False))
    kept = axes @ torch.diag((1 - _EXPRESSIVE * ratios).clamp(0, 1)) @ axes.t()
    return (root @ kept @ torch.linalg.inv(root)).float()


def free_points(mean: Tensor) -> Tensor:
    """(478, 1) in [0, 1]: how far each point of a mean shape (478, 3) may leave the target."""
    free = torch.ones(len(mean), 1, device=mean.device)
    for points, far, share in _HELD:
        apart = mean[:, None, :2] - mean[None, list(points), :2]
        nearest = apart.norm(dim=-1).amin(1, keepdim=True)
        free = torch.minimum(free, share + (1 - share) * nearest / far)
    return free


def landmark_pairs(faces: Faces, likeness: Likeness, dice: Dice, batch: int) -> LandmarkPairs:
    """Random people; half of the faces as they are, the others with other expressions and poses."""
    a, b = dice.integers(len(faces), batch), dice.integers(len(faces), batch)
    target, turn = _vary(faces, likeness, dice, a)
    truth = place_shape(faces, a, target + likeness.move(a, b), turn)
    target = place_shape(faces, a, target, turn)
    source, turn = _vary(faces, likeness, dice, b)
    source = place_shape(faces, b, source, turn)
    # A detector would align each crop by the face that is in it, by points some pixels off these.
    place, off = align_five_points(target), _misalignment(dice, batch)
    target, truth = off.move(place.move(target)), off.move(place.move(truth))[..., :2]
    source = _misalignment(dice, batch).move(align_five_points(source).move(source))
    flips = [dice.chance(0.5, batch)[:, None, None] > 0.5 for _ in range(2)]
    target = torch.where(flips[0], _mirror(faces, target), target)
    truth = torch.where(flips[0], _mirror(faces, truth), truth)
    source = torch.where(flips[1], _mirror(faces, source), source)
    return LandmarkPairs(target, source, truth)


def _vary(faces: Faces, likeness: Likeness, dice: Dice, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Upright shapes of the rows, (B, 478, 3), and how to turn them, (B, 3, 3)."""
    batch = len(rows)
    varied = dice.chance(0.5, batch)[:, None]
    strength = varied * dice.uniform(batch, 1, high=1.3)
    other = dice.integers(len(faces), batch)
    shape = neutral_shape(faces, rows) + likeness.express(rows, other, strength)
    turn = random_rotation(dice, batch, yaw=0.2, pitch=0.1)
    still = torch.eye(3, device=turn.device).expand_as(turn)
    return shape, torch.where(varied[:, :, None] > 0.5, turn, still)


def _misalignment(dice: Dice, batch: int) -> Similarity:
    # Without it nothing would tell a moved crop from another face.
    unflipped = torch.zeros(batch, device=dice.device)
    return random_similarity(dice, batch, angle=0.04, scale=0.06, shift_px=4.0, flip=unflipped)


def _mirror(faces: Faces, landmarks: Tensor) -> Tensor:
    mirrored = torch.cat([255 - landmarks[..., :1], landmarks[..., 1:]], -1)
    return mirrored[:, faces.mirror]


@torch.no_grad()
def start_retargeter(retargeter: Retargeter, faces: Faces, likeness: Likeness, dice: Dice) -> None:
    """Forget what was learned, and set the two PCAs from 3,000 pairs."""
    for layer in retargeter.net:
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    pairs = landmark_pairs(faces, likeness, dice, 3000)
    shapes = torch.cat([pairs.target, pairs.source]).flatten(1)
    mean = shapes.mean(0)
    _, _, inputs = torch.pca_lowrank(shapes - mean, SHAPE_INPUTS, center=False, niter=3)
    moves = (pairs.truth - pairs.target[..., :2]).flatten(1)
    _, _, outputs = torch.pca_lowrank(moves, SHAPE_OUTPUTS, center=False, niter=3)
    retargeter.mean.copy_(mean)
    retargeter.inputs.copy_(inputs.t() / ((shapes - mean) @ inputs).std(0)[:, None])
    retargeter.outputs.copy_(outputs.t() * (moves @ outputs).std(0)[:, None])


@torch.no_grad()
def _coordinates(
    retargeter: Retargeter, faces: Faces, likeness: Likeness, dice: Dice, batch: int
) -> tuple[Tensor, Tensor]:
    """What the network is given of noisy pairs and should say of them: (B, 128), (B, 48)."""
    pairs = landmark_pairs(faces, likeness, dice, batch)
    seen = [
        torch.matmul((points + dice.normal(*points.shape) * _NOISE_PX).flatten(1) - retargeter.mean,
                     retargeter.inputs.t())
        for points in (pairs.target, pairs.source)
    ]  # fmt: skip
    moves = (pairs.truth - pairs.target[..., :2]).flatten(1)
    return torch.cat(seen, 1), moves @ torch.linalg.pinv(retargeter.outputs)


def fit_retargeter(
    retargeter: Retargeter, faces: Faces, dice: Dice, *, steps: int, batch: int = 512
) -> float:
    """Train it; returns its error on pairs that it has not seen, RMS in px."""
    likeness = Likeness(faces)
    start_retargeter(retargeter, faces, likeness, dice)
    # Only the network between the PCAs learns, so the points are needed once.
    drawn = [_coordinates(retargeter, faces, likeness, dice, batch)
             for _ in range(min(steps, _DRAWS))]  # fmt: skip
    seen, wanted = (torch.cat(both) for both in zip(*drawn, strict=True))
    px = retargeter.outputs.norm(dim=1) / math.sqrt(retargeter.outputs.shape[1])
    optimiser = torch.optim.Adam(retargeter.net.parameters(), _RATE)
    for step in range(steps):
        rate = _RATE * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 1e-5
        optimiser.param_groups[0]["lr"] = rate
        rows = dice.integers(len(seen), batch)
        loss = ((retargeter.net(seen[rows]) - wanted[rows]) * px).pow(2).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        pairs = landmark_pairs(faces, likeness, dice, 4 * batch)
        return float((retargeter(pairs.target, pairs.source) - pairs.truth).pow(2).mean().sqrt())
