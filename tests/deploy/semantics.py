"""What a cluster would refuse, or run wrongly, and no schema sees: names that lead nowhere.

`problems` takes the manifests of one release and returns a sentence for each thing that is wrong.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Manifest = Mapping[str, Any]

MEBIBYTE = 1 << 20
_UNITS = {"Ki": 1 << 10, "Mi": MEBIBYTE, "Gi": 1 << 30, "k": 10**3, "M": 10**6, "G": 10**9, "": 1}
_PLAIN = {"cpu", "memory", "ephemeral-storage"}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
LEAST_USER = 10_001
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret", "image",
}  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """A pod, or what makes pods."""

    kind: str
    name: str
    labels: Mapping[str, str]
    pod: Mapping[str, Any]
    manifest: Manifest

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def port_names(self) -> set[str]:
        return {port["name"] for one in self.containers for port in one.get("ports", [])}

    @property
    def takes_gpu(self) -> bool:
        limits = [one.get("resources", {}).get("limits", {}) for one in self.containers]
        return any(set(limit) - _PLAIN for limit in limits)


def problems(
    manifests: Iterable[Manifest], *, secrets: Iterable[str] = (), claims: Iterable[str] = ()
) -> list[str]:
    """A sentence for each thing that is wrong.

    Args:
        secrets, claims: that are there before the release.
    """
    given = list(manifests)
    found = list(_workloads(given))
    names = {(one["kind"], one["metadata"]["name"]) for one in given}
    known = names | {("Secret", name) for name in secrets}
    known |= {("PersistentVolumeClaim", name) for name in claims}
    told = list(_names(given))
    for workload in found:
        told += _ports(workload)
        told += _probes(workload)
        told += _volumes(workload, known)
        told += _resources(workload)
        told += _security(workload, names)
        if workload.kind == "Deployment":
            told += _deployment(workload)
    for manifest in given:
        check = _CHECKS.get(manifest["kind"])
        if check is not None:
            told += [f"{manifest['kind']} {manifest['metadata']['name']}: {text}"
                     for text in check(manifest, found)]  # fmt: skip
    return told


def quantity(text: str | int) -> float:
    """A Kubernetes quantity as a number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m|Ki|Mi|Gi|k|M|G|)", str(text))
    if match is None:
        raise ValueError(f"{text!r} is no quantity that is known here")
    return float(match[1]) * (0.001 if match[2] == "m" else _UNITS[match[2]])


def _workloads(manifests: Iterable[Manifest]) -> Iterator[Workload]:
    for one in manifests:
        metadata = one["metadata"]
        if one["kind"] in ("Deployment", "Job", "StatefulSet", "DaemonSet"):
            template = one["spec"]["template"]
            labels = template["metadata"].get("labels", {})
            yield Workload(one["kind"], metadata["name"], labels, template["spec"], one)
        elif one["kind"] == "Pod":
            yield Workload("Pod", metadata["name"], metadata.get("labels", {}), one["spec"], one)


def _names(manifests: list[Manifest]) -> Iterator[str]:
    seen = set()
    for one in manifests:
        kind, name = one["kind"], one["metadata"]["name"]
        longest = 63 if kind in ("Service", "Job", "Pod", "Deployment") else 253
        if not _NAME.fullmatch(name) or len(name) > longest:
            yield f"{kind} {name}: not a name of at most {longest} characters"
        if (kind, name) in seen:
            yield f"{kind} {name} is there twice"
        seen.add((kind, name))
    spaces = {one["metadata"].get("namespace") for one in manifests} - {None}
    if len(spaces) > 1:
        yield f"manifests of several namespaces: {sorted(spaces)}"


def _selects(selector: Mapping[str, str], workloads: list[Workload]) -> list[Workload]:
    return [one for one in workloads if selector.items() <= one.labels.items()]


def _ports(workload: Workload) -> Iterator[str]:
    seen = set()
    for container in workload.containers:
        for port in container.get("ports", []):
            name, number = port.get("name", ""), port["containerPort"]
            if name and (len(name) > 15 or not _PORT_NAME.fullmatch(name)):
                yield f"{workload}: {name} is no port name of at most 15 letters"
            if not 0 < number < 65536:
                yield f"{workload}: {number} is no port"
            for key in {name, number} - {""}:
                if key in seen:
                    yield f"{workload}: the port {key} is there twice"
                seen.add(key)


