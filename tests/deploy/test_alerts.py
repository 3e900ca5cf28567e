"""Alerts, scalers and panels as Prometheus itself reads them, over series that are made up."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.charts import NAMESPACE, VALUE_SETS, of_kind, render
from tests.deploy.tools import ROOT, promtool, run

POD = f'namespace="{NAMESPACE}",pod="frameswap-main-5f6d-x2x"'
OTHER = f'namespace="{NAMESPACE}",pod="frameswap-main-edge-5f6d-x2x"'
THRESHOLD_MS = 150
SECONDS = 15
"""Between two samples."""


@cache
def rules(name: str = "edge-tls") -> dict[str, Any]:
    (found,) = of_kind(render(VALUE_SETS[name]), "PrometheusRule").values()
    return dict(found["spec"])


def growing(metric: str, labels: str, each_second: float) -> dict[str, str]:
    """A counter over 40 minutes."""
    return {"series": f"{metric}{{{labels}}}", "values": f"0+{each_second * SECONDS}x160"}


def steady(metric: str, labels: str, value: float) -> dict[str, str]:
    return {"series": f"{metric}{{{labels}}}", "values": f"{value}x160"}


def queue(labels: str, *, batch: float, waited_ms: float, model: str) -> list[dict[str, str]]:
    """Ten runs a second, of batches of which each request waited so long."""
    named = f'{labels},model="{model}"'
    return [
        growing("nv_inference_queue_duration_us", named, 10 * batch * waited_ms * 1000),
        growing("nv_inference_exec_count", named, 10),
    ]


def failures(labels: str, *, of_a_hundred: float) -> list[dict[str, str]]:
    return [
        growing("nv_inference_request_failure", f'{labels},reason="OTHER"', of_a_hundred),
        growing("nv_inference_request_success", labels, 100 - of_a_hundred),
    ]


def pinned(labels: str, used: float) -> list[dict[str, str]]:
    return [
        steady("nv_pinned_memory_pool_used_bytes", labels, used),
        steady("nv_pinned_memory_pool_total_bytes", labels, 1000),
    ]


WELL = {
    "queue": [
        *queue(POD, batch=4, waited_ms=8, model="face_detector"),
        *queue(POD, batch=4, waited_ms=0.01, model="face_swapper"),
    ],
    "failures": failures(POD, of_a_hundred=0.5),
    "probes": [steady("frameswap_failed_probes", POD, 0)],
    "servers": [steady("frameswap_draining", POD, 0)],
    "pinned": pinned(POD, 800),
}
ILL = {
    "FrameswapQueueLong": ("queue", [
        *queue(POD, batch=16, waited_ms=20, model="face_detector"),
        *queue(POD, batch=16, waited_ms=0.01, model="face_swapper"),
    ]),
    "FrameswapRequestsFail": ("failures", failures(POD, of_a_hundred=2)),
    "FrameswapModelDead": ("probes", [steady("frameswap_failed_probes", POD, 1)]),
    "FrameswapNoServer": ("servers", [steady("frameswap_draining", OTHER, 0)]),
    "FrameswapPinnedPoolFull": ("pinned", pinned(POD, 950)),
}  # fmt: skip
"""What each alert is about, and the series in place of the healthy ones that make it fire."""


def run_rules(folder: Path, tests: list[dict[str, Any]]) -> str:
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules()))
    file = {"rule_files": ["rules.yaml"], "evaluation_interval": f"{SECONDS}s", "tests": tests}
    (folder / "tests.yaml").write_text(yaml.safe_dump(file))
    done = run(promtool(), "test", "rules", folder / "tests.yaml")
    return "" if done.returncode == 0 else done.stdout + done.stderr


def alert(name: str) -> dict[str, Any]:
    (found,) = (one for one in rules()["groups"][0]["rules"] if one.get("alert") == name)
    return dict(found)


def expect(name: str, fires: bool) -> dict[str, Any]:
    rule = alert(name)
    labels = dict(rule["labels"])
    if name == "FrameswapNoServer":
        labels["namespace"] = NAMESPACE  # what `absent` knows of the series
    firing = [{"exp_labels": labels, "exp_annotations": rule["annotations"]}]
    return {"eval_time": "30m", "alertname": name, "exp_alerts": firing if fires else []}


def case(series: dict[str, list[dict[str, str]]], firing: str | None) -> dict[str, Any]:
    return {
        "interval": f"{SECONDS}s",
        "input_series": [one for group in series.values() for one in group],
        "alert_rule_test": [expect(name, name == firing) for name in ILL],
    }


def test_every_alert_is_tried() -> None:
    assert {one["alert"] for one in rules()["groups"][0]["rules"] if "alert" in one} == ILL.keys()


def test_all_is_quiet_where_all_is_well(tmp_path: Path) -> None:
    assert run_rules(tmp_path, [case(WELL, None)]) == ""


@pytest.mark.parametrize("name", ILL)
def test_an_alert_fires_for_what_it_is_about_and_no_other_does(tmp_path: Path, name: str) -> None:
    group, series = ILL[name]
    assert run_rules(tmp_path, [case({**WELL, group: series}, name)]) == ""


def test_what_happens_to_another_pool_is_not_this_ones(tmp_path: Path) -> None:
    others = {
        f"other {group}": [
            {**one, "series": one["series"].replace("frameswap-main-5f6d", "frameswap-b-main-5f6d")}
            for one in series
        ]
        for group, series in ILL.values()
    }
    assert run_rules(tmp_path, [case({**WELL, **others}, None)]) == ""


@pytest.mark.parametrize(
    ("batch", "waited_ms", "wanted"), [(4, 8, 32), (16, 18, 288), (1, 0, 0)]
)
def test_the_scaling_signal_is_what_the_page_says(
    tmp_path: Path, batch: int, waited_ms: float, wanted: float
) -> None:
    """docs/operating.md's two loads, with models beside the one that waits."""
    series = {
        "queue": [
            *queue(POD, batch=batch, waited_ms=waited_ms, model="face_detector"),
            *(part for index in range(5)
              for part in queue(POD, batch=batch, waited_ms=0, model=f"step_{index}")),
        ]
    }  # fmt: skip
    test = {
        "interval": f"{SECONDS}s",
        "input_series": series["queue"],
        "promql_expr_test": [{
            "expr": "frameswap:queue_ms_per_execution", "eval_time": "30m",
            "exp_samples": [{
                "labels": 'frameswap:queue_ms_per_execution{pool="main"}', "value": wanted,
            }],
        }],
    }  # fmt: skip
    assert run_rules(tmp_path, [test]) == ""
    assert (wanted > THRESHOLD_MS) == (batch == 16)
    (threshold,) = (
        trigger["metadata"]["threshold"]
        for one in of_kind(render(VALUE_SETS["keda-to-zero"]), "ScaledObject").values()
        for trigger in one["spec"]["triggers"] if trigger["name"] == "queue"
    )  # fmt: skip
    assert threshold == str(THRESHOLD_MS)


