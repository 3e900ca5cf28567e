"""Finding, in a server's log, the one line that says why it failed."""

from __future__ import annotations

import re

HARMLESS = (
    "CudaDriverHelper has not been initialized",
    "unable to create stream for",
    "failed to allocate pinned system memory: no pinned memory pool",
)
"""What Triton 24.10 logs as errors and warnings on every machine without a GPU, and runs on."""

ADDRESS_IN_USE = re.compile(
    r"address already in use|failed to bind|Socket .* already in use|errno: 98", re.IGNORECASE
)

_EXCEPTION = re.compile(r"(?:TritonModelException|ImportError): (?P<told>.*?)(?:\\n|$)")
_FAILED_LOAD = re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<told>.*)")
_ERROR_LINE = re.compile(r"^E\d{4} [\d:.]+ \d+ \S+\] \"?(?P<told>.*?)\"?$")
_PLAIN_ERROR = re.compile(r"^error: (?P<told>.*)$")


def explain_failure(log: str) -> str:
    """Return the most telling error of a log in one line, without a full stop; empty if none.

    In this order: what a model of ours said, what Triton said of a model, Triton's last error.
    """
    lines = [line for line in log.splitlines() if not any(text in line for text in HARMLESS)]
    for pattern in (_EXCEPTION, _FAILED_LOAD):
        for line in lines:
            match = pattern.search(line)
            if match:
                model = match.groupdict().get("model")
                told = _clean(match["told"])
                return f"{model}: {told}" if model else told
    for line in reversed(lines):
        match = _ERROR_LINE.match(line) or _PLAIN_ERROR.match(line)
        if match:
            return _clean(match["told"])
    return ""


def says_address_in_use(log: str) -> bool:
    """Tell whether the log says that a port was taken."""
    return ADDRESS_IN_USE.search(log) is not None


def _clean(text: str) -> str:
    return " ".join(text.replace("\\n", " ").split()).rstrip('".')
