"""The Helm chart: every documented set of values, and what it must not let through."""

from __future__ import annotations

import argparse
import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from frameswap_gateway.command import register as register_gateway

from bench.load import __main__ as load
from deploy import swap_check
from deploy.settings import PREFIX, known_variables, read_settings
from engines import command_line as engines_command_line
from tests.deploy.charts import (
    CHART,
    CLAIMS,
    NAMESPACE,
    SECRETS,
    VALUE_SETS,
    container,
    of_kind,
    refuse,
    render,
    render_text,
    variables,
)
from tests.deploy.semantics import problems, quantity
from tests.deploy.tools import helm, run, tool

Manifests = list[dict[str, Any]]
KUBERNETES = ("1.32", "1.37")
WITHOUT_SCHEMA = {"PodMonitor", "PrometheusRule", "ScaledObject"}
"""Custom resources: their operators bring the schemas."""

PARSERS = {
    "deploy.build_plans": lambda: engines_command_line.make_parser(""),
    "deploy.swap_check": swap_check.make_parser,
    "bench.load": load.make_parser,
}

EXPLAINED = {
    "CKV_K8S_8": ("Pod", "a test that runs once has nothing to be asked"),
    "CKV_K8S_9": ("Pod", "a test that runs once has nothing to be asked"),
    "CKV_K8S_11": ("", "a CPU limit throttles, and so lengthens the longest waits"),
    "CKV_K8S_15": ("", "an image by digest is the same whenever it is pulled"),
    "CKV_K8S_43": ("", "the digest of an image that its operator builds is not known here"),
}
"""checkov's failures that stay, and why; the kind that each is about, empty for any."""


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_documented_set_of_values_is_linted_and_rendered(name: str) -> None:
    values = VALUE_SETS[name]
    files = () if values is None else ("--values", values)
    done = run(helm(), "lint", "--strict", CHART, *files)
    assert done.returncode == 0, done.stdout
    assert of_kind(render(values), "Deployment")


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_name_leads_somewhere(name: str) -> None:
    assert problems(render(VALUE_SETS[name]), secrets=SECRETS, claims=CLAIMS) == []


@pytest.mark.e2e
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_schemas_take_every_manifest(version: str, tmp_path: Any) -> None:
    paths = []
    for name, values in VALUE_SETS.items():
        kept = [one for one in render(values) if one["kind"] not in WITHOUT_SCHEMA]
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump_all(kept))
    done = run(tool("kubernetes-validate"), "--strict", "-k", version, *paths)
    assert done.returncode == 0, done.stdout
    assert "WARN" not in done.stdout


@pytest.mark.e2e
@pytest.mark.parametrize(
    "name", ["defaults", "edge-tls", "several-pools", "load-test", "cpu", "gateway"]
)
def test_checkov_finds_nothing_that_is_not_explained(name: str, tmp_path: Any) -> None:
    path = tmp_path / "manifests.yaml"
    path.write_text(render_text(VALUE_SETS[name]))
    done = run(
        tool("checkov"), "--file", path, "--framework", "kubernetes", "--skip-download",
        "--output", "json", "--quiet", LOG_LEVEL="ERROR",
    )  # fmt: skip
    failed = json.loads(done.stdout)["results"]["failed_checks"]
    assert failed, "checkov looked at nothing"
    for check in failed:
        kind, _ = EXPLAINED.get(check["check_id"], ("nothing", ""))
        assert check["resource"].startswith(kind), f"{check['check_id']}: {check['check_name']}"


def server_of(manifests: Manifests) -> dict[str, Any]:
    return of_kind(manifests, "Deployment")["frameswap-main"]


def to_misspelt_probe(manifests: Manifests) -> None:
    one = container(server_of(manifests))
    one["livenessProbe"]["periodSecond"] = one["livenessProbe"].pop("periodSeconds")


def to_few_replicas(manifests: Manifests) -> None:
    of_kind(manifests, "HorizontalPodAutoscaler")["frameswap-main"]["spec"]["minReplicas"] = 9


def to_other_labels(manifests: Manifests) -> None:
    server_of(manifests)["spec"]["selector"]["matchLabels"]["frameswap/pool"] = "other"


def to_long_port_name(manifests: Manifests) -> None:
    container(server_of(manifests))["ports"][0]["name"] = "grpc-inference-port"


def to_lost_volume(manifests: Manifests) -> None:
    del server_of(manifests)["spec"]["template"]["spec"]["volumes"][0]


