"""Writes the committed configs of the model repository from the contract.

    python -m engines.write_configs

`model_repository/<model>/config.pbtxt` says what holds for every swapper, target and host: tensors,
wiring, and that requests are batched. A model that is new in `graphs.contract` gets its folder.
What a build or a host decides is in `configs/<target>.pbtxt`, see `engines.configs`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from frameswap.arguments import HelpFormatter

from engines.base_configs import base_config
from engines.repository import COMMITTED, VERSION
from fetching.files import publish_file
from graphs.contract import ENSEMBLE_SPECS, MODEL_SPECS, EnsembleSpec, ModelSpec


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