def test_a_wrong_rule_would_be_seen(tmp_path: Path) -> None:
    group, series = ILL["FrameswapModelDead"]
    told = run_rules(tmp_path, [case({**WELL, group: series}, None)])
    assert "FrameswapModelDead" in told


@pytest.mark.parametrize("name", VALUE_SETS)
def test_prometheus_reads_the_rules_and_queries_of_every_set_of_values(
    tmp_path: Path, name: str
) -> None:
    manifests = render(VALUE_SETS[name])
    groups = [
        group
        for one in of_kind(manifests, "PrometheusRule").values()
        for group in one["spec"]["groups"]
    ]
    queries = [
        trigger["metadata"]["query"]
        for one in of_kind(manifests, "ScaledObject").values()
        for trigger in one["spec"]["triggers"]
    ]
    check_queries(tmp_path, queries, groups)


def test_prometheus_reads_the_queries_of_the_dashboard_and_its_own_file(tmp_path: Path) -> None:
    board = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "frameswap.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert queries
    check_queries(tmp_path, queries, [])
    done = run(promtool(), "check", "config", ROOT / "deploy" / "prometheus.yml")
    assert done.returncode == 0, done.stderr


def check_queries(folder: Path, queries: list[str], groups: list[Any]) -> None:
    recorded = [{"record": f"query:{index}", "expr": text} for index, text in enumerate(queries)]
    given = [*groups, *([{"name": "queries", "rules": recorded}] if recorded else [])]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": given}))
    done = run(promtool(), "check", "rules", folder / "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(len(group["rules"]) for group in given)
    assert f"SUCCESS: {count} rules found" in done.stdout
