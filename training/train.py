"""Train the swapper: `python -m training.train --data DIR --out DIR`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import torch

from training.faces import Faces
from training.judges import Landmarker, Recogniser
from training.losses import LossWeights
from training.trainer import Trainer, TrainerSettings

CHECKPOINT = "checkpoint.pt"
_LEAST_RATE = 0.03


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults are shown where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description="Train the face swapper. Writes OUT/checkpoint.pt, OUT/log.jsonl, and the "
        "weights OUT/swapper.npz and OUT/discriminator.npz. Ctrl-C saves and stops.",
        epilog="Begin from nothing, from --start (weights, new optimisers), or --resume a run: the "
        "result is then the same as without the break. training/README.md has the data format.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="the data directory")
    add("--out", type=Path, required=True, metavar="DIR", help="where results are written")
    add("--start", type=Path, metavar="DIR", help="weights to begin from, such as weights/")
    add("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    add("--steps", type=int, default=40_000, help="stop at this step, those of --start included")
    add("--seconds", type=float, default=float("inf"), help="stop after this time")
    add("--cooldown-s", type=float, default=0.0, help="let the learning rate fall to 3 %% in the "
        "last so many seconds of --seconds")  # fmt: skip
    add("--batch", type=int, default=32, help="supervised pairs a step, and as many crossed")
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    add("--log-every", type=int, default=100, metavar="STEPS")
    add("--save-every-s", type=float, default=300.0, metavar="SECONDS", help="checkpoint interval")
    settings, weights = TrainerSettings(), LossWeights()
    add("--learning-rate", type=float, default=settings.learning_rate)
    add("--adversary-from", type=int, default=settings.adversary_from, metavar="STEP")
    add("--own-swaps-from", type=int, default=settings.own_swaps_from, metavar="STEP")
    add("--retargeter-steps", type=int, default=settings.retargeter_steps, metavar="STEPS")
    add("--fit-retargeter", action="store_true",
        help="fit it anew after --start; --steps 0 then does no more than that")  # fmt: skip
    add("--channels", type=int, nargs=4, default=settings.channels, metavar="C",
        help="of the U-Net's four sizes")  # fmt: skip
    add("--student", type=int, nargs=4, metavar="C",
        help="channels of a narrower U-Net that learns from the large one in the same steps; "
        "24 48 88 128 is the small variant, OUT/small/swapper.npz")  # fmt: skip
    add("--no-graph", action="store_true", help="do not replay steps as a CUDA graph")
    for name, default in vars(weights).items():
        add(f"--weight-{name}", type=float, default=default, help=f"of the {name} losses")
    return parser.parse_args(arguments)


class StopRequest:
    """Set by Ctrl-C or a termination signal; the step in progress is finished first."""

    def __init__(self) -> None:
        self.given = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._give)

    def _give(self, number: int, frame: FrameType | None) -> None:
        self.given = True


class Log:
    """Progress lines, to standard output and to OUT/log.jsonl."""

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._began, self._step = time.monotonic(), step

    def write(self, step: int, means: dict[str, float]) -> None:
        """One line: the means since the last."""
        speed = (step - self._step) / (time.monotonic() - self._began)
        values = {name: round(value, 4) for name, value in means.items()}
        line = json.dumps({"step": step, "steps_per_s": round(speed, 2)} | values)
        print(line, flush=True)
        with self._path.open("a") as file:
            file.write(line + "\n")
        self._began, self._step = time.monotonic(), step


def make_trainer(options: argparse.Namespace) -> Trainer:
    """Load the data and the judges, and begin or go on."""
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    names = LossWeights.__dataclass_fields__
    settings = TrainerSettings(
        batch=options.batch,
        learning_rate=options.learning_rate,
        adversary_from=options.adversary_from,
        own_swaps_from=options.own_swaps_from,
        retargeter_steps=options.retargeter_steps,
        channels=tuple(options.channels),
        graph=not options.no_graph,
        student=None if options.student is None else tuple(options.student),
        weights=LossWeights(**{name: getattr(options, f"weight_{name}") for name in names}),
    )
    faces = Faces.load(options.data, device)
    recogniser = Recogniser(options.data / "sface.onnx").to(device).eval()
    landmarker = Landmarker(options.data / "landmarker.onnx").to(device).eval()
    trainer = Trainer(faces, recogniser, landmarker, settings, seed=options.seed, device=device)
    if options.resume:
        trainer.resume(options.out / CHECKPOINT)
    elif options.start is not None:
        trainer.start_from_weights(options.start)
    if not options.resume and (options.start is None or options.fit_retargeter):
        print(f"retargeter: {trainer.fit_retargeter():.3f} px RMS", flush=True)
    frames = len(faces.frames_with_neighbour)
    print(f"{len(faces)} crops, {frames} with a next frame; step {trainer.step}", flush=True)
    return trainer


def train(options: argparse.Namespace) -> Trainer:
    """Run until the steps or the seconds are used up or a stop is asked for; then save."""
    began = time.monotonic()
    stop, trainer = StopRequest(), make_trainer(options)
    log = Log(options.out / "log.jsonl", trainer.step)
    saved = time.monotonic()
    while trainer.step < options.steps and not stop.given:
        left = options.seconds - (time.monotonic() - began)
        if left <= 0:
            break
        cooled = min(1.0, left / options.cooldown_s) if options.cooldown_s else 1.0
        trainer.advance(rate_factor=max(_LEAST_RATE, cooled))
        if trainer.step % options.log_every == 0:
            log.write(trainer.step, trainer.read_means())
        if time.monotonic() - saved > options.save_every_s:
            trainer.save(options.out / CHECKPOINT)
            trainer.export_weights(options.out)
            saved = time.monotonic()
    trainer.save(options.out / CHECKPOINT)
    trainer.export_weights(options.out)
    print(f"step {trainer.step}, {time.monotonic() - began:.0f} s", flush=True)
    return trainer


def main() -> int:
    """0 when done; 1 and one line where the input is wrong."""
    options = parse_arguments()
    if options.resume and options.start is not None:
        print("error: --resume and --start exclude each other", file=sys.stderr)
        return 2
    if options.resume and options.fit_retargeter:
        print("error: a run that goes on keeps its retargeter; leave --fit-retargeter out",
              file=sys.stderr)  # fmt: skip
        return 2
    try:
        train(options)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
