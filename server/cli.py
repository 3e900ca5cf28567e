"""`frameswap serve`: an embedded Triton that stays up until Ctrl-C."""

from __future__ import annotations

import argparse
import ipaddress
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from frameswap.arguments import HelpFormatter, WholeNumber, frame_size, model_count, port, seconds
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
        formatter_class=HelpFormatter,
    )
    _add_models(parser.add_argument_group("models"))
    _add_addresses(parser.add_argument_group("where it listens"))
    _add_execution(parser.add_argument_group("how models run"))
    _add_memory(parser.add_argument_group("memory that is set aside"))
    group = parser.add_argument_group("log")
    group.add_argument(
        "--log", type=Path, metavar="FILE",
        help="file for the server's log (default: one in a temporary folder)",
    )  # fmt: skip
    group.add_argument("--verbose", action="store_true", help="log every request")
    parser.set_defaults(run=serve)


def _add_models(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--repository", type=Path, default=DEFAULT_REPOSITORY, metavar="FOLDER",
        help="model repository (default: the one in this checkout)",
    )  # fmt: skip
    group.add_argument(
        "--target", "--variant", default="cpu", metavar="TARGET",
        help="the target of build_engines.py whose models to serve",
    )  # fmt: skip
    group.add_argument(
        "--models", nargs="+", metavar="MODEL",
        help="load these only, with the steps that they need (default: all)",
    )  # fmt: skip
    group.add_argument(
        "--instances", type=model_count, action="append", default=[], metavar="MODEL=COUNT",
        help="instances of one model; may be repeated (default: what its config says)",
    )  # fmt: skip


def _add_addresses(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--address", default="127.0.0.1", metavar="ADDRESS", help="address to listen on"
    )
    for name, serves, default in (
        ("grpc", "inference", 8001),
        ("http", "health", 8000),
        ("metrics", "metrics", 8002),
    ):
        group.add_argument(
            f"--{name}-port", type=port, default=default, metavar="PORT",
            help=f"port for {serves}; 0 lets the system choose",
        )  # fmt: skip


def _add_execution(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--queue-delay-us", type=WholeNumber(0, noun="a whole number of microseconds"),
        metavar="MICROSECONDS",
        help="how long a request may wait for others to share its batch, on a GPU (default: what "
        "the configs say)",
    )  # fmt: skip
    group.add_argument(
        "--one-process", action=argparse.BooleanOptionalAction,
        help="run all steps of an ensemble in one process, and not each in its own; --instances "
        "then names ensembles (default: what the target is best served by)",
    )  # fmt: skip
    group.add_argument(
        "--mps", action="store_true",
        help="start NVIDIA's Multi-Process Service, so that processes share the GPU",
    )  # fmt: skip
    group.add_argument(
        "--probe-interval-s", type=seconds, default=30.0, metavar="SECONDS",
        help="seconds between two real inferences that show whether each model still answers",
    )  # fmt: skip


def _add_memory(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--frame-size", type=frame_size, default="1920x1080", metavar="WIDTHxHEIGHT",
        help="size of the frames to size memory for",
    )  # fmt: skip
    group.add_argument(
        "--requests-in-flight", type=WholeNumber(1), default=16, metavar="N",
        help="number of concurrent requests to size memory for",
    )  # fmt: skip


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
        target=arguments.target,
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
    _say(f"starting {arguments.repository}, built for the target {arguments.target}")
    with server, Watchdog(server, _say, probe_interval_s=arguments.probe_interval_s):
        _say(f"gRPC     {server.grpc_url}   (inference)")
        _say(f"health   http://{server.http_url}/v2/health/ready")
        _say(f"metrics  http://{server.metrics_url}/metrics")
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
