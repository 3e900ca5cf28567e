"""Warps, alignments and judges against NumPy and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import drawn_faces
import numpy as np
import onnxruntime as ort
import pytest
import torch

from training import face_mesh
from training.augment import (
    align_five_points,
    cast_shadow,
    close_eyes,
    lid_offsets,
    neutral_shape,
    place_shape,
    random_similarity,
)
from training.colours import distance_to_mixture, distance_to_surroundings
from training.dice import Dice
from training.faces import Faces
from training.frozen import FrozenNetwork
from training.measures import eye_opening
from training.networks import Paint, Prepared, Swapper, compose, mirror_prepared, reach
from training.retarget import Likeness, person_share
from training.warping import GRID, Warper, pixel_grid, sample_pixels

pytestmark = pytest.mark.training
CPU = torch.device("cpu")
FLOAT32 = 2e-3
"""px. Sums over 478 points in float32 against float64."""


def landmarks(batch: int = 2, spread: float = 2.0) -> torch.Tensor:
    noise = np.random.default_rng(2).normal(size=(batch, 478, 3)) * spread
    shape = drawn_faces.mean_shape() + drawn_faces.CENTRE + noise
    return torch.from_numpy(shape.astype(np.float32))


def reference_field(points: np.ndarray, values: np.ndarray, softness: np.ndarray) -> np.ndarray:
    """The module docstring's formula, one grid node at a time: (4096, C), nothing anchored."""
    centre = (np.arange(GRID) + 0.5) * (256 / GRID) - 0.5
    found = []
    for y in centre:
        for x in centre:
            squared = ((points - (x, y)) ** 2).sum(1)
            weight = (softness / (squared + softness)) ** 2
            found.append((weight[:, None] * values).sum(0) / weight.sum())
    return np.array(found)


def test_a_field_is_the_weighted_mean_of_the_landmarks_values() -> None:
    warper, points = Warper(drawn_faces.mean_shape()), landmarks(1)[..., :2]
    values = torch.from_numpy(np.random.default_rng(3).normal(size=(1, 478, 3))).float()
    field = warper.fields(points, values, anchored=0)[0].reshape(3, -1).T.numpy()
    arrays = (x.double().numpy() for x in (points[0], values[0], warper.softness))
    np.testing.assert_allclose(field, reference_field(*arrays), atol=FLOAT32)


def test_a_face_that_does_not_move_is_sampled_where_it_is() -> None:
    warper, points = Warper(drawn_faces.mean_shape()), landmarks()[..., :2]
    at = warper.positions(warper.fields(points, torch.zeros_like(points), anchored=2))
    torch.testing.assert_close(at, pixel_grid().expand_as(at))


def test_eyes_and_mouth_are_as_open_as_the_targets() -> None:
    target, source = landmarks(2, 1.0), landmarks(2, 2.0).flip(0)
    retargeter = Swapper(drawn_faces.mean_shape(), (8, 8, 8, 8)).retargeter
    torch.nn.init.normal_(retargeter.outputs, 0, 1.0)
    with torch.no_grad():
        goal = retargeter(target, source)
    assert (goal - target[..., :2]).abs().mean() > 0.01
    for upper, lower in face_mesh.OPENINGS:
        wanted = target[:, lower, :2] - target[:, upper, :2]
        torch.testing.assert_close(goal[:, lower] - goal[:, upper], wanted, atol=1e-3, rtol=0)


def test_labels_lie_where_the_landmarks_say() -> None:
    swapper, points = Swapper(drawn_faces.mean_shape(), (8, 8, 8, 8)), landmarks(1, 0.0)
    crop = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        labels = swapper.prepare(crop, points, crop, points, points[..., :2]).labels[0]
    for k, point in ((0, 1), (2, 468), (2, 473), (3, 17)):
        x, y = points[0, point, :2].round().int().tolist()
        y -= 3 if point == 17 else 0
        assert labels[k, y, x] > 0.4, (k, point)
    assert labels[:, 2, 2].sum() == 0


def test_the_five_points_are_put_on_the_template() -> None:
    moved = random_similarity(
        Dice.seeded(0, CPU), 2, angle=0.2, scale=0.1, shift_px=9, flip=torch.zeros(2)
    ).move(landmarks())
    ours = align_five_points(moved).move(moved)[0, :, :2].numpy()
    five = moved[0, list(face_mesh.FIVE_POINTS), :2].double().numpy()
    warp = face_mesh.fit_similarity(five, face_mesh.ARCFACE_128 * 256)
    wanted = moved[0, :, :2].double().numpy() @ warp[:, :2].T + warp[:, 2]
    np.testing.assert_allclose(ours, wanted, atol=FLOAT32)


