"""The gateway as strangers see it: by its description alone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.gateway.running import RunningGateway
from demo.photos import photo_path

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".venv" / "gateway-tools" / "bin"
NAME = "^[A-Za-z0-9_-]{1,64}$"
"""The pattern of what users call their uploads and jobs."""
CASES = 8
"""Of each operation in every run."""
MANY_CASES = {"any": 480, "known": 160}
"""In `make soak`: more than ten thousand together. Where names are known, jobs are really run."""
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)
OPTIONS = {"any": (), "known": ("--exclude-method", "DELETE")}
"""What is removed is not known any more."""


def bring_photos(gateway: RunningGateway) -> None:
    with gateway.client() as client:
        for name in ("newton", "gauss"):
            content = photo_path(name).read_bytes()
            client.put(f"/v1/assets/{name}", content=content).raise_for_status()


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_PROXY": "*", "no_proxy": "*"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def description(gateway: RunningGateway, names: str) -> dict[str, Any]:
    """The gateway's own; with "known" names only those of uploads and jobs that are there, so
    that what is generated gets past the question whether there is such a thing."""
    bring_photos(gateway)
    wait = {"Prefer": "wait=60"}
    with gateway.client() as client:
        described = client.get("/openapi.json").json()
        found = client.post("/v1/faces", json={"target": "gauss"}, headers=wait).json()
        wanted = {"target": "gauss", "swaps": [{"source": ["newton"]}]}
        client.put("/v1/jobs/done", json=wanted, headers=wait).raise_for_status()
    known = ["newton", "gauss", "done", found["id"]]

    def narrow(node: Any) -> Any:
        if isinstance(node, list):
            return [narrow(each) for each in node]
        if not isinstance(node, dict):
            return node
        if node.get("pattern") == NAME:
            return {"type": "string", "enum": known}
        return {key: narrow(value) for key, value in node.items()}

    return narrow(described) if names == "known" else described


def generate(gateway: RunningGateway, names: str, cases: int, folder: Path) -> int:
    """Send so many cases of each operation, and look at every answer; how many it were.

    What is generated is always the same, so that a failure can be tried again.
    """
    path, report = folder / f"{names}.json", folder / f"report-{names}.json"
    path.write_text(json.dumps(description(gateway, names)))
    run(
        TOOLS / "schemathesis", "run", path, "--url", gateway.url, "--checks", CHECKS,
        "--phases", "examples,coverage,fuzzing", "--max-examples", str(cases), "--seed", "1",
        "--generation-database", "none", "--request-timeout", "90",
        "--exclude-path", "/v1/jobs/{id}/events", *OPTIONS[names],
        "--report", "json", "--report-json-path", report, cwd=folder,
    )  # fmt: skip
    with gateway.client() as client:
        assert client.get("/healthz").status_code == 200
    return int(json.loads(report.read_text())["test_cases"]["generated"])


@pytest.mark.parametrize("names", ["any", "known"])
def test_nothing_that_the_description_allows_is_a_fault(
    gateway: RunningGateway, tmp_path: Path, names: str
) -> None:
    assert generate(gateway, names, CASES, tmp_path) > 1000


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_cases_are_no_fault(gateway: RunningGateway, tmp_path: Path) -> None:
    generated = {
        names: generate(gateway, names, cases, tmp_path) for names, cases in MANY_CASES.items()
    }
    print(f"schemathesis generated {generated}")
    assert sum(generated.values()) >= 10_000


def test_a_client_that_was_generated_swaps_a_photo(gateway: RunningGateway, tmp_path: Path) -> None:
    run(
        TOOLS / "openapi-python-client", "generate", "--path", ROOT / "gateway" / "openapi.json",
        "--meta", "none", "--output-path", tmp_path / "generated", cwd=tmp_path,
    )  # fmt: skip
    bring_photos(gateway)
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from generated import Client\n"
        "from generated.api.jobs import post_job\n"
        "from generated.models import JobRequest\n"
        "wanted = JobRequest.from_dict(\n"
        "    {'target': 'gauss', 'swaps': [{'source': ['newton']}]})\n"
        "job = post_job.sync(client=Client(base_url=sys.argv[1], timeout=60), body=wanted,\n"
        "                    prefer='wait=60')\n"
        "print(job.state, job.outputs[0].href)\n"
    )
    said = run(TOOLS / "python", program, gateway.url, cwd=tmp_path)
    assert said.startswith("succeeded /v1/jobs/")
