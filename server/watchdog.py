"""Watches an embedded server and brings back what died.

A model's process that dies stays dead in Triton 24.10: each request to it fails after a second,
while readiness says 200. The watchdog sees the process go and loads that model again, in about the
time that its network takes to load; the other models go on meanwhile. A server that died is
started again on its ports. Every so often a real inference through every ensemble shows what
looking at processes cannot.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Final

import psutil
from frameswap.interrupts import signals_held_back
from tritonclient.utils import InferenceServerException

from server import shared_memory
from server.errors import ServerError, ServerStoppedError, StartError
from server.launcher import EmbeddedServer
from server.local_client import open_client
from server.probe import probe
from server.repository import top_models

STUB: Final = "triton_python_backend_stub"
_UNHEALTHY: Final = re.compile(r"Stub process '(?P<instance>[^']+)' is not healthy")
LONGEST_PAUSE_S: Final = 60.0
MOST_KEPT: Final = 1 << 30
"""Bytes of /dev/shm that a server may keep for dead processes until it is started again."""
KEEPER_S: Final = 1.0
"""How long after a server's end its keeper may take to clean up and end as well."""


class Watchdog:
    """A thread that keeps a started server's models alive; a context manager.

    Args:
        server: started, and stopped by the caller after the watchdog.
        report: called with one sentence for everything that happens.
        poll_s: time between two looks at the processes.
        probe_interval_s: time between two real inferences.
        probe_timeout_s: how long an answer may take when nothing else is being served.
    """

    def __init__(
        self,
        server: EmbeddedServer,
        report: Callable[[str], None],
        *,
        poll_s: float = 0.25,
        probe_interval_s: float = 30.0,
        probe_timeout_s: float = 30.0,
    ) -> None:
        self._server = server
        self._report = report
        self._poll_s = poll_s
        self._probe_interval_s = probe_interval_s
        self._probe_timeout_s = probe_timeout_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._processes: list[tuple[str, psutil.Process]] = []
        self._failures = 0

    def __enter__(self) -> Watchdog:
        self.probe_all()
        self._processes = self._find_processes()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def probe_all(self) -> None:
        """Run one real inference through everything that is served.

        Raises:
            InferenceServerException: the first one that fails.
        """
        client = open_client(self._server.local_grpc_url)
        try:
            configs = self._server.repository.configs
            for name in top_models(configs):
                with signals_held_back:
                    probe(client, configs[name], timeout_s=self._probe_timeout_s)
        finally:
            client.close()

    def _watch(self) -> None:
        next_probe = time.monotonic() + self._probe_interval_s
        while not self._stop.wait(self._poll_s):
            try:
                if not self._server.is_running:
                    self._restart_server(f"the server ended: {self._server.describe_end()}")
                for model in sorted({name for name, process in self._processes if _dead(process)}):
                    if self._is_going():
                        break  # with its models: the next round's business, which knows the reason
                    self._reload(model, "its process died")
                if time.monotonic() >= next_probe:
                    self._probe()
                    next_probe = time.monotonic() + self._probe_interval_s
            except ServerError as error:
                self._failures += 1
                pause = min(2.0**self._failures, LONGEST_PAUSE_S)
                self._report(f"{error}; next attempt in {pause:g} s.")
                self._stop.wait(pause)

    def _probe(self) -> None:
        answered = self._answers()
        try:
            self.probe_all()
        except InferenceServerException as error:
            told = error.message()
            match = _UNHEALTHY.search(told)
            if match is not None:
                self._reload(self._model_of(match["instance"]), "it did not answer")
            elif "Deadline" in told and self._answers() > answered:
                # It works, on so much that a probe waits in the queue: not dead.
                self._report("the server is too busy to answer a probe in time.")
            elif not self._stop.wait(KEEPER_S) and self._server.is_running:
                # (A server that is going is the next round's business, which knows the reason.)
                self._restart_server(f"a probe failed: {told}")
        else:
            self._failures = 0

    def _answers(self) -> int:
        """Return how many requests all models have answered so far."""
        client = open_client(self._server.local_grpc_url)
        try:
            statistics = client.get_inference_statistics(client_timeout=5.0)
        except InferenceServerException:
            return 0
        finally:
            client.close()
        return sum(model.inference_stats.success.count for model in statistics.model_stats)

    def _reload(self, model: str, reason: str) -> None:
        started = time.monotonic()
        kept = self._server.kept_for_the_dead()
        no_room = shared_memory.free_bytes() < self._server.memory_plan.region_start
        if kept > MOST_KEPT or (kept and no_room):
            # Nothing else makes Triton give it back.
            return self._restart_server(
                f"{model}: {reason}, and {kept >> 20} MiB of /dev/shm are kept for dead processes"
            )
        self._report(f"{model}: {reason}; loading it again.")
        try:
            self._server.reload(model)
        except StartError as error:
            return self._restart_server(str(error))
        except ServerStoppedError:
            if self._server.has_its_files():
                raise
            # No model can be loaded any more: what is left of the cache is of no use.
            return self._restart_server("the server's files are gone from the cache")
        self._processes = self._find_processes()
        self._report(f"{model}: back after {time.monotonic() - started:.1f} s.")

    def _restart_server(self, reason: str) -> None:
        started = time.monotonic()
        self._report(f"{reason}; starting the server again.")
        self._server.restart(hangs=True)
        self._processes = self._find_processes()
        self._report(f"the server is back after {time.monotonic() - started:.1f} s.")

    def _is_going(self) -> bool:
        """Whether the server itself has ended, and its keeper is about to say so."""
        try:
            return _dead(psutil.Process(self._server.pid))
        except psutil.NoSuchProcess:
            return True

    def _find_processes(self) -> list[tuple[str, psutil.Process]]:
        """Return the models' processes, each with its model's name; empty without a server."""
        if not psutil.pid_exists(self._server.pid):
            return []
        found = []
        for process in psutil.Process(self._server.pid).children():
            try:
                arguments = process.cmdline()
            except psutil.NoSuchProcess:
                continue
            # The stub is started as: stub MODEL_FILE ... INSTANCE_NAME BACKEND_FOLDER
            if len(arguments) > 2 and arguments[0].endswith(STUB):
                found.append((self._model_of(arguments[-2]), process))
        return found

    def _model_of(self, instance: str) -> str:
        """Return the model of an instance's name, which is the model's, then `_` and numbers."""
        names = self._server.repository.configs
        return max((name for name in names if instance.startswith(f"{name}_")), key=len)


def _dead(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
