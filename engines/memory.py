"""How much GPU memory the plans will take, from their compiler or from shape arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.errors import MemoryLimitExceeded
from engines.shapes import GraphShapes

_MIB = 2**20


@dataclass(frozen=True)
class PlannedMemory:
    """GPU memory of one plan at its profile's maximum, in bytes.

    activation_bytes: intermediate tensors, for each execution context.
    io_bytes: inputs and outputs, for each execution context.
    weight_bytes: once a plan, however many contexts; once a process, with Python-based backends.
    """

    activation_bytes: int
    io_bytes: int
    weight_bytes: int

    def total_bytes(self, contexts: int = 1) -> int:
        return self.weight_bytes + contexts * (self.activation_bytes + self.io_bytes)

    def as_facts(self) -> dict[str, int | None]:
        """The fields by name, as manifests keep them."""
        return {
            "activation_bytes": self.activation_bytes,
            "io_bytes": self.io_bytes,
            "weight_bytes": self.weight_bytes,
        }


def plan_memory(
    shapes: GraphShapes, activation_bytes: int | None, weight_bytes: int | None
) -> PlannedMemory:
    """What the compiler said, completed by shape arithmetic.

    Args:
        shapes: the typed graph's tensors at the profile's maximum.
        activation_bytes, weight_bytes: the compiler's figures; None where it gave none.
    """
    return PlannedMemory(
        activation_bytes=shapes.peak_bytes if activation_bytes is None else activation_bytes,
        io_bytes=shapes.io_bytes,
        weight_bytes=shapes.weight_bytes if weight_bytes is None else weight_bytes,
    )


def check_memory(
    planned: Mapping[str, PlannedMemory],
    limit_bytes: int | None,
    contexts: Mapping[str, int] | None = None,
) -> int:
    """The bytes of all plans together.

    Args:
        contexts: execution contexts (instances) of each model; 1 where it says nothing.

    Raises:
        MemoryLimitExceeded: they need more than `limit_bytes`.
    """
    counts = contexts or {}
    needs = {name: plan.total_bytes(counts.get(name, 1)) for name, plan in planned.items()}
    total = sum(needs.values())
    if limit_bytes is not None and total > limit_bytes:
        largest = max(needs, key=lambda name: needs[name])
        raise MemoryLimitExceeded(
            f"the plans need {total // _MIB} MiB of GPU memory, {limit_bytes // _MIB} MiB are "
            f"allowed (--gpu-memory); the largest is {largest} with {needs[largest] // _MIB} MiB: "
            f"lower the largest batch, number of faces or frame size"
        )
    return total
