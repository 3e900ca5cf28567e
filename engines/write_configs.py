"""Writes the committed configs of the model repository from the contract.

    python -m engines.write_configs

`model_repository/<model>/config.pbtxt` says what holds for every swapper, target and host: tensors,
wiring, and that requests are batched. A model that is new in `graphs.contract` gets its folder.
What a build or a host decides is in `configs/<target>.pbtxt`, see `engines.configs`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from frameswap.arguments import HelpFormatter

from engines.repository import COMMITTED, VERSION
from engines.targets import DEFAULT_TARGET
from fetching.files import publish_file
from graphs.contract import (
    CONTRACT_VERSION,
    ENSEMBLE_SPECS,
    MODEL_SPECS,
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


def write_configs(repository: Path) -> list[Path]:
    """Write every config that is not as the contract wants it; returns those."""
    written = []
    specs: list[ModelSpec | EnsembleSpec] = [*MODEL_SPECS.values(), *ENSEMBLE_SPECS.values()]
    for spec in specs:
        path = repository / spec.name / "config.pbtxt"
        text = base_config(spec).encode()
        version = path.parent / VERSION
        version.mkdir(parents=True, exist_ok=True)
        # Without a version folder Triton does not load even an ensemble.
        (version / ".gitkeep").touch()
        if not path.is_file() or path.read_bytes() != text:
            publish_file(path, text)
            written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what has changed and say which files those are."""
    parser = argparse.ArgumentParser(
        prog="python -m engines.write_configs",
        description=(__doc__ or "").splitlines()[0],
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--repository", type=Path, default=COMMITTED, metavar="PATH",
        help="model repository (default: the one in this checkout)",
    )  # fmt: skip
    for path in write_configs(parser.parse_args(arguments).repository):
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
