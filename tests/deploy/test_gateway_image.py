"""The gateway's image, as far as it can be made without Docker: its Dockerfile's own steps."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gateway.running import RunningGateway
from tests.deploy.tools import ROOT

DOCKERFILE = (ROOT / "deploy" / "gateway.Dockerfile").read_text()
IGNORED = ("__pycache__", "*.egg-info", "build")


def words_of(instruction: str) -> list[str]:
    """The words of the instruction that is a list of them."""
    (found,) = re.findall(rf"{instruction} (\[.*\])$", DOCKERFILE, re.MULTILINE)
    return list(json.loads(found))


def build(folder: Path) -> None:
    """COPY and RUN of the first stage, in order, below a folder of our own."""
    programs = folder.parent / "programs"
    programs.mkdir()
    # The image's own Python where it is here.
    python = shutil.which("python3.12") or sys._base_executable  # type: ignore[attr-defined]
    (programs / "python").symlink_to(python)
    variables = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    stage = DOCKERFILE.split("\nFROM ")[1].replace("\\\n", "")
    for kind, rest in re.findall(r"^(COPY|RUN) (.*)$", stage, re.MULTILINE):
        if kind == "RUN":
            subprocess.run(["sh", "-euc", rest], cwd=folder, env=variables, check=True)
            continue
        *sources, target = rest.split()
        for source in (ROOT / each for each in sources):
            if source.is_dir():
                shutil.copytree(
                    source, folder / target, ignore=shutil.ignore_patterns(*IGNORED)
                )
            else:
                (folder / target).mkdir(exist_ok=True)
                shutil.copy(source, folder / target)


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_what_the_dockerfile_installs_serves_the_page(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    build(image)
    # The second stage has the environment alone.
    for name in ("client", "gateway", "requirements"):
        shutil.rmtree(image / name)
    own = image / ".venv" / "bin"
    program, *words = words_of("ENTRYPOINT")
    done = subprocess.run(
        [own / program, *words, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "--tokens" in done.stdout
    tokens = tmp_path / "tokens"
    tokens.write_text("anna 0123456789abcdef0123456789abcdef\n")
    running = RunningGateway(
        "127.0.0.1:9", tmp_path / "folder", "--tokens", str(tokens), python=own / "python"
    )
    with running as gateway, gateway.client() as client:
        page = client.get("/").text
        for name in ("main.js", "style.css", "icon.svg"):
            assert f"/page/{name}" in page
            assert client.get(f"/page/{name}").status_code == 200
        assert client.get("/v1/jobs").status_code == 401
        assert words_of("CMD") == ["python", "-m", "frameswap_gateway.pulse"]
        ask = "import sys; from frameswap_gateway.pulse import main; sys.exit(main(sys.argv[1]))"
        pulse = [own / "python", "-c", ask, f"{gateway.url}/readyz"]
        assert subprocess.run(pulse, cwd=tmp_path, check=False).returncode == 0
    assert subprocess.run(pulse, cwd=tmp_path, check=False).returncode == 1
