"""One tritonserver behind its keeper: spawned, watched, asked why it ended, and ended."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from server import mps, shared_memory
from server.command_line import EXIT_TIMEOUT_S
from server.errors import StartError
from server.keeper import HANGS, IDLE
from server.server_log import explain_failure

KEEPER: Final = Path(__file__).resolve().parent / "keeper.py"


FEWEST_FILES: Final = 256
"""With 64 the server waits for ever for a model that could not be started; 256 have been enough."""
ENOUGH_FILES: Final = 4096


def _enough_open_files() -> tuple[int, int]:
    """The limit of open files that the server gets: this process's, made high enough.

    Raises:
        StartError: it may not be made high enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if hard != unlimited and hard < FEWEST_FILES:
        raise StartError(
            f"the embedded server needs at least {FEWEST_FILES} open files, and {hard} open files "
            "are allowed here; raise the limit (ulimit -n)"
        )
    if soft != unlimited and soft < ENOUGH_FILES:
        soft = ENOUGH_FILES if hard == unlimited else min(hard, ENOUGH_FILES)
    return soft, hard


class ServerProcess:
    """A server's process tree; made when it is spawned, of no use once it is ended.

    Args:
        command: the server's.
        environment: the server's; names the MPS daemon that the keeper ends, where there is one.
        region_prefix: what the names of its files in /dev/shm start with.
        scratch: folder that goes with a killed parent.
        key_file: file that goes with the server, where there is one.
        on_gpu: whether it uses one.
        log: file that its log is appended to.

    Raises:
        StartError: the log cannot be written.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        region_prefix: str,
        scratch: Path,
        key_file: Path | None,
        on_gpu: bool,
        log: Path,
    ) -> None:
        self._log = log
        self._region_prefix = region_prefix
        limit = _enough_open_files()
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as stream:
                self._log_start = stream.tell()
        except OSError as error:
            raise StartError(f"the log {log} cannot be written: {error.strerror}") from error
        self._keeper = subprocess.Popen(
            [
                sys.executable, "-I", "-S", str(KEEPER),
                region_prefix, str(scratch), str(key_file or ""), str(EXIT_TIMEOUT_S + 2),
                str(log), str(int(on_gpu)), *command,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # An inherited name of a control program would have the keeper end somebody's daemon.
            env={mps.CONTROL_VARIABLE: "", **environment},
            bufsize=0,
            start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit),
        )  # fmt: skip
        assert self._keeper.stdout is not None
        pid, _, keys = self._keeper.stdout.readline().decode().strip().partition(" ")
        self.pid = int(pid or 0)
        """Process id of tritonserver itself; its children are the models' processes."""
        self.keys_are_hidden = keys == "hidden"
        """Whether the server's keys stand in its variables alone, not on its command line."""

    @property
    def is_running(self) -> bool:
        return self._keeper.poll() is None

    def read_log(self) -> str:
        """Return what this process has written to the log."""
        try:
            with self._log.open("rb") as stream:
                stream.seek(self._log_start)
                return stream.read().decode(errors="replace")
        except OSError:
            return ""

    def dead_models(self) -> set[int]:
        """Models' processes that have died, which nobody collects."""
        try:
            children = psutil.Process(self.pid).children()
            return {each.pid for each in children if each.status() == psutil.STATUS_ZOMBIE}
        except psutil.NoSuchProcess:
            return set()

    def listens_at(self, ports: Iterable[int]) -> bool:
        """Whether the server itself has all of these TCP ports; True where nobody may ask that."""
        try:
            open_here = psutil.Process(self.pid).net_connections("tcp")
        except psutil.NoSuchProcess:
            return False
        except (psutil.AccessDenied, OSError):
            return True
        listening = {each.laddr.port for each in open_here if each.status == psutil.CONN_LISTEN}
        return listening.issuperset(ports)

    def kept_for_the_dead(self) -> int:
        """Bytes of /dev/shm that the server keeps for models' processes that have died.

        Triton gives a dead process's region back when its model is unloaded, unless requests that
        the process had are unanswered: Triton never answers some of them, and goes on waiting.
        """
        lines = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    lines.append(" ".join(child.cmdline()))
        return shared_memory.bytes_without(self._region_prefix, lines)

    def explain(self) -> str:
        """Return what its log says that is wrong, without a full stop; empty if nothing."""
        return explain_failure(self.read_log())

    def describe_end(self) -> str:
        """Return why it ended by itself, as far as its log tells."""
        status = self._keeper.poll()
        if status is not None and status > 128:
            # A signal says more than whatever the log's last error was.
            return f"it was ended by {signal.Signals(status - 128).name}"
        return self.explain() or f"it ended with status {status}"

    def end(self, *, hangs: bool = False, idle: bool = False) -> bool:
        """End the server and wait until it is gone; False when the keeper had been killed.

        Args:
            hangs: do not wait for requests in flight.
            idle: it has no model any more, and so no requests.
        """
        keeper = self._keeper
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        if hangs or idle:
            with contextlib.suppress(BrokenPipeError):
                keeper.stdin.write(HANGS if hangs else IDLE)
        # The keeper gives the server EXIT_TIMEOUT_S, then kills it: it always ends.
        keeper.stdin.close()
        killed = keeper.wait() < 0
        keeper.stdout.close()
        return not killed
