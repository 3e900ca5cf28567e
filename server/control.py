"""What the process that started a server asks of it: whether it is ready, to load, to unload."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import psutil
import tritonclient.grpc as triton_grpc
from frameswap.interrupts import signals_held_back
from tritonclient.utils import InferenceServerException

from server.command_line import EXIT_TIMEOUT_S, GRPC_KEY_HEADER
from server.errors import ServerStoppedError, StartError
from server.local_client import open_client
from server.process import ServerProcess
from server.repository import Repository, check_loaded

POLL_S: Final = 0.05
UNLOAD_S: Final = 20.0
"""How long a dead model may take to be unloaded: Triton waits for what it had in hand."""
DEAD_S: Final = 2.0
"""How long a model's process may be dead before the server is taken for one that never starts."""


class Control:
    """Calls to one server over gRPC.

    Args:
        url: where this machine reaches it.
        name: which the server says is its own.
        admin_key: what loading models takes.
    """

    def __init__(self, url: str, name: str, admin_key: str) -> None:
        self._url = url
        self._name = name
        self._headers = {GRPC_KEY_HEADER: admin_key}

    def wait_until_ready(
        self, process: ServerProcess, timeout_s: float, *, ports: Collection[int] = ()
    ) -> bool:
        """Wait for readiness; False when the process ended before.

        Args:
            ports: where it must listen by then. gRPC's answers come before the server tries its
                others, and one that is taken ends it.

        Raises:
            StartError: it takes too long, or will never be.
        """
        deadline = time.monotonic() + timeout_s
        dead_since: float | None = None
        with self._client() as client:
            while time.monotonic() < deadline:
                if not process.is_running:
                    return False
                if self._is_ready(client) and process.listens_at(ports):
                    return True
                # Triton 24.10 waits for a model's process that died before it said anything.
                if not process.dead_models():
                    dead_since = None
                elif dead_since is None:
                    dead_since = time.monotonic()
                elif time.monotonic() > dead_since + DEAD_S:
                    reason = process.explain() or "a model's process died while it started"
                    raise StartError(f"the embedded server did not start: {reason}")
                time.sleep(POLL_S)
        raise StartError(
            f"the embedded server was not ready after {timeout_s:g} s; "
            "raise start_timeout_s on a slow machine"
        )

    def _is_ready(self, client: triton_grpc.InferenceServerClient) -> bool:
        """Whether this very server is ready: another one may have been faster at its port."""
        with signals_held_back, contextlib.suppress(InferenceServerException):
            if client.is_server_ready(client_timeout=1.0):
                return bool(client.get_server_metadata(client_timeout=1.0).name == self._name)
        return False

    def check_loaded(self, repository: Repository) -> None:
        """Compare what it loaded with what it was to load.

        Raises:
            StartError: it loaded something else, or does not answer any more.
        """
        with self._client() as client:
            try:
                with signals_held_back:
                    check_loaded(client, repository)
            except InferenceServerException as error:
                raise StartError(
                    f"the embedded server stopped answering: {error.message()}"
                ) from error

    def reload(self, model: str, process: ServerProcess) -> None:
        """Load one model afresh, in new processes; ensembles that use it come back with it.

        Raises:
            ServerStoppedError: the server does not do it.
            StartError: its new process died as well, or the server waits for the old one: it would
                wait for ever.
        """
        with self._client() as client, ThreadPoolExecutor(1) as pool:
            loaded = pool.submit(self._reload, client, model)
            dead, dead_since = process.dead_models(), None
            while not loaded.done():
                if process.dead_models() <= dead:
                    dead_since = None
                elif dead_since is None:
                    dead_since = time.monotonic()
                elif time.monotonic() > dead_since + DEAD_S:
                    client.close()  # which ends the call
                    raise StartError(f"the new process of {model} died while it was loaded")
                time.sleep(POLL_S)
            loaded.result()

    def _reload(self, client: triton_grpc.InferenceServerClient, model: str) -> None:
        try:
            client.unload_model(model, headers=self._headers, client_timeout=UNLOAD_S)
        except InferenceServerException as error:
            raise StartError(f"{model} could not be unloaded: {error.message()}") from error
        try:
            client.load_model(model, headers=self._headers)
        except InferenceServerException as error:
            raise ServerStoppedError(
                f"{model} could not be loaded again: {error.message()}"
            ) from error

    def unload(self, models: Iterable[str], pid: int) -> bool:
        """Ask for every model to be unloaded; whether all their processes have ended in time.

        A server that is told to stop looks only once a second whether its models are gone; one
        that has none stops at once.

        Args:
            pid: the server's process.
        """
        # It is going, or hangs: the keeper ends it either way.
        with self._client() as client, contextlib.suppress(
            InferenceServerException, psutil.NoSuchProcess
        ):
            for name in models:
                client.unload_model(name, headers=self._headers, client_timeout=1.0)
            children = psutil.Process(pid).children()
            # A model process that was killed stays as a zombie: Triton does not collect it.
            alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
            _, left = psutil.wait_procs(alive, timeout=EXIT_TIMEOUT_S)
            return not left
        return False

    @contextlib.contextmanager
    def _client(self) -> Iterator[triton_grpc.InferenceServerClient]:
        client = open_client(self._url)
        try:
            yield client
        finally:
            client.close()
