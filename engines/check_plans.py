"""Refuse plans that a server here cannot load, before the server is started.

    python -m engines.check_plans --repository /models --target tensorrt

`frameswap serve` and a container's entry point ask this first: a plan of another TensorRT release,
flavour or GPU would fail at load with an error code; here it is a sentence with the command to run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from frameswap.arguments import HelpFormatter

from engines.configs import read_config
from engines.errors import EngineError
from engines.manifest import (
    ServerVersions,
    damage_reason,
    read_manifest,
    refuse_reason,
    server_versions,
)
from engines.targets import TARGETS, UNTIL_PLAN
from graphs.contract import PARAMETER_ONNX_UNTIL_PLAN


class PlanConfig(Protocol):
    """What is read of Triton's ModelConfig."""

    backend: str
    default_model_filename: str
    cc_model_filenames: Mapping[str, str]
    parameters: Mapping[str, Any]


def refused_plans(
    folder: Path, configs: Mapping[str, PlanConfig], server: ServerVersions
) -> Iterator[str]:
    """One sentence for each plan that the server would be given and could not load.

    A model that may serve ONNX until it has a plan is not refused: its backend says what it does.

    Args:
        folder: the model repository.
        configs: model name to its config for the target that is served.
        server: library versions and GPUs; without a visible GPU only the versions are compared.
    """
    for name, config in configs.items():
        if config.backend != "tensorrt" or _serves_onnx_meanwhile(folder / name, config):
            continue
        for filename in _chosen_files(config, server):
            reason = _refuse_file(folder / name / "1" / filename, server)
            if reason is not None:
                yield reason


def _serves_onnx_meanwhile(model: Path, config: PlanConfig) -> bool:
    """Whether the model was told to serve ONNX until it has a plan, and can."""
    told = config.parameters.get(PARAMETER_ONNX_UNTIL_PLAN)
    onnx = model / "1" / UNTIL_PLAN.filename
    return told is not None and told.string_value == "1" and onnx.is_file()


def _chosen_files(config: PlanConfig, server: ServerVersions) -> list[str]:
    """The files that Triton, or our backend, takes for the GPUs of this server."""
    default = config.default_model_filename or TARGETS["tensorrt"].filename
    by_gpu = config.cc_model_filenames
    wanted = [by_gpu.get(gpu, default) for gpu in server.compute_capabilities] or [
        *by_gpu.values()
    ][:1]
    return list(dict.fromkeys(wanted or [default]))


def _refuse_file(path: Path, server: ServerVersions) -> str | None:
    if not path.is_file():
        return f"{path} is missing: run `python build_engines.py` on this machine"
    try:
        manifest = read_manifest(path)
    except EngineError as error:
        return str(error)
    return refuse_reason(manifest, server) or damage_reason(path, manifest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each plan that cannot be loaded; 1 if there is one."""
    parser = argparse.ArgumentParser(
        prog="python -m engines.check_plans",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--repository", type=Path, required=True, metavar="FOLDER", help="the model repository"
    )
    parser.add_argument(
        "--target", "--variant", default="tensorrt", metavar="NAME",
        help="configs/<target>.pbtxt of each model",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    configs = {}
    for path in sorted(options.repository.glob(f"*/configs/{options.target}.pbtxt")):
        configs[path.parent.parent.name] = read_config(path)
    if not configs:
        print(
            f"{parser.prog}: {options.repository} has no target {options.target}: run "
            f"`python build_engines.py --target {options.target}`",
            file=sys.stderr,
        )
        return 1
    refusals = list(refused_plans(options.repository, configs, server_versions()))
    for sentence in refusals:
        print(f"{parser.prog}: {sentence}", file=sys.stderr)
    return 1 if refusals else 0


if __name__ == "__main__":
    sys.exit(main())