def _probes(workload: Workload) -> Iterator[str]:
    for container in workload.containers:
        own = {port.get("name") for port in container.get("ports", [])}
        own |= {port["containerPort"] for port in container.get("ports", [])}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(kind)
            if probe is None:
                continue
            handler = probe.get("httpGet") or probe.get("grpc") or probe.get("tcpSocket")
            if handler is None and "exec" not in probe:
                yield f"{workload}: its {kind} asks nothing"
            elif handler is not None and handler["port"] not in own:
                yield f"{workload}: its {kind} asks the port {handler['port']}, which it lacks"
        live = container.get("livenessProbe", {}).get("httpGet", {}).get("path", "")
        if live.startswith("/v2/") and live != "/v2/health/live":
            yield f"{workload}: {live} is no liveness: it turns false while all is well"


def _volumes(workload: Workload, known: set[tuple[str, str]]) -> Iterator[str]:
    volumes = {volume["name"]: volume for volume in workload.pod.get("volumes", [])}
    mounted = set()
    for container in workload.containers:
        paths = set()
        for mount in container.get("volumeMounts", []):
            mounted.add(mount["name"])
            if mount["name"] not in volumes:
                yield f"{workload}: {container['name']} mounts {mount['name']}, which is no volume"
            if mount["mountPath"] in paths:
                yield f"{workload}: {mount['mountPath']} is mounted twice"
            paths.add(mount["mountPath"])
    for name in sorted(volumes.keys() - mounted):
        yield f"{workload}: nobody mounts the volume {name}"
    for name, volume in volumes.items():
        kinds = set(volume) - {"name"}
        if len(kinds) != 1 or not kinds <= RESTRICTED_VOLUMES:
            yield f"{workload}: the volume {name} is of a kind that restricted pods may not have"
        for kind, key, field in (
            ("Secret", "secret", "secretName"), ("ConfigMap", "configMap", "name"),
            ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
        ):  # fmt: skip
            if key in volume and (kind, volume[key][field]) not in known:
                yield f"{workload}: there is no {kind} {volume[key][field]}"


def _resources(workload: Workload) -> Iterator[str]:
    shared = sum(
        quantity(volume["emptyDir"].get("sizeLimit", 0))
        for volume in workload.pod.get("volumes", [])
        if volume.get("emptyDir", {}).get("medium") == "Memory"
    )
    for container in workload.containers:
        resources = container.get("resources", {})
        limits, requests = resources.get("limits", {}), resources.get("requests", {})
        for name in limits.keys() | requests.keys():
            value = limits.get(name, requests.get(name))
            if name not in _PLAIN:
                if not re.fullmatch(r"[1-9]\d*", str(value)):
                    yield f"{workload}: {name} is given away whole, not {value}"
                if requests.get(name, value) != value:
                    yield f"{workload}: {name} is requested otherwise than it is limited"
            elif quantity(requests.get(name, 0)) > quantity(limits.get(name, 1 << 60)):
                yield f"{workload}: it requests more {name} than its limit"
        if "memory" not in limits or "memory" not in requests:
            yield f"{workload}: {container['name']} has no memory request and limit"
        mounts = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
        if "/dev/shm" in mounts and quantity(limits.get("memory", 0)) < shared + 512 * MEBIBYTE:
            yield f"{workload}: /dev/shm counts as memory, and its limit leaves nothing beside it"


def _security(workload: Workload, names: set[tuple[str, str]]) -> Iterator[str]:
    pod = workload.pod
    context = pod.get("securityContext", {})
    if ("ServiceAccount", pod.get("serviceAccountName", "")) not in names:
        yield f"{workload}: it has no service account of its own"
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{workload}: it is given a token of the cluster's API"
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{workload}: {field}"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{workload}: no seccomp profile"
    for container in workload.containers:
        own = container.get("securityContext", {})
        user = own.get("runAsUser", context.get("runAsUser", 0))
        if not own.get("runAsNonRoot") or user < LEAST_USER:
            yield f"{workload}: {container['name']} runs as user {user}"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{workload}: {container['name']} may gain privileges"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or "add" in own["capabilities"]:
            yield f"{workload}: {container['name']} keeps capabilities"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{workload}: {container['name']} may write its root"
        tail = container["image"].rpartition("/")[2]
        if "@" not in tail and (":" not in tail or tail.endswith(":latest")):
            yield f"{workload}: the image {container['image']} names no version"


