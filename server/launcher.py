"""The embedded server: a real tritonserver for one user of one machine, without Docker.

    with EmbeddedServer(Path("model_repository"), target="cpu") as server:
        client = tritonclient.grpc.InferenceServerClient(server.grpc_url)

It listens on loopback unless told otherwise. Inference goes over gRPC; HTTP answers health alone
(and the metrics port metrics), because a plain POST can kill Triton 24.10. Loading models and
changing traces or logs over the network takes a key that only this process knows.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import psutil
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from server import mps, shared_memory
from server.backend_folder import write_backends
from server.command_line import (
    EXIT_TIMEOUT_S,
    GRPC_KEY_HEADER,
    server_command,
    server_environment,
)
from server.distribution import Distribution, prepare
from server.errors import PortError, ServerStoppedError, StartError
from server.memory_plan import MemoryPlan, check_shared_memory, plan_memory
from server.one_process import choose_layout, write_pipelines
from server.ports import choose_ports
from server.process import ServerProcess
from server.repository import (
    DEFAULT_REPOSITORY,
    Repository,
    check_loaded,
    read_repository,
    refuse_foreign_plans,
    with_queue_delay,
    write_overlay,
)
from server.server_log import says_address_in_use

PORT_ATTEMPTS: Final = 5
POLL_S: Final = 0.05


class EmbeddedServer:
    """One tritonserver process tree, started and stopped by this process.

    Args:
        repository: the model repository; None takes the one beside this code.
        target: which of its generated configs to serve, for example "cpu".
        models: the ensembles or models to load, with what they need; None loads all.
        address: address to listen on.
        grpc_port, http_port, metrics_port: 0 lets the system choose.
        instance_counts: model name to number of instances, where another than the config's.
        queue_delay_us: how long a request may wait for others to share its batch, microseconds;
            None keeps what the configs say.
        one_process: run all steps of an ensemble in one process, an instance each; counts then
            name ensembles. None does what the target is best served by (`engines.targets`).
        mps: start NVIDIA's Multi-Process Service for it; see `client_environment`.
        log_file: where the server's log goes; None keeps it in a temporary folder.
        verbose: log every request.
        frame_size: width and height that memory is planned for.
        requests_in_flight: number of requests that memory is planned for.
        start_timeout_s: how long loading may take.

    Raises:
        ServerError: from `start`; a subclass with one sentence.
    """

    def __init__(
        self,
        repository: Path | None = None,
        *,
        target: str = "cpu",
        models: Sequence[str] | None = None,
        address: str = "127.0.0.1",
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        instance_counts: Mapping[str, int] | None = None,
        queue_delay_us: int | None = None,
        one_process: bool | None = None,
        mps: bool = False,
        log_file: Path | None = None,
        verbose: bool = False,
        frame_size: tuple[int, int] = (1920, 1080),
        requests_in_flight: int = 16,
        start_timeout_s: float = 300.0,
    ) -> None:
        self._folder = Path(repository or DEFAULT_REPOSITORY)
        self._target = target
        self._models = models
        self._address = address
        self._asked_ports = (grpc_port, http_port, metrics_port)
        self._instance_counts = dict(instance_counts or {})
        self._queue_delay_us = queue_delay_us
        self._one_process = one_process
        self._mps = mps
        self._mps_environment: dict[str, str] = {}
        self._log_file = log_file
        self._verbose = verbose
        self._frame_size = frame_size
        self._requests_in_flight = requests_in_flight
        self._start_timeout_s = start_timeout_s
        self._key = secrets.token_hex(16)
        self._process: ServerProcess | None = None
        self._scratch: Path | None = None
        self._ports = (0, 0, 0)
        self._is_loaded = False
        self._repository: Repository | None = None
        self._plan: MemoryPlan | None = None

    @property
    def grpc_url(self) -> str:
        return self._url(0)

    @property
    def http_url(self) -> str:
        return self._url(1)

    @property
    def metrics_url(self) -> str:
        return self._url(2)

    @property
    def pid(self) -> int:
        """Process id of tritonserver itself; its children are the models' processes."""
        return 0 if self._process is None else self._process.pid

    @property
    def repository(self) -> Repository:
        """What is being served."""
        if self._repository is None:
            raise ServerStoppedError("the embedded server is not running; call start() first")
        return self._repository

    @property
    def memory_plan(self) -> MemoryPlan:
        """What was planned for the models being served."""
        if self._plan is None:
            raise ServerStoppedError("the embedded server is not running; call start() first")
        return self._plan

    @property
    def client_environment(self) -> Mapping[str, str]:
        """What a process that shares CUDA memory with the server sets before it uses CUDA."""
        return {k: v for k, v in self._mps_environment.items() if k != mps.CONTROL_VARIABLE}

    @property
    def log_path(self) -> Path:
        """Where the log is."""
        if self._log_file is not None:
            return self._log_file
        if self._scratch is None:
            raise ServerStoppedError("the embedded server is not running and keeps no log")
        return self._scratch / "server.log"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until every model is ready.

        Raises:
            ServerError: with one sentence; nothing is left running.
        """
        if self.is_running:
            raise StartError("the embedded server is already running")
        shared_memory.remove_leftovers()
        repository = read_repository(self._folder, self._target, self._models)
        refuse_foreign_plans(repository)
        distribution = prepare()
        self._scratch = Path(tempfile.mkdtemp(prefix="frameswap-server-"))
        try:
            delay_us = self._queue_delay_us
            if delay_us is not None:
                repository = with_queue_delay(repository, delay_us)
            layout = choose_layout(repository, self._one_process, self._instance_counts)
            if layout.one_process or layout.instance_counts or delay_us is not None:
                write = write_pipelines if layout.one_process else write_overlay
                overlay = self._scratch / "model_repository"
                repository = write(repository, overlay, layout.instance_counts)
            self._repository = repository
            self._plan = plan_memory(
                list(repository.configs.values()),
                frame_size=self._frame_size,
                requests_in_flight=self._requests_in_flight,
            )
            check_shared_memory(self._plan, shared_memory.free_bytes())
            self._launch(distribution)
            self._check_loaded()
            self._is_loaded = True
        except BaseException:
            self.stop()
            raise

    def stop(self, *, hangs: bool = False) -> None:
        """Stop the server; no process and no shared memory of it is left. Harmless when stopped.

        Args:
            hangs: do not wait for requests in flight.
        """
        if self._process is not None:
            if not hangs:
                self._unload_models()
            self._end_process(hangs=hangs)
        elif self._mps_environment:
            mps.end_daemon(self._mps_environment)
        self._mps_environment = {}
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
        self._repository = None
        self._is_loaded = False

    def restart(self, *, hangs: bool = False) -> None:
        """Stop and start again, on the same ports.

        Args:
            hangs: do not wait for requests in flight.

        Raises:
            ServerError: as `start`.
        """
        ports = self._ports
        self.stop(hangs=hangs)
        asked, self._asked_ports = self._asked_ports, ports
        try:
            self.start()
        finally:
            self._asked_ports = asked

    def reload(self, model: str) -> None:
        """Load one model afresh, in new processes; ensembles that use it come back with it.

        Raises:
            ServerStoppedError: the server does not do it.
        """
        client = self._client()
        headers = {GRPC_KEY_HEADER: self._key}
        try:
            client.unload_model(model, headers=headers)
            client.load_model(model, headers=headers)
        except InferenceServerException as error:
            raise ServerStoppedError(
                f"{model} could not be loaded again: {error.message()}"
            ) from error
        finally:
            client.close()

    @property
    def local_grpc_url(self) -> str:
        """Where this machine reaches the server, which may listen on all addresses."""
        address = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._address)
        return f"{address}:{self._ports[0]}" if address else self.grpc_url

    def _url(self, index: int) -> str:
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"{host}:{self._ports[index]}"

    def _client(self) -> triton_grpc.InferenceServerClient:
        return triton_grpc.InferenceServerClient(self.local_grpc_url)

    def _launch(self, distribution: Distribution) -> None:
        """Start, with other ports when one that the system chose was taken meanwhile."""
        for attempt in range(PORT_ATTEMPTS):
            self._ports = choose_ports(self._address, self._asked_ports)
            self._spawn(distribution)
            if self._wait_until_ready():
                return
            assert self._process is not None
            log = self._process.read_log()
            reason = self.describe_end()
            self._end_process()
            if not says_address_in_use(log):
                raise StartError(f"the embedded server did not start: {reason}")
            if all(self._asked_ports) or attempt == PORT_ATTEMPTS - 1:
                break
        raise PortError(
            f"a port of {', '.join(str(port) for port in self._ports)} on {self._address} was "
            "taken while the server started; try again, or give other ports"
        )

    def _spawn(self, distribution: Distribution) -> None:
        assert self._scratch is not None
        prefix = shared_memory.new_prefix()
        backends = self._scratch / f"backends-{prefix}"
        write_backends(distribution.python_backend, backends)
        if self._mps:
            folder = self._scratch / "mps"
            self._mps_environment = mps.start_daemon(folder, mps.find_control())
        command = server_command(
            distribution, self.repository, self.memory_plan, backends,
            address=self._address, ports=self._ports, region_prefix=prefix, key=self._key,
            verbose=self._verbose,
        )  # fmt: skip
        self._process = ServerProcess(
            command,
            {**server_environment(distribution), **self._mps_environment},
            region_prefix=prefix,
            scratch=self._scratch,
            log=self.log_path,
        )

    def _wait_until_ready(self) -> bool:
        """Wait for readiness; False when the process ended before.

        Raises:
            StartError: it takes longer than `start_timeout_s`.
        """
        deadline = time.monotonic() + self._start_timeout_s
        client = self._client()
        try:
            while time.monotonic() < deadline:
                if not self.is_running:
                    return False
                with contextlib.suppress(InferenceServerException):
                    if client.is_server_ready(client_timeout=5.0):
                        return True
                time.sleep(POLL_S)
        finally:
            client.close()
        raise StartError(
            f"the embedded server was not ready after {self._start_timeout_s:g} s; "
            "raise start_timeout_s on a slow machine"
        )

    def _check_loaded(self) -> None:
        client = self._client()
        try:
            check_loaded(client, self.repository)
        except InferenceServerException as error:
            raise StartError(
                f"the embedded server stopped answering: {error.message()}"
            ) from error
        finally:
            client.close()

    def describe_end(self) -> str:
        """Return why the server ended by itself, as far as its log tells."""
        return "it is not running" if self._process is None else self._process.describe_end()

    def _unload_models(self) -> None:
        """Ask for every model to be unloaded, and wait until their processes have ended.

        A server that is told to stop looks only once a second whether its models are gone; one
        that has none stops at once.
        """
        if not self.is_running or self._repository is None or not self._is_loaded:
            return
        client = self._client()
        try:
            for name in self._repository.configs:
                client.unload_model(name, headers={GRPC_KEY_HEADER: self._key}, client_timeout=1.0)
            children = psutil.Process(self.pid).children()
            # A model process that was killed stays as a zombie: Triton does not collect it.
            alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
            psutil.wait_procs(alive, timeout=EXIT_TIMEOUT_S)
        except (InferenceServerException, psutil.NoSuchProcess):
            # It is going, or hangs: the keeper ends it either way.
            return
        finally:
            client.close()

    def _end_process(self, *, hangs: bool = False) -> None:
        assert self._process is not None
        process, self._process = self._process, None
        if not process.end(hangs=hangs) and self._mps_environment:
            # The keeper was killed and could not end the daemon itself.
            mps.end_daemon(self._mps_environment)
