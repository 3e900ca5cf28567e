"""From photos to a data directory, and the measures of the evaluation."""

from __future__ import annotations

from pathlib import Path

import cv2
import drawn_faces
import numpy as np
import pytest
import torch

from training import measures
from training.augment import align_five_points
from training.dice import Dice
from training.evaluate import Evaluation
from training.face_mesh import ARCFACE_128, LEFT_EYE, OVAL, RIGHT_EYE, mirror_points
from training.faces import Faces, HeldOut
from training.lent_glasses import LentGlasses
from training.networks import Prepared, Swapped, Swapper
from training.occluders import KINDS, ON_TARGETS, draw_occluders
from training.prepare import MOST_ENLARGED, Face, crop_face, split
from training.shapes import fit_pose, fit_shapes
from training.train import parse_arguments
from training.warping import pixel_grid, sample_pixels
from training.worn import WEARER, frames, glasses_score

pytestmark = pytest.mark.training
CPU = torch.device("cpu")


def face(person: str, embedding: np.ndarray) -> Face:
    return Face(np.zeros((320, 320, 3), np.uint8), np.zeros((478, 3)), embedding, person, "drawn")


def test_every_row_of_the_directory_comes_back(data: Path) -> None:
    faces = Faces.load(data, CPU)
    assert len(faces) == drawn_faces.PEOPLE * drawn_faces.PHOTOS
    assert faces.pixels.shape[1:] == (3, 320, 320)
    assert faces.frequency[0] == 1
    assert faces.frequency[-1] == pytest.approx(0.45)
    assert faces.count.tolist() == [drawn_faces.PHOTOS] * len(faces)
    assert faces.frames_with_neighbour.tolist() == [len(faces) - 3, len(faces) - 2]


def test_every_fourth_speaker_is_kept_out_of_training(data: Path, tmp_path: Path) -> None:
    for name in ("train0.npz", "geometry.npz"):
        (tmp_path / name).symlink_to(data / name)
    with np.load(data / "train_meta.npz") as stored:
        table = {key: stored[key] for key in stored.files}
    table["sets"] = np.full(len(table["pid"]), "grid")
    np.savez(tmp_path / "train_meta.npz", **table)
    faces = Faces.load(tmp_path, CPU)
    kept_out = torch.nonzero(faces.frequency == 0)[:, 0]
    assert kept_out.tolist() == torch.nonzero(faces.person == 3)[:, 0].tolist()
    assert not set(kept_out.tolist()) & set(faces.frames_with_neighbour.tolist())
    drawn = Dice.seeded(0, CPU).weighted(faces.frequency, 500)
    assert not set(kept_out.tolist()) & set(drawn.tolist())