def test_a_similaritys_origin_undoes_its_move() -> None:
    dice = Dice.seeded(4, CPU)
    flip = torch.tensor([0.0, 1.0])
    similarity = random_similarity(dice, 2, angle=0.1, scale=0.1, shift_px=5, flip=flip)
    at = pixel_grid().expand(2, -1, -1, -1)
    marks = torch.cat([at.flatten(2).transpose(1, 2), torch.zeros(2, 256 * 256, 1)], 2)
    back = similarity.origin(similarity.move(marks)[..., :2].transpose(1, 2).view_as(at))
    torch.testing.assert_close(back, at, atol=FLOAT32, rtol=0)


def test_an_upright_shape_in_its_own_pose_is_the_photos(data: Path) -> None:
    faces = Faces.load(data, CPU)
    rows = torch.arange(len(faces))
    same = place_shape(faces, rows, neutral_shape(faces, rows))
    torch.testing.assert_close(same, faces.landmarks, atol=FLOAT32, rtol=0)


def test_what_photos_of_one_person_share_is_the_persons() -> None:
    # Four coordinates, independent: variance among people, and between photos of one.
    people, photos = np.array([9.0, 9.0, 4.0, 0.0]), np.array([0.0, 1.0, 4.0, 3.0])
    draw, count = np.random.default_rng(5), 4000
    who = np.repeat(np.arange(count), 2)
    person = draw.normal(size=(count, 4)) * np.sqrt(people)
    table = person[who] + draw.normal(size=(2 * count, 4)) * np.sqrt(photos)
    mixed, _ = np.linalg.qr(draw.normal(size=(4, 4)))
    share = person_share(torch.from_numpy(table @ mixed.T), torch.from_numpy(who)).double().numpy()
    wanted = np.clip(1 - 2 * photos / (people + photos), 0, 1)
    # 4,000 people: a ratio of variances is known to 2 %.
    np.testing.assert_allclose(mixed.T @ share @ mixed, np.diag(wanted), atol=0.06)
    with pytest.raises(ValueError, match="nobody has two photos"):
        person_share(torch.from_numpy(table), torch.arange(2 * count))


def test_mouth_and_eyes_stay_when_a_face_takes_anothers_shape(data: Path) -> None:
    faces = Faces.load(data, CPU)
    likeness, rows, others = Likeness(faces), torch.tensor([0, 4]), torch.tensor([9, 13])
    held = ((face_mesh.EXPRESSION + face_mesh.IRISES, 0.0), (face_mesh.OVAL, 0.5))
    for points, share in held:
        assert likeness.free[list(points)].numpy() == pytest.approx(share)
    assert likeness.free.max() == 1
    moved = likeness.move(rows, others)
    assert moved.abs().amax((1, 2)).min() > 0.5
    assert likeness.move(rows, rows).abs().max() == 0
    # Nearly linear: the five points are aligned by a similarity.
    half = likeness.move(rows, others, 0.5)
    torch.testing.assert_close(half, moved / 2, atol=0.3, rtol=0)


def test_closing_eyes_moves_lids_and_only_pixels_at_the_eyes(data: Path) -> None:
    points, shut = landmarks(1, 0.0), torch.ones(1)
    offsets = lid_offsets(points, shut)[0, 0]
    assert offsets[:70].abs().max() == 0
    assert offsets[120:].abs().max() == 0
    assert offsets.min() < -3  # The upper lid's skin comes from above.
    assert eye_opening(close_eyes(points, shut)) < 0.5 * eye_opening(points)
    assert lid_offsets(points, torch.zeros(1)).abs().max() < 1e-4


def test_samples_between_pixels_are_their_mean() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    at = torch.tensor([1.5, 2.0]).view(1, 2, 1, 1)
    assert sample_pixels(image, at).item() == pytest.approx(9.5, abs=1e-5)


def test_outside_the_reach_a_swap_is_the_target() -> None:
    labels = torch.zeros(1, 5, 256, 256)
    labels[:, 0, 60:220, 70:190] = 1
    target = torch.rand(1, 3, 256, 256)
    empty = torch.zeros(1)
    prepared = Prepared(target, empty, labels, empty, empty, empty)
    swapped = compose(
        prepared, Paint(torch.ones(1, 3, 256, 256), torch.full((1, 1, 256, 256), 9.0))
    )
    outside = (reach(labels) == 0).expand_as(target)
    assert torch.equal(swapped.image[outside], target[outside])
    assert swapped.mask[0, 0, 140, 128] > 0.99


