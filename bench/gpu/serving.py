"""The server that the cells are measured against: started once for neighbours that agree on it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from bench.gpu.modes import ENSEMBLE, MODES, added_environment
from bench.gpu.results import NotRun
from engines.configs import config_text
from server.errors import MpsError, ServerError
from server.launcher import EmbeddedServer
from server.repository import read_repository, write_overlay

FORGET_S: Final = 10.0
START_S: Final = 240.0
REQUESTS_IN_FLIGHT: Final = 128


@dataclass(frozen=True)
class Setup:
    """What a server is started with.

    repository: which one, for the bench's `repositories`. mode: a name of `MODES`. models: what is
    loaded. instances: (model, count) pairs, beside the mode's of `ENSEMBLE`. max_batch_size: of
    every step, delay_us: of the first, where another than the configs' is wanted. frame_size: that
    memory is planned for.
    """

    repository: str = "fp16"
    mode: str = "three processes"
    target: str = "cuda"
    models: tuple[str, ...] = (ENSEMBLE,)
    instances: tuple[tuple[str, int], ...] = ()
    max_batch_size: int | None = None
    delay_us: int | None = None
    frame_size: tuple[int, int] = (1920, 1080)
    in_flight: int = REQUESTS_IN_FLIGHT


class RegionsInUse(Exception):
    """The server would not give shared memory back within the time allowed."""


def forget_regions(client: Any, *, patience_s: float = FORGET_S) -> None:
    """Take back what a perf_analyzer that was stopped left registered; the next would fail.

    A server refuses while requests of the stopped process are under way, so it is asked again.

    Raises:
        RegionsInUse: it still refuses after `patience_s`.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            client.unregister_cuda_shared_memory()
            client.unregister_system_shared_memory()
        except InferenceServerException as error:
            if time.monotonic() > deadline:
                raise RegionsInUse(error.message()) from error
            time.sleep(0.2)
        else:
            return


def write_tuned(repository: Path, folder: Path, *, target: str, max_batch_size: int) -> Path:
    """A copy of the ensemble's configs with another batch size.

    Network files are links, as in `server.repository.write_overlay`.
    """
    overlay = write_overlay(read_repository(repository, target, [ENSEMBLE]), folder, {})
    for name, config in overlay.configs.items():
        rows = config.parameters.get("max_rows")
        if rows is not None:
            slots = int(rows.string_value) // config.max_batch_size
            config.parameters["max_rows"].string_value = str(slots * max_batch_size)
        config.max_batch_size = max_batch_size
        sizes = config.dynamic_batching.preferred_batch_size
        if len(sizes):
            sizes[:] = [size for size in sizes if size <= max_batch_size]
        (folder / name / "configs" / f"{target}.pbtxt").write_text(config_text(config))
    return folder


class ServerKeeper:
    """Keeps one server running, of the setup that was last asked for.

    Args:
        repositories: a `Setup.repository`'s folder, built when first asked for.
        output: where the logs go. work: where changed configs go.
    """

    def __init__(self, repositories: Callable[[str], Path], output: Path, work: Path) -> None:
        self._repositories = repositories
        self._output = output
        self._work = work
        self._stack = ExitStack()
        self._server: EmbeddedServer | None = None
        self._starts = 0
        self._failed: dict[Setup, ServerError] = {}
        self.setup: Setup | None = None
        self.environment: dict[str, str] = {}

    @property
    def server(self) -> EmbeddedServer:
        assert self._server is not None, "no server was asked for"
        return self._server

    def use(self, setup: Setup) -> EmbeddedServer:
        """The running server, started when another one or none was running.

        Raises:
            NotRun: this machine or this server cannot do it.
            ServerError: it does not start.
        """
        if self._server is not None and setup == self.setup and self._server.is_running:
            return self._server
        self.close()
        if setup in self._failed:
            # Every cell that needs it would wait for the same failure.
            raise self._failed[setup]
        mode = MODES[setup.mode]
        mode.check()
        self._output.mkdir(parents=True, exist_ok=True)
        try:
            repository = self._folder(setup)
            self.environment = dict(mode.environment)
            counts = mode.instance_counts() if ENSEMBLE in setup.models else {}
            server = EmbeddedServer(
                repository,
                target=setup.target,
                models=list(setup.models),
                metrics_port=0,
                instance_counts=counts | dict(setup.instances),
                queue_delay_us=setup.delay_us,
                requests_in_flight=setup.in_flight,
                frame_size=setup.frame_size,
                start_timeout_s=START_S,
                log_file=self._output / f"server_{self._starts}.log",
                **{"one_process": False, **mode.arguments},
            )
            with added_environment(self.environment):
                self._stack.enter_context(server)
            # A client of this bench joins the same MPS: CUDA memory is shared inside it alone.
            self.environment |= server.client_environment
        except MpsError as error:
            self.close()
            raise NotRun(str(error)) from error
        except ServerError as error:
            self._failed[setup] = error
            self.close()
            raise
        except BaseException:
            self.close()
            raise
        self._server, self.setup = server, setup
        return server

    def _folder(self, setup: Setup) -> Path:
        repository = self._repositories(setup.repository)
        self._starts += 1
        if setup.max_batch_size is None:
            return repository
        folder = self._work / "tuned"
        shutil.rmtree(folder, ignore_errors=True)
        return write_tuned(
            repository, folder, target=setup.target, max_batch_size=setup.max_batch_size
        )

    def clear_regions(self) -> None:
        """Make the server forget every shared memory region, by a fresh start if need be."""
        client = triton.InferenceServerClient(self.server.grpc_url)
        try:
            forget_regions(client)
        except RegionsInUse as reason:
            print(f"the server is started again, it keeps shared memory: {reason}", flush=True)
            with added_environment(self.environment):
                self.server.restart(hangs=True)
        finally:
            client.close()

    def close(self) -> None:
        """Stop the server and what was started for it; harmless when nothing runs."""
        self._server, self.setup, self.environment = None, None, {}
        stack, self._stack = self._stack, ExitStack()
        stack.close()


def statistics(url: str) -> dict[str, dict[str, float]]:
    """What the server has counted of each model so far, times in nanoseconds."""
    client = triton.InferenceServerClient(url)
    rows: dict[str, dict[str, float]] = {}
    for model in client.get_inference_statistics().model_stats:
        parts = {
            name: getattr(model.inference_stats, name)
            for name in ("queue", "compute_input", "compute_infer", "compute_output")
        }
        rows[model.name] = {
            "inferences": model.inference_count,
            "executions": model.execution_count,
            **{name: part.ns for name, part in parts.items()},
            "requests": parts["queue"].count,
        }
    client.close()
    return rows


def statistics_between(
    before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Mean batch, and milliseconds of a request in each part, of the models that ran meanwhile."""
    rows: dict[str, dict[str, float]] = {}
    for name, now in after.items():
        earlier = before.get(name, {})
        if earlier.get("executions", 0) > now["executions"]:
            # The server was started again meanwhile, and counts from zero.
            earlier = {}
        spent = {key: value - earlier.get(key, 0) for key, value in now.items()}
        if not spent["executions"]:
            continue
        requests = max(spent["requests"], 1)
        rows[name] = {
            "mean batch": round(spent["inferences"] / spent["executions"], 2),
            **{
                f"{part} ms": round(spent[key] / requests / 1e6, 3)
                for part, key in (
                    ("queue", "queue"), ("input", "compute_input"),
                    ("infer", "compute_infer"), ("output", "compute_output"),
                )
            },
        }  # fmt: skip
    return rows
