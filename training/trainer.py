"""One training step, and the state that a checkpoint keeps."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from training.checkpoints import (
    DISCRIMINATOR_FILE,
    STUDENT,
    SWAPPER_FILE,
    load_checkpoint,
    load_discriminator,
    load_swapper,
    save_checkpoint,
    save_discriminator,
    save_swapper,
)
from training.dice import Dice
from training.discriminator import Discriminator, adversarial_loss, hinge_loss
from training.faces import Faces
from training.judges import Landmarker, Recogniser
from training.losses import LossWeights, Objective, augment_for_discriminator
from training.networks import CHANNELS, Paint, Swapper
from training.pairs import Batch, PairMaker, autocast
from training.retarget import fit_retargeter
from training.student import Student

_AVERAGE: Final = 0.998
_WARM_UP_STEPS: Final = 100
_STEPS_BEFORE_CAPTURE: Final = 12
_ADVERSARIAL_WEIGHT: Final = 0.3
_STUDENT_RATE: Final = 3.0


@dataclass(frozen=True)
class TrainerSettings:
    """learning_rate: Adam's, after the warm-up. adversary_from, own_swaps_from: steps from which
    the discriminator counts and the network's own swaps become targets and what disturbed pairs are
    held to. graph: on a GPU, replay steps as a CUDA graph once nothing changes from step to step.
    student: channels of a narrower U-Net that learns from the large one in the same steps, or
    none."""

    batch: int = 32
    learning_rate: float = 3e-4
    adversary_from: int = 600
    own_swaps_from: int = 1500
    retargeter_steps: int = 4000
    channels: tuple[int, ...] = CHANNELS
    graph: bool = True
    student: tuple[int, ...] | None = None
    weights: LossWeights = field(default_factory=LossWeights)


class Trainer:
    """The networks, their optimisers, the averaged network (which is what is kept), the dice."""

    def __init__(
        self,
        faces: Faces,
        recogniser: Recogniser,
        landmarker: Landmarker,
        settings: TrainerSettings,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.settings, self.faces, self.device = settings, faces, device
        torch.manual_seed(seed)
        self.dice = Dice.seeded(seed, device)
        self.swapper, self.averaged = (
            Swapper(faces.shapes.mean, settings.channels).to(device) for _ in range(2)
        )
        self.averaged.eval()
        self.discriminator = Discriminator().to(device)
        self.student = None if settings.student is None else Student(settings.student).to(device)
        if device.type == "cuda":
            self.swapper.generator.to(memory_format=torch.channels_last)
            self.averaged.generator.to(memory_format=torch.channels_last)
            self.discriminator.to(memory_format=torch.channels_last)
            if self.student is not None:
                self.student.to(memory_format=torch.channels_last)
        self.averaged.load_state_dict(self.swapper.state_dict())
        fixed = (self.averaged, self.swapper.retargeter)
        for module in fixed:
            module.requires_grad_(False)
        self.optimiser = self._adam(self.swapper.generator, (0.5, 0.99))
        self.adversary = self._adam(self.discriminator, (0.0, 0.99))
        # Each optimiser's learning rate is so many times the settings'.
        self._rates = [(self.optimiser, 1.0), (self.adversary, 2.0)]
        if self.student is not None:
            self.imitator = self._adam(self.student.learning, (0.5, 0.99))
            self._rates.append((self.imitator, _STUDENT_RATE))
        self.pairs = PairMaker(faces, self.swapper, self.averaged, self.dice)
        self.objective = Objective(recogniser, landmarker, settings.weights, self.dice)
        self.step, self.first_step = 0, 0
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._summed, self._eager_steps = 0, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream()
            self._stream.wait_stream(torch.cuda.current_stream())

    def _adam(self, module: nn.Module, betas: tuple[float, float]) -> torch.optim.Adam:
        gpu = self.device.type == "cuda"
        rate = torch.tensor(self.settings.learning_rate, device=self.device)
        parameters = module.parameters()
        return torch.optim.Adam(parameters, rate, betas=betas, fused=gpu, capturable=gpu)

    def fit_retargeter(self) -> float:
        """Before the first step, or anew; returns its error, RMS in px."""
        retargeter = self.swapper.retargeter.requires_grad_(True)
        steps = self.settings.retargeter_steps
        error = fit_retargeter(retargeter, self.faces, self.dice, steps=steps)
        retargeter.requires_grad_(False)
        self.averaged.retargeter.load_state_dict(retargeter.state_dict())
        self._settle()
        return error

    def start_from_weights(self, directory: Path) -> None:
        """Begin with another run's networks and new optimisers."""
        stored, self.step = load_swapper(directory / SWAPPER_FILE)
        self.first_step = self.step
        for swapper in (self.swapper, self.averaged):
            swapper.load_state_dict(stored.state_dict())
        path = directory / DISCRIMINATOR_FILE
        self.discriminator.load_state_dict(load_discriminator(path).state_dict())
        if self.student is not None and (small := directory / STUDENT / SWAPPER_FILE).exists():
            stored, _ = load_swapper(small)
            for generator in (self.student.learning, self.student.averaged):
                generator.load_state_dict(stored.generator.state_dict())
        self._settle()

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint as if there had been no break."""
        state = load_checkpoint(path, self.device)
        self.step, self.first_step = state["step"], state["first_step"]
        self.dice.generator.set_state(state["dice"].cpu())
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self._settle()

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        self._settle()
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"step": self.step, "first_step": self.first_step}
        state["dice"] = self.dice.generator.get_state()
        save_checkpoint(path, state)

    def export_weights(self, directory: Path) -> None:
        """Write the averaged swapper, its student and the discriminator in float16."""
        self._settle()
        mean = self.faces.shapes.mean
        save_swapper(directory / SWAPPER_FILE, self.averaged, mean, self.step)
        save_discriminator(directory / DISCRIMINATOR_FILE, self.discriminator, self.step)
        if self.student is not None:
            small = self.student.as_swapper(self.averaged, mean)
            save_swapper(directory / STUDENT / SWAPPER_FILE, small, mean, self.step)

    def _settle(self) -> None:
        """Wait until no stream has work: loading and saving use another than the steps."""
        if self._stream is not None:
            torch.cuda.synchronize()

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        parts: dict[str, nn.Module | torch.optim.Optimizer] = {
            "swapper": self.swapper,
            "averaged": self.averaged,
            "discriminator": self.discriminator,
            "optimiser": self.optimiser,
            "adversary": self.adversary,
        }
        if self.student is not None:
            parts |= {"student": self.student, "imitator": self.imitator}
        return parts

    def advance(self, *, rate_factor: float = 1.0) -> None:
        """One step; `read_means` tells how it went."""
        warm = min(1.0, (self.step - self.first_step + 1) / _WARM_UP_STEPS)
        rate = self.settings.learning_rate * warm * rate_factor
        for optimiser, factor in self._rates:
            for group in optimiser.param_groups:
                group["lr"].fill_(factor * rate)
        with self.stream_of_work():
            if self._graph is not None:
                self._graph.replay()
            elif self._may_capture():
                self._capture()
            else:
                self._values = self._advance_by_hand()
            self._eager_steps += 1
            self._sums = self._values.clone() if self._sums is None else self._sums + self._values
        self._summed += 1
        self.step += 1

    def read_means(self) -> dict[str, float]:
        """The mean of every loss and measure since the last call; waits for the device."""
        if self._sums is None:
            return {}
        with self.stream_of_work():
            means = (self._sums / self._summed).tolist()
        self._sums, self._summed = None, 0
        return dict(zip(self._names, means, strict=True))

    def stream_of_work(self) -> AbstractContextManager[None]:
        """All work is queued on one stream that a CUDA graph can be captured from."""
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _may_capture(self) -> bool:
        settings = self.settings
        if self._stream is None or not settings.graph or self._eager_steps < _STEPS_BEFORE_CAPTURE:
            return False
        # Whatever still changes from step to step would be frozen into the graph.
        begun = max(settings.adversary_from + 500, settings.own_swaps_from)
        return self.step >= begun and self._average_share() == _AVERAGE

    def _capture(self) -> None:
        """Record one step as a CUDA graph, and run it.

        Launching a step's 10,000 kernels one by one takes twice as long as the kernels.
        """
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.dice.generator)
        for optimiser, _ in self._rates:
            optimiser.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph, stream=self._stream):
            self._values = self._advance_by_hand()
        graph.replay()
        first = self._values.tolist()
        graph.replay()
        if first == self._values.tolist() or not torch.isfinite(self._values).all():
            raise RuntimeError(f"the captured step repeats itself or is not finite: {first = }")
        self._graph = graph

    def _advance_by_hand(self) -> Tensor:
        """One step, operator by operator: all values that `_names` names, on the device."""
        settings = self.settings
        batch = self.pairs.make(settings.batch, own_swaps=self.step >= settings.own_swaps_from)
        inputs = self._inputs(batch)
        painted = self._paint(inputs)
        judged = self.objective.judge(batch, painted)
        losses = judged.losses
        if self.step >= settings.adversary_from:
            losses["adversary"] = _ADVERSARIAL_WEIGHT * self._ramp() * self._deceive(judged.images)
        self.optimiser.zero_grad(set_to_none=True)
        zero = torch.zeros((), device=self.device)
        sum(losses.values(), zero).backward()
        norm = nn.utils.clip_grad_norm_(self.swapper.generator.parameters(), 3.0)
        self._step_if_finite(self.optimiser, norm)
        values = {name: value.detach() for name, value in losses.items()} | judged.measures
        values["discriminator"] = zero
        if self.step >= settings.adversary_from - 200:
            values["discriminator"] = self._train_discriminator(batch, judged.images.detach())
        if self.student is not None:
            values["student"] = self._teach(self.student, inputs, painted)
        self._average()
        for name in ("adversary", "calm"):
            values.setdefault(name, zero)
        values["gradient"] = norm.detach()
        self._names = tuple(sorted(values))
        return torch.stack([values[name].float() for name in self._names])

    def _step_if_finite(self, optimiser: torch.optim.Adam, norm: Tensor) -> None:
        # A step with an overflow is left out; the next draws other faces.
        if self._stream is not None:
            # The fused optimiser looks here, on the device; asking for the number would wait.
            optimiser.found_inf = (~torch.isfinite(norm)).float()
            optimiser.step()
        elif torch.isfinite(norm):
            optimiser.step()

    def _ramp(self) -> float:
        return min(1.0, (self.step - self.settings.adversary_from) / 500 + 0.05)

    def _inputs(self, batch: Batch) -> list[Tensor]:
        both = (batch.supervised.prepared, batch.crossed.prepared)
        inputs = [torch.cat([getattr(pair, name) for pair in both])
                  for name in ("target", "source", "labels", "flow")]  # fmt: skip
        if self.device.type == "cuda":
            inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
        return inputs

    def _paint(self, inputs: list[Tensor]) -> Paint:
        with autocast(self.device):
            return self.swapper.generator(*inputs)

    def _teach(self, student: Student, inputs: list[Tensor], painted: Paint) -> Tensor:
        with autocast(self.device):
            loss = student.loss(inputs, Paint(*(x.detach() for x in painted)))
        self.imitator.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(student.learning.parameters(), 3.0)
        self._step_if_finite(self.imitator, norm)
        student.average(self._average_share())
        return loss.detach()

    def _deceive(self, images: Tensor) -> Tensor:
        self.discriminator.requires_grad_(False)
        with autocast(self.device):
            scores = self.discriminator(augment_for_discriminator(self.dice, images))
        self.discriminator.requires_grad_(True)
        return adversarial_loss(scores)

    def _train_discriminator(self, batch: Batch, images: Tensor) -> Tensor:
        photos = torch.cat([batch.photos, batch.supervised.truth])
        shown = augment_for_discriminator(self.dice, torch.cat([images, photos]))
        with autocast(self.device):
            scores = self.discriminator(shown)
        fake, real = [s[: len(images)] for s in scores], [s[len(images) :] for s in scores]
        loss = hinge_loss(fake, real)
        self.adversary.zero_grad(set_to_none=True)
        loss.backward()
        self.adversary.step()
        return loss.detach()

    @torch.no_grad()
    def _average(self) -> None:
        share = self._average_share()
        old, new = (list(s.generator.parameters()) for s in (self.averaged, self.swapper))
        torch._foreach_lerp_(old, new, 1 - share)

    def _average_share(self) -> float:
        return min(_AVERAGE, (1 + self.step) / (10 + self.step))
