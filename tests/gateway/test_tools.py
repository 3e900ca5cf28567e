"""The gateway as strangers see it: by its description alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.gateway.running import RunningGateway
from demo.photos import photo_path

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".venv" / "gateway-tools" / "bin"
CASES = 8
"""Of each operation in every run; docs/gateway.md says what thousands of them found."""
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)


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


def test_nothing_that_the_description_allows_is_a_fault(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    bring_photos(gateway)
    # What it generates is always the same, so that a failure can be tried again.
    run(
        TOOLS / "schemathesis", "run", f"{gateway.url}/openapi.json", "--checks", CHECKS,
        "--phases", "examples,coverage,fuzzing", "--max-examples", str(CASES), "--seed", "1",
        "--generation-database", "none", "--request-timeout", "30",
        "--exclude-path", "/v1/jobs/{id}/events", cwd=tmp_path,
    )  # fmt: skip


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
