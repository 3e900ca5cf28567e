"""What a server in a container is told: flags, or environment variables named after them.

`--drain-s 5` and `FRAMESWAP_DRAIN_S=5` say the same; the flag wins. Compose and the Helm chart use
the variables, a person the flags.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from frameswap.arguments import (
    HelpFormatter,
    WholeNumber,
    frame_size,
    port,
    seconds,
    seconds_or_zero,
)

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
    target: str
    wait_s: float
    drain_s: float
    exit_timeout_s: int
    start_timeout_s: float
    address: str
    grpc_port: int
    health_port: int
    metrics_port: int
    max_connection_age_s: int
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
        description="Wait for plans, refuse wrong ones, serve, and stop without losing a request. "
        f"Each option is also a variable: --drain-s is {PREFIX}DRAIN_S. Options win.",
        formatter_class=HelpFormatter,
    )
    for title, options in _OPTIONS.items():
        group = parser.add_argument_group(title)
        for flag, kind, metavar, default, text in options:
            variable = _variable(flag)
            # A default that is text goes through `type`, as a flag's value does.
            given = environment.get(variable) or default
            if kind is bool:
                if given not in (None, "0", "1"):
                    parser.error(f"{variable} must be 0 or 1, not {given!r}")
                group.add_argument(flag, action="store_true", default=given == "1", help=text)
            else:
                group.add_argument(flag, type=kind, metavar=metavar, default=given, help=text)
    _add_opened(parser, environment)
    parser.add_argument("extra", nargs=argparse.REMAINDER, help="-- and arguments of tritonserver")
    return parser


_ANY: Final = "; 0 lets the system choose"
_OPTIONS: Final[Mapping[str, Sequence[tuple[str, Any, str | None, str | None, str]]]] = {
    "models": (
        ("--repository", Path, "FOLDER", "/models", "model repository"),
        ("--target", str, "NAME", "tensorrt", "the target of build_engines.py that is served"),
        ("--wait-s", seconds_or_zero, "SECONDS", "3600", "how long plans may be missing"),
        ("--start-timeout-s", seconds, "SECONDS", "900", "how long loading may take"),
        ("--binary", str, "PATH", "tritonserver", "the server's program"),
    ),
    "where it listens": (
        ("--address", str, "ADDRESS", "0.0.0.0", "where to listen (default: 0.0.0.0, every one)"),
        ("--grpc-port", port, "PORT", "8001", f"inference{_ANY}"),
        ("--health-port", port, "PORT", "8000",
         f"/v2/health/live and /v2/health/ready, nothing else{_ANY}"),
        ("--metrics-port", port, "PORT", "8002", f"/metrics{_ANY}"),
        ("--max-connection-age-s", WholeNumber(0), "SECONDS", "0",
         "clients connect anew after so long, so that they find new servers; 0: never"),
    ),
    "how much": (
        ("--frame-size", frame_size, "WIDTHxHEIGHT", "1920x1080",
         "largest usual frame: memory is planned for it"),
        ("--requests-in-flight", WholeNumber(1), "N", "64", "memory is planned for so many"),
        ("--instances", WholeNumber(1), "N", "1",
         "instances of every model, where the configs say fewer"),
        ("--max-queue-size", WholeNumber(0), "N", "0",
         "requests that may wait before others are refused; 0: all"),
    ),
    "watching and stopping": (
        ("--probe-interval-s", seconds, "SECONDS", "10", "time between two real inferences"),
        ("--probe-timeout-s", seconds, "SECONDS", "30", "how long the answer to one may take"),
        ("--failed-probes", WholeNumber(1), "N", "3", "so many in a row end the server"),
        ("--drain-s", seconds_or_zero, "SECONDS", "5",
         "goes on serving so long after it says that it is not ready"),
        ("--exit-timeout-s", WholeNumber(1), "SECONDS", "30",
         "how long requests under way may take after that"),
    ),
    "TLS of gRPC and metrics": (
        ("--tls-certificate", Path, "FILE", None, "PEM certificate of this server"),
        ("--tls-key", Path, "FILE", None, "its private key"),
        ("--tls-authority", Path, "FILE", None, "PEM of who signed it, and the clients' ones"),
        ("--tls-name", str, "NAME", None, "a DNS name that it is for"),
        ("--tls-mutual", bool, None, None,
         "clients must show a certificate of the same authority"),
    ),
}  # fmt: skip


def known_variables() -> set[str]:
    """Every variable that is read."""
    flags = [flag for options in _OPTIONS.values() for flag, *_ in options] + ["--open"]
    return {_variable(flag) for flag in flags}


def _variable(flag: str) -> str:
    return PREFIX + flag.removeprefix("--").replace("-", "_").upper()


def _add_opened(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    given = environment.get(_variable("--open"), "").split()
    unknown = sorted(set(given) - set(OPENABLE))
    if unknown:
        parser.error(f"{PREFIX}OPEN takes {' and '.join(OPENABLE)}, not {unknown[0]!r}")
    parser.add_argument_group("calls").add_argument(
        "--open", dest="opened", nargs="+", choices=OPENABLE, default=given, metavar="CALLS",
        help="opens shared-memory, for clients of this host, or statistics, for perf_analyzer",
    )  # fmt: skip
