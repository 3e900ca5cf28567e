"""`python -m bench.gpu`: see the package's head."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import bench.gpu
from bench.gpu.cells import Bench, Cell, all_cells, choose, run_cells
from bench.gpu.extras import extra_cells
from bench.gpu.host import describe_host
from bench.gpu.load import SECONDS, LoadTest
from bench.gpu.modes import DEFAULT_DELAY_US, DEFAULT_MODE, MODES
from bench.gpu.plots import draw_plots
from bench.gpu.report import make_report
from bench.gpu.repositories import Repositories
from bench.gpu.results import NotRun, Results, load_results
from bench.gpu.serving import ServerKeeper, Setup
from bench.gpu.tuning import tune_cells, tuning_report
from server.mps import CONTROL_NAME, find_control
from server.perf_analyzer import prepare_perf_analyzer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=(bench.gpu.__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=Path("out/gpu"))
    parser.add_argument("--work", type=Path, default=Path("out/gpu_work"), help="repositories")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which to stop")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each load that counts")
    parser.add_argument("--perf-analyzer", type=Path, help="default: brought along")
    parser.add_argument("--fp16-only", action="store_true", help="no float32, CPU, TensorRT rows")
    parser.add_argument(
        "--instances", nargs="*", default=[], metavar="MODEL=N", type=_instances,
        help="of the headline's server",
    )  # fmt: skip
    parser.add_argument("--queue-delay-us", type=int, default=DEFAULT_DELAY_US, metavar="N",
                        help="of the headline's server")  # fmt: skip
    parser.add_argument("--mode", choices=list(MODES), default=DEFAULT_MODE,
                        help="of the headline's server")  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="cells whose name has it")
    parser.add_argument("--tune", action="store_true",
                        help="instead: sweep instances, batch sizes and queue delays")  # fmt: skip
    parser.add_argument("--tensorrt-repository", type=Path, help="one that has TensorRT plans")
    parser.add_argument("--models-json", type=Path, help="what bench.gpu_models wrote")
    parser.add_argument("--list", action="store_true", help="name the cells, measure nothing")
    parser.add_argument("--report-only", action="store_true",
                        help="report and plots from results.json, measure nothing")  # fmt: skip
    return parser


def _instances(text: str) -> tuple[str, int]:
    model, _, count = text.partition("=")
    if not model or not count.isdecimal():
        raise argparse.ArgumentTypeError(f"expected MODEL=N, got {text!r}")
    return model, int(count)


def check_mode(name: str) -> None:
    """Refuse a headline that no server here can serve; other modes' cells fail by themselves.

    Raises:
        NotRun: says what is missing, and which mode does without.
    """
    if MODES[name].arguments.get("mps") and find_control() is None:
        plain = next(
            mode.name for mode in MODES.values()
            if {**mode.arguments, "mps": True} == MODES[name].arguments
        )  # fmt: skip
        raise NotRun(
            f"mode {name!r} needs {CONTROL_NAME}, which is not on this machine: "
            f"give --mode {plain!r}"
        )


def measure(options: argparse.Namespace, cells: Sequence[Cell], results: Results) -> None:
    """Run the cells that have no value yet."""
    if options.perf_analyzer is None:
        tool = prepare_perf_analyzer()
        binary, environment = tool.binary, tool.environment
    else:
        binary, environment = options.perf_analyzer, dict(os.environ)
    repositories = Repositories(options.work, options.tensorrt_repository)
    keeper = ServerKeeper(repositories, options.output, options.work)
    load = LoadTest(binary, environment, options.work / "load", keeper, options.seconds)
    run_cells(cells, Bench(results, repositories, keeper, load))


def write_report(options: argparse.Namespace, results: Results, planned: Sequence[str]) -> str:
    """Draw the plots, write report.md; returns its text."""
    options.output.mkdir(parents=True, exist_ok=True)
    models = json.loads(options.models_json.read_text()) if options.models_json else None
    plots = draw_plots(results, options.output)
    text = make_report(results, planned, models=models, plots=plots)
    (options.output / "report.md").write_text(text)
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0, or 1 when a cell failed or nothing could be measured."""
    options = _parser().parse_args(arguments)
    main_setup = Setup(
        mode=options.mode, instances=tuple(options.instances), delay_us=options.queue_delay_us
    )
    every = [*all_cells(main_setup, fp16_only=options.fp16_only), *extra_cells()]
    try:
        cells = choose(tune_cells(options.mode) if options.tune else every, options.only)
        path, deadline = options.output / "results.json", time.monotonic() + 60 * options.minutes
        if options.list or options.report_only:
            results = load_results(path, deadline)
        else:
            host = describe_host() | {
                "mode": options.mode, "instances": dict(options.instances),
                "queue delay us": options.queue_delay_us,
            }  # fmt: skip
            check_mode(options.mode)
            results = load_results(path, deadline, host)
    except (NotRun, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.list:
        for cell in cells:
            print(f"{'measured' if results.has(cell.name) else 'not run ':8}  {cell.name}")
        return 0
    if not options.report_only:
        results.late.clear()
        measure(options, cells, results)
    text = write_report(options, results, [cell.name for cell in every])
    print("\n".join(tuning_report(results, options.mode)) if options.tune else text)
    return 1 if any("error" in cell for cell in results.cells.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
