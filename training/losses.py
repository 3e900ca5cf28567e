"""What the generator is asked to lower; every term is named in the log.

Supervised pairs are compared with their truth. Crossed pairs have none: identity comes from the
source, landmarks from the target, texture from the warped source, and along the mask's edge, in the
mouth and under an occluder everything from the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training import face_mesh
from training.colours import distance_to_mixture, distance_to_surroundings, opponent
from training.dice import Dice, on_device
from training.judges import Landmarker, Recogniser
from training.networks import Paint, Swapped, compose, near_face, reach
from training.pairs import Batch, Crossed, Supervised, autocast
from training.warping import blur, enlarge, pixel_grid, sample_pixels

_SURROUNDINGS_PX: Final = 9
"""How far an edge may move before its colours count as strange, both ways together."""
_CALM: Final = 0.05
"""Smaller differences, RGB, from the calm swap hardly count: they would hold every change back."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the groups that a run may want to change."""

    identity: float = 4.0
    texture: float = 0.8
    landmarks: float = 1.0
    lips: float = 6.0
    eyes: float = 24.0
    surroundings: float = 20.0
    calm: float = 16.0
    occluder: float = 8.0
    steadiness: float = 8.0


class Judged(NamedTuple):
    """Losses and measures by name, and the images (2B, 3, 256, 256), supervised rows first."""

    losses: dict[str, Tensor]
    measures: dict[str, Tensor]
    images: Tensor


class _Regions(NamedTuple):
    """(N, 1, 256, 256) each, in [0, 1]; seen: not occluded."""

    near: Tensor
    reach: Tensor
    occluder: Tensor
    seen: Tensor
    lips: Tensor
    rim: Tensor


class _Seen(NamedTuple):
    """What the judges said. ids and maps: of the supervised results, the crossed, and the crossed
    jittered, (3B, ...). points and point_maps: of the supervised and the crossed, (2B, ...)."""

    truth_id: Tensor
    truth_maps: list[Tensor]
    source_maps: list[Tensor]
    truth_points: Tensor
    truth_point_maps: list[Tensor]
    ids: Tensor
    maps: list[Tensor]
    points: Tensor
    point_maps: list[Tensor]


def slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the pixel above and to the left: (B, C, 255, 255) each."""
    inner = images[..., 1:, 1:]
    return inner - images[..., :-1, 1:], inner - images[..., 1:, :-1]


def slope_distance(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference of the slopes under a weight (B, 1, 256, 256)."""
    inner = weight[..., 1:, 1:]
    pairs = zip(slopes(a), slopes(b), strict=True)
    first, second = (((p - q).abs() * inner).mean() for p, q in pairs)
    return first + second


def map_distance(
    maps: Sequence[Tensor], goals: Sequence[Tensor], weight: Tensor | None = None
) -> Tensor:
    """Mean relative difference of feature maps, under a weight (B, 1, H, W) where given."""
    total = maps[0].new_zeros(())
    for a, b in zip(maps, goals, strict=True):
        size = b.float().abs().mean((1, 2, 3), keepdim=True) + 1e-3
        distance = (a.float() - b.float()).abs().mean(1, keepdim=True) / size
        if weight is None:
            total = total + distance.mean()
        else:
            small = F.interpolate(weight, size=distance.shape[-2:], mode="area")
            total = total + (distance * small).sum() / (small.sum() + 1)
    return total / len(maps)


def openings(landmarks: Tensor) -> Tensor:
    """(B, 478, 2) px: (B, 9, 2) vectors across the mouth and the eyes."""
    upper, lower = (
        on_device(points, landmarks.device)
        for points in zip(*(face_mesh.MOUTH_GAPS + face_mesh.EYE_GAPS), strict=True)
    )
    return landmarks[:, lower, :2] - landmarks[:, upper, :2]


