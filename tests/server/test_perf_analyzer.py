"""NVIDIA's own load generator drives the embedded server, with and without shared memory."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from server.launcher import EmbeddedServer
from server.perf_analyzer import PerfAnalyzer, prepare_perf_analyzer


@pytest.fixture(scope="module")
def perf_analyzer() -> PerfAnalyzer:
    return prepare_perf_analyzer()


@pytest.mark.parametrize(
    "transport", [[], ["--shared-memory=system", "--output-shared-memory-size=65536"]]
)
def test_perf_analyzer_measures_the_embedded_server(
    tiny_server: EmbeddedServer, perf_analyzer: PerfAnalyzer, tmp_path: Path, transport: list[str]
) -> None:
    report = tmp_path / "report.csv"
    finished = subprocess.run(
        [
            perf_analyzer.binary, "-m", "invert_twice", "-i", "grpc", "-u", tiny_server.grpc_url,
            "--shape=frame:16,24,3", "--shape=options:4", "--input-data=zero",
            "--concurrency-range=8", "--request-count=64", "-f", report, *transport,
        ],
        env=perf_analyzer.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (row,) = csv.DictReader(report.read_text().splitlines())
    assert row["Concurrency"] == "8"
    assert float(row["Inferences/Second"]) > 0
