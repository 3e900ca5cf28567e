"""Fit the retargeter on synthetic pairs of landmarks; seconds on a GPU, a minute on a CPU.

A pair is made from the shape statistics: one person's face with another's pose and expression is
known there, because the same coordinates made both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from training.augment import align_five_points, neutral_shape, random_rotation, reshape_face
from training.dice import Dice
from training.faces import Faces
from training.networks import SHAPE_INPUTS, SHAPE_OUTPUTS, Retargeter


class LandmarkPairs(NamedTuple):
    """target, source: (B, 478, 3) crop px. truth: (B, 478, 2) px, the source in target's pose."""

    target: Tensor
    source: Tensor
    truth: Tensor


def landmark_pairs(faces: Faces, dice: Dice, batch: int) -> LandmarkPairs:
    """Random people, expressions and poses."""
    count = len(faces)
    a, b, posed = (dice.integers(count, batch) for _ in range(3))

    def any_expression() -> Tensor:
        some = faces.expression[dice.integers(count, batch)]
        return some * dice.uniform(batch, 1, high=1.3)

    own = dice.chance(0.5, batch)[:, None] > 0.5
    expression = torch.where(own, faces.expression[a], any_expression())
    turn = random_rotation(dice, batch, yaw=0.12, pitch=0.08)
    change = dice.uniform(batch, 1, low=0.6, high=1.1) * (faces.identity[b] - faces.identity[a])
    truth = reshape_face(faces, a, expression=expression, turn=turn)
    target = reshape_face(faces, a, identity_change=change, expression=expression, turn=turn)
    difference = (any_expression() - faces.expression[a]) @ faces.shapes.expression
    shape = neutral_shape(faces, a) + difference.view(batch, -1, 3)
    pose = faces.rotation[posed] @ random_rotation(dice, batch, yaw=0.12, pitch=0.08)
    source = shape @ pose.transpose(1, 2) * faces.scale[a][:, None, None]
    source = source + faces.shift[a][:, None]
    # A detector would align each crop by the face that is in it.
    place = align_five_points(target)
    target, truth = place.move(target), place.move(truth)[..., :2]
    source = align_five_points(source).move(source)
    flips = [dice.chance(0.5, batch)[:, None, None] > 0.5 for _ in range(2)]
    target = torch.where(flips[0], _mirror(faces, target), target)
    truth = torch.where(flips[0], _mirror(faces, truth), truth)
    source = torch.where(flips[1], _mirror(faces, source), source)
    # Shape alone: the face's middle stays where the target's is.
    moved = target[..., :2].mean(1, keepdim=True) - truth.mean(1, keepdim=True)
    return LandmarkPairs(target, source, truth + moved)


def _mirror(faces: Faces, landmarks: Tensor) -> Tensor:
    mirrored = torch.cat([255 - landmarks[..., :1], landmarks[..., 1:]], -1)
    return mirrored[:, faces.mirror]


@torch.no_grad()
def start_retargeter(retargeter: Retargeter, faces: Faces, dice: Dice) -> None:
    """Set the two PCAs from 3,000 pairs."""
    pairs = landmark_pairs(faces, dice, 3000)
    shapes = torch.cat([pairs.target, pairs.source]).flatten(1)
    mean = shapes.mean(0)
    _, _, inputs = torch.pca_lowrank(shapes - mean, SHAPE_INPUTS, center=False, niter=3)
    moves = (pairs.truth - pairs.target[..., :2]).flatten(1)
    _, _, outputs = torch.pca_lowrank(moves, SHAPE_OUTPUTS, center=False, niter=3)
    retargeter.mean.copy_(mean)
    retargeter.inputs.copy_(inputs.t() / ((shapes - mean) @ inputs).std(0)[:, None])
    retargeter.outputs.copy_(outputs.t() * (moves @ outputs).std(0)[:, None])


def fit_retargeter(
    retargeter: Retargeter, faces: Faces, dice: Dice, *, steps: int, batch: int = 512
) -> float:
    """Train it; returns the last error, RMS in px."""
    start_retargeter(retargeter, faces, dice)
    optimiser = torch.optim.Adam(retargeter.net.parameters(), 1.5e-3)
    error = math.nan
    for step in range(steps):
        rate = 1.5e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 1e-5
        optimiser.param_groups[0]["lr"] = rate
        with torch.no_grad():
            pairs = landmark_pairs(faces, dice, batch)
            target = pairs.target + dice.normal(*pairs.target.shape) * 0.4
            source = pairs.source + dice.normal(*pairs.source.shape) * 0.4
        loss = (retargeter(target, source) - pairs.truth).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        error = loss.item() ** 0.5
    return error
