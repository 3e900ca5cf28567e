"""docs/gateway.md: its routes are there, and its examples run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from frameswap_gateway.app import describe_api

from bench.gateway.running import RunningGateway
from demo.make_clip import clip_of, write_clip
from demo.photos import photo_path

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gateway.md").read_text()


def example(language: str, index: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[index]


def test_every_route_is_in_the_table_and_there_are_no_others() -> None:
    told = {
        re.sub(r"\{\w+\}", "{}", path)
        for path in re.findall(r"(/(?:v1/[\w/{}]+|healthz|readyz|metrics))(?=[`?,])", PAGE)
    }
    known = {re.sub(r"\{\w+\}", "{}", path) for path in describe_api()["paths"]}
    short = {"/v1/assets/{}/info", "/v1/assets/{}/frame", "/v1/assets"}
    assert known - short <= told
    assert {path for path in told if "{" in path} <= known


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the example's files."""
    shutil.copy(photo_path("newton"), tmp_path / "face.png")
    write_clip(tmp_path / "in.mp4", clip_of("gauss", width=320, height=240, frames=24))
    return tmp_path


@pytest.mark.e2e
def test_the_example_for_a_shell_runs(gateway: RunningGateway, files: Path) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example("sh", 1)], cwd=files, check=False,
        capture_output=True, text=True,
        env={**os.environ, "gateway": gateway.url, "NO_PROXY": "*"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"state":"succeeded"' in done.stdout
    assert b"ftyp" in (files / "out.mp4").read_bytes()[:12]


@pytest.mark.e2e
def test_the_example_for_python_runs(gateway: RunningGateway) -> None:
    photos = {
        name: photo_path(photo).read_bytes()
        for name, photo in (("face", "newton"), ("group", "gauss"))
    }
    names = {"gateway": gateway.url, "photos": photos}
    exec(example("python"), names)
    assert names["swapped"].startswith(b"\x89PNG")


@pytest.mark.e2e
def test_the_example_for_a_page_runs(gateway: RunningGateway, files: Path) -> None:
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        page = browser.new_page()
        page.goto(f"{gateway.url}/healthz")
        page.evaluate("document.body.innerHTML = '<input type=file multiple>'")
        page.set_input_files("input", [files / "face.png", files / "in.mp4"])
        job = page.evaluate(
            "async () => { const [face, clip] = document.querySelector('input').files; "
            "const files = { face, clip };\n" + example("javascript") + "\nreturn job; }"
        )
        browser.close()
    assert job["kind"] == "video"
    assert job["request"]["swaps"][0]["replaces"]["person"] == 1
