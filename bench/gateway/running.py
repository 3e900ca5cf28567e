"""A gateway as people start it: the command in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2

__all__ = ["RunningGateway"]

START_S = 300.0


class RunningGateway:
    """`frameswap gateway`, in front of a server that runs already.

    Args:
        server: its address.
        folder: of the gateway.
        port: 0 lets the system choose; a second one goes on at the first one's.
        python: of the environment that the gateway is installed in.
    """

    def __init__(
        self, server: str, folder: Path, *flags: str, port: int = 0,
        python: str | Path = sys.executable,
    ) -> None:  # fmt: skip
        self._command = [
            str(python), "-m", "frameswap", "gateway", "--server", server,
            "--folder", str(folder), *flags,
        ]  # fmt: skip
        self.port = port
        self.log = folder.parent / f"{folder.name}.log"

    def __enter__(self) -> RunningGateway:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> RunningGateway:
        with self.log.open("ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                [*self._command, "--port", str(self.port)], stdout=log, stderr=log
            )
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s and self.process.poll() is None:
            said = self.log.read_text()[begin:]
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", said)
            if found:
                self.port = int(found[1])
                self._wait_until_ready(until_s)
                return self
            time.sleep(0.05)
        self.process.kill()
        raise AssertionError(f"the gateway did not start: {self.log.read_text()}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **more: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=60.0, trust_env=False, **more)

    def kill(self) -> None:
        """As a machine that loses power: nothing is tidied up."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """As an operator does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def _wait_until_ready(self, until_s: float) -> None:
        with self.client() as client:
            while time.monotonic() < until_s:
                try:
                    if client.get("/readyz").status_code == 200:
                        return
                except httpx2.ConnectError:
                    pass
                time.sleep(0.05)
        raise AssertionError("the gateway is not ready")
