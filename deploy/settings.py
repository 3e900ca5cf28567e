"""What a server in a container is told: flags, or environment variables named after them.

`--drain-s 5` and `FRAMESWAP_DRAIN_S=5` say the same; the flag wins. Compose and the Helm chart use
the variables, a person the flags.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PREFIX: Final = "FRAMESWAP_"
OPENABLE: Final = ("shared-memory", "statistics")
"""Groups of Triton's calls that are closed unless somebody asks for them."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files of a certificate, as in a Kubernetes secret of type `kubernetes.io/tls`.

    certificate, key: PEM. authority: PEM of who signed the certificate, and, where `mutual`, the
        clients'. name: a DNS name that the certificate is for.
    """

    certificate: Path
    key: Path
    authority: Path
    name: str
    mutual: bool


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One server. Times are seconds; port 0 lets the system choose.

    wait_s: how long plans may be missing. drain_s: how long a server that is told to stop goes on
    serving while it says that it is not ready. exit_timeout_s: how long requests under way may take
    after that. failed_probes: how many in a row make a server dead.
    max_queue_size: requests that may wait for a step that clients meet; 0 is no bound.
    extra: handed to tritonserver as they are.
    """

    repository: Path
    variant: str
    wait_s: float
    drain_s: float
    exit_timeout_s: int
    start_timeout_s: float
    address: str
    grpc_port: int
    health_port: int
    metrics_port: int
    binary: str
    frame_size: tuple[int, int]
    requests_in_flight: int
    instances: int
    max_queue_size: int
    probe_interval_s: float
    probe_timeout_s: float
    failed_probes: int
    opened: tuple[str, ...]
    tls: Tls | None
    extra: tuple[str, ...]


def read_settings(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Settings from flags and environment; wrong ones end the program with usage and status 2."""
    parser = _parser(os.environ if environment is None else environment)
    given = parser.parse_args(arguments)
    tls_files = (given.tls_certificate, given.tls_key, given.tls_authority, given.tls_name)
    if any(tls_files) and not all(tls_files):
        parser.error(
            "TLS takes --tls-certificate, --tls-key, --tls-authority and --tls-name together"
        )
    if given.tls_mutual and not any(tls_files):
        parser.error("--tls-mutual needs --tls-certificate, --tls-key, --tls-authority, --tls-name")
    if given.max_queue_size and given.instances < 2:
        parser.error(
            "--max-queue-size needs --instances 2 or more: with one, a Triton queue with a limit "
            "can leave requests waiting for half a second"
        )
    values = {name: value for name, value in vars(given).items() if not name.startswith("tls_")}
    values["opened"] = tuple(values["opened"])
    values["extra"] = tuple(word for word in values["extra"] if word != "--")
    tls = None
    if all(tls_files):
        tls = Tls(
            certificate=given.tls_certificate,
            key=given.tls_key,
            authority=given.tls_authority,
            name=given.tls_name,
            mutual=given.tls_mutual,
        )
    return Settings(**values, tls=tls)


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.entry_point",
        description="Wait for plans, refuse wrong ones, serve, and stop without losing a request.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog=f"Each flag is also a variable: --drain-s is {PREFIX}DRAIN_S. Flags win.",
    )

    def add(flag: str, kind: object, default: object, text: str, **more: object) -> None:
        variable = PREFIX + flag.removeprefix("--").replace("-", "_").upper()
        given = environment.get(variable)
        # A default that is text goes through `type`, as a flag's value does.
        value = given if given else default
        if isinstance(default, bool):
            if given not in (None, "", "0", "1"):
                parser.error(f"{variable} is 0 or 1, not {given!r}")
            parser.add_argument(flag, action="store_true", default=given == "1", help=text)
        else:
            parser.add_argument(flag, type=kind, default=value, help=text, **more)  # type: ignore[arg-type]

    add("--repository", Path, "/models", "model repository")
    add("--variant", str, "tensorrt", "which of its generated configs to serve")
    add("--wait-s", _seconds, "3600", "how long plans may be missing")
    add("--drain-s", _seconds, "5", "goes on serving so long after it says that it is not ready")
    add("--exit-timeout-s", _whole, "30", "how long requests under way may take after that")
    add("--start-timeout-s", _seconds, "900", "how long loading may take")
    add("--address", str, "0.0.0.0", "address to listen on")
    add("--grpc-port", _port, "8001", "inference")
    add("--health-port", _port, "8000", "/v2/health/live and /v2/health/ready, nothing else")
    add("--metrics-port", _port, "8002", "/metrics")
    add("--binary", str, "tritonserver", "the server")
    add("--frame-size", _frame_size, "1920x1080", "largest usual frame: memory is planned for it")
    add("--requests-in-flight", _positive, "64", "memory is planned for so many")
    add("--instances", _positive, "1", "instances of every model, where the configs say fewer")
    add("--max-queue-size", _whole, "0", "requests that may wait before others are refused; 0: all")
    add("--probe-interval-s", _seconds, "10", "time between two real inferences")
    add("--probe-timeout-s", _seconds, "30", "how long the answer to one may take")
    add("--failed-probes", _positive, "3", "so many in a row end the server")
    _add_opened(parser, environment)
    add("--tls-certificate", Path, None, "PEM certificate of this server: gRPC and metrics use TLS")
    add("--tls-key", Path, None, "its private key")
    add("--tls-authority", Path, None, "PEM of who signed it")
    add("--tls-name", str, None, "a DNS name that it is for")
    add("--tls-mutual", bool, False, "clients must show a certificate of the same authority")
    parser.add_argument("extra", nargs=argparse.REMAINDER, help="-- and arguments of tritonserver")
    return parser


def _add_opened(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    given = environment.get(f"{PREFIX}OPEN", "").split()
    unknown = sorted(set(given) - set(OPENABLE))
    if unknown:
        parser.error(f"{PREFIX}OPEN takes {' and '.join(OPENABLE)}, not {unknown[0]!r}")
    parser.add_argument(
        "--open", dest="opened", nargs="+", choices=OPENABLE, default=given,
        help="calls to open: shared memory for clients of this host, statistics for perf_analyzer",
    )  # fmt: skip


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port, 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) > 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return float(text)


def _frame_size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, for example 1920x1080")
    return int(width), int(height)