def test_a_mixture_of_two_colours_is_no_error_and_a_third_colour_is() -> None:
    red, green = (torch.zeros(1, 3, 1, 1) for _ in range(2))
    red[:, 0], green[:, 1] = 1, 1
    assert distance_to_mixture(0.3 * red + 0.7 * green, red, green).item() < 1e-3
    blue = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    assert distance_to_mixture(blue, red, green).item() > 0.4


def test_an_edge_may_move_a_little_and_a_line_of_no_ones_colour_is_an_error() -> None:
    target = torch.zeros(1, 3, 16, 32)
    target[..., 12:] = 0.8
    moved = target.roll(4, -1)
    assert distance_to_surroundings(moved, target, target, 9)[..., 9:].max() == 0
    assert distance_to_surroundings(target.roll(5, -1), target, target, 9)[..., 16].min() > 0.7
    for colour in ((1.0, 1.0, 1.0), (0.5, 0.2, 0.6)):
        line = target.clone()
        line[0, :, :, 20] = torch.tensor(colour)[:, None]
        found = distance_to_surroundings(line, target, target, 9)[0, 0]
        assert found[:, 20].min() > 0.15
        assert found[:, torch.arange(32) != 20].max() == 0


def test_what_one_of_two_pictures_shows_is_not_strange() -> None:
    dark, light = torch.full((1, 3, 8, 8), 0.1), torch.full((1, 3, 8, 8), 0.9)
    between = torch.full((1, 3, 8, 8), 0.5)
    assert distance_to_surroundings(between, dark, light, 3).max() < 1e-6
    # A grey differs in brightness alone.
    wanted = torch.full((1, 1, 8, 8), 0.4)
    torch.testing.assert_close(
        distance_to_surroundings(between, dark, dark, 3), wanted, atol=1e-3, rtol=0
    )


def test_a_pair_in_a_mirror_is_the_mirrored_pair(data: Path) -> None:
    faces = Faces.load(data, CPU)
    swapper = Swapper(drawn_faces.mean_shape(), (8, 8, 8, 8))
    crops, points = torch.rand(2, 3, 256, 256), landmarks()

    def mirrored(marks: torch.Tensor) -> torch.Tensor:
        return torch.cat([255 - marks[..., :1], marks[..., 1:]], -1)[:, faces.mirror]

    goal = points[..., :2] + torch.randn(2, 478, 2)
    source, source_points = crops.flip(0), points.flip(0)
    ours = mirror_prepared(swapper.prepare(crops, points, source, source_points, goal))
    theirs = swapper.prepare(
        crops.flip(-1), mirrored(points), source.flip(-1), mirrored(source_points), mirrored(goal)
    )
    # The drawn mean face is its own mirror image to 1e-5; at sharp edges of random pixels that is
    # more.
    for name in ("target", "source", "labels", "flow"):
        difference = (getattr(ours, name) - getattr(theirs, name)).abs()
        assert difference.mean() < 1e-3, name


def test_shadows_fall_on_a_share_of_the_photos() -> None:
    photos = torch.full((64, 3, 256, 256), 0.5)
    assert torch.equal(cast_shadow(Dice.seeded(0, CPU), photos, 0.0), photos)
    shaded = cast_shadow(Dice.seeded(0, CPU), photos, 0.5)
    changed = ((shaded - photos).abs().amax((1, 2, 3)) > 0.01).sum()
    assert 20 <= changed <= 44
    assert shaded.min() > 0.5 * 0.4  # exp(-0.9) is 0.41.
    assert shaded.max() < 0.5 * 1.5


@pytest.mark.parametrize(
    ("name", "shape"),
    [("sface.onnx", (3, 3, 112, 112)), ("landmarker.onnx", (2, 256, 256, 3))],
)
def test_a_frozen_network_gives_what_onnx_runtime_gives(
    data: Path, name: str, shape: tuple[int, ...]
) -> None:
    image = np.random.default_rng(5).uniform(0, 1, shape).astype(np.float32)
    frozen = FrozenNetwork(data / name)
    ours, _ = frozen(torch.from_numpy(image))
    theirs = ort.InferenceSession(str(data / name)).run(None, {"data": image[:1]})
    for wanted, got in zip(theirs, ours.values(), strict=True):
        np.testing.assert_allclose(got.numpy()[:1], wanted, atol=1e-3, rtol=1e-4)
