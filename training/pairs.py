"""Training pairs, made on the device from single photos.

Supervised, a swap reversed: the truth is a real photo of A; the target is the same photo with B's
face pasted in (later B's face swapped in by the network itself); the source is another view of A.
Crossed: a real target and another person's source, with no truth; the losses judge the result.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training import face_mesh
from training.augment import (
    Similarity,
    align_five_points,
    cast_shadow,
    change_light,
    close_eyes,
    landmark_noise,
    lid_offsets,
    neutral_shape,
    place_shape,
    random_rotation,
    random_similarity,
    soften,
)
from training.dice import Dice, per_image
from training.faces import Faces
from training.lent_glasses import LentGlasses
from training.networks import Prepared, Swapper, light, mirror_prepared, near_face, reach
from training.occluders import ON_SOURCES, ON_TARGETS, Occluder, draw_occluders
from training.retarget import Likeness
from training.warping import blur, enlarge, sample_pixels
from training.worn import frames

OCCLUDER_RATE: Final = 0.6
SOURCE_OCCLUDER_RATE: Final = 0.45
LENT_GLASSES_RATE: Final = 0.25
SHADOW_RATE: Final = 0.3
BLINK_RATE: Final = 0.3


class Supervised(NamedTuple):
    """prepared: the inputs. truth: (B, 3, 256, 256). occluder: (B, 1, 256, 256), on both."""

    prepared: Prepared
    truth: Tensor
    occluder: Tensor


class Crossed(NamedTuple):
    """prepared: the inputs. occluder: on the target, worn frames too. erased: what hid the source.

    The source is disturbed by shadows, glasses, a fringe and the like, the target by occluders, the
    landmarks of both by noise. Of the same pair without all that: wanted (B, 3, 256, 256), the
    source where `prepared` has it, in the target's light; goal (B, 478, 2) px, the swap's
    landmarks; calm (B, 3, 256, 256), the averaged network's swap, once that is of use.
    source_embedding, target_embedding: (B, 128). same: (B,), the two are one person.
    neighbours: so many last rows are the next frames of the rows before them, same source.
    """

    prepared: Prepared
    occluder: Tensor
    erased: Tensor
    wanted: Tensor
    goal: Tensor
    calm: Tensor | None
    source_embedding: Tensor
    target_embedding: Tensor
    same: Tensor
    neighbours: int


class Batch(NamedTuple):
    """photos: (B, 3, 256, 256) real ones, some with occluders, for the discriminator."""

    supervised: Supervised
    crossed: Crossed
    photos: Tensor


class View(NamedTuple):
    """image: (B, 3, 256, 256) RGB 0..1. landmarks: (B, 478, 3) px. blinks: (B,) how far closed."""

    image: Tensor
    landmarks: Tensor
    moved_by: Similarity
    blinks: Tensor


class PairMaker:
    """Makes batches from faces; `teacher` is the averaged network that swaps its own targets."""

    def __init__(self, faces: Faces, swapper: Swapper, teacher: Swapper, dice: Dice) -> None:
        self.faces, self.swapper, self.teacher, self.dice = faces, swapper, teacher, dice
        self.likeness, self.glasses = Likeness(faces), LentGlasses(faces, swapper)
        self._frames = faces.frames_with_neighbour
        # Glasses of a source or a truth would teach to carry them along.
        self._bare = faces.frequency * (1 - faces.worn)
        self._any = faces.frequency * (1 + faces.worn)

    @torch.no_grad()
    def make(self, batch: int, *, own_swaps: bool) -> Batch:
        """`batch` supervised and `batch` crossed pairs.

        With `own_swaps` half the former are by the averaged network, and the latter have its calm
        swaps.
        """
        supervised = self._supervised(batch, own_swaps)
        crossed = self._crossed(batch, own_swaps)
        rows, flip = self.dice.weighted(self._any, batch), self.dice.chance(0.5, batch)
        view = self._target_view(self.dice, rows, flip)
        # Photos have occluders too, or they would be what tells a swap from a photo.
        shown = self._occlude(self.dice, view.landmarks, view.image).over(view.image)
        return Batch(supervised, crossed, change_light(self.dice, shown, 0.5))

    def _other_photo(self, rows: Tensor) -> Tensor:
        faces = self.faces
        drawn = (self.dice.uniform(len(rows)) * faces.count[rows]).long()
        return faces.by_person[faces.first[rows] + drawn.clamp_max(faces.count[rows] - 1)]

    def _crop(self, rows: Tensor, at: Tensor, blinks: Tensor) -> Tensor:
        """The rows' photos at (B, 2, 256, 256) px, eyes closed by (B,)."""
        offsets = lid_offsets(self.faces.landmarks[rows], blinks)
        at = torch.cat([at[:, :1], at[:, 1:] + sample_pixels(offsets, at)], 1)
        return sample_pixels(
            self.faces.pixels[rows].float() / 255, at, offset=float(face_mesh.MARGIN)
        )

    def _mirrored(self, landmarks: Tensor, flip: Tensor) -> Tensor:
        return torch.where(flip[:, None, None] > 0.5, landmarks[:, self.faces.mirror], landmarks)

    def _occlude(self, dice: Dice, landmarks: Tensor, own: Tensor) -> Occluder:
        rate, kinds = OCCLUDER_RATE, ON_TARGETS
        return draw_occluders(dice, self.faces, landmarks, rate=rate, kinds=kinds, own=own)

    def _blinks(self, dice: Dice, batch: int, rate: float) -> Tensor:
        return dice.chance(rate, batch) * dice.uniform(batch, low=0.3, high=1.0)

    def _mesh_view(
        self, rows: Tensor, shape: Tensor, move: Similarity, blinks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The rows' photos with their faces moved to `shape` (px), then both moved: image, px."""
        place = align_five_points(shape)
        own = self.faces.landmarks[rows]
        start, goal = (move.move(place.move(close_eyes(points, blinks))) for points in (own, shape))
        warper = self.swapper.warper
        fields = warper.fields(goal[..., :2], (start - goal)[..., :2], anchored=2)
        at = place.origin(move.origin(warper.positions(fields)))
        return self._crop(rows, at, blinks), goal

    def _source_view(
        self, dice: Dice, rows: Tensor, flip: Tensor, light_strength: float
    ) -> tuple[Tensor, Tensor]:
        """A source as the network will see it, moved in expression and pose: image, px."""
        faces, batch = self.faces, len(rows)
        moved = dice.chance(0.65, batch)[:, None]
        strength = moved * dice.uniform(batch, 1, low=0.3, high=1.2)
        other = dice.integers(len(faces), batch)
        turn = random_rotation(dice, batch, yaw=0.24, pitch=0.10)
        still = torch.eye(3, device=turn.device).expand_as(turn)
        turn = torch.where(moved[:, :, None] > 0.5, turn, still)
        shape = neutral_shape(faces, rows) + self.likeness.express(rows, other, strength)
        shape = place_shape(faces, rows, shape, turn)
        move = random_similarity(dice, batch, angle=0.05, scale=0.03, shift_px=2.5, flip=flip)
        blinks = self._blinks(dice, batch, BLINK_RATE / 2)
        image, landmarks = self._mesh_view(rows, shape, move, blinks)
        return soften(dice, change_light(dice, image, light_strength)), self._mirrored(
            landmarks, flip
        )

    def _target_view(self, dice: Dice, rows: Tensor, flip: Tensor) -> View:
        """A photo as it is, but for its lids, and where it was moved to."""
        batch = len(rows)
        move = random_similarity(dice, batch, angle=0.06, scale=0.045, shift_px=4.0, flip=flip)
        blinks = self._blinks(dice, batch, BLINK_RATE)
        goal = move.move(close_eyes(self.faces.landmarks[rows], blinks))
        at = move.origin(self.swapper.warper.pixels)
        image = self._crop(rows, at, blinks)
        return View(image, self._mirrored(goal, flip), move, blinks)

    def _supervised(self, batch: int, own_swaps: bool) -> Supervised:
        dice, faces = self.dice, self.faces
        a, b = dice.weighted(self._bare, batch), dice.weighted(self._bare, batch)
        same_photo = dice.chance(0.25, batch) > 0.5
        a_source = torch.where(same_photo, a, self._other_photo(a))
        flip = dice.chance(0.5, batch)
        view = self._target_view(dice, a, flip)
        truth = change_light(dice, view.image, 0.5)
        strength = dice.uniform(batch, 1, low=0.3, high=1.1)
        shape = neutral_shape(faces, a) + self.likeness.move(a, b, strength)
        shape = close_eyes(place_shape(faces, a, shape), view.blinks)
        b_shape = self._mirrored(view.moved_by.move(shape), flip)
        b_view = self._source_view(dice, b, dice.chance(0.5, batch), 1.0)
        target, landmarks = self._paste(truth, view.landmarks, b_view, b_shape), b_shape
        if own_swaps and (half := batch // 2):
            own, own_landmarks = self._own_swap(truth[:half], view.landmarks[:half],
                                                (b_view[0][:half], b_view[1][:half]))  # fmt: skip
            target = torch.cat([own, target[half:]])
            landmarks = torch.cat([own_landmarks, landmarks[half:]])
        source_flip = torch.where(dice.chance(0.85, batch) > 0.5, flip, 1 - flip)
        source, source_landmarks = self._source_view(dice, a_source, source_flip, 1.0)
        shaded = cast_shadow(dice, source, SHADOW_RATE)
        source = self._hide(dice, source, source_landmarks).over(shaded)
        landmarks = landmark_noise(dice, faces, landmarks)
        source_landmarks = landmark_noise(dice, faces, source_landmarks)
        retargeted = self.swapper.retargeter(landmarks, source_landmarks)
        # The retargeter cannot know the truth to the pixel.
        known = (dice.chance(0.8, batch) > 0.5)[:, None, None]
        goal = torch.where(known, view.landmarks[..., :2], retargeted)
        prepared = self.swapper.prepare(target, landmarks, source, source_landmarks, goal)
        occluder = self._occlude(dice, goal, prepared.target)
        return Supervised(_occluded(prepared, occluder), occluder.over(truth), occluder.alpha)

    def _hide(self, dice: Dice, image: Tensor, landmarks: Tensor) -> Occluder:
        """Glasses, a fringe and the like on a source, which the swap must not carry along."""
        rate, kinds = SOURCE_OCCLUDER_RATE, ON_SOURCES
        drawn = draw_occluders(dice, self.faces, landmarks, rate=rate, kinds=kinds, own=image)
        if not len(self.glasses.wearers):
            return drawn
        lent = per_image(dice.chance(LENT_GLASSES_RATE, len(image))) > 0.5
        real = self.glasses.put_on(dice, landmarks)
        return Occluder(*(torch.where(lent, a, b) for a, b in zip(real, drawn, strict=True)))

    def _paste(
        self, truth: Tensor, landmarks: Tensor, b_view: tuple[Tensor, Tensor], b_shape: Tensor
    ) -> Tensor:
        """B's pixels on A's photo, in its light, with a soft uneven share of the face covered."""
        dice, batch = self.dice, len(truth)
        prepared = self.swapper.prepare(truth, landmarks, *b_view, b_shape[..., :2])
        base, moved, labels = prepared.target, prepared.source[:, :3], prepared.labels
        kind = dice.uniform(batch, 1, 1, 1)
        cover = near_face(labels)

        def coarse(x: Tensor) -> Tensor:
            fine, middle, rough = (enlarge(F.avg_pool2d(x, size)) for size in (8, 16, 32))
            return torch.where(kind < 1 / 3, fine, torch.where(kind < 2 / 3, middle, rough))

        lit = moved + coarse((base - moved) * cover) / (coarse(cover) + 0.05)
        unlit = dice.uniform(batch, 1, 1, 1) >= 0.96
        lit = torch.where(unlit, moved, lit).clamp(0, 1)
        inner, start = blur(labels[:, :1], 25), dice.uniform(batch, 1, 1, 1, low=0.25, high=0.75)
        share = ((inner - start) / 0.25).clamp(0, 1)
        share = share * (1 - labels[:, 1:2] * per_image(dice.chance(0.9, batch)))
        share = share * (1 - labels[:, 2:3] * per_image(dice.chance(0.8, batch)))
        # Where the mask must fade, a pasted face could not be painted out again.
        share = share * reach(labels)
        whole = dice.chance(0.75, batch)
        share = share * per_image(whole + (1 - whole) * dice.uniform(batch))
        return base + (lit - base) * share

    def _own_swap(
        self, truth: Tensor, landmarks: Tensor, b_view: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The averaged network's swap of B onto the photos, and its landmarks."""
        prepared = self.teacher.prepare(truth, landmarks, *b_view)
        with autocast(truth.device):
            swapped = self.teacher.paint(prepared)
        depth = landmarks[..., 2:]
        return swapped.image.float().clamp(0, 1), torch.cat([prepared.landmarks, depth], -1)

    def _calm_swap(self, target: tuple[Tensor, Tensor], source: tuple[Tensor, Tensor]) -> Tensor:
        """Mean of the averaged network's swaps of a pair and its mirror image, (B, 3, 256, 256).

        What it makes up, such as lines, differs between the two; what it knows does not.
        """
        prepared = self.teacher.prepare(*target, *source)
        with autocast(target[0].device):
            swapped, mirrored = (
                self.teacher.paint(x).image for x in (prepared, mirror_prepared(prepared))
            )
        return (swapped + mirrored.flip(-1)) / 2

    def _crossed(self, batch: int, own_swaps: bool) -> Crossed:
        faces = self.faces
        followed = self._frames
        neighbours = batch // 8 if len(followed) else 0
        free, dice = self.dice, self.dice.tying(neighbours)
        target, source = dice.weighted(self._any, batch), dice.weighted(self._bare, batch)
        if neighbours:
            now = followed[free.integers(len(followed), neighbours)]
            rest = target[: batch - 2 * neighbours]
            target = torch.cat([rest, now, faces.neighbour[now]])
        view = self._target_view(dice, target, dice.chance(0.5, batch))
        image = change_light(dice, view.image, 0.5)
        shown, shown_landmarks = self._source_view(dice, source, dice.chance(0.5, batch), 0.8)
        hidden = self._hide(dice, shown, shown_landmarks)
        clean = (image, view.landmarks), (shown, shown_landmarks)
        noisy = [landmark_noise(free, faces, points) for _, points in clean]
        disturbed = hidden.over(cast_shadow(dice, shown, SHADOW_RATE))
        prepared = self.swapper.prepare(image, noisy[0], disturbed, noisy[1])
        warped = sample_pixels(shown, prepared.source_at)
        occluder = self._occlude(dice, prepared.landmarks, prepared.target)
        worn = frames(prepared.target, prepared.landmarks, prepared.labels)
        return Crossed(
            _occluded(prepared, occluder),
            torch.maximum(occluder.alpha, worn * per_image(faces.worn[target])),
            sample_pixels(hidden.alpha, prepared.source_at),
            light(prepared.target, warped, prepared.labels)[:, 3:],
            self.swapper.retargeter(view.landmarks, shown_landmarks),
            self._calm_swap(*clean) if own_swaps else None,
            faces.embeddings[source],
            faces.embeddings[target],
            faces.person[target] == faces.person[source],
            neighbours,
        )


def _occluded(prepared: Prepared, occluder: Occluder) -> Prepared:
    """The occluder over the warped target; the source's light is taken from what is then seen."""
    target = occluder.over(prepared.target)
    source = light(target, prepared.source[:, :3], prepared.labels)
    return prepared._replace(target=target, source=source)


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU, plain float32 on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
