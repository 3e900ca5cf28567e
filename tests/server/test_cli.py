"""`frameswap serve` as a user runs it."""

from __future__ import annotations

import argparse
import http.client
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from server import cli
from server.doors import Doors
from tests.server.test_launcher import gone, shared_memory_of

SERVE = """
import argparse, sys
from server.cli import register
parser = argparse.ArgumentParser()
register(parser.add_subparsers(required=True))
arguments = parser.parse_args(sys.argv[1:])
sys.exit(arguments.run(arguments))
"""
ANY_PORTS = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]


def run(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.e2e
def test_serve_prints_its_endpoints_and_plan_and_stops_cleanly(
    tiny_repository: Path, tmp_path: Path
) -> None:
    log = tmp_path / "server.log"
    process = run(["--repository", str(tiny_repository), "--log", str(log), *ANY_PORTS])
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith("ready"):
            break
    told = "\n".join(lines)
    children = psutil.Process(process.pid).children(recursive=True)
    health = re.search(r"http://(\S+)(/v2/health/ready)", told)
    assert health is not None
    connection = http.client.HTTPConnection(health[1], timeout=30)
    connection.request("GET", health[2])
    assert connection.getresponse().status == 200
    connection.close()
    assert re.search(r"gRPC +127\.0\.0\.1:\d+", told)
    assert re.search(r"metrics +http://127\.0\.0\.1:\d+/metrics", told)
    assert "planned for 16 requests in flight of 1920x1080" in told
    assert "shared memory: about" in told
    assert "pools: none" in told
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest.strip(), errors) == (0, "stopping", "")
    assert len(children) >= 4
    assert gone(children)
    assert not shared_memory_of(process.pid)
    assert log.is_file()


def test_serve_says_in_one_sentence_what_is_wrong(tmp_path: Path) -> None:
    process = run(["--repository", str(tmp_path / "nowhere"), *ANY_PORTS])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.fullmatch(r"frameswap: the model repository .*nowhere does not exist; .*\n", errors)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--grpc-port", "70000"], "must be a port from 0 to 65535, not '70000'"),
        (["--http-port", "http"], "must be a port from 0 to 65535, not 'http'"),
        (["--instances", "model"], "must be MODEL=COUNT, for example face_swapper=2, not 'model'"),
        (["--instances", "m=²"], "must be MODEL=COUNT, for example face_swapper=2, not 'm=²'"),
        (["--frame-size", "big"], "must be WIDTHxHEIGHT in pixels, for example 1920x1080, not"),
        (["--requests-in-flight", "0"], "must be a whole number, 1 or more, not '0'"),
        (["--requests-in-flight", "many"], "must be a whole number, 1 or more, not 'many'"),
        (["--probe-interval-s", "nan"], "must be a number of seconds above 0, not 'nan'"),
        (["--probe-interval-s", "soon"], "must be a number of seconds above 0, not 'soon'"),
        (["--queue-delay-us", "8ms"], "a whole number of microseconds, 0 or more, not '8ms'"),
    ],
)
def test_serve_refuses_arguments_it_cannot_read(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["serve", *arguments])
    assert sentence in capsys.readouterr().err


def test_serve_reads_sizes_and_counts() -> None:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    given = parser.parse_args(
        ["serve", "--frame-size", "1280x720", "--instances", "a=2", "--instances", "b=3"]
    )
    assert given.frame_size == (1280, 720)
    assert given.instances == [("a", 2), ("b", 3)]
    assert (given.grpc_port, given.http_port, given.metrics_port) == (None, None, None)
    assert given.address is None


@pytest.mark.parametrize(
    ("options", "layout"),
    [([], None), (["--one-process"], True), (["--no-one-process"], False)],
)
def test_the_layout_is_the_targets_unless_it_is_given(
    options: list[str], layout: bool | None
) -> None:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    assert parser.parse_args(["serve", *options]).one_process is layout


SOCKET = Doors(socket=Path("/x/s:1"))
EVERYBODY_HERE = "warning: every user of this machine can"
OLD = "warning: Triton 24.10 lacks later security fixes; production is NVIDIA's container"


@pytest.mark.parametrize(
    ("doors", "hidden", "told"),
    [
        (SOCKET, True, ["gRPC     unix:/x/s:1   (inference; only you reach it)"]),
        (replace(SOCKET, http_port=2), True, [
            "gRPC     unix:/x/s:1   (inference; only you reach it)",
            "health   http://127.0.0.1:2/v2/health/ready", f"{EVERYBODY_HERE} read health here",
        ]),
        (Doors(grpc_port=1), True, [
            "gRPC     127.0.0.1:1   (inference)", f"{EVERYBODY_HERE} swap faces here",
        ]),
        (Doors(grpc_port=1), False, [
            "gRPC     127.0.0.1:1   (inference)", f"{EVERYBODY_HERE} swap faces here",
            "warning: this system does not let the server's keys be hidden (ptrace is forbidden): "
            "every user of this machine can load models into it",
        ]),
        (Doors("10.0.0.9", 1, metrics_port=3), True, [
            "gRPC     10.0.0.9:1   (inference)", "metrics  http://10.0.0.9:3/metrics",
            "warning: everyone who reaches 10.0.0.9 can swap faces and read metrics here", OLD,
        ]),
    ],
)  # fmt: skip
def test_what_is_open_is_said_and_to_whom(doors: Doors, hidden: bool, told: list[str]) -> None:
    assert cli.describe_doors(doors, keys_are_hidden=hidden) == told


@pytest.mark.parametrize("option", ["--target", "--variant"])
def test_the_target_to_serve_has_its_older_name_too(option: str) -> None:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    assert parser.parse_args(["serve", option, "cuda"]).target == "cuda"
    assert parser.parse_args(["serve"]).target == "cpu"
    assert parser.parse_args(["serve"]).frame_size == (1920, 1080)
