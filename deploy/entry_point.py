"""What a container runs: wait for plans, refuse wrong ones, serve, stop without losing a request.

    python -m deploy.entry_point --repository /models --target tensorrt

The health port answers `/v2/health/live` and `/v2/health/ready` from the start. Ready means: Triton
says so, the last real inference was answered, and nobody has told it to stop. Live means: it is not
known to be dead. On SIGTERM it is no longer ready, serves on for `--drain-s`, and then lets Triton
finish what is under way. A server whose models do not answer is ended, for its keeper (compose,
Kubernetes) to start afresh. Exit status: 0 when told to stop, 1 with one sentence otherwise.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from deploy.doors import Door, fetch_metrics, free_port
from deploy.plans import await_plans, write_bounded
from deploy.pulse import CALL_TIMEOUT_S, Pulse, local_client
from deploy.settings import Settings, read_settings
from deploy.triton_command import triton_command, triton_environment
from server import shared_memory
from server.errors import ServerError, ServerStoppedError, StartError
from server.memory_plan import check_shared_memory, plan_memory
from server.repository import Repository, check_loaded

POLL_S: Final = 0.2
KILL_AFTER_S: Final = 5.0
"""What Triton is given beyond its own time limit, before it is killed."""


class ContainerServer:
    """One tritonserver and what stands around it.

    Args:
        stop: set when somebody asks for the end.
    """

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._key = secrets.token_hex(16)
        self._prefix = shared_memory.new_prefix()
        self._triton: subprocess.Popen[bytes] | None = None
        self._client: triton_grpc.InferenceServerClient | None = None
        self._pulse: Pulse | None = None
        self._is_draining = False
        self._metrics_port = 0
        self._grpc_port = 0

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            ServerError: it cannot serve, or not any more; one sentence.
        """
        health = {"/v2/health/live": self._live, "/v2/health/ready": self._ready}
        settings = self._settings
        with contextlib.ExitStack() as closing:
            door = Door(settings.address, settings.health_port, health)
            closing.callback(door.close)
            _say(f"health   port {door.port}")
            repository = await_plans(settings, _say, self._stop.wait)
            if repository is None:
                return
            scratch = Path(tempfile.mkdtemp(prefix="frameswap-serve-"))
            closing.callback(shutil.rmtree, scratch, ignore_errors=True)
            if settings.instances > 1 or settings.max_queue_size:
                repository = write_bounded(repository, settings, scratch / "models")
            closing.callback(self._end_triton)
            self._start_triton(repository)
            metrics = Door(
                settings.address, settings.metrics_port, {"/metrics": self._metrics}, settings.tls
            )
            closing.callback(metrics.close)
            _say(f"gRPC     port {self._grpc_port}")
            _say(f"metrics  port {metrics.port}")
            _say("ready")
            self._watch()
            self._drain()

    def _start_triton(self, repository: Repository) -> None:
        settings = self._settings
        plan = plan_memory(
            list(repository.configs.values()),
            frame_size=settings.frame_size,
            requests_in_flight=settings.requests_in_flight,
        )
        check_shared_memory(plan, shared_memory.free_bytes())
        for line in plan.describe():
            _say(line)
        self._grpc_port = free_port(settings.address, settings.grpc_port)
        self._metrics_port = free_port("127.0.0.1", 0)
        command = triton_command(
            settings, repository, plan,
            grpc_port=self._grpc_port, metrics_port=self._metrics_port,
            region_prefix=self._prefix, key=self._key,
        )  # fmt: skip
        try:
            self._triton = subprocess.Popen(command, env=triton_environment(), process_group=0)
        except OSError as error:
            raise StartError(f"{settings.binary} cannot be run: {error.strerror}") from error
        self._client = local_client(settings, self._grpc_port)
        self._await_ready(self._client)
        try:
            check_loaded(self._client, repository)
            pulse = Pulse(settings, repository, self._client, self._key, _say)
            pulse.start()
        except InferenceServerException as error:
            raise StartError(f"the first inference failed: {error.message()}") from error
        self._pulse = pulse

    def _await_ready(self, client: triton_grpc.InferenceServerClient) -> None:
        assert self._triton is not None
        deadline = time.monotonic() + self._settings.start_timeout_s
        while not self._stop.is_set():
            status = self._triton.poll()
            if status is not None:
                raise StartError(f"tritonserver {_ending(status)} while loading; its log says why")
            told = "it says no"
            try:
                if client.is_server_ready(client_timeout=CALL_TIMEOUT_S):
                    return
            except InferenceServerException as error:
                told = error.message()
            if time.monotonic() > deadline:
                raise StartError(
                    f"tritonserver was not ready after {self._settings.start_timeout_s:g} s "
                    f"({told}); raise --start-timeout-s if its log shows that it was loading"
                )
            self._stop.wait(POLL_S)
        raise StartError("told to stop while the models were loading")

    def _watch(self) -> None:
        """Wait until told to stop.

        Raises:
            ServerStoppedError: the server ended by itself, or its models do not answer.
        """
        assert self._triton is not None
        assert self._pulse is not None
        while not self._stop.wait(POLL_S):
            status = self._triton.poll()
            if status is not None:
                raise ServerStoppedError(f"tritonserver {_ending(status)}")
            if self._pulse.is_dead:
                raise ServerStoppedError(
                    f"its models do not answer ({self._pulse.reason}); start it again"
                )

    def _drain(self) -> None:
        """Say that it is not ready, and serve on until whoever sends requests has noticed."""
        self._is_draining = True
        _say(f"stopping: not ready any more, serving for another {self._settings.drain_s:g} s")
        assert self._triton is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._triton.wait(self._settings.drain_s)

    def _end_triton(self) -> None:
        """Let Triton finish what is under way; nothing of it is left afterwards."""
        self._is_draining = True
        if self._pulse is not None:
            self._pulse.stop()
        triton = self._triton
        if triton is not None:
            dead = self._pulse is not None and self._pulse.is_dead
            triton.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                triton.wait(KILL_AFTER_S if dead else self._settings.exit_timeout_s + KILL_AFTER_S)
            # Its models' processes are of its group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(triton.pid, signal.SIGKILL)
            triton.wait()
        if self._client is not None:
            self._client.close()
        for path in shared_memory.FOLDER.glob(f"{self._prefix}*"):
            path.unlink(missing_ok=True)

    def _live(self) -> tuple[int, str]:
        dead = self._pulse is not None and self._pulse.is_dead
        return (503, "its models do not answer\n") if dead else (200, "")

    def _ready(self) -> tuple[int, str]:
        if self._is_draining or self._stop.is_set():
            return 503, "stopping\n"
        if self._pulse is None or self._client is None:
            return 503, "not loaded yet\n"
        if self._pulse.failures:
            return 503, "a model does not answer\n"
        try:
            ready = self._client.is_server_ready(client_timeout=CALL_TIMEOUT_S)
        except InferenceServerException:
            ready = False
        return (200, "") if ready else (503, "Triton is not ready\n")

    def _metrics(self) -> tuple[int, str]:
        failures = 0 if self._pulse is None else self._pulse.failures
        own = (
            "# HELP frameswap_failed_probes Real inferences in a row that were not answered.\n"
            "# TYPE frameswap_failed_probes gauge\n"
            f"frameswap_failed_probes {failures}\n"
            "# HELP frameswap_draining 1 while it is told to stop.\n"
            "# TYPE frameswap_draining gauge\n"
            f"frameswap_draining {int(self._is_draining)}\n"
        )
        return 200, fetch_metrics(self._metrics_port) + own


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended by itself with status {status}"


def _say(line: str) -> None:
    print(f"frameswap: {line}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    settings = read_settings(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        ContainerServer(settings, stop).run()
    except ServerError as error:
        if stop.is_set():
            _say(f"stopped: {error}")
            return 0
        print(f"frameswap: error: {error}", file=sys.stderr, flush=True)
        return 1
    _say("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
