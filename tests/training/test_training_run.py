"""A few steps of a small network on drawn faces: it learns, goes on, and can be exported."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from training.checkpoints import STUDENT, SWAPPER_FILE, load_swapper
from training.export import export_error, export_network, pack_source
from training.faces import Faces
from training.judges import Landmarker, Recogniser
from training.networks import Swapper, mirror_prepared
from training.retarget import Likeness, fit_retargeter, landmark_pairs
from training.train import CHECKPOINT, StopRequest, parse_arguments, train
from training.trainer import Trainer, TrainerSettings

pytestmark = pytest.mark.training
CPU = torch.device("cpu")
CHANNELS, NARROW = (8, 12, 16, 16), (4, 6, 8, 8)
SMALL = TrainerSettings(
    batch=1, learning_rate=2e-3, retargeter_steps=5, channels=CHANNELS, student=NARROW
)
EXPORT_TOLERANCE = 1e-4
"""Of values in [0, 1]; 1e-5 is seen. Sums are made in another order."""


@pytest.fixture
def trainer(data: Path) -> Trainer:
    faces = Faces.load(data, CPU)
    judges = Recogniser(data / "sface.onnx").eval(), Landmarker(data / "landmarker.onnx").eval()
    return Trainer(faces, *judges, SMALL, seed=0, device=CPU)


def run(data: Path, out: Path, steps: int, *more: str) -> Trainer:
    small = ["--batch", "2", "--retargeter-steps", "5", "--adversary-from", "0",
             "--own-swaps-from", "0", "--channels", *map(str, CHANNELS),
             "--student", *map(str, NARROW)]  # fmt: skip
    arguments = ["--data", str(data), "--out", str(out), "--steps", str(steps), *small, *more]
    return train(parse_arguments(arguments))


def test_the_losses_of_one_batch_fall(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Something is in front of both targets, or the mask has nothing to learn.
    monkeypatch.setattr("training.pairs.OCCLUDER_RATE", 1.0)
    monkeypatch.setattr("training.pairs.SOURCE_OCCLUDER_RATE", 0.0)
    monkeypatch.setattr("training.pairs.SHADOW_RATE", 0.0)
    trainer.fit_retargeter()
    batch = trainer.pairs.make(1, own_swaps=False)
    monkeypatch.setattr(trainer.pairs, "make", lambda *_, **__: batch)
    monkeypatch.setattr("training.trainer._WARM_UP_STEPS", 1)
    found = []
    for _ in range(28):
        trainer.advance()
        found.append(trainer.read_means())
    # The student follows a teacher that changes, and begins from nothing with every weight small.
    # Features are those of random judges, which see mostly the occluder.
    limits = {"truth": 0.7, "mask": 0.6, "features": 0.9, "student": 0.9}
    begun, ended = (
        {name: np.mean([row[name] for row in rows]) for name in limits}
        for rows in (found[:2], found[-2:])
    )
    left = {name: float(ended[name] / begun[name]) for name in limits}
    assert all(left[name] < limit for name, limit in limits.items()), f"{left = }"


def test_a_resumed_run_equals_an_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    whole = run(data, tmp_path / "whole", 2)
    run(data, tmp_path / "parts", 1)
    parts = run(data, tmp_path / "parts", 2, "--resume")
    for one, other in ((whole.averaged, parts.averaged), (whole.student, parts.student)):
        for name, wanted in one.state_dict().items():
            assert torch.equal(other.state_dict()[name], wanted), name
    assert (tmp_path / "parts" / CHECKPOINT).stat().st_size > 0
    assert not list((tmp_path / "parts").glob("*.partial"))


def test_weights_come_back_in_half_precision(trainer: Trainer, tmp_path: Path) -> None:
    trainer.step = 7
    trainer.export_weights(tmp_path)
    stored, step = load_swapper(tmp_path / SWAPPER_FILE)
    assert step == 7
    with np.load(tmp_path / SWAPPER_FILE, allow_pickle=False) as arrays:
        assert all(arrays[key].dtype == np.float16 for key in arrays if key.startswith("gen"))
    for name, wanted in trainer.averaged.generator.state_dict().items():
        torch.testing.assert_close(
            stored.generator.state_dict()[name], wanted, atol=1e-6, rtol=1e-3
        )


def test_the_student_is_kept_beside_and_gone_on_with(trainer: Trainer, tmp_path: Path) -> None:
    trainer.export_weights(tmp_path)
    stored, _ = load_swapper(tmp_path / STUDENT / SWAPPER_FILE)
    assert stored.generator.entry.out_channels == NARROW[0]
    wanted = trainer.student.averaged.entry.weight.clone()
    torch.nn.init.zeros_(trainer.student.learning.entry.weight)
    trainer.start_from_weights(tmp_path)
    for generator in (trainer.student.learning, trainer.student.averaged, stored.generator):
        torch.testing.assert_close(generator.entry.weight, wanted, atol=1e-6, rtol=1e-3)


def test_the_exported_network_equals_pytorch_for_any_batch(
    trainer: Trainer, tmp_path: Path
) -> None:
    trainer.fit_retargeter()
    swapper: Swapper = trainer.averaged
    path = tmp_path / "swapper.onnx"
    export_network(swapper, path)
    outputs = onnx.load(str(path)).graph.output
    shapes = [[d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in outputs]
    assert shapes == [["N", 3, 256, 256], ["N", 1, 256, 256]]
    for batch in (1, 3):
        rows = torch.arange(batch)
        crops = trainer.faces.pixels[rows, :, 32:288, 32:288].float() / 255
        marks = trainer.faces.landmarks[rows]
        source = pack_source(crops.flip(0), marks.flip(0))
        error = export_error(swapper, path, (crops, marks / 256, source))
        assert error < EXPORT_TOLERANCE, f"batch {batch}: {error:.1e}"


def test_the_retargeter_learns_to_take_shapes(trainer: Trainer) -> None:
    retargeter = trainer.swapper.retargeter.requires_grad_(True)
    error = fit_retargeter(retargeter, trainer.faces, trainer.dice, steps=60, batch=64)
    pairs = landmark_pairs(trainer.faces, Likeness(trainer.faces), trainer.dice, 256)
    unmoved = (pairs.truth - pairs.target[..., :2]).pow(2).mean().sqrt()
    assert error < 0.8 * unmoved


def test_the_retargeter_alone_is_fitted_anew(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "old", 1)
    fitted = run(data, tmp_path / "new", 0, "--start", str(tmp_path / "old"), "--fit-retargeter")
    assert fitted.step == trained.step == 1
    for name in (SWAPPER_FILE, f"{STUDENT}/{SWAPPER_FILE}"):
        with np.load(tmp_path / "old" / name) as old, np.load(tmp_path / "new" / name) as new:
            changed = {key for key in old.files if not np.array_equal(old[key], new[key])}
        assert changed
        assert {key.split(".")[0] for key in changed} == {"retargeter"}


def test_neighbouring_frames_get_one_source_and_one_light(trainer: Trainer) -> None:
    crossed = trainer.pairs.make(8, own_swaps=False).crossed
    assert crossed.neighbours == 1
    assert torch.equal(crossed.source_embedding[-1], crossed.source_embedding[-2])
    assert (
        torch.equal(crossed.occluder[-1] > 0, crossed.occluder[-2] > 0)
        or (crossed.occluder[-1] - crossed.occluder[-2]).abs().mean() < 0.05
    )
    assert not torch.equal(crossed.target_embedding[-1], crossed.target_embedding[-2])


def test_what_is_wanted_of_a_pair_is_the_pair_undisturbed(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trainer.pairs.make(4, own_swaps=False).crossed.calm is None
    for name in ("OCCLUDER_RATE", "SOURCE_OCCLUDER_RATE", "LENT_GLASSES_RATE", "SHADOW_RATE"):
        monkeypatch.setattr(f"training.pairs.{name}", 0.0)
    monkeypatch.setattr("training.pairs.landmark_noise", lambda dice, faces, points: points)
    crossed = trainer.pairs.make(4, own_swaps=True).crossed
    prepared = crossed.prepared
    assert torch.equal(crossed.goal, prepared.landmarks)
    torch.testing.assert_close(crossed.wanted, prepared.source[:, 3:])
    ways = [trainer.averaged.paint(x).image for x in (prepared, mirror_prepared(prepared))]
    torch.testing.assert_close(crossed.calm, (ways[0] + ways[1].flip(-1)) / 2)

    monkeypatch.setattr("training.pairs.SOURCE_OCCLUDER_RATE", 1.0)
    crossed = trainer.pairs.make(4, own_swaps=True).crossed
    differs = (crossed.wanted - crossed.prepared.source[:, 3:]).abs().amax(1, keepdim=True)
    assert (differs * (crossed.erased > 0.9)).max() > 0.1


def test_an_interrupt_is_kept_until_the_step_is_done() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop = StopRequest()
        signal.raise_signal(signal.SIGINT)
        assert stop.given
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