def to_half_a_gpu(manifests: Manifests) -> None:
    container(server_of(manifests))["resources"]["limits"]["nvidia.com/gpu"] = "500m"


def to_far_port(manifests: Manifests) -> None:
    container(server_of(manifests))["ports"][0]["containerPort"] = 90000


def to_wrong_network(manifests: Manifests) -> None:
    policy = of_kind(manifests, "NetworkPolicy")["frameswap-servers"]
    policy["spec"]["ingress"][0]["from"].append({"ipBlock": {"cidr": "10.0.0.0/99"}})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (to_few_replicas, "at least 9 and at most 6 pods cannot be"),
        (to_other_labels, "its selector does not match its pods' labels"),
        (to_long_port_name, "grpc-inference-port is no port name of at most 15 letters"),
        (to_lost_volume, "mounts models, which is no volume"),
        (to_half_a_gpu, "nvidia.com/gpu is given away whole, not 500m"),
        (to_far_port, "90000 is no port"),
        (to_wrong_network, "10.0.0.0/99 is no network"),
    ],
)
def test_what_a_cluster_refused_is_refused_here(
    change: Callable[[Manifests], None], told: str
) -> None:
    manifests = copy.deepcopy(render(VALUE_SETS["hpa"]))
    change(manifests)
    assert any(told in one for one in problems(manifests)), problems(manifests)


@pytest.mark.e2e
def test_a_misspelt_probe_is_refused_by_the_schema(tmp_path: Any) -> None:
    manifests = copy.deepcopy(render())
    to_misspelt_probe(manifests)
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump_all(manifests))
    done = run(tool("kubernetes-validate"), "--strict", "-k", KUBERNETES[-1], path)
    assert done.returncode != 0
    assert "periodSecond" in done.stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d["spec"].update(replicas=2), "has replicas of its own"),
        (lambda d: d["spec"]["strategy"]["rollingUpdate"].update(maxSurge=1, maxUnavailable=0),
         "a rollout waits for a GPU that its own old pods hold"),
        (lambda d: d["spec"]["template"]["spec"].update(terminationGracePeriodSeconds=30),
         "it is killed after 30 s, and stopping takes 45 s"),
        (lambda d: container(d)["readinessProbe"]["httpGet"].update(port="http"),
         "asks the port http, which it lacks"),
        (lambda d: container(d)["livenessProbe"]["httpGet"].update(path="/v2/health/ready"),
         "is no liveness"),
        (lambda d: container(d)["startupProbe"].update(failureThreshold=30),
         "may wait longer for its plans"),
        (lambda d: container(d)["resources"]["limits"].update(memory="4Gi"),
         "/dev/shm counts as memory"),
        (lambda d: container(d)["securityContext"].update(runAsUser=1000), "runs as user 1000"),
        (lambda d: container(d)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
         "keeps capabilities"),
        (lambda d: d["spec"]["template"]["spec"]["volumes"].append(
            {"name": "node", "hostPath": {"path": "/"}}), "restricted pods may not have"),
        (lambda d: container(d).update(image="frameswap-server:latest"), "names no version"),
    ],
)  # fmt: skip
def test_what_no_schema_sees_is_seen_here(
    change: Callable[[dict[str, Any]], None], told: str
) -> None:
    manifests = copy.deepcopy(render(VALUE_SETS["hpa"]))
    change(server_of(manifests))
    assert any(told in one for one in problems(manifests)), problems(manifests)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"pools.main.gpu.count": 0}, "needs gpu.count 1 or more"),
        ({"pools.main.gpu.count": 0.5}, "count"),
        ({"pools.main.replica": 2}, "replica"),
        ({"pools.main.maxQueueSize": 8}, "needs instances 2 or more"),
        ({"pools.main.autoscaling": {"kind": "hpa", "min": 5, "max": 2}}, "min is above"),
        ({"pools.main.autoscaling": {"kind": "hpa", "min": 0}}, "only keda scales to zero"),
        ({"pools.main.autoscaling": {"kind": "keda", "min": 0}}, "needs edge.enabled"),
        ({"plans.volume": "own"}, "it needs plans.volume shared"),
        ({"plans.accessModes": ["ReadWriteOnce"]}, "need accessModes ReadWriteMany"),
        ({"plans.builder": "none"}, "needs plans.existingClaim"),
        ({"rollout": {"maxSurge": 1, "maxUnavailable": 0}}, "waits for ever"),
        ({"tls.mutual": True}, "tls.mutual needs tls.secretName"),
        ({"edge.tokensSecret": "t"}, "a token must not cross a network in clear"),
        ({"test.pool": "other"}, "no pool is called other"),
        ({"loadTest.enabled": True}, "perf_analyzer reads statistics"),
        ({"securityContext.user": 1000}, "user"),
        ({"image.digest": "sha256:12"}, "digest"),
        ({"pools.edge": {}}, "edge"),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused_with_a_sentence(
    values: dict[str, Any], told: str
) -> None:
    assert told in refuse(**values)


