"""The deployment files, read as the tools read them; no engine is needed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from engines.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "nvcr.io/nvidia/tritonserver:26.07-py3"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def flags(service: dict[str, Any]) -> dict[str, str]:
    pairs = (item.removeprefix("--").partition("=") for item in service["command"][1:])
    return {name: value for name, _, value in pairs}


def test_serving_waits_for_the_build_and_reads_what_it_wrote(services: dict[str, Any]) -> None:
    triton, build = services["triton"], services["build"]
    assert triton["depends_on"] == {"build": {"condition": "service_completed_successfully"}}
    assert "models:/models" in build["volumes"]
    assert triton["volumes"] == ["models:/models:ro"]
    assert build["command"][build["command"].index("--repository") + 1] == "/models"
    assert flags(triton)["model-repository"] == "/models"


def test_both_use_the_one_image_and_the_dockerfile_names_it_too(services: dict[str, Any]) -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert services["triton"]["image"] == IMAGE
    assert services["build"]["build"]["args"]["TRITON_IMAGE"] == IMAGE
    assert f"ARG TRITON_IMAGE={IMAGE}\n" in dockerfile


def test_build_and_server_are_told_the_same_variant(services: dict[str, Any]) -> None:
    build, triton = services["build"]["command"], flags(services["triton"])
    chosen = build[build.index("--target") + 1]
    assert triton["model-config-name"] == chosen == "${FRAMESWAP_VARIANT:-tensorrt}"
    assert {"tensorrt", "cuda"} <= set(TARGETS)


def test_the_server_runs_with_as_little_power_as_it_can(services: dict[str, Any]) -> None:
    triton = services["triton"]
    assert triton["user"] == "1000:1000"
    assert triton["read_only"] is True
    assert triton["cap_drop"] == ["ALL"]
    assert triton["security_opt"] == ["no-new-privileges:true"]
    assert flags(triton)["model-control-mode"] == "none"


def test_no_port_is_open_to_the_network(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_http_answers_health_and_nothing_that_takes_a_body(services: dict[str, Any]) -> None:
    restricted = flags(services["triton"])["http-restricted-api"].partition(":")[0].split(",")
    assert {"inference", "model-repository", "shared-memory"} <= set(restricted)
    assert "health" not in restricted, "the health check must be let in"


def test_the_gpu_is_reserved_as_compose_wants_it(services: dict[str, Any]) -> None:
    for name in ("build", "triton"):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_every_file_that_is_mounted_or_copied_is_there(services: dict[str, Any]) -> None:
    mounted = [
        volume.partition(":")[0]
        for service in services.values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert mounted
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    copied = [
        source
        for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE)
        for source in line.split()
    ]
    assert copied
    for path in (*mounted, *copied):
        assert (ROOT / path).exists(), path


def test_the_dashboard_asks_for_metrics_that_triton_has() -> None:
    board = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "frameswap.json").read_text())
    # Triton's documentation, user guide, metrics.
    known = {
        "nv_inference_request_success", "nv_inference_request_failure", "nv_inference_count",
        "nv_inference_exec_count", "nv_inference_queue_duration_us",
        "nv_inference_compute_infer_duration_us", "nv_gpu_utilization",
    }  # fmt: skip
    asked = {
        metric
        for panel in board["panels"]
        for target in panel["targets"]
        for metric in re.findall(r"nv_\w+", target["expr"])
    }
    assert asked == known