def _deployment(workload: Workload) -> Iterator[str]:
    spec, pod = workload.manifest["spec"], workload.pod
    selector = spec["selector"].get("matchLabels", {})
    if not selector or not selector.items() <= workload.labels.items():
        yield f"{workload}: its selector does not match its pods' labels"
    for spread in pod.get("topologySpreadConstraints", []):
        wanted = spread["labelSelector"]["matchLabels"]
        if not wanted.items() <= workload.labels.items():
            yield f"{workload}: its spread does not match its own pods"
    rolling = spec.get("strategy", {}).get("rollingUpdate", {})
    surge, unavailable = rolling.get("maxSurge", "25%"), rolling.get("maxUnavailable", "25%")
    if workload.takes_gpu and (surge != 0 or unavailable == 0):
        yield f"{workload}: a rollout waits for a GPU that its own old pods hold"
    if surge == 0 and unavailable == 0:
        yield f"{workload}: a rollout that may neither add nor remove a pod"
    grace = pod.get("terminationGracePeriodSeconds", 30)
    for container in pod["containers"]:
        sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        told = {item["name"]: item.get("value", "") for item in container.get("env", [])}
        needs = sleep + sum(
            float(told.get(f"FRAMESWAP_{name}") or 0) for name in ("DRAIN_S", "EXIT_TIMEOUT_S")
        )
        if grace <= needs:
            yield f"{workload}: it is killed after {grace} s, and stopping takes {needs:g} s"
        budget = container.get("startupProbe", {})
        allowed = budget.get("failureThreshold", 3) * budget.get("periodSeconds", 10)
        if float(told.get("FRAMESWAP_WAIT_S") or 0) > allowed:
            yield f"{workload}: it may wait longer for its plans than its startup probe allows"


def _service(manifest: Manifest, workloads: list[Workload]) -> Iterator[str]:
    spec = manifest["spec"]
    pods = _selects(spec["selector"], workloads)
    if not pods:
        yield "it selects no pod"
    for port in spec["ports"]:
        if not 0 < port["port"] < 65536:
            yield f"{port['port']} is no port"
        if len(port.get("name", "")) > 15:
            yield f"{port['name']} is no port name of at most 15 letters"
        target = port.get("targetPort", port["port"])
        for pod in pods:
            numbers = {p["containerPort"] for one in pod.containers for p in one.get("ports", [])}
            if target not in pod.port_names | numbers:
                yield f"its pods have no port {target}"


def _autoscaler(manifest: Manifest, workloads: list[Workload]) -> Iterator[str]:
    spec = manifest["spec"]
    least = spec.get("minReplicas", spec.get("minReplicaCount", 1))
    most = spec.get("maxReplicas", spec.get("maxReplicaCount", 100))
    if least > most:
        yield f"at least {least} and at most {most} pods cannot be"
    targets = [one for one in workloads if one.name == spec["scaleTargetRef"]["name"]]
    if not targets:
        yield f"there is no {spec['scaleTargetRef']['name']} to scale"
    for target in targets:
        if "replicas" in target.manifest["spec"]:
            yield f"{target} has replicas of its own, which every upgrade would set again"


def _network_policy(manifest: Manifest, workloads: list[Workload]) -> Iterator[str]:
    spec = manifest["spec"]
    pods = _selects(spec["podSelector"].get("matchLabels", {}), workloads)
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        if spec.get(direction) and direction.capitalize() not in spec["policyTypes"]:
            yield f"its {direction} rules are not among its types"
        for rule in spec.get(direction, []):
            for peer in rule.get(peers, []):
                block = peer.get("ipBlock")
                for text in [block["cidr"], *block.get("except", [])] if block else []:
                    try:
                        ipaddress.ip_network(text)
                    except ValueError:
                        yield f"{text} is no network"
            for port in rule.get("ports", []):
                wanted = port.get("port")
                if isinstance(wanted, str) and direction == "ingress":
                    if not all(wanted in pod.port_names for pod in pods):
                        yield f"its pods have no port {wanted}"
                elif isinstance(wanted, int) and not 0 < wanted < 65536:
                    yield f"{wanted} is no port"


def _budget(manifest: Manifest, workloads: list[Workload]) -> Iterator[str]:
    spec = manifest["spec"]
    if not _selects(spec["selector"]["matchLabels"], workloads):
        yield "it selects no pod"
    if spec.get("maxUnavailable") == 0:
        yield "no node could ever be drained"


def _pod_monitor(manifest: Manifest, workloads: list[Workload]) -> Iterator[str]:
    spec = manifest["spec"]
    pods = _selects(spec["selector"]["matchLabels"], workloads)
    if not pods:
        yield "it selects no pod"
    for endpoint in spec["podMetricsEndpoints"]:
        if not all(endpoint["port"] in pod.port_names for pod in pods):
            yield f"its pods have no port {endpoint['port']}"


_CHECKS = {
    "Service": _service,
    "HorizontalPodAutoscaler": _autoscaler,
    "ScaledObject": _autoscaler,
    "NetworkPolicy": _network_policy,
    "PodDisruptionBudget": _budget,
    "PodMonitor": _pod_monitor,
}
