"""The TensorRT rows of docs/gpu.md's table, measured on your GPU, to be sent back.

    python -m bench.tensorrt_row --swapper inswapper_128 --accept-licence

It needs a checkout (`make venv`), an NVIDIA GPU, and TensorRT in that environment: `pip install
tensorrt` or, for RTX cards, `pip install tensorrt-rtx`. It takes ten to forty minutes, most of them
building. Plans are built twice, with an empty cache and with a full one; the server is started
twice, the second time with what TensorRT-RTX kept of the first; one frame is swapped and looked at;
then requests of 1, 2, 4 and 8 frames of 1080p are sent, as for the table's other rows.

What it writes, out/tensorrt_row.json, holds the GPU's name, versions, times and figures; nothing
names you, your machine or your files. Send it with the lines that it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from frameswap import FaceSwapper, FrameswapError
from frameswap.arguments import HelpFormatter, WholeNumber, seconds

from bench.gpu.sampler import Sampler, find_probe, gpu_facts
from bench.load.command import LoadCommand, make_command
from bench.load.inputs import Inputs, make_scene, write_inputs
from bench.perf_windows import read_table
from demo.photos import read_photo
from deploy.swap_check import judge
from engines.compilers import choose_compiler
from engines.devices import visible_gpus
from engines.errors import EngineError
from engines.targets import TARGETS, target_of
from server.errors import ServerError
from server.launcher import EmbeddedServer
from server.perf_analyzer import prepare_perf_analyzer

ROOT: Final = Path(__file__).resolve().parent.parent
BATCHES: Final = (1, 2, 4, 8)
FRAME: Final = (1920, 1080)
ENGINE_NAMES: Final = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}


@dataclass
class Report:
    """What is sent back; every figure says what it is of."""

    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def timed(self, name: str, act: Callable[[], Any]) -> Any:
        """Do something and keep how long it took."""
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        done = act()
        self.seconds[name] = round(time.monotonic() - start, 1)
        print(f"{name}: {self.seconds[name]:.1f} s", flush=True)
        return done

    def markdown(self) -> str:
        """Rows of the table in docs/gpu.md, and a line of what they were measured on."""
        facts, head = self.facts, "| {name} | {batch} | {use} | {ms} | {rate} | {minutes} | {p50} |"
        lines = [
            head.format(
                name=facts["engine"], batch=row["batch"], use=row.get("gpu busy %", "not sampled"),
                ms=f"{1e3 / row['frames per second']:.1f}",
                rate=f"{row['frames per second']:.0f}",
                # A minute of video at 30 frames a second.
                minutes=f"{30 / row['frames per second']:.3f}", p50=f"{row['p50 ms']:.0f}",
            )
            for row in self.rows
        ]  # fmt: skip
        told = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
        times = "; ".join(f"{name} {value:.0f} s" for name, value in self.seconds.items())
        return "\n".join([*lines, "", f"{told}.", f"{times}."])


def build(target: str, repository: Path, cache: Path, swapper: Sequence[str]) -> None:
    """Run build_engines.py.

    Raises:
        subprocess.CalledProcessError: it failed; its sentence is on the screen.
    """
    command = ["build_engines.py", "--target", target, "--repository", str(repository)]
    plans = TARGETS[target].flavour is not None
    shapes = ["--cache", str(cache), "--batch", "1", "8", "8"] if plans else []
    subprocess.run([sys.executable, *command, *shapes, *swapper], cwd=ROOT, check=True)


def measure(url: str, inputs: Inputs, folder: Path, wanted_s: float, in_flight: int) -> list[Any]:
    """Requests of several frames each; a row a batch size."""
    rows = []
    for batch in BATCHES:
        for longer in (1, 3, 9):
            command = make_command(
                url, inputs, [in_flight], seconds=longer * wanted_s, security=None
            )
            table = folder / f"{in_flight}.csv"
            with Sampler(find_probe()) as gpu:
                told = run_once(command, folder, batch)
            # A request that is longer than a window of time is in none.
            if table.exists() or "larger time window" not in told:
                break
        if not table.exists():
            raise ServerError(f"perf_analyzer failed: {told}")
        figures = read_table(table.read_text())
        table.unlink()
        # perf_analyzer counts requests times their batch.
        rate = figures["per second"]
        rows.append({"batch": batch, **figures, "frames per second": rate, **gpu_facts(gpu)})
        print(f"batch {batch}: {rate:.1f} frames/s", flush=True)
    return rows


def run_once(command: LoadCommand, folder: Path, batch: int) -> str:
    """Run perf_analyzer; return what it said, its errors where there are any."""
    analyzer = prepare_perf_analyzer()
    (line,) = command.with_binary(str(analyzer.binary))
    done = subprocess.run(
        [*line, "-b", str(batch)], cwd=folder, env=analyzer.environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stderr.strip() or done.stdout[-400:].strip()


def check_swap(swapper: FaceSwapper) -> None:
    """Swap one frame and look at it.

    Raises:
        ServerError: it is not right; figures of a wrong picture are worth nothing.
    """
    frame = read_photo("gauss")
    swapped = swapper.swap(frame, swapper.encode_source(read_photo("newton")))
    reason = judge(frame, swapped.frame, swapped.faces)
    if reason is not None:
        raise ServerError(f"the swapped picture is wrong: {reason}")


def run(given: argparse.Namespace, folder: Path) -> Report:
    """Build, start, look and measure; the report."""
    report = Report()
    target = given.target or default_target()
    report.facts = describe(target, given)
    swapper = ["--swapper", given.swapper, *(["--accept-licence"] if given.accept_licence else [])]
    for state in ("cold", "warm"):
        report.timed(
            f"building, {state} cache",
            partial(build, target, folder / state, folder / "cache", swapper),
        )
    with tempfile.TemporaryDirectory() as scratch:
        for state in ("cold", "warm"):
            server = EmbeddedServer(
                folder / "warm", target=target, frame_size=FRAME,
                requests_in_flight=max(BATCHES) * given.in_flight, start_timeout_s=1800,
            )  # fmt: skip
            report.timed(f"starting the server, {state}", server.start)
            try:
                if state == "cold":
                    continue
                with FaceSwapper(server.grpc_url, transport="grpc", timeout_s=300) as client:
                    report.timed("first swapped frame", partial(check_swap, client))
                    scene = make_scene(client, *FRAME)
                inputs = write_inputs(scene, Path(scratch) / "inputs")
                report.rows = measure(
                    server.grpc_url, inputs, Path(scratch), given.seconds, given.in_flight
                )
            finally:
                server.stop()
    return report


def default_target() -> str:
    """tensorrt or rtx, whichever this environment has.

    Raises:
        EngineError: neither.
    """
    return target_of(choose_compiler().flavour).name


def describe(target: str, given: argparse.Namespace) -> dict[str, Any]:
    """What the figures are measured on.

    Raises:
        EngineError: no GPU, or no compiler, where one is needed.
    """
    gpus = visible_gpus()
    flavour = TARGETS[target].flavour
    facts: dict[str, Any] = {
        "engine": target if flavour is None else f"{ENGINE_NAMES[flavour]} fp16",
        "swapper": given.swapper,
        "in flight": given.in_flight,
        "cores": len(os.sched_getaffinity(0)),
    }
    if flavour is None:
        return facts
    if not gpus:
        raise EngineError("no NVIDIA GPU is visible here: these rows are of one")
    compiler = choose_compiler(flavour)
    return {
        **facts,
        "GPU": gpus[0].name,
        "compute capability": gpus[0].compute_capability,
        "library": f"{compiler.flavour} {compiler.version}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; 1 with one sentence where it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.tensorrt_row", description=__doc__, formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("--target", choices=("tensorrt", "rtx", "cpu"), metavar="NAME",
        help="tensorrt or rtx (default: what this environment has); cpu tries the script out")
    add("--swapper", default="image_swapper_256", metavar="NAME",
        help="inswapper_128 is what the table's other rows have the architecture of")
    add("--accept-licence", action="store_true", help="its licence fits your use")
    add("--seconds", type=seconds, default=15.0, metavar="SECONDS", help="of each measurement")
    add("--in-flight", type=WholeNumber(1), default=1, metavar="N", help="requests under way")
    add("--output", type=Path, default=Path("out/tensorrt_row.json"), metavar="FILE",
        help="what to send back")  # fmt: skip
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="frameswap-row-") as scratch:
            report = run(given, Path(scratch))
    except (EngineError, ServerError, FrameswapError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    given.output.parent.mkdir(parents=True, exist_ok=True)
    told = {"facts": report.facts, "seconds": report.seconds, "rows": report.rows}
    given.output.write_text(json.dumps(told, indent=2) + "\n")
    print(f"\n{report.markdown()}\n\nwritten to {given.output}; send it with the lines above")
    return 0


if __name__ == "__main__":
    sys.exit(main())