def with_glasses(faces: Faces, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Drawn faces with round frames, and where the frames are: (B, 256, 256) bool."""
    crops = faces.pixels[rows, :, 32:288, 32:288].permute(0, 2, 3, 1).numpy().copy()
    drawn = np.zeros(crops.shape[:3], np.uint8)
    for image, ring, marks in zip(crops, drawn, faces.landmarks[rows].numpy(), strict=True):
        eyes = [marks[list(eye), :2].mean(0) for eye in (RIGHT_EYE, LEFT_EYE)]
        radius = round(float(np.linalg.norm(eyes[1] - eyes[0])) * 0.38)
        for x, y in eyes:
            cv2.circle(image, (round(x), round(y)), radius, (20, 20, 20), 3, cv2.LINE_AA)
            cv2.circle(ring, (round(x), round(y)), radius, 255, 3, cv2.LINE_AA)
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(drawn == 255)


def test_wearers_of_glasses_are_found_and_where_their_frames_are(data: Path) -> None:
    faces, rows = Faces.load(data, CPU), slice(0, 6)
    worn, ring = with_glasses(faces, rows)
    bare, marks = faces.pixels[rows, :, 32:288, 32:288].float() / 255, faces.landmarks[rows]
    assert glasses_score(worn, marks).min() > WEARER > glasses_score(bare, marks).max()
    labels = torch.zeros(6, 5, 256, 256)
    found = (frames(worn, marks, labels) - frames(bare, marks, labels))[:, 0]
    assert found[ring].mean() > 0.7
    assert found[~ring].abs().mean() < 0.05
    labels[:, 2] = 1
    assert frames(worn, marks, labels).max() == 0


def test_a_grey_picture_has_no_wearer(data: Path) -> None:
    faces, rows = Faces.load(data, CPU), slice(0, 6)
    worn, _ = with_glasses(faces, rows)
    grey = worn.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert glasses_score(grey, faces.landmarks[rows]).max() == 0


def test_some_fringes_are_of_the_own_hair(data: Path) -> None:
    faces = Faces.load(data, CPU)
    only = tuple(float(kind == "fringe") for kind in KINDS)
    own = torch.zeros(18, 3, 256, 256)
    own[:, 0, :70] = 1  # Red above, black below.
    marks = faces.landmarks[:18]
    shown = draw_occluders(Dice.seeded(0, CPU), faces, marks, rate=1.0, kinds=only, own=own)
    reddest = (shown.colour == torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)).all(1)[:, :90]
    # Half of them are meant; fewer than 4 or more than 14 of 18 are drawn once in 130 times.
    assert 4 <= (reddest.float().mean((1, 2)) > 0.9).sum() <= 14


def test_some_hands_are_of_the_own_skin(data: Path) -> None:
    faces = Faces.load(data, CPU)
    only = tuple(float(kind == "hand") for kind in KINDS)
    own = torch.tensor([0.2, 0.6, 0.1]).view(1, 3, 1, 1).expand(18, -1, 256, 256)
    marks = faces.landmarks[:18]
    shown = draw_occluders(Dice.seeded(1, CPU), faces, marks, rate=1.0, kinds=only, own=own)
    tone = shown.colour.mean((2, 3))
    hue = tone / tone.sum(1, keepdim=True) - torch.tensor([0.2, 0.6, 0.1]) / 0.9
    # Half of them are meant; fewer than 4 or more than 14 of 18 are drawn once in 130 times.
    assert 4 <= (hue.abs().amax(1) < 0.06).sum() <= 14


def test_lent_glasses_lie_where_their_owner_wears_them(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = Faces.load(data, CPU)
    rows = slice(0, 1)
    worn, _ = with_glasses(faces, rows)
    faces.pixels[rows, :, 32:288, 32:288] = (worn * 255).round().byte()
    faces.worn[:] = 0
    faces.worn[0] = 1
    swapper = Swapper(drawn_faces.mean_shape(), (4, 4, 4, 4))
    lent = LentGlasses(faces, swapper).put_on(Dice.seeded(0, CPU), faces.landmarks[rows])
    assert (lent.alpha > 0.9).sum() > 100
    shown = lent.alpha.expand_as(worn) > 0
    # A byte a channel is half a level off.
    torch.testing.assert_close(lent.colour[shown], worn[shown], atol=0.003, rtol=0)


def test_crops_that_do_not_belong_to_the_table_are_refused(data: Path, tmp_path: Path) -> None:
    for name in ("train_meta.npz", "geometry.npz"):
        (tmp_path / name).symlink_to(data / name)
    (tmp_path / "train0.npz").symlink_to(data / "eval0.npz")
    with pytest.raises(ValueError, match="4 crops, 18 rows"):
        Faces.load(tmp_path, CPU)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"eval0\.npz is not there"):
        HeldOut.load(tmp_path)


def test_the_drawn_mean_face_is_its_own_mirror_image() -> None:
    mean = drawn_faces.mean_shape()
    mirror = mirror_points(mean)
    np.testing.assert_allclose(mean[mirror] * [-1, 1, 1], mean, atol=1e-5)
    assert (mirror[list(OVAL)] != list(OVAL)).sum() == len(OVAL) - 2


def test_a_pose_is_found_again() -> None:
    mean = drawn_faces.mean_shape().astype(np.float64)
    angle = 0.3
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    pose = fit_pose(1.7 * mean @ turn.T + [3, 4, 5], mean)
    np.testing.assert_allclose(pose.rotation, turn, atol=1e-9)
    assert pose.scale == pytest.approx(1.7)
    np.testing.assert_allclose(pose.shift, [3, 4, 5], atol=1e-9)


def test_shapes_are_told_apart_and_put_together_again() -> None:
    draw, mean = np.random.default_rng(0), drawn_faces.mean_shape().astype(np.float64)
    person = np.repeat(np.arange(12), 3)
    smile, wide = draw.normal(size=(2, 478, 3)) * 0.05
    landmarks = np.stack([
        mean + draw.normal() * smile + (who - 5.5) * wide / 4 + draw.normal(size=(478, 3)) * 1e-3
        for who in person
    ])  # fmt: skip
    shapes = fit_shapes(landmarks, person)
    assert shapes.expression.shape == (16, 1434)
    assert np.abs(shapes.expression[0] @ smile.ravel()) > 0.95 * np.linalg.norm(smile)
    made = shapes.expressions @ shapes.expression + shapes.identities @ shapes.identity
    pose = shapes.poses[5]
    again = pose.scale * (shapes.mean + made[5].reshape(478, 3)) @ pose.rotation.T + pose.shift
    np.testing.assert_allclose(again, landmarks[5], atol=0.02)


def test_a_crop_has_its_five_points_on_the_template() -> None:
    photo = np.zeros((600, 500, 3), np.uint8)
    points = ARCFACE_128 * 400 + [40, 60]
    for x, y in points.round().astype(int):
        photo[y - 2 : y + 3, x - 2 : x + 3] = (0, 0, 255)
    crop = crop_face(photo, points)
    for x, y in (ARCFACE_128 * 256 + 32).round().astype(int):
        assert crop[y, x, 0] > 150
    assert crop_face(photo, ARCFACE_128 * 256 / (MOST_ENLARGED + 0.1)) is None


def test_lookalikes_of_kept_out_people_are_in_neither_part() -> None:
    one, other, third = np.eye(128)[:3]
    faces = [face("a", one), face("b", other), face("c", third)]
    chosen = split(faces, 1, seed=0)[1][0]
    twin = face("twin", faces[chosen].embedding)
    train, kept_out = split([*faces, twin], 1, seed=0) if chosen != 3 else ([], [])
    assert 3 in kept_out or 3 not in train


def test_every_kind_of_occluder_covers_some_of_the_face_and_not_all(data: Path) -> None:
    faces = Faces.load(data, CPU)
    for k, kind in enumerate(KINDS):
        only = tuple(float(k == j) for j in range(len(KINDS)))
        own, marks = torch.full((6, 3, 256, 256), 0.5), faces.landmarks[:6]
        drawn = draw_occluders(Dice.seeded(k, CPU), faces, marks, rate=1.0, kinds=only, own=own)
        assert 0.001 < drawn.alpha.mean() < 0.9, kind
        assert drawn.colour.min() >= 0, kind
        assert drawn.colour.max() <= 1, kind
    assert sum(ON_TARGETS) == pytest.approx(1)


def test_an_untouched_target_has_no_rim_and_no_error() -> None:
    labels = torch.zeros(1, 5, 256, 256)
    labels[:, 0, 60:220, 70:190] = 1
    image, nothing = torch.rand(1, 3, 256, 256), torch.zeros(1)
    prepared = Prepared(image, nothing, labels, nothing, nothing, nothing)
    swapped = Swapped(image, torch.zeros(1, 1, 256, 256))
    assert measures.rim_steps(swapped, prepared).item() == pytest.approx(1)
    assert measures.colour_error(image, image).item() == 0


def test_a_head_that_is_turned_by_nothing_is_only_aligned(data: Path) -> None:
    evaluation, swapper = Evaluation(data), Swapper(drawn_faces.mean_shape(), (4, 4, 4, 4))
    with torch.inference_mode():
        image = evaluation.held_out.crops[:1]
        place = align_five_points(evaluation.landmarks(image))
        straight = evaluation._turn(swapper, 0, 0.0)
        aligned = sample_pixels(image, place.origin(pixel_grid()))
        left, right = (evaluation._turn(swapper, 0, yaw) for yaw in (-0.6, 0.6))
    torch.testing.assert_close(straight, aligned, atol=1e-3, rtol=0)
    assert (left - straight).abs().mean() > 0.005
    assert (left - right).abs().mean() > 0.01


def test_the_evaluations_occluders_lie_on_the_face() -> None:
    marks = (drawn_faces.mean_shape() + drawn_faces.CENTRE).astype(np.float32)
    for draw in (*measures.OCCLUDERS.values(), measures.draw_fringe):
        inside = measures.eroded(draw(marks).alpha) * measures.inner_face()
        assert inside.sum() > 300


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse_arguments(["--help"])
    text = capsys.readouterr().out
    for option in ("--data", "--resume", "--seconds", "--seed", "--weight-identity"):
        assert option in text
