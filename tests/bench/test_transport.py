"""The transport bench, small: every way carries every frame, through a real server."""

from __future__ import annotations

import numpy as np
import pytest
from frameswap import FaceSwapper, Source

from bench.copy_repository import write_copy_repository
from bench.transport import COMMITTED, Figures, Row, format_table, main, read_arguments
from server.launcher import EmbeddedServer


def row(name: str, like: str, rates: list[float]) -> Row:
    return Row(name, "1 + 0", like, [Figures(rate, 2.0, 5.0) for rate in rates])


def test_the_table_compares_with_the_plain_loop_and_round_by_round_with_its_like() -> None:
    rows = [
        row("plain", "", [50.0, 52.0, 10.0]),
        row("ours", "perf_analyzer, system", [200.0, 190.0, 80.0]),
        row("other", "perf_analyzer, cuda", [100.0, 100.0, 100.0]),
        row("perf_analyzer, system", "", [250.0, 400.0, 100.0]),
    ]
    arguments = read_arguments(["--rounds", "3", "--one-process"])
    lines = format_table(rows, arguments).splitlines()
    assert lines[0].startswith("1920x1080 I420, 16 in flight, one process, instances: 1, ")
    assert lines[-4:] == [
        "| plain | 1 + 0 | 50 (10, 52) | 2.00 | 5.00 | 1.0 |  |",
        "| ours | 1 + 0 | 190 (80, 200) | 2.00 | 5.00 | 3.8 | 80 % |",
        "| other | 1 + 0 | 100 (100, 100) | 2.00 | 5.00 | 2.0 |  |",
        "| perf_analyzer, system | 1 + 0 | 250 (100, 400) | 2.00 | 5.00 | 5.0 |  |",
    ]


@pytest.mark.e2e
@pytest.mark.parametrize("mode", [[], ["--one-process", "--instances", "2"]])
def test_the_bench_measures_all_that_this_machine_has(
    capsys: pytest.CaptureFixture[str], mode: list[str]
) -> None:
    # The kernel counts a server's CPU time in hundredths of a second: 20 frames may cost none.
    size = ["--frames", "400", "--width", "128", "--height", "96", "--in-flight", "4"]
    assert main([*size, "--rounds", "1", "--seconds", "0.6", *mode]) == 0
    printed = capsys.readouterr().out
    for name in ("tritonclient, one at a time", "frameswap, grpc", "frameswap, system",
                 "perf_analyzer, grpc", "perf_analyzer, system"):  # fmt: skip
        (line,) = [line for line in printed.splitlines() if line.startswith(f"| {name} |")]
        rate, client_ms, server_ms = (float(cell.split()[0]) for cell in line.split("|")[3:6])
        assert rate > 0
        assert client_ms > 0
        assert server_ms > 0


@pytest.mark.e2e
@pytest.mark.parametrize("transport", ["grpc", "system"])
def test_a_real_server_returns_each_frame_by_both_transports(tmp_path, transport: str) -> None:
    write_copy_repository(tmp_path, COMMITTED)
    source = Source(
        np.ones(512, np.float32), "identity", "inswapper_128", np.zeros((0, 15), np.float32)
    )
    frames = np.random.default_rng(1).integers(0, 256, (40, 96, 64), np.uint8)
    with (
        EmbeddedServer(tmp_path, models=["swap_faces_i420"]) as server,
        FaceSwapper(server.grpc_url, transport=transport) as swapper,
    ):
        assert swapper.transport == transport
        swapped = [each.frame for each in swapper.stream(frames, source)]
    np.testing.assert_array_equal(swapped, frames)
