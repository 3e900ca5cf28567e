"""Every command's `--help`: what a person reads, no Python; and one validator for each value."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "frameswap": ("-m", "frameswap"),
    "frameswap swap": ("-m", "frameswap", "swap"),
    "frameswap faces": ("-m", "frameswap", "faces"),
    "frameswap serve": ("-m", "frameswap", "serve"),
    "frameswap models": ("-m", "frameswap", "models"),
    "frameswap models fetch": ("-m", "frameswap", "models", "fetch"),
    "build_engines.py": ("build_engines.py",),
    **{
        f"python -m {module}": ("-m", module)
        for module in (
            "engines.check_plans", "engines.collect_garbage", "engines.write_configs", "demo.run",
            "demo.make_clip", "deploy.entry_point", "deploy.swap_check", "bench.load",
            "bench.tensorrt_row",
        )
    },
}
GROUPS = {
    "frameswap swap": (
        "files", "faces", "what is shown of a swap", "persons", "steadiness of a video",
        "encoding", "reading of a video", "job", "server", "security",
    ),
    "frameswap faces": ("files", "looking", "reading of a video", "server", "security"),
    "frameswap serve": (
        "models", "where it listens", "how models run", "memory that is set aside", "log",
    ),
    "frameswap models": ("commands",),
    "build_engines.py": (
        "what to build", "precision", "device and shapes", "compiler and cache",
        "ONNX Runtime (cpu, cuda)", "where to", "look only",
    ),
}  # fmt: skip


def test_the_client_starts_without_what_only_a_build_needs() -> None:
    """Each of them takes longer to import than all of the client."""
    looked = (
        "import sys\n"
        "from frameswap.__main__ import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    print(*sorted({'onnx', 'onnxruntime', 'onnxscript'} & sys.modules.keys()))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", looked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "models" in finished.stdout, "the commands of the deployment side are among them"
    assert finished.stdout.splitlines()[-1] == ""


@cache
def help_of(command: str) -> str:
    finished = subprocess.run(
        [sys.executable, *COMMANDS[command], "--help"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout


def options_of(command: str) -> dict[str, str]:
    """Each option's first name and its whole text, metavar included."""
    text = help_of(command).partition("\noptions:")[2]
    entries = re.split(r"\n(?=  -)", text)
    told = (" ".join(entry.split("\n\n")[0].split()) for entry in entries if "  -" in entry)
    return {re.findall(r"--[\w-]+", entry)[0]: entry for entry in told}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_speaks_python(command: str) -> None:
    text = " ".join(help_of(command).split())
    # A path of this machine would be one too.
    for literal in ("None", "True", "False", "default: []", "default: ()", "==SUPPRESS==", "(1920,",
                    "PosixPath", str(ROOT)):  # fmt: skip
        assert literal not in text
    assert not re.search(r"default: [\[({]|\d\.0\)", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is_for_and_what_it_takes(command: str) -> None:
    options = options_of(command)
    assert len(options) >= 2
    assert help_of(command).startswith(f"usage: {command} [-h]")
    for name, entry in options.items():
        if name == "--help":
            continue
        usage = help_of(command).partition("\n\n")[0]
        metavars = re.findall(rf"{name} ([A-Z_]+)", usage)
        assert not any("_" in word for word in metavars), f"argparse's own metavar: {metavars}"
        words = re.findall(r"(?<![-\w])[a-z]+\d*\b", entry)
        assert len(words) >= 2, entry


@pytest.mark.parametrize("command", GROUPS)
def test_options_stand_in_groups(command: str) -> None:
    heads = re.findall(r"^(\S.*):$", help_of(command), re.MULTILINE)
    assert tuple(head for head in heads if head != "options") == GROUPS[command]
    if command != "frameswap models":
        loose = re.search(r"^options:\n(.*?)\n\n", help_of(command), re.MULTILINE | re.DOTALL)
        assert loose
        assert " ".join(loose[1].split()) == "-h, --help show this help message and exit"


def test_the_word_is_target_on_every_command_line() -> None:
    assert "--target" in options_of("frameswap serve")
    assert "--target" in options_of("build_engines.py")
    # There, `--target` is the file to change.
    assert "--server-target" in options_of("frameswap swap")
    for command in ("frameswap swap", "frameswap serve"):
        assert "variant" not in help_of(command).replace("--variant", "")


def test_fetching_is_an_option_of_listing() -> None:
    usage = help_of("frameswap models").splitlines()[0]
    assert usage == "usage: frameswap models [-h] [--json] COMMAND ..."


def test_the_tensorrt_provider_names_the_library_that_it_wants() -> None:
    assert "TensorRT 10 (libnvinfer.so.10)" in options_of("build_engines.py")["--tensorrt-provider"]
