"""The locks, the environment maker and the Makefile: what a stranger's first command stands on."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def pins(lock: str) -> dict[str, str]:
    """Package name to version."""
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_pin_has_a_hash_and_no_index_is_named(lock: Path) -> None:
    text = lock.read_text()
    for entry in re.split(r"\n(?=\w)", text.partition("\n")[2]):
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text
    assert "--index" not in text


def declared(*groups: str) -> list[Requirement]:
    lines = []
    for path in ("pyproject.toml", "client/pyproject.toml"):
        document = tomllib.loads((ROOT / path).read_text())
        lines += document["project"]["dependencies"]
        for group in groups:
            lines += document.get("dependency-groups", {}).get(group, [])
    requirements = [Requirement(line) for line in lines]
    return [requirement for requirement in requirements if requirement.name != "frameswap"]


def test_the_locks_hold_what_the_projects_declare() -> None:
    runtime = pins("runtime")
    for requirement in declared():
        assert requirement.specifier.contains(runtime[requirement.name]), requirement
    everything = {**pins("test"), **pins("without-dependencies"), **pins("bench")}
    for requirement in declared("test", "bench"):
        assert requirement.specifier.contains(everything[requirement.name]), requirement


def test_one_environment_can_hold_all_locks() -> None:
    test = pins("test")
    for lock in ("runtime", "bench"):
        for name, version in pins(lock).items():
            assert test.get(name, version) == version, f"{lock}: {name}"
    assert pins("runtime").keys() <= test.keys()


def test_an_oracle_that_wants_numpy_1_is_in_a_lock_of_its_own() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    (requirement,) = map(Requirement, groups["oracle-mediapipe"])
    oracle = pins("oracle-mediapipe")
    assert requirement.specifier.contains(oracle[requirement.name])
    assert oracle["numpy"].startswith("1.")
    assert requirement.name not in pins("test")
    assert "requirements/oracle-mediapipe.lock" in (ROOT / "Makefile").read_text()


def test_the_gateway_has_locks_of_its_own_and_the_client_needs_none_of_them() -> None:
    gateway = tomllib.loads((ROOT / "gateway" / "pyproject.toml").read_text())["project"]
    for line in gateway["dependencies"]:
        requirement = Requirement(line)
        if requirement.name != "frameswap":
            assert requirement.specifier.contains(pins("gateway")[requirement.name]), line
            assert requirement.name not in pins("runtime")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    for name in ("gateway-test", "gateway-tools"):
        for requirement in map(Requirement, groups[name]):
            assert requirement.specifier.contains(pins(name)[requirement.name]), requirement
        assert f"requirements/{name}.lock" in (ROOT / "Makefile").read_text()
    # One environment holds the gateway and the rest.
    shared = pins("gateway").keys() & pins("test").keys()
    assert {name: pins("gateway")[name] for name in shared} == {
        name: pins("test")[name] for name in shared
    }


def test_the_server_wheel_is_never_a_dependency() -> None:
    # It pins NumPy 1; it is fetched by hash and only unpacked.
    for lock in LOCKS:
        assert "nvidia-pytriton" not in lock.read_text()


def fake_python(folder: Path, version: str, *, fits: bool, venv_message: str = "") -> None:
    """A `python3` that says it is `version`; its `-m venv` fails with `venv_message`."""
    script = folder / "python3"
    script.write_text(
        "#!/bin/bash\n"
        f'case "$1" in --version) echo "Python {version}";;\n'
        f'-m) echo "{venv_message}" >&2; exit 1;;\n'
        f'-c) [[ $2 == *print* ]] && echo "{version[:4]}"; exit {0 if fits else 1};; esac\n'
    )
    script.chmod(0o755)


def make_venv(folder: Path, venv: Path) -> subprocess.CompletedProcess[str]:
    for tool in ("bash", "env", "rm"):
        (folder / tool).symlink_to(f"/bin/{tool}" if tool != "env" else "/usr/bin/env")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    return subprocess.run(
        [ROOT / "requirements" / "make-venv", venv],
        env={**environment, "PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_another_python_version_is_one_sentence(tmp_path: Path) -> None:
    fake_python(tmp_path, "3.9.18", fits=False)
    finished = make_venv(tmp_path, tmp_path / "venv")
    assert finished.returncode == 1
    assert finished.stderr == (
        "error: Python 3.11, 3.12 or 3.13 is needed, found: Python 3.9.18; install one and name "
        "it: make PYTHON=python3.12 ...\n"
    )


def test_no_python_at_all_is_one_sentence(tmp_path: Path) -> None:
    finished = make_venv(tmp_path, tmp_path / "venv")
    assert finished.returncode == 1
    assert "is needed, found: no python3; install one" in finished.stderr


def test_a_python_without_venv_says_what_to_install(tmp_path: Path) -> None:
    fake_python(tmp_path, "3.12.3", fits=True, venv_message="ensurepip is not available")
    finished = make_venv(tmp_path, tmp_path / "venv")
    assert finished.returncode == 1
    assert "environment (ensurepip is not available)" in finished.stderr
    assert finished.stderr.endswith("run: apt install python3.12-venv\n")
    assert not (tmp_path / "venv").exists()


def test_make_alone_lists_every_target() -> None:
    finished = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    targets = [line.split()[1] for line in finished.stdout.splitlines()]
    assert targets == [
        "help", "venv", "demo", "gateway", "test", "e2e", "training", "soak", "readers", "lint",
        "sbom", "bench", "lock", "clean",
    ]  # fmt: skip


def test_every_test_stands_on_one_rung_and_ci_runs_all_but_the_soaks() -> None:
    makefile = (ROOT / "Makefile").read_text()
    found = re.findall(r"^(\w+):.*\n\t.* -m pytest -m (\"[^\"]+\"|\w+)", makefile, re.MULTILINE)
    rungs = {name: expression.strip('"') for name, expression in found}
    assert list(rungs) == ["test", "e2e", "training", "soak"]
    for marks, rung in (
        (set(), "test"),
        ({"gpu"}, "test"),
        ({"e2e"}, "e2e"),
        ({"training"}, "training"),
        ({"soak"}, "soak"),
        ({"e2e", "soak"}, "soak"),
    ):
        known = {mark: mark in marks for mark in ("gpu", "e2e", "training", "soak")}
        chosen = [name for name, expression in rungs.items() if eval(expression, known.copy())]
        assert chosen == [rung], marks
    steps = re.findall(r"make --no-print-directory (\w+)", (ROOT / ".ci" / "run").read_text())
    assert steps == ["readers", "lint", "test", "e2e", "training"]
