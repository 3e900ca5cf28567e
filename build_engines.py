"""Build the model repository: author the graphs, type them, compile them, check them, publish them.

    python build_engines.py                               for the GPU that is here, or the CPU
    python build_engines.py --target cpu                  ONNX files for ONNX Runtime
    python build_engines.py --compute-capability 8.9      plans for that GPU, from any machine
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import chain

from engines.build import Build, BuildRequest
from engines.command_line import make_parser, make_request
from engines.errors import EngineError
from engines.preview import inspect, preview, preview_cache
from engines.progress import ProgressBar
from fetching.downloads import WeightsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 1 after one line that says what is wrong."""
    options = make_parser(__doc__ or "").parse_args(arguments)
    lines: Iterator[str]
    try:
        request = make_request(options)
        if options.explain:
            lines = chain(preview(request, print_note), preview_cache(request, print_note))
        elif options.dry_run:
            lines = preview(request, print_note)
        elif options.inspect:
            lines = inspect(request, print_note)
        else:
            return run(request)
        for line in lines:
            print(line)
    except (EngineError, WeightsError) as error:
        print(f"build_engines.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build_engines.py: stopped; what was built so far is kept", file=sys.stderr)
        return 130
    return 0


def run(request: BuildRequest) -> int:
    """Build, one line a model; then say what is there."""
    build = Build(request, print_note, ProgressBar(sys.stderr))
    for built in build.run():
        print(built, flush=True)
        if built.report is not None:
            print(f"  {built.report}", flush=True)
    if request.compile is not None:
        print(f"planned GPU memory in all: {build.check_memory() / 2**20:,.0f} MiB")
    print(f"{request.repository.root} is ready for the target {request.target.name}")
    return 0


def print_note(sentence: str) -> None:
    """One line for a person, beside the lines that report models."""
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
