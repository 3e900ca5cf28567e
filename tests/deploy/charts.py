"""Rendering the chart, and the sets of values that its folder documents."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.tools import ROOT, helm, run

CHART = ROOT / "deploy" / "helm" / "frameswap"
VALUE_SETS: dict[str, Path | None] = {
    "defaults": None,
    **{path.stem: path for path in sorted((CHART / "ci").glob("*.yaml"))},
}
SECRETS = ("frameswap-servers", "frameswap-edge", "frameswap-tokens", "frameswap-gateway")
CLAIMS = ("frameswap-plans-h100-3g",)
NAMESPACE = "video"


@cache
def render_text(values: Path | None = None, *options: str) -> str:
    files = () if values is None else ("--values", str(values))
    done = run(
        helm(), "template", "frameswap", CHART, "--namespace", NAMESPACE, *files, *options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(values: Path | None = None, *options: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(render_text(values, *options)) if one]


def refuse(**values: Any) -> str:
    """What helm says of values that cannot be."""
    options = []
    for key, value in values.items():
        options += ["--set-json", f"{key}={json.dumps(value)}"]
    done = run(helm(), "template", "frameswap", CHART, *options)
    assert done.returncode != 0, "helm took it"
    return done.stderr


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Manifests of a kind by name."""
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    """The first container of what makes pods."""
    template = manifest["spec"].get("template", manifest)
    first: dict[str, Any] = template["spec"]["containers"][0]
    return first


def variables(manifest: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container(manifest)["env"]}
