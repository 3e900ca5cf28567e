"""perf_analyzer's command lines for one endpoint: run here, or written to a file for elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from frameswap.errors import BadOptions
from frameswap.security import Security

from bench.load.inputs import Inputs
from bench.perf_windows import WINDOWS, window_words


@dataclass(frozen=True)
class LoadCommand:
    """One command line a number of requests in flight, each without the program's name.

    token: file of a bearer token, read when the command runs.
    """

    lines: tuple[tuple[str, ...], ...]
    token: Path | None

    def with_binary(self, binary: str) -> list[list[str]]:
        """The command lines, ready to be run."""
        header = []
        if self.token is not None:
            header = ["-H", f"authorization: Bearer {self.token.read_text().strip()}"]
        return [[binary, *line, *header] for line in self.lines]


def make_command(
    server: str,
    inputs: Inputs,
    concurrency: Sequence[int],
    *,
    seconds: float,
    security: Security | None = None,
    token_file: Path | None = None,
) -> LoadCommand:
    """perf_analyzer over gRPC, in windows of time, so that a slow server ends too.

    Args:
        concurrency: requests in flight, a measurement each.
        seconds: of each measurement.
        security: TLS of the endpoint; its token is taken from `token_file`.
        token_file: of a bearer token, read when the command runs.
    """
    shapes = [
        word
        for name, shape in inputs.shapes.items()
        for word in ("--shape", f"{name}:{','.join(map(str, shape))}")
    ]
    common = (
        "-m", inputs.model, "-i", "grpc", "-u", server.removeprefix("dns:///"), "--async",
        "--input-data", inputs.folder.name, *shapes, *window_words(seconds / WINDOWS),
        "--percentile", "99", *_tls_words(security or Security()),
    )  # fmt: skip
    lines = tuple(
        (*common, "--concurrency-range", str(count), "-f", f"{count}.csv") for count in concurrency
    )
    return LoadCommand(lines, token_file)


def write_run(command: LoadCommand, path: Path) -> None:
    """Write a shell script that runs the command lines beside the inputs' folder."""
    header = ""
    if command.token is not None:
        header = f' -H "authorization: Bearer $(cat {shlex.quote(str(command.token))})"'
    lines = ["#!/bin/sh", 'cd "$(dirname "$0")" || exit 1', "set -e"]
    lines += [f"perf_analyzer {shlex.join(line)}{header}" for line in command.lines]
    path.write_text("\n".join(lines) + "\n")


def _tls_words(security: Security) -> list[str]:
    if not security.encrypts:
        return []
    if security.name is not None:
        raise BadOptions(
            "perf_analyzer checks the certificate against the address: leave --tls-name out, and "
            "use an address that the certificate is for"
        )
    words = ["--ssl-grpc-use-ssl"]
    for flag, path in (
        ("root-certifications", security.ca),
        ("private-key", security.key),
        ("certificate-chain", security.certificate),
    ):
        if path is not None:
            words += [f"--ssl-grpc-{flag}-file", str(path)]
    return words
