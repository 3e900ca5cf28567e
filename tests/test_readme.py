"""README says nothing that is not so: commands, links, tables."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from fetching.models_command import table
from fetching.weights import WEIGHTS
from graphs.contract import ENSEMBLE_SPECS, MAX_DETECTIONS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
LINES = README.splitlines()


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every command line of the README, as words, without settings in front and comments."""
    lines = [line for block in code_blocks("sh") for line in block.splitlines() if line.strip()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [[word for word in line if not re.match(r"[A-Z_]+=", word)] for line in words]


@cache
def help_of(*command: str) -> str:
    """What `command --help` prints; it must exit with 0."""
    finished = subprocess.run(
        [*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def program(words: list[str]) -> list[str]:
    """The program of a README command, as this environment runs it, with its subcommand."""
    if words[0] == "frameswap":
        positional = [word for word in words[1:3] if re.fullmatch(r"[a-z]+", word)]
        return [sys.executable, "-m", "frameswap", *positional]
    assert words[:2] == ["python", "build_engines.py"], words
    return [sys.executable, "build_engines.py"]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_exists_with_the_flags_shown(words: list[str]) -> None:
    if words[0] == ".":
        assert words == [".", ".venv/bin/activate"]
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[0] == "docker":
        profile = words[words.index("--profile") + 1]
        assert f"profiles: [{profile}]" in (ROOT / "docker-compose.yml").read_text()
    else:
        text = help_of(*program(words))
        for flag in (word for word in words if word.startswith("--")):
            assert flag in text, f"{flag} is not an option of {' '.join(words)}"


def test_the_commands_that_need_no_files_run() -> None:
    for arguments in (["models"], ["models", "fetch", "yunet", "sface"]):
        finished = subprocess.run(
            [sys.executable, "-m", "frameswap", *arguments],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        assert "yunet" in finished.stdout


def test_every_subcommand_and_make_target_is_mentioned() -> None:
    offered = re.findall(r"^    (\w+) ", help_of(sys.executable, "-m", "frameswap"), re.MULTILINE)
    assert set(offered) == {"swap", "faces", "serve", "models", "codecs", "gateway"}
    for name in offered:
        assert f"frameswap {name}" in README, name
    for target in re.findall(r"^([a-z0-9]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE):
        assert target in README, target


def table_rows(lines: Iterable[str]) -> list[tuple[str, ...]]:
    return [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in lines
        if line.startswith("| ")
    ]


def test_the_tables_of_models_are_what_the_command_prints() -> None:
    page = (ROOT / "docs" / "enhancers.md").read_text()
    section = page.partition("## Files and licences")[2].partition("\n## ")[0]
    extras = table_rows(section.splitlines())
    rows = table_rows(LINES)
    printed = [row[:5] for row in table()]
    of_extras = {"occluder", "parser", "enhancer"}
    assert rows == [row for row in printed if row[1] not in of_extras]
    assert extras == [row for row in printed if row[1] in of_extras | {"role"}]
    # the head of each, and the swapper that is authored
    assert len(rows) + len(extras) == len(WEIGHTS) + 3


def test_the_road_to_a_published_swapper_names_its_files() -> None:
    section = README.partition("### A published neural swapper")[2].partition("\n## ")[0]
    for name in re.findall(r"`([a-z]+_[\w.]+)`", section):
        assert name in WEIGHTS, name
    assert {"inswapper_128", "w600k_r50"} <= set(re.findall(r"`(\w+)`", section))


def test_links_lead_to_files_of_this_repository() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_the_public_ensembles_and_the_axes_are_explained() -> None:
    for name in ENSEMBLE_SPECS:
        assert f"`{name}`" in README, name
    for letter in "BKMHWSDE":
        assert f"**{letter}**" in README, letter
    assert f"**M** = {MAX_DETECTIONS} faces" in README


def test_the_picture_shows_the_tensors_of_the_ensemble() -> None:
    (picture,) = code_blocks("mermaid")
    ensemble = (ROOT / "model_repository" / "swap_faces_i420" / "config.pbtxt").read_text()
    for name in re.findall(r'value: "(\w+)"', ensemble):
        assert name in picture, name
    for model in re.findall(r'model_name: "(\w+)"', ensemble):
        assert model in picture, model


def test_the_python_example_is_valid_and_uses_public_names() -> None:
    (example,) = code_blocks("python")
    compile(example, "README.md", "exec")
    import frameswap

    for name in re.findall(r"from frameswap import (\w+)", example):
        assert name in frameswap.__all__


def test_it_stays_short_and_begins_with_a_command() -> None:
    assert len(LINES) <= 150
    assert LINES.index("```sh") < 25


def test_the_changelog_names_the_server_and_compiler_that_are_locked() -> None:
    from server.distribution import SERVER_VERSION, SERVER_WHEEL

    changelog = (ROOT / "CHANGELOG.md").read_text()
    lock = (ROOT / "requirements" / "test.lock").read_text()
    assert f"Triton {SERVER_VERSION} (24.10), from nvidia-pytriton {SERVER_WHEEL.version}" in (
        changelog
    )
    for package, name in (("tensorrt-rtx", "tensorrt-rtx"), ("onnxruntime", "ONNX Runtime")):
        version = re.search(rf"^{package}==(\d+\.\d+\.\d+)", lock, re.MULTILINE)
        assert version
        assert f"{name} {version.group(1)}" in changelog
