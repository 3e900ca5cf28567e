"""How much memory a server of the contract's ensembles needs, computed before it starts.

Triton's defaults are small (64 MB of CUDA memory for the tensors between the steps, 1 MB regions of
shared memory for a Python-based backend) and overflow with one warning or a slow growth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from server.errors import StartError

MEBIBYTE: Final = 1 << 20
POOL_MARGIN: Final = 1.5
"""Triton's pools fragment: half as much again (reference: core's CNMeM pool cannot move blocks)."""
ELEMENT_SIZES: Final = {"TYPE_UINT8": 1, "TYPE_FP16": 2, "TYPE_FP32": 4, "TYPE_INT32": 4}
REGION_START: Final = 16 * MEBIBYTE


@dataclass(frozen=True)
class MemoryPlan:
    """Planned bytes.

    frame_size: width and height that the plan is for.
    requests_in_flight: how many requests the plan is for.
    processes: number of model processes.
    region_start: shared memory of each model process at first (all of it is allocated).
    region_growth: by how much it grows when a batch does not fit.
    regions: expected shared memory of all model processes together.
    cuda_pool, pinned_pool: Triton's pools; 0 without a GPU.
    """

    frame_size: tuple[int, int]
    requests_in_flight: int
    processes: int
    region_start: int
    region_growth: int
    regions: int
    cuda_pool: int
    pinned_pool: int

    def describe(self) -> list[str]:
        """Return lines for a person."""
        width, height = self.frame_size
        lines = [
            f"planned for {self.requests_in_flight} requests in flight of {width}x{height}",
            f"shared memory: about {_mebibytes(self.regions)} in /dev/shm, "
            f"{_mebibytes(self.region_start)} a model at first",
        ]
        if self.cuda_pool:
            lines.append(
                f"pools: {_mebibytes(self.cuda_pool)} of CUDA memory a GPU, "
                f"{_mebibytes(self.pinned_pool)} pinned"
            )
        else:
            lines.append("pools: none (no model runs on a GPU)")
        return lines


def check_shared_memory(plan: MemoryPlan, free: int) -> None:
    """Refuse to start where not even the first regions fit; they would end in a bus error.

    Args:
        plan: for the models that are to be loaded.
        free: bytes that /dev/shm can still hold.

    Raises:
        StartError: says how much is there, how much is needed and how to get it.
    """
    needed = plan.processes * plan.region_start
    if free < needed:
        raise StartError(
            f"/dev/shm has {_mebibytes(free)} free, and {plan.processes} model processes need at "
            f"least {_mebibytes(needed)}, about {_mebibytes(max(plan.regions, needed))} in use; "
            "make it larger (a container: --shm-size=1g), or load fewer models"
        )


def _mebibytes(size: int) -> str:
    return f"{math.ceil(size / MEBIBYTE)} MiB"


def plan_memory(
    configs: Sequence[Message],
    *,
    frame_size: tuple[int, int],
    requests_in_flight: int,
    faces: int = 1,
) -> MemoryPlan:
    """Plan for the models that a server loads.

    Args:
        configs: their `ModelConfig` messages, ensembles among them.
        frame_size: width and height of the largest usual frame, pixels.
        requests_in_flight: how many requests are served at once.
        faces: K of the usual request.
    """
    by_name = {config.name: config for config in configs}
    regions = []
    for config in configs:
        if not config.ensemble_scheduling.step:
            one = sum(_tensor_bytes(t, frame_size, faces) for t in (*config.input, *config.output))
            instances = sum(group.count or 1 for group in config.instance_group) or 1
            batch = min(requests_in_flight, max(1, config.max_batch_size))
            regions += [max(REGION_START, one * batch)] * instances
    between = max(
        (
            sum(
                _tensor_bytes(tensor, frame_size, faces)
                for step in config.ensemble_scheduling.step
                if step.model_name in by_name
                for tensor in by_name[step.model_name].output
            )
            for config in configs
            if config.ensemble_scheduling.step
        ),
        default=0,
    )
    on_gpu = any(_is_on_gpu(group) for config in configs for group in config.instance_group)
    pool = _round_up(int(between * requests_in_flight * POOL_MARGIN), 64 * MEBIBYTE)
    width, height = frame_size
    return MemoryPlan(
        frame_size=frame_size,
        requests_in_flight=requests_in_flight,
        processes=len(regions),
        region_start=REGION_START,
        # One more batch of frames, in and out; growing is slow, so it should happen once or twice.
        region_growth=_round_up(width * height * 3 * 4, 16 * MEBIBYTE),
        regions=sum(regions),
        cuda_pool=max(pool, 256 * MEBIBYTE) if on_gpu else 0,
        pinned_pool=max(pool // 2, 256 * MEBIBYTE) if on_gpu else 0,
    )


def _is_on_gpu(group: Message) -> bool:
    return bool(group.kind == group.KIND_GPU)


def _round_up(size: int, step: int) -> int:
    return math.ceil(size / step) * step


def _tensor_bytes(tensor: Message, frame_size: tuple[int, int], faces: int) -> int:
    """Bytes of one request's tensor: frames by the plan's size, other free axes by the faces."""
    width, height = frame_size
    name = (
        tensor.DESCRIPTOR.fields_by_name["data_type"]
        .enum_type.values_by_number[tensor.data_type]
        .name
    )
    element = ELEMENT_SIZES.get(name, 4)
    if "frame" in tensor.name:
        return width * height * 3 * element
    return math.prod(size if size > 0 else faces for size in tensor.dims) * element
