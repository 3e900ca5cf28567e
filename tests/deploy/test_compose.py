"""The compose files and the image's recipe, read as the tools read them; no engine is needed."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from frameswap_gateway.command import register as register_gateway

from deploy.settings import PREFIX, known_variables
from engines.targets import TARGETS
from fetching.weights import WEIGHTS
from tests.deploy.envoy_files import rendered
from tests.deploy.tools import ROOT, compose, run, tool

FILES = {
    "plain": ("docker-compose.yml",),
    "tls": ("docker-compose.yml", "deploy/compose.tls.yml"),
    "cpu": ("docker-compose.yml", "deploy/compose.cpu.yml"),
    "gateway": ("docker-compose.yml", "deploy/compose.gateway.yml"),
}
PROFILES = ("two-gpus", "four-gpus", "watch")
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
GATEWAY_DOCKERFILE = (ROOT / "deploy" / "gateway.Dockerfile").read_text()


def services(name: str = "plain", **variables: str) -> dict[str, Any]:
    """The services as Docker Compose itself reads them, every profile among them."""
    profiles = [word for profile in PROFILES for word in ("--profile", profile)]
    files = [word for file in FILES[name] for word in ("--file", file)]
    folders = {"FRAMESWAP_TLS_FOLDER": "/certificates", "FRAMESWAP_TOKENS_FOLDER": "/tokens"}
    given = {**(folders if name == "tls" else {}), **variables}
    # An .env beside the file is a person's own.
    words = ("--env-file", "/dev/null", "--project-directory", ROOT, *files, *profiles)
    done = run(compose(), *words, "config", "--format", "json", **given)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return services()


def servers(of: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in of.items() if name.startswith("triton")}


@pytest.mark.parametrize("name", FILES)
def test_compose_takes_the_files(name: str) -> None:
    assert {"engines", "triton", "envoy", "prometheus", "grafana"} <= services(name).keys()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("services: {a: {image: b, shm_sise: 1g}}", "shm_sise"),
        ("services: {a: {image: b, healthcheck: {tests: []}}}", "tests"),
        ("services: {a: {image: b, depends_on: [c]}}", "depends on undefined service"),
    ],
)
def test_compose_would_refuse_what_its_specification_has_not(
    text: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "compose.yml").write_text(text)
    done = run(compose(), "--file", tmp_path / "compose.yml", "config", "--quiet")
    assert done.returncode != 0
    assert told in done.stderr


def test_serving_waits_for_the_build_and_reads_what_it_wrote(plain: dict[str, Any]) -> None:
    for triton in servers(plain).values():
        assert triton["depends_on"]["engines"]["condition"] == "service_completed_successfully"
        (models,) = triton["volumes"]
        assert (models["source"], models["target"], models["read_only"]) == (
            "models", "/models", True,
        )  # fmt: skip
    assert "--repository=/models" in plain["engines"]["command"]
    assert plain["envoy"]["depends_on"]["triton"]["condition"] == "service_healthy"


def test_one_image_is_named_once_and_both_ends_use_it(plain: dict[str, Any]) -> None:
    texts = [DOCKERFILE, *((ROOT / file).read_text() for file in FILES["plain"])]
    pattern = r"^ARG TRITON_IMAGE=(\S+)$|image: \S*tritonserver\S*"
    named = re.findall(pattern, "\n".join(texts), re.MULTILINE)
    assert named == ["nvcr.io/nvidia/tritonserver:26.07-py3"]
    images = {plain["engines"]["image"], *(one["image"] for one in servers(plain).values())}
    assert len(images) == 1


def test_build_and_server_are_told_the_same_target() -> None:
    for target in ("tensorrt", "cuda", "cpu"):
        assert target in TARGETS
        read = services(FRAMESWAP_TARGET=target)
        assert f"--target={target}" in read["engines"]["command"]
        assert read["triton"]["environment"]["FRAMESWAP_TARGET"] == target


def test_more_options_of_a_build_are_words_of_their_own() -> None:
    read = services(FRAMESWAP_BUILD="--swapper inswapper_128 --accept-licence")
    assert read["engines"]["command"][-3:] == ["--swapper", "inswapper_128", "--accept-licence"]


def test_every_service_runs_with_as_little_power_as_it_can(plain: dict[str, Any]) -> None:
    for name, service in (*plain.items(), *services("gateway").items()):
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] > 0, name
        assert service.get("read_only") or name == "grafana", name
    assert re.search(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)[1] == "10001"  # type: ignore[index]


def test_servers_have_no_way_out_and_no_port_of_their_own(plain: dict[str, Any]) -> None:
    text = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert text["networks"]["servers"] == {"internal": True}
    for service in servers(plain).values():
        assert list(service["networks"]) == ["servers"]
        assert "ports" not in service


def test_no_port_is_open_to_the_network_without_tls(plain: dict[str, Any]) -> None:
    ports = [port for service in plain.values() for port in service.get("ports", [])]
    assert ports
    ports += services("gateway")["gateway"]["ports"]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    (open_port,) = services("tls")["envoy"]["ports"]
    assert open_port["host_ip"] == "0.0.0.0"
    mounted = {volume["target"] for volume in services("tls")["envoy"]["volumes"]}
    assert {"/etc/frameswap/edge", "/etc/frameswap/tokens"} <= mounted


def test_every_server_has_a_gpu_of_its_own_and_the_name_that_envoy_asks(
    plain: dict[str, Any],
) -> None:
    ids = []
    for service in servers(plain).values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        ids += device["device_ids"]
        assert service["networks"]["servers"]["aliases"] == ["frameswap-main"]
    assert sorted(ids) == ["0", "1", "2", "3"]
    chosen = services(FRAMESWAP_GPU="GPU-0a1b")
    for name in ("engines", "triton"):
        (device,) = chosen[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["device_ids"] == ["GPU-0a1b"]
    assert "compute,utility,video" in DOCKERFILE


def test_without_a_gpu_none_is_asked_for() -> None:
    read = services("cpu", FRAMESWAP_TARGET="cpu")
    for name in ("engines", "triton"):
        assert not read[name].get("deploy", {}).get("resources")


def test_stopping_takes_no_longer_than_compose_waits(plain: dict[str, Any]) -> None:
    for service in servers(plain).values():
        told = service["environment"]
        needs = float(told["FRAMESWAP_DRAIN_S"]) + float(told["FRAMESWAP_EXIT_TIMEOUT_S"])
        minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", service["stop_grace_period"]).groups()  # type: ignore[union-attr]
        assert 60 * int(minutes or 0) + int(seconds) > needs + 10


def test_every_variable_is_explained_once_with_its_default() -> None:
    text = "\n".join((ROOT / file).read_text() for files in FILES.values() for file in files)
    used = dict(re.findall(r"\$\{(FRAMESWAP_\w+):[-?]([^}]*)\}", text))
    example = (ROOT / ".env.example").read_text()
    explained = dict(re.findall(r"^(FRAMESWAP_\w+)=(.*)$", example, re.MULTILINE))
    assert explained.keys() == used.keys()
    for name, default in used.items():
        assert explained[name] == ("" if " " in default else default), name
    for block in example.strip().split("\n\n"):
        assert block.startswith("#"), block


def test_servers_are_told_nothing_that_the_entry_point_does_not_read(plain: dict[str, Any]) -> None:
    for service in servers(plain).values():
        assert {name for name in service["environment"] if name.startswith(PREFIX)} <= (
            known_variables()
        )


def test_every_file_that_is_mounted_or_copied_is_there() -> None:
    mounted = [
        Path(volume["source"])
        for name in FILES
        for service in services(name).values()
        for volume in service.get("volumes", [])
        if volume["type"] == "bind" and volume["source"].startswith(str(ROOT))
    ]
    assert len(mounted) >= 6
    copied = [
        ROOT / source
        for text in (DOCKERFILE, GATEWAY_DOCKERFILE)
        for line in re.findall(r"^COPY ((?!--from).+) \S+$", text, re.MULTILINE)
        for source in line.split()
    ]
    assert copied
    for path in (*mounted, *copied):
        assert path.exists(), path


def test_the_networks_of_this_repository_are_in_the_image() -> None:
    own = [row for row in WEIGHTS.values() if row.folder]
    assert own
    for row in own:
        copied = rf"^COPY (.* )?{row.folder}/{row.filename} {row.folder}/$"
        assert re.search(copied, DOCKERFILE, re.MULTILINE), row.name


def test_envoys_files_are_the_charts() -> None:
    for path, text in rendered().items():
        assert path.read_text() == text, "run python -m tests.deploy.envoy_files"


def test_the_gateway_asks_every_server_and_listens_with_tokens() -> None:
    gateway = services("gateway")["gateway"]
    aliases = services("gateway")["triton"]["networks"]["servers"]["aliases"]
    (entry_point,) = re.findall(r"^ENTRYPOINT (.*)$", GATEWAY_DOCKERFILE, re.MULTILINE)
    words = [*json.loads(entry_point)[1:], *gateway["command"]]
    parser = argparse.ArgumentParser()
    register_gateway(parser.add_subparsers())
    told = parser.parse_args(words)
    assert told.server == f"dns:///{aliases[0]}:8001"
    assert (told.address, str(told.folder)) == ("0.0.0.0", "/data")
    (secret,) = gateway["secrets"]
    assert str(told.tokens) == f"/run/secrets/{secret['source']}"
    (volume,) = gateway["volumes"]
    assert volume["target"] == str(told.folder)
    # Requests that are under way are waited for, then jobs are given back.
    assert gateway["stop_grace_period"] == "40s"


@pytest.mark.e2e
@pytest.mark.parametrize("file", ["deploy/Dockerfile", "deploy/gateway.Dockerfile"])
def test_the_dockerfile_is_linted(file: str) -> None:
    done = run(tool("hadolint"), file)
    assert done.returncode == 0, done.stdout
    checkov = run(
        tool("checkov"), "--file", file, "--framework", "dockerfile",
        "--skip-download", "--output", "json", "--quiet", LOG_LEVEL="ERROR",
    )  # fmt: skip
    results = json.loads(checkov.stdout)
    assert results["summary"]["passed"] > 10
    failed = [check["check_id"] for check in results["results"]["failed_checks"]]
    # It wants the base image's version in the FROM line; here it is in the ARG above it.
    assert failed == ["CKV_DOCKER_7"]


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
