"""The transport bench, small: every way carries every frame, through a real server."""

from __future__ import annotations

import numpy as np
import pytest
from frameswap import FaceSwapper, Source

from bench.copy_repository import write_copy_repository
from bench.transport import COMMITTED, Row, format_table, main
from server.launcher import EmbeddedServer


def test_the_table_names_each_way_and_compares_with_the_first() -> None:
    rows = [Row("plain", 50.0, 8.0), Row("ours", 200.0, 2.0)]
    assert format_table(rows, 16, (1920, 1080)).splitlines()[-2:] == [
        "| plain | 50 | 8.00 | 1.0 |",
        "| ours | 200 | 2.00 | 4.0 |",
    ]


def test_the_bench_measures_all_that_this_machine_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--frames", "20", "--width", "128", "--height", "96", "--in-flight", "4"]) == 0
    printed = capsys.readouterr().out
    for name in ("tritonclient, one at a time", "frameswap, grpc", "frameswap, system",
                 "perf_analyzer, gRPC", "perf_analyzer, system"):  # fmt: skip
        assert f"| {name} |" in printed


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
