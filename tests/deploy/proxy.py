"""The chart's Envoy, run for real: its own configuration, with this machine's addresses in it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.deploy.charts import of_kind, render
from tests.deploy.serving import page
from tests.deploy.tools import envoy

START_S = 60.0


class Envoy:
    """One Envoy between clients and servers on loopback.

    Args:
        folder: of its own. servers: gRPC and health port of each.
        options: of helm, beside `edge.enabled`.
        files: what the chart mounts: folder of the container to folder here.
        changes: put into the listener's HTTP connection manager and the pool's cluster, by name.
    """

    def __init__(
        self,
        folder: Path,
        servers: Sequence[tuple[int, int]],
        *options: str,
        files: dict[str, Path] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        manifests = render(None, "--set=edge.enabled=true", *options)
        data = of_kind(manifests, "ConfigMap")["frameswap-edge"]["data"]
        places = {**(files or {}), "/etc/envoy": folder}
        for name, text in data.items():
            for inside, here in places.items():
                text = text.replace(inside, str(here))
            if name == "envoy.yaml":
                text = yaml.safe_dump(_on_loopback(yaml.safe_load(text), servers))
            (folder / name).write_text(text)
        self._folder = folder
        self.port = 0

    def __enter__(self) -> Envoy:
        admin = self._folder / "admin"
        self._log = (self._folder / "envoy.log").open("wb")
        self.process = subprocess.Popen(
            [
                str(envoy()), "--config-path", str(self._folder / "envoy.yaml"),
                "--log-level", "warn", "--admin-address-path", str(admin), "--concurrency", "2",
                "--use-dynamic-base-id",
            ],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(self.log())
            if admin.exists() and page(f"http://{admin.read_text().strip()}/ready")[0] == 200:
                self.admin = admin.read_text().strip()
                break
            time.sleep(0.1)
        else:
            raise AssertionError(self.log())
        listeners = json.loads(page(f"http://{self.admin}/listeners?format=json")[1])
        (self.port,) = (
            one["local_address"]["socket_address"]["port_value"]
            for one in listeners["listener_statuses"]
            if one["name"] == "main"
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def log(self) -> str:
        return (self._folder / "envoy.log").read_text(errors="replace")

    def healthy(self) -> int:
        """How many servers Envoy would send to."""
        text = page(f"http://{self.admin}/clusters?format=json")[1]
        (main,) = (
            one for one in json.loads(text)["cluster_statuses"] if one["name"] == "main"
        )
        states = [host["health_status"] for host in main.get("host_statuses", [])]
        # A healthy host's status says no more than that.
        return sum(state.get("eds_health_status") == "HEALTHY" and len(state) == 1
                   for state in states)  # fmt: skip

    def wait_healthy(self, count: int, limit_s: float = 30.0) -> None:
        deadline = time.monotonic() + limit_s
        while self.healthy() != count:
            assert time.monotonic() < deadline, f"{self.healthy()} of {count} servers are healthy"
            time.sleep(0.1)


def _on_loopback(config: dict[str, Any], servers: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The same configuration, with ports that the system chooses and servers that are here."""
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    resources = config["static_resources"]
    for listener in resources["listeners"]:
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    (pool,) = (one for one in resources["clusters"] if one["name"] == "main")
    pool["type"] = "STATIC"
    for name in ("dns_lookup_family", "dns_refresh_rate"):
        del pool[name]
    pool["load_assignment"]["endpoints"] = [
        {
            "lb_endpoints": [
                {
                    "endpoint": {
                        "address": {
                            "socket_address": {"address": "127.0.0.1", "port_value": grpc_port}
                        },
                        "health_check_config": {"port_value": health_port},
                    }
                }
                for grpc_port, health_port in servers
            ]
        }
    ]
    return config