def test_every_variable_of_a_server_is_one_that_the_entry_point_reads() -> None:
    for values in VALUE_SETS.values():
        for name, deployment in of_kind(render(values), "Deployment").items():
            if name.endswith(("-edge", "-gateway")):
                continue
            told = variables(deployment)
            settings = read_settings([], told)
            assert str(settings.repository).startswith("/models/")
            ours = {name for name in told if name.startswith(PREFIX)}
            assert ours <= known_variables() | {"FRAMESWAP_CACHE"}


def test_pools_that_agree_in_their_plans_share_one_build() -> None:
    manifests = render(
        None, "--set-json",
        'pools={"main":null,"a":{"gpu":{"product":"L4"}},"b":{"gpu":{"product":"L4"},"replicas":3},'
        '"c":{"gpu":{"product":"H100"}}}',
        "--set=test.pool=a", "--set=loadTest.pool=a",
    )  # fmt: skip
    assert len(of_kind(manifests, "Job")) == 2
    folders = {
        name: variables(one)["FRAMESWAP_REPOSITORY"]
        for name, one in of_kind(manifests, "Deployment").items()
    }
    assert folders["frameswap-a"] == folders["frameswap-b"] != folders["frameswap-c"]
    written = {
        word.partition("=")[2]
        for job in of_kind(manifests, "Job").values()
        for word in container(job)["args"]
        if word.startswith("--repository=")
    }
    assert written == set(folders.values())


def test_another_image_is_another_build_and_the_old_plans_stay() -> None:
    def job_and_folder(tag: str) -> tuple[str, str]:
        manifests = render(None, f"--set-string=image.tag={tag}")
        (job,) = of_kind(manifests, "Job")
        return job, variables(server_of(manifests))["FRAMESWAP_REPOSITORY"]

    old, new = job_and_folder("1"), job_and_folder("2")
    assert old[0] != new[0]
    assert old[1] != new[1], "a rollback would find its plans gone"


def test_servers_never_write_plans_and_shared_memory_is_in_the_limit() -> None:
    one = container(server_of(render()))
    mounts = {mount["name"]: mount for mount in one["volumeMounts"]}
    assert mounts["models"]["readOnly"] is True
    limit = quantity(one["resources"]["limits"]["memory"])
    assert limit == quantity("12288Mi") + quantity("4096Mi")


def test_only_builds_come_before_servers_where_gpus_are_few() -> None:
    manifests = render()
    (name,) = of_kind(manifests, "PriorityClass")
    (job,) = of_kind(manifests, "Job").values()
    assert job["spec"]["template"]["spec"]["priorityClassName"] == name
    assert "priorityClassName" not in server_of(manifests)["spec"]["template"]["spec"]


def test_a_pod_that_builds_writes_where_its_server_reads() -> None:
    pod = server_of(render(VALUE_SETS["time-slicing"]))["spec"]["template"]["spec"]
    (builder,) = pod["initContainers"]
    (server,) = pod["containers"]
    assert {"name": "models", "mountPath": "/models"} in builder["volumeMounts"]
    folder = {item["name"]: item["value"] for item in server["env"]}["FRAMESWAP_REPOSITORY"]
    assert f"--repository={folder}" in builder["args"]
    # The kubelet takes the larger of both: they never hold two.
    assert builder["resources"]["limits"]["nvidia.com/gpu.shared"] == 1


