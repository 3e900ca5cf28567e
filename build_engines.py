"""Build the model repository: author the graphs, type them, compile them, publish them.

    python build_engines.py                   for the GPU that is here; for the CPU without one
    python build_engines.py --target cpu      ONNX files for ONNX Runtime
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engines import build
from engines.deployment import DeploymentError, resolve
from engines.errors import EngineError
from engines.publish import COMMITTED, Repository
from engines.variants import VARIANTS, HostOptions, Limits
from graphs.contract import MODEL_SPECS
from graphs.detectors import DETECTORS
from graphs.swappers import DEFAULT_SWAPPER


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 1 after one line that says what is wrong."""
    options = make_parser().parse_args(arguments)
    try:
        request = make_request(options)
        if options.explain or options.dry_run:
            for sentence in build.explain(request, announce=print_note):
                print(sentence)
            return 0
        for built in build.build_onnx(request, announce=print_note):
            print(built, flush=True)
    except EngineError as error:
        print(f"build_engines.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build_engines.py: stopped; what was built so far is kept", file=sys.stderr)
        return 130
    print(f"{request.repository.root} is complete for the variant {request.target}")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="build_engines.py",
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    what = parser.add_argument_group("what to build")
    what.add_argument(
        "--target", choices=VARIANTS, default="cpu", help="where the models will run"
    )
    what.add_argument("--swapper", default=DEFAULT_SWAPPER, metavar="NAME", help="face swapper")
    what.add_argument("--detector", default="yunet", metavar="NAME", help="face detector")
    what.add_argument(
        "--recognizer", metavar="NAME", help="face recogniser (default: the one that fits)"
    )
    what.add_argument(
        "--pixel-boost", type=int, default=1, metavar="B", help="swap crops of B times the size"
    )
    what.add_argument(
        "--models", nargs="+", metavar="MODEL", help="build these only (default: all)"
    )
    where = parser.add_argument_group("where to")
    where.add_argument(
        "--repository", type=Path, default=COMMITTED, metavar="PATH", help="model repository"
    )
    where.add_argument(
        "--accept-licence",
        action="store_true",
        help="the weights' licences fit your use; fetch what is missing",
    )
    look = parser.add_argument_group("look only")
    look.add_argument("--dry-run", action="store_true", help="say what would be built")
    look.add_argument("--explain", action="store_true", help="say why a file would be built")
    return parser


def make_request(options: argparse.Namespace) -> build.BuildRequest:
    """The flags as one checked request."""
    models = tuple(options.models or MODEL_SPECS)
    for model in models:
        if model not in MODEL_SPECS:
            raise DeploymentError(f"no model is called {model!r}; known: {', '.join(MODEL_SPECS)}")
    deployment = resolve(
        swapper=options.swapper,
        detector=options.detector,
        recognizer=options.recognizer,
        pixel_boost=options.pixel_boost,
        detectors=tuple(DETECTORS),
    )
    return build.BuildRequest(
        deployment=deployment,
        target=options.target,
        precision="fp32",
        models=models,
        repository=Repository(options.repository),
        limits=Limits(),
        host=HostOptions(),
        accept_licence=options.accept_licence,
    )


def print_note(sentence: str) -> None:
    """One line for a person, beside the lines that report models."""
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
