"""`frameswap serve`: an embedded Triton that stays up until Ctrl-C."""

from __future__ import annotations

import argparse
import ipaddress
import math
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tritonclient.utils import InferenceServerException

from server.errors import ServerError
from server.launcher import EmbeddedServer
from server.repository import DEFAULT_REPOSITORY
from server.watchdog import Watchdog

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def register(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `serve` command; its parser's `run` takes the arguments and returns an exit code."""
    parser = subparsers.add_parser(
        "serve",
        help="keep an embedded Triton server running on this machine",
        description="Start a real tritonserver without Docker, and keep its models alive until "
        "Ctrl-C. Inference is over gRPC; HTTP answers health and metrics only.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--repository", type=Path, default=DEFAULT_REPOSITORY, help="model repository")
    add("--variant", default="cpu", help="which of its generated configs to serve")
    add("--models", nargs="+", metavar="NAME", help="load only these (with what they need)")
    add("--address", help="listen for gRPC over TCP on this address (default: a Unix socket)")
    add("--grpc-port", type=_port, help="listen for gRPC over TCP; 0 lets the system choose")
    add("--http-port", type=_port, help="answer health over HTTP; 0 lets the system choose")
    add("--metrics-port", type=_port, help="serve metrics; 0 lets the system choose")
    add(
        "--instances", type=_instance_count, action="append", default=[], metavar="MODEL=COUNT",
        help="number of instances of one model; may be repeated",
    )  # fmt: skip
    add(
        "--queue-delay-us", type=_microseconds, metavar="N",
        help="microseconds that a request may wait for others to share its batch (GPU variants); "
        "without it, what the configs say",
    )  # fmt: skip
    add(
        "--one-process", action="store_true",
        help="run all steps of an ensemble in one process (on a GPU without NVIDIA's backends); "
        "--instances then names ensembles",
    )  # fmt: skip
    add(
        "--mps", action="store_true",
        help="start NVIDIA's Multi-Process Service, so that processes share the GPU",
    )  # fmt: skip
    add("--log", type=Path, help="file for the server's log")
    add("--verbose", action="store_true", help="log every request")
    add(
        "--frame-size", type=_frame_size, default=(1920, 1080), metavar="WIDTHxHEIGHT",
        help="usual frame that memory is planned for",
    )  # fmt: skip
    add("--requests-in-flight", type=_positive, default=16, help="memory is planned for so many")
    add("--probe-interval-s", type=_seconds, default=30.0, help="time between two real inferences")
    parser.set_defaults(run=serve)


def serve(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit code."""
    asked_to_stop = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: asked_to_stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return _serve(arguments, asked_to_stop)
    except ServerError as error:
        print(f"frameswap: {error}", file=sys.stderr)
        return 1
    except InferenceServerException as error:
        told = error.message()
        print(f"frameswap: the server's first inference failed: {told}", file=sys.stderr)
        return 1
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _serve(arguments: argparse.Namespace, asked_to_stop: threading.Event) -> int:
    server = EmbeddedServer(
        arguments.repository,
        variant=arguments.variant,
        models=arguments.models,
        address=arguments.address,
        grpc_port=arguments.grpc_port,
        http_port=arguments.http_port,
        metrics_port=arguments.metrics_port,
        instance_counts=dict(arguments.instances),
        queue_delay_us=arguments.queue_delay_us,
        one_process=arguments.one_process or None,
        mps=arguments.mps,
        log_file=arguments.log,
        verbose=arguments.verbose,
        frame_size=arguments.frame_size,
        requests_in_flight=arguments.requests_in_flight,
    )
    _say(f"starting the {arguments.variant} variant of {arguments.repository}")
    with server, Watchdog(server, _say, probe_interval_s=arguments.probe_interval_s):
        _say(f"gRPC     {server.grpc_url}   (inference)")
        if server.doors.http_url is not None:
            _say(f"health   http://{server.doors.http_url}/v2/health/ready")
        if server.doors.metrics_url is not None:
            _say(f"metrics  http://{server.doors.metrics_url}/metrics")
        _say(f"log      {server.log_path}")
        for name, value in server.client_environment.items():
            _say(f"clients with CUDA shared memory need {name}={value}")
        for line in server.memory_plan.describe():
            _say(line)
        if not _is_loopback(arguments.address):
            _say(
                f"warning: everyone who reaches {arguments.address} can use this server, and "
                "Triton 24.10 lacks later security fixes; production is NVIDIA's container"
            )
        _say("ready; Ctrl-C stops it")
        asked_to_stop.wait()
        _say("stopping")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _whole(text: str, wanted: str, least: int = 0, most: float = math.inf) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{wanted}, and {text!r} was given")
    return int(text)


def _port(text: str) -> int:
    return _whole(text, "a port is 0 to 65535", most=65535)


def _positive(text: str) -> int:
    return _whole(text, "at least 1 is needed", least=1)


def _microseconds(text: str) -> int:
    return _whole(text, "a whole number of microseconds is needed")


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    # Written so that a NaN fails.
    if not 0 < number <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(
            f"a number of seconds above 0 is needed, and {text!r} was given"
        )
    return number


def _instance_count(text: str) -> tuple[str, int]:
    name, equals, count = text.partition("=")
    if not (name and equals and count.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} does not read MODEL=COUNT")
    return name, int(count)


def _frame_size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} does not read WIDTHxHEIGHT")
    return int(width), int(height)