class Objective:
    """The frozen judges and the terms."""

    def __init__(
        self, recogniser: Recogniser, landmarker: Landmarker, weights: LossWeights, dice: Dice
    ) -> None:
        self.recogniser, self.landmarker = recogniser, landmarker
        self.weights, self.dice = weights, dice
        emphasis = torch.ones(face_mesh.POINTS)
        emphasis[list(face_mesh.EXPRESSION + face_mesh.IRISES)] = 3.0
        emphasis[list(face_mesh.LEFT_BROW + face_mesh.RIGHT_BROW)] = 2.0
        emphasis[list(face_mesh.OVAL)] = 0.5
        self.emphasis = (emphasis / emphasis.mean()).to(dice.device)

    def judge(self, batch: Batch, painted: Paint) -> Judged:
        """All terms, for the paint of the supervised rows and then the crossed rows."""
        supervised, crossed = batch.supervised, batch.crossed
        count = len(supervised.truth)
        rgb, logits = painted.rgb.float(), painted.mask_logits.float()
        outs = [
            compose(pair.prepared, Paint(rgb[rows], logits[rows]))
            for pair, rows in ((supervised, slice(count)), (crossed, slice(count, None)))
        ]
        regions = [_regions(pair.prepared.labels, pair.occluder) for pair in (supervised, crossed)]
        losses = self._by_judges(supervised, crossed, outs, regions)
        losses |= self._truth(supervised, outs[0], rgb[:count], regions[0])
        losses |= self._target(crossed, outs[1], regions[1])
        losses |= self._mask(outs, rgb, (supervised, crossed), regions)
        measures = {key: losses.pop(key) for key in list(losses) if key.startswith("measure_")}
        return Judged(losses, measures, torch.cat([out.image for out in outs]))

    def _look(self, supervised: Supervised, crossed: Crossed, outs: list[Swapped],
              rewarded: Tensor) -> _Seen:  # fmt: skip
        """Let both judges see the truth, the warped source and the results."""
        with torch.no_grad(), autocast(rewarded.device):
            truth_id, truth_maps = self.recogniser(self.recogniser.align(supervised.truth))
            _, source_maps = self.recogniser(self.recogniser.align(crossed.wanted))
            truth_points, truth_point_maps = self.landmarker(supervised.truth)
        views = [self.recogniser.align(out.image) for out in outs]
        views.append(self.recogniser.align(rewarded, self.dice))
        with autocast(rewarded.device):
            ids, maps = self.recogniser(torch.cat(views))
        points, point_maps = self.landmarker(torch.cat([out.image for out in outs]))
        return _Seen(truth_id, truth_maps, source_maps, truth_points[..., :2], truth_point_maps,
                     ids, maps, points[..., :2], point_maps)  # fmt: skip

    def _by_judges(
        self, supervised: Supervised, crossed: Crossed, outs: list[Swapped], on: list[_Regions]
    ) -> dict[str, Tensor]:
        image = outs[1].image
        # No reward for identity outside the mask, at its soft edge or in an occluder: there the
        # gradient is cut, or lines are drawn that only the recogniser likes.
        inside = ((on[1].reach - 0.5) * 2).clamp(0, 1) * on[1].seen
        rewarded = image.detach() + (image - image.detach()) * inside
        seen = self._look(supervised, crossed, outs, rewarded)
        return (
            self._identity(crossed, on[1], seen)
            | self._landmarks(crossed, seen)
            | self._features(crossed, image, on[1], seen)
        )

    def _identity(self, crossed: Crossed, on: _Regions, seen: _Seen) -> dict[str, Tensor]:
        def share(hidden: Tensor) -> Tensor:
            return hidden.mul(on.near).sum((1, 2, 3)) / on.near.sum((1, 2, 3))

        # An occluded face is hard to recognise, and must not be dug out or made up for it.
        covered = share(1 - on.seen) + share(crossed.erased)
        trust = (~crossed.same).float() * (1 - 2 * covered).clamp(0, 1)
        own, plain, jittered = seen.ids.chunk(3)
        to_source = (jittered * crossed.source_embedding).sum(1)
        to_target = (jittered * crossed.target_embedding).sum(1)
        return {
            "identity": self.weights.identity * ((1 - to_source) * trust).mean(),
            "unlike_target": (F.relu(to_target - 0.2) * trust).mean(),
            "identity_truth": (1 - (own * seen.truth_id).sum(1)).mean(),
            "measure_cos_source": (plain * crossed.source_embedding).sum(1).mean().detach(),
            "measure_cos_jittered": to_source.mean().detach(),
        }

    def _landmarks(self, crossed: Crossed, seen: _Seen) -> dict[str, Tensor]:
        own, points = seen.points.chunk(2)
        goal, weight = crossed.goal, self.weights.landmarks
        visible = self._visible(crossed.occluder, goal)
        on_truth = F.smooth_l1_loss(own, seen.truth_points, reduction="none").mean(-1)
        on_goal = F.smooth_l1_loss(points, goal, reduction="none").mean(-1)
        gaps = F.smooth_l1_loss(openings(points), openings(goal), reduction="none").mean((1, 2))
        towards_goal = (on_goal * self.emphasis * visible).clamp_max(30).mean()
        return {
            "landmarks_truth": weight * (on_truth * self.emphasis).mean() / 3,
            "landmarks": weight * towards_goal / 3,
            "openings": weight * 0.15 * (gaps * visible.mean(1)).mean(),
            "measure_landmark_px": (points - goal).norm(dim=-1).mean().detach(),
        }

    def _features(
        self, crossed: Crossed, image: Tensor, on: _Regions, seen: _Seen
    ) -> dict[str, Tensor]:
        labels = crossed.prepared.labels
        skin = (labels[:, :1] - labels[:, 1:2]).clamp(0, 1) * on.seen * (1 - crossed.erased)
        own = [maps.chunk(3)[0] for maps in seen.maps]
        early = [maps.chunk(3)[1] for maps in seen.maps[:3]]
        own_points = [maps.chunk(2)[0] for maps in seen.point_maps]
        small_skin = self.recogniser.align(skin) / 255
        texture = map_distance(early, seen.source_maps[:3], small_skin)
        texture = texture + 4 * slope_distance(image, crossed.wanted, skin)
        alike = map_distance(own, seen.truth_maps) + map_distance(own_points, seen.truth_point_maps)
        return {"features": 1.5 * alike, "texture": self.weights.texture * texture}

    def _visible(self, occluder: Tensor, landmarks: Tensor) -> Tensor:
        """(B, 478): 1 where a landmark is not occluded."""
        grid = ((landmarks + 0.5) / (face_mesh.CROP / 2) - 1)[:, :, None]
        hidden = F.grid_sample(blur(occluder, 9), grid, align_corners=False)
        return 1 - hidden[:, 0, :, 0]

    def _truth(
        self, pair: Supervised, out: Swapped, rgb: Tensor, on: _Regions
    ) -> dict[str, Tensor]:
        labels, truth = pair.prepared.labels, pair.truth
        detail = labels[:, 1:5].sum(1, keepdim=True).clamp(0, 1)
        weight = 0.3 + on.near * (0.7 + 2 * detail * on.seen + 1.5 * on.lips * on.seen)
        weight = weight + on.occluder * on.reach * 2
        # The paint itself is compared too, or it would be free where the mask is low.
        free = rgb * on.near + pair.prepared.target * (1 - on.near)
        both = (out.image - truth).abs() + 0.3 * (free - truth).abs() * on.seen
        return {
            "truth": 8 * (both * weight).mean(),
            "truth_slopes": 6 * slope_distance(out.image, truth, weight),
            "truth_rim": 6 * ((out.image - truth).abs() * on.rim).mean()
            + 6 * slope_distance(out.image, truth, on.rim),
        }

    def _target(self, pair: Crossed, out: Swapped, on: _Regions) -> dict[str, Tensor]:
        target, wanted, labels = pair.prepared.target, pair.wanted, pair.prepared.labels
        image, seen = out.image, on.near * on.seen
        coarse = (_coarse(image * seen) - _coarse(target * seen)).abs()
        neither = distance_to_mixture(image, target, wanted)
        strange = distance_to_surroundings(image, target, wanted, _SURROUNDINGS_PX)
        line = 4 * on.lips + 3 * labels[:, 2:3] + 0.5 * on.reach
        losses = {
            "colour": 6 * F.relu(coarse - 0.03).mean(),
            "rim": 5 * ((image - target).abs() * on.rim).mean()
            + 8 * slope_distance(image, target, on.rim),
            "mouth": 12 * ((image - target).abs() * labels[:, 1:2] * on.seen).mean(),
            "lips": self.weights.lips * (neither * line * on.seen).mean(),
            "eyes": self.weights.eyes * self._eye_colour(pair, image, on),
            "surroundings": self.weights.surroundings * (strange * on.reach * on.seen).mean(),
            "kept": self.weights.occluder
            * ((image - target).abs() * on.occluder * on.reach).mean(),
        }
        if pair.calm is not None:
            detail = labels[:, 1:5].sum(1, keepdim=True).clamp(0, 1)
            disturbed = F.smooth_l1_loss(image, pair.calm, reduction="none", beta=_CALM)
            weight = seen * (1 + 2 * detail)
            losses["calm"] = self.weights.calm * (disturbed * weight).mean()
        if pair.neighbours:
            k = pair.neighbours
            change = image[-2 * k : -k] - image[-k:]
            expected = target[-2 * k : -k] - target[-k:]
            where = seen[-2 * k : -k] * seen[-k:]
            losses["steadiness"] = (
                self.weights.steadiness * ((change - expected).abs() * where).mean()
            )
        return losses

    def _eye_colour(self, pair: Crossed, image: Tensor, on: _Regions) -> Tensor:
        # Eyes are the source's in the target's light. The mean over a few pixels, as a glance may
        # be off by one.
        shown, wanted = (blur(opponent(x)[:, 1:], 3) for x in (image, pair.wanted))
        where = blur(pair.prepared.labels[:, 2:3], 5) * on.seen * (1 - pair.erased)
        return ((shown - wanted).abs() * where).mean()

    def _mask(
        self, outs: list[Swapped], rgb: Tensor, pairs: tuple[Supervised, Crossed],
        regions: list[_Regions],
    ) -> dict[str, Tensor]:  # fmt: skip
        mask = torch.cat([out.mask for out in outs])
        target = torch.cat([pair.prepared.target for pair in pairs])
        near, within, occluder, seen, _, _ = (
            torch.cat(both) for both in zip(*regions, strict=True)
        )
        edge = (4 * mask * (1 - mask)).detach()
        hidden, shown = occluder * within, within * seen
        weight = 1 + self.weights.occluder * hidden
        return {
            "mask": 2 * ((mask - shown).abs() * weight).mean(),
            "seam": 2 * ((rgb - target).abs() * edge * seen).mean(),
            "range": 10 * (F.relu(rgb - 1) + F.relu(-rgb)).mul(near).mean(),
            "measure_mask_on_face": ((mask * shown).sum() / shown.sum()).detach(),
            "measure_mask_on_occluder": ((mask * hidden).sum() / (hidden.sum() + 1)).detach(),
        }


