"""The config of a model or an ensemble that holds for every swapper, target and host.

The committed `model_repository/<model>/config.pbtxt` are these texts (`engines.write_configs`) of
a deployment without extras; `engines.configs` fills in what a build or a host decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from engines.targets import DEFAULT_TARGET
from graphs.contract import (
    CONTRACT_VERSION,
    PARAMETER_CONTRACT_VERSION,
    DataType,
    EnsembleSpec,
    ModelSpec,
    ServedSpec,
    StepSpec,
    TensorSpec,
)

_TYPES: Final[Mapping[DataType, str]] = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}

# Compiled PyTorch's rates: TensorRT's batch is the build's to choose (--batch).
_SWAPPER_REASON: Final = (
    "8: inswapper_128's network, compiled by PyTorch in fp16 on an H100, made 981 faces/s at batch",
    "1, 1,535 at 8 and no more at 16.",
)


def base_config(spec: ModelSpec | EnsembleSpec) -> str:
    """The text of one committed config: valid without any build, and complete."""
    return "\n".join((*_head(spec), *_tensors(spec), *_tail(spec))) + "\n"


def _head(spec: ModelSpec | EnsembleSpec) -> Iterator[str]:
    yield f'name: "{spec.name}"'
    yield 'platform: "ensemble"' if isinstance(spec, EnsembleSpec) else 'backend: "tensorrt"'
    if isinstance(spec, ModelSpec) and spec.network == "swapper":
        yield from (f"# {line}" for line in _SWAPPER_REASON)
    yield f"max_batch_size: {DEFAULT_TARGET.max_batch_size}"


def _tensors(spec: ServedSpec) -> Iterator[str]:
    for kind, tensors in (("input", spec.inputs), ("output", spec.outputs)):
        yield f"{kind} ["
        yield ",\n".join(f"  {{ {_tensor(tensor)} }}" for tensor in tensors)
        yield "]"


def _tensor(tensor: TensorSpec) -> str:
    dims = ", ".join(str(-1 if isinstance(size, str) else size) for size in tensor.dims)
    return f'name: "{tensor.name}", data_type: {_TYPES[tensor.dtype]}, dims: [ {dims} ]'


def _tail(spec: ModelSpec | EnsembleSpec) -> Iterator[str]:
    if isinstance(spec, ModelSpec):
        # An ensemble's step without a queue answers in the backend's own thread and blocks the
        # next batch. No queue policy and no priority: any makes requests stall for 500 ms.
        yield "dynamic_batching { }"
        return
    version = f'key: "{PARAMETER_CONTRACT_VERSION}" value: {{ string_value: "{CONTRACT_VERSION}" }}'
    yield f"parameters {{ {version} }}"
    yield "ensemble_scheduling {"
    for step in spec.steps:
        yield from _step(step)
    yield "}"


def _step(step: StepSpec) -> Iterator[str]:
    yield "  step {"
    yield f'    model_name: "{step.model}"'
    yield "    model_version: -1"
    for kind, names in (("input", step.inputs), ("output", step.outputs)):
        for tensor, value in names.items():
            yield f'    {kind}_map {{ key: "{tensor}" value: "{value}" }}'
    yield "  }"


def parsed_base(spec: ModelSpec | EnsembleSpec) -> ModelConfig:
    """`base_config` as a message."""
    return text_format.Parse(base_config(spec), ModelConfig())
