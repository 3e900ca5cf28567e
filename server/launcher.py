"""The embedded server: a real tritonserver for one user of one machine, without Docker.

    with EmbeddedServer(target="cpu") as server:
        client = tritonclient.grpc.InferenceServerClient(server.grpc_url)

It listens on a Unix socket that its own user alone reaches, unless TCP is asked for. Inference goes
over gRPC; HTTP, where it is asked for, answers health alone (and the metrics port metrics), because
a plain POST can kill Triton 24.10. Loading models and changing traces or logs takes a key that only
this process and the server know, and so does shared memory over TCP.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final

from frameswap.keys import write_key
from tritonclient.utils import InferenceServerException

from server import mps, shared_memory
from server.backend_folder import write_backends
from server.command_line import Keys, server_command, server_environment
from server.control import Control
from server.distribution import Distribution, prepare
from server.doors import LOOPBACK, Doors
from server.errors import PortError, ServerStoppedError, StartError
from server.memory_plan import MemoryPlan, check_shared_memory, plan_memory
from server.one_process import choose_layout, write_pipelines
from server.process import ServerProcess
from server.repository import (
    DEFAULT_REPOSITORY,
    Repository,
    read_repository,
    refuse_foreign_plans,
    with_queue_delay,
    write_overlay,
)
from server.scratch import make_scratch, plain_distribution, plain_path
from server.server_log import says_address_in_use

PORT_ATTEMPTS: Final = 5


class EmbeddedServer:
    """One tritonserver process tree, started and stopped by this process.

    Args:
        repository: the model repository; None takes the one beside this code.
        target: which of its generated configs to serve, for example "cpu".
        models: the ensembles or models to load, with what they need; None loads all.
        address, grpc_port: where gRPC listens over TCP; with neither, on a Unix socket alone.
        http_port, metrics_port: None is not at all; like `grpc_port`, 0 lets the system choose.
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
        address: str | None = None,
        grpc_port: int | None = None,
        http_port: int | None = None,
        metrics_port: int | None = None,
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
        if address is not None and grpc_port is None:
            grpc_port = 0
        self._asked_doors = Doors(address, grpc_port, http_port, metrics_port)
        self._doors = self._asked_doors
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
        self._keys = Keys(secrets.token_hex(16), secrets.token_hex(16))
        self._process: ServerProcess | None = None
        self._scratch: Path | None = None
        self._name = ""
        self._distribution: Distribution | None = None
        self._is_loaded = False
        self._repository: Repository | None = None
        self._plan: MemoryPlan | None = None

    @property
    def doors(self) -> Doors:
        """Where it listens, once it has been started."""
        return self._doors

    @property
    def grpc_url(self) -> str:
        """gRPC's address: `unix:PATH`, or HOST:PORT."""
        return self._doors.grpc_url

    @property
    def keys_are_hidden(self) -> bool:
        """Whether no other user of this machine can read the server's keys."""
        return self._process is not None and self._process.keys_are_hidden

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
        was_started = self._scratch is not None
        try:
            self._start()
        except BaseException:
            # What has not loaded has nothing to finish.
            self._stop(hangs=True)
            if not was_started:
                # Else its socket stays where it is, for the next attempt.
                self._remove_scratch()
            raise

    def _start(self) -> None:
        repository = read_repository(self._folder, self._target, self._models)
        refuse_foreign_plans(repository)
        self._distribution = distribution = prepare()
        if self._scratch is None:
            self._scratch = make_scratch()
        delay_us = self._queue_delay_us
        if delay_us is not None:
            repository = with_queue_delay(repository, delay_us)
        repository = replace(
            repository, folder=plain_path(repository.folder, self._scratch, "repository")
        )
        layout = choose_layout(repository, self._one_process, self._instance_counts)
        if layout.one_process or layout.instance_counts or delay_us is not None:
            write = write_pipelines if layout.one_process else write_overlay
            overlay = self._scratch / "model_repository"
            shutil.rmtree(overlay, ignore_errors=True)
            repository = write(repository, overlay, layout.instance_counts)
        self._repository = repository
        self._plan = plan_memory(
            list(repository.configs.values()),
            frame_size=self._frame_size,
            requests_in_flight=self._requests_in_flight,
        )
        check_shared_memory(self._plan, shared_memory.free_bytes())
        self._launch(plain_distribution(distribution, self._scratch))
        self._control().check_loaded(repository)
        self._is_loaded = True

    def stop(self, *, hangs: bool = False) -> None:
        """Stop the server; no process and no shared memory of it is left. Harmless when stopped.

        Args:
            hangs: do not wait for requests in flight.
        """
        self._stop(hangs=hangs)
        self._remove_scratch()

    def _remove_scratch(self) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def _stop(self, *, hangs: bool) -> None:
        if self._process is not None:
            idle = False
            if not hangs and self._is_loaded and self.is_running:
                idle = self._control().unload(self.repository.configs, self.pid)
            self._end_process(hangs=hangs, idle=idle)
        elif self._mps_environment:
            mps.end_daemon(self._mps_environment)
        self._mps_environment = {}
        self._repository = None
        self._is_loaded = False

    def restart(self, *, hangs: bool = False) -> None:
        """Stop and start again, with the same doors.

        Args:
            hangs: do not wait for requests in flight.

        Raises:
            ServerError: as `start`.
        """
        self._stop(hangs=hangs)
        asked, self._asked_doors = self._asked_doors, self._doors
        try:
            self.start()
        finally:
            self._asked_doors = asked

    @contextlib.contextmanager
    def kept_alive(self, report: Callable[[str], None]) -> Iterator[None]:
        """Bring back what dies while the block runs, and report it (`server.watchdog`).

        Raises:
            StartError: a model does not answer at the beginning.
        """
        from server.watchdog import Watchdog  # which watches what is defined here

        watchdog = Watchdog(self, report)
        try:
            watchdog.__enter__()
        except InferenceServerException as error:
            raise StartError(
                f"the embedded server's first inference failed: {error.message()}"
            ) from error
        try:
            yield
        finally:
            watchdog.__exit__()

    def has_its_files(self) -> bool:
        """Whether everything is still there that loading a model takes."""
        prepared = self._distribution
        if prepared is None:
            return False
        files = (prepared.binary, prepared.python_backend, *prepared.libraries)
        return all(path.exists() for path in files)

    def reload(self, model: str) -> None:
        """Load one model afresh, in new processes; ensembles that use it come back with it.

        Raises:
            ServerStoppedError: the server does not do it, or does not run.
            StartError: it would wait for ever, and must be started again.
        """
        if self._process is None:
            raise ServerStoppedError("the embedded server is not running")
        self._control().reload(model, self._process)

    def kept_for_the_dead(self) -> int:
        """Bytes of /dev/shm that it keeps for models' processes that have died."""
        return 0 if self._process is None else self._process.kept_for_the_dead()

    @property
    def local_grpc_url(self) -> str:
        """Where this machine reaches the server, which may listen on all addresses."""
        return self._doors.local_grpc_url

    def _control(self) -> Control:
        return Control(self.local_grpc_url, self._name, self._keys.admin)

    def _launch(self, distribution: Distribution) -> None:
        """Start, with other ports when one that the system chose was taken meanwhile."""
        assert self._scratch is not None
        for attempt in range(PORT_ATTEMPTS):
            self._doors = self._asked_doors.chosen(self._scratch)
            self._process = process = self._spawn(distribution)
            ports = [port for port in self._doors.ports if port is not None]
            if self._control().wait_until_ready(process, self._start_timeout_s, ports=ports):
                return
            log = process.read_log()
            reason = self.describe_end()
            self._end_process()
            if not says_address_in_use(log):
                raise StartError(f"the embedded server did not start: {reason}")
            if 0 not in self._asked_doors.ports or attempt == PORT_ATTEMPTS - 1:
                break
        raise PortError(
            f"a port of {', '.join(map(str, ports))} on {self._doors.address or LOOPBACK} was "
            "taken while the server started; try again, or give other ports"
        )

    def _spawn(self, distribution: Distribution) -> ServerProcess:
        assert self._scratch is not None
        prefix = shared_memory.new_prefix()
        backends = self._scratch / f"backends-{prefix}"
        write_backends(distribution.python_backend, backends)
        if self._mps:
            folder = self._scratch / "mps"
            self._mps_environment = mps.start_daemon(folder, mps.find_control())
        self._name = f"frameswap-{secrets.token_hex(8)}"
        command = server_command(
            distribution, self.repository, self.memory_plan, backends, self._doors,
            region_prefix=prefix, name=self._name, verbose=self._verbose,
        )  # fmt: skip
        return ServerProcess(
            command,
            {
                **server_environment(distribution, self._keys, self._doors),
                **self._mps_environment,
            },
            region_prefix=prefix,
            scratch=self._scratch,
            key_file=self._leave_key(),
            on_gpu=bool(self.memory_plan.cuda_pool),
            log=self.log_path,
        )

    def _leave_key(self) -> Path | None:
        """Leave the key of shared memory for the clients of this user, where TCP needs one."""
        port = self._doors.grpc_port
        if port is None:
            return None
        try:
            return write_key(port, self._keys.shared_memory)
        except OSError as error:
            raise StartError(
                f"the key of the server's shared memory cannot be left for its clients: {error}"
            ) from error

    def describe_end(self) -> str:
        """Return why the server ended by itself, as far as its log tells."""
        return "it is not running" if self._process is None else self._process.describe_end()

    def _end_process(self, *, hangs: bool = False, idle: bool = False) -> None:
        assert self._process is not None
        process, self._process = self._process, None
        if not process.end(hangs=hangs, idle=idle) and self._mps_environment:
            # The keeper was killed and could not end the daemon itself.
            mps.end_daemon(self._mps_environment)