def test_with_an_edge_nobody_else_reaches_the_servers() -> None:
    policies = of_kind(render(VALUE_SETS["edge-tls"]), "NetworkPolicy")
    servers = policies["frameswap-servers"]["spec"]["ingress"][0]
    callers = [peer["podSelector"]["matchLabels"] for peer in servers["from"]]
    assert {one["app.kubernetes.io/component"] for one in callers} == {"edge", "check"}
    deny = policies["frameswap-deny"]["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny
    assert "egress" not in deny


def test_without_an_edge_only_declared_callers_do() -> None:
    policies = of_kind(render(), "NetworkPolicy")
    peers = policies["frameswap-servers"]["spec"]["ingress"][0]["from"]
    assert {"podSelector": {"matchLabels": {"frameswap/caller": "true"}}} in peers
    assert "frameswap-build" not in policies, "builds reach nothing unless they are to fetch"


def test_scaling_to_zero_is_woken_by_what_envoy_saw() -> None:
    (scaled,) = of_kind(render(VALUE_SETS["keda-to-zero"]), "ScaledObject").values()
    assert scaled["spec"]["idleReplicaCount"] == 0
    queue, asked = scaled["spec"]["triggers"]
    assert f'namespace="{NAMESPACE}"' in queue["metadata"]["query"]
    assert queue["metadata"]["threshold"] == "150"
    assert "envoy_http_downstream_rq_total" in asked["metadata"]["query"]
    assert asked["metadata"]["activationThreshold"] == "0"


def test_alerts_and_scalers_ask_for_metrics_that_are_there() -> None:
    (rule,) = of_kind(render(VALUE_SETS["edge-tls"]), "PrometheusRule").values()
    text = json.dumps(rule)
    for metric in ("nv_inference_queue_duration_us", "nv_inference_exec_count",
                   "nv_inference_request_failure", "frameswap_failed_probes",
                   "nv_pinned_memory_pool_used_bytes"):  # fmt: skip
        assert metric in text


def test_the_notes_say_how_to_see_that_it_swaps() -> None:
    done = run(helm(), "install", "frameswap", CHART, "--dry-run=client", "--namespace", NAMESPACE)
    notes = done.stdout.partition("NOTES:")[2]
    assert "helm -n video test frameswap" in notes, done.stderr
    assert "dns:///frameswap-main.video:8001" in notes


def test_every_program_takes_the_words_that_the_chart_gives_it() -> None:
    secured = (
        "--set=tls.secretName=servers", "--set=tls.mutual=true", "--set=loadTest.enabled=true",
        '--set-json=pools.main.open=["statistics"]',
    )  # fmt: skip
    for manifests in (*(render(values) for values in VALUE_SETS.values()), render(None, *secured)):
        for one in manifests:
            if one["kind"] not in ("Deployment", "Job", "Pod"):
                continue
            spec = one["spec"].get("template", one)["spec"]
            for each in (*spec.get("initContainers", []), *spec["containers"]):
                parser = PARSERS.get(each.get("command", [""])[-1])
                if parser is not None:
                    parser().parse_args(each["args"])
                    # Pictures and networks are the image's own: nothing is fetched.
                    told = {item["name"]: item["value"] for item in each["env"]}
                    assert told["FRAMESWAP_CACHE"] in ("/models/cache", "/opt/frameswap/downloads")
    assert set(PARSERS) <= set(re.findall(r"command: \[python, -m, ([\w.]+)\]", _templates()))


def _templates() -> str:
    return "".join(path.read_text() for path in (CHART / "templates").rglob("*.*"))


def test_the_gateway_is_one_pod_that_is_told_what_it_takes() -> None:
    manifests = render(VALUE_SETS["gateway"])
    deployment = of_kind(manifests, "Deployment")["frameswap-gateway"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    parser = argparse.ArgumentParser()
    register_gateway(parser.add_subparsers())
    told = parser.parse_args(["gateway", *container(deployment)["args"]])
    assert told.server == "dns:///frameswap-main:8001"
    assert "frameswap-main" in of_kind(manifests, "Service")
    assert (told.tls_name, told.host_name, told.https) == ("frameswap", ["swap.example.com"], True)
    policies = of_kind(manifests, "NetworkPolicy")
    (opened,) = policies["frameswap-gateway-servers"]["spec"]["ingress"]
    assert opened["ports"] == [{"protocol": "TCP", "port": "grpc"}]
    (caller,) = opened["from"]
    assert caller["podSelector"] == policies["frameswap-gateway"]["spec"]["podSelector"]
    assert "gateway.tokensSecret" in refuse(**{"gateway.enabled": True})
    assert "no pool is called other" in refuse(
        **{"gateway.enabled": True, "gateway.tokensSecret": "a", "gateway.pool": "other"}
    )