def _coarse(images: Tensor) -> Tensor:
    # Smaller cells would ask for the target's eye sockets and brows, too, and so for its likeness.
    return enlarge(F.avg_pool2d(images, 32))


def _regions(labels: Tensor, occluder: Tensor) -> _Regions:
    near, within, seen = near_face(labels), reach(labels), 1 - occluder
    mouth = (labels[:, 1:2] + labels[:, 3:4]).clamp(0, 1)
    # The band where lips meet the mouth's inside, or each other, a few pixels to both sides.
    lips = (blur(labels[:, 1:2], 7) * 4).clamp(0, 1) * (blur(mouth, 5) * 2).clamp(0, 1)
    # From outside the oval to where the mask is full.
    outline = (1 - (2 * blur(labels[:, :1], 21) - 1).abs()) * (1 - within.square())
    return _Regions(near, within, occluder, seen, lips.detach(), (outline * seen).detach())


def augment_for_discriminator(dice: Dice, images: Tensor) -> Tensor:
    """Differentiable light, similarity and cutout, so that photos are not learned by heart."""
    batch = len(images)
    x = (images - 0.5) * dice.uniform(batch, 1, 1, 1, low=0.8, high=1.2) + 0.5
    x = x + dice.normal(batch, 1, 1, 1) * 0.08 + dice.normal(batch, 3, 1, 1) * 0.02
    angle, scale = dice.normal(batch) * 0.05, torch.exp(dice.normal(batch) * 0.05)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    pixels = pixel_grid(device=images.device)
    at = torch.einsum("bij,bjhw->bihw", turn, (pixels - 127.5).expand(batch, -1, -1, -1)) + 127.5
    x = sample_pixels(x, at + dice.normal(batch, 2, 1, 1) * 8)
    hole = dice.uniform(batch, 2, 1, 1, high=256.0)
    far = (hole - pixels).abs().amax(1, keepdim=True)
    keep = (far > 40 * dice.chance(0.3, batch)[:, None, None, None]).float()
    return x * keep
