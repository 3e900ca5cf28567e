"""The container's entry point, run for real with the embedded server in NVIDIA's place."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

import psutil

from server.backend_folder import write_backends
from server.distribution import prepare

ROOT = Path(__file__).resolve().parents[2]
START_S = 120.0


class EntryPoint:
    """One run of `python -m deploy.entry_point`; ended when the `with` block is left.

    Args:
        repository, scratch: the models; a folder of its own.
        flags: of the entry point.
    """

    def __init__(
        self, repository: Path, scratch: Path, *flags: str, target: str = "cpu"
    ) -> None:
        distribution = prepare()
        scratch.mkdir(parents=True, exist_ok=True)
        backends = scratch / "backends"
        if not backends.exists():
            write_backends(distribution.python_backend, backends)
        self._command = [
            sys.executable, "-m", "deploy.entry_point",
            "--repository", str(repository), "--target", target, "--address", "127.0.0.1",
            "--grpc-port", "0", "--health-port", "0", "--metrics-port", "0",
            "--binary", str(distribution.binary), "--requests-in-flight", "8", *flags,
            "--", f"--backend-directory={backends}",
        ]  # fmt: skip
        # The image has these where the loader looks.
        self._environment = {
            **os.environ,
            "PATH": f"{distribution.python_home}{os.pathsep}{os.environ['PATH']}",
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, distribution.libraries)),
        }
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.output: list[str] = []

    def __enter__(self) -> EntryPoint:
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        children = []
        if self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for child in children:
            if child.is_running():
                child.kill()
        assert self.process.stdout is not None

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self._lines.put(line.rstrip())
        self._lines.put(None)

    def wait_for(self, pattern: str, limit_s: float = START_S) -> re.Match[str]:
        """Wait for a line of output."""
        for line in self.output:
            if found := re.search(pattern, line):
                return found
        deadline = time.monotonic() + limit_s
        while True:
            line_or_end = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            if line_or_end is None:
                raise AssertionError(f"ended without {pattern!r}:\n" + "\n".join(self.output))
            self.output.append(line_or_end)
            if found := re.search(pattern, line_or_end):
                return found

    def wait_ready(self) -> None:
        self.wait_for("frameswap: ready")

    @property
    def health_port(self) -> int:
        return int(self.wait_for(r"health +port (\d+)")[1])

    @property
    def grpc_port(self) -> int:
        return int(self.wait_for(r"gRPC +port (\d+)")[1])

    @property
    def metrics_port(self) -> int:
        return int(self.wait_for(r"metrics +port (\d+)")[1])

    @property
    def triton(self) -> psutil.Process:
        (triton,) = psutil.Process(self.process.pid).children()
        return triton

    def health(self, path: str = "/v2/health/ready") -> int:
        """Status of a page on the health port; 0 when nothing answers."""
        return page(f"http://127.0.0.1:{self.health_port}{path}")[0]

    def stop(self, limit_s: float = 60.0) -> int:
        """SIGTERM, as a container's keeper sends it; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(limit_s)


def page(url: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""
