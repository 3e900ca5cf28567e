"""Several models, wired as an ensemble wires them, as one network of the request loop.

Between the steps nothing is split, answered or sent: a batch is joined once, and what one step
makes is what the next one reads. Nothing here knows Triton or a device.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.backends.serving import Step

STEP_PREFIX = "step_"
"""A pipeline's config has one parameter a step, `step_00`, `step_01`, ...: `StepText`."""


@dataclass(frozen=True)
class StepText:
    """One step as a config's parameter holds it.

    folder: absolute path of the model's folder in the repository.
    backend: name of the backend that runs it.
    config: the model's own configuration, as Triton hands it to a backend.
    inputs, outputs: the model's tensor name to the pipeline's.
    """

    folder: str
    backend: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def dump(self) -> str:
        """JSON, the same for the same step."""
        return json.dumps(vars(self), sort_keys=True)


def read_steps(parameters: Mapping[str, str]) -> list[StepText]:
    """The steps of a pipeline's config, in order.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    names = sorted(name for name in parameters if name.startswith(STEP_PREFIX))
    if not names:
        raise ValueError(f"a pipeline needs parameters {STEP_PREFIX}00, {STEP_PREFIX}01, ...")
    steps = []
    for name in names:
        try:
            steps.append(StepText(**json.loads(parameters[name])))
        except (TypeError, ValueError) as error:
            raise ValueError(f"parameter {name} does not describe a step: {error}") from None
    return steps


@dataclass(frozen=True)
class WiredStep:
    """A loaded step: the model's tensor name to the pipeline's, both ways."""

    step: Step
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class PipelineNetwork:
    """Runs steps one after the other on joined arrays (`serving.Network`).

    Args:
        steps: in an order in which everything is made before it is read.
    """

    def __init__(self, steps: Sequence[WiredStep]) -> None:
        self._steps = tuple(steps)

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> dict[str, Any]:
        """Run arrays [N, ...] through every step whose outputs something reads."""
        values = dict(inputs)
        # Masks of face rows on the host. Steps agree on them, and a device is waited for once.
        masks: dict[str, Any] = {}
        for wired, wanted in self._needed(outputs):
            arrays = {name: values[tensor] for name, tensor in wired.inputs.items()}
            rule, mask = wired.step.settings.rows, None
            if rule is not None:
                tensor = wired.inputs[rule.mask]
                if tensor not in masks:
                    (masks[tensor],) = wired.step.memory.to_host([values[tensor]])
                mask = masks[tensor][:rows]
            made = self._compute(wired.step, arrays, wanted, rows, mask)
            values.update((wired.outputs[name], array) for name, array in made.items())
        return {name: values[name] for name in outputs}

    def _needed(self, outputs: Sequence[str]) -> list[tuple[WiredStep, list[str]]]:
        """The steps that the outputs depend on, in order, with what is read of each."""
        needed: list[tuple[WiredStep, list[str]]] = []
        read = set(outputs)
        for wired in reversed(self._steps):
            wanted = [name for name, tensor in wired.outputs.items() if tensor in read]
            if wanted:
                needed.append((wired, wanted))
                read.update(wired.inputs.values())
        return needed[::-1]

    def _compute(
        self, step: Step, arrays: dict[str, Any], wanted: Sequence[str], rows: int, mask: Any
    ) -> dict[str, Any]:
        """What one step makes. mask: its face rows' on the host, None for a step without any."""
        handed = step.settings.passthrough
        made = {name: arrays[handed[name]] for name in wanted if name in handed}
        computed = [name for name in wanted if name not in handed]
        if not computed:
            return made
        if mask is None:
            # joined and padded already
            return {**made, **step.network.run(arrays, computed, rows)}
        # Only the rows that count: what a padded one seems to show is nobody's face.
        padded = int(next(iter(arrays.values())).shape[0])
        kept = {name: array[:rows] for name, array in arrays.items()}
        (found,) = step.compute([kept], computed, masks=[mask])
        # Without any face a step makes all that it could, read or not.
        return {**made, **{name: step.memory.join([found[name]], padded) for name in computed}}
