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

from server.doors import LOOPBACK, Doors
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
        "Ctrl-C. Inference is over gRPC, on a Unix socket that only you can reach unless TCP is "
        "asked for; HTTP answers health and metrics only.",
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
        "--address", metavar="ADDRESS",
        help="listen over TCP, on this address (default: on a Unix socket that only you can reach)",
    )  # fmt: skip
    for name, serves in (("grpc", "inference"), ("http", "health"), ("metrics", "metrics")):
        group.add_argument(
            f"--{name}-port", type=port, metavar="PORT",
            help=f"TCP port for {serves}; 0 lets the system choose (default: none)",
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


class _Stopped(BaseException):
    """SIGINT or SIGTERM came, whatever was being done."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def serve(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit code."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int, _: object) -> None:
        # What is stopping already is not to be interrupted at it.
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(number)

    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        _serve(arguments)
    except _Stopped as stopped:
        print("frameswap: stopped while the server started", file=sys.stderr)
        return 128 + stopped.number
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
    return 0


def _serve(arguments: argparse.Namespace) -> None:
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
        one_process=arguments.one_process,
        mps=arguments.mps,
        log_file=arguments.log,
        verbose=arguments.verbose,
        frame_size=arguments.frame_size,
        requests_in_flight=arguments.requests_in_flight,
    )
    _say(f"starting {arguments.repository}, built for the target {arguments.target}")
    with server, Watchdog(server, _say, probe_interval_s=arguments.probe_interval_s):
        for line in describe_doors(server.doors, keys_are_hidden=server.keys_are_hidden):
            _say(line)
        _say(f"log      {server.log_path}")
        for name, value in server.client_environment.items():
            _say(f"clients with CUDA shared memory need {name}={value}")
        for line in server.memory_plan.describe():
            _say(line)
        _say("ready; Ctrl-C stops it")
        try:
            threading.Event().wait()
        except _Stopped:
            _say("stopping")


def describe_doors(doors: Doors, *, keys_are_hidden: bool) -> list[str]:
    """Lines that say where a server listens, and who can reach what of it."""
    over_tcp = doors.grpc_port is not None
    lines = [f"gRPC     {doors.grpc_url}   (inference{'' if over_tcp else '; only you reach it'})"]
    if doors.http_url is not None:
        lines.append(f"health   http://{doors.http_url}/v2/health/ready")
    if doors.metrics_url is not None:
        lines.append(f"metrics  http://{doors.metrics_url}/metrics")
    opened = ["swap faces"] if over_tcp else []
    opened += ["read health"] if doors.http_url is not None else []
    opened += ["read metrics"] if doors.metrics_url is not None else []
    if opened:
        address = doors.address or LOOPBACK
        who = "every user of this machine"
        if not _is_loopback(address):
            who = f"everyone who reaches {address}"
        lines.append(f"warning: {who} can {' and '.join(opened)} here")
    if not _is_loopback(doors.address or LOOPBACK):
        lines.append(
            "warning: Triton 24.10 lacks later security fixes; production is NVIDIA's container"
        )
    if over_tcp and not keys_are_hidden:
        lines.append(
            "warning: this system does not let the server's keys be hidden (ptrace is forbidden): "
            "every user of this machine can load models into it"
        )
    return lines


def _say(line: str) -> None:
    print(line, flush=True)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
