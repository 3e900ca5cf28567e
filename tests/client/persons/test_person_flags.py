"""Flags that name persons: what is refused, and what is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_server import FakeServer
from frameswap import __main__ as command_line
from frameswap.persons.survey import Person, Survey, read_survey
from people import person

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def run(
    server: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """`frameswap swap` of a photo in an empty folder that has a.png, b.png and anna/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "anna").mkdir()
    (tmp_path / "none").mkdir()
    for name, value in (("a.png", 10), ("b.png", 200), ("anna/1.png", 90), ("anna/2.png", 91),
                        ("group.png", 50)):  # fmt: skip
        cv2.imwrite(name, np.full((80, 96, 3), value, np.uint8))
    survey = Survey((someone(1), someone(2)), frames=4, duration_s=1.0)
    (tmp_path / "who.json").write_text(json.dumps(survey.to_json()))

    def run_command(*flags: str) -> tuple[int, str]:
        words = ["swap", "--target", "group.png", "--output", "out.png", "--force",
                 "--server", server.address, *flags]  # fmt: skip
        try:
            code = command_line.main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capsys.readouterr().err

    return run_command


def someone(number: int) -> Person:
    return Person(
        number=number, first_s=0.5, last_s=1.0, share=0.75, size_px=40.0, best_s=0.75,
        box=(1.0, 2.0, 3.0, 4.0), score=0.9, pose=(1.0, 2.0, 3.0),
        thumbnail=np.zeros((160, 160, 3), np.uint8), embedding=person(number),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ((), "one of --source, --swap and --assign says whose faces are put in, not none of them"),
        (("--source", "a.png", "--swap", "a.png=b.png"), "not --source and --swap"),
        (("--swap", "a.png=b.png", "--only", "a.png"), "it goes with that alone"),
        (("--swap", "a.png=b.png", "--faces", "2"), "--faces counts faces without names"),
        (("--swap", "2=b.png"), "2 is a number of a sheet: name its file with --persons"),
        (("--swap", "b.png"), "must be PERSON=PHOTO"),
        (("--assign", "leftmost", "a.png"), "must be an order and a photo for each person"),
        (("--source", "a.png", "--steady", "off", "--search", "turned"), "faces that are followed"),
    ],
)
def test_flags_that_contradict_are_wrong_usage(run: Run, flags: tuple[str, ...], why: str) -> None:
    code, err = run(*flags)
    assert code == 2
    assert why in " ".join(err.split())


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--swap", "a.png=none"), "none is a folder without a photo"),
        (("--swap", "missing.png=b.png"), "missing.png"),
        (("--persons", "who.json", "--swap", "3=b.png"), "who.json has no person 3: it has 1, 2"),
        (("--persons", "a.png", "--swap", "1=b.png"), "a.png"),
    ],
)
def test_what_cannot_be_read_is_named(run: Run, flags: tuple[str, ...], why: str) -> None:
    code, err = run(*flags)
    assert code == 1
    assert why in err


@pytest.mark.parametrize(
    "flags",
    [
        ("--swap", "a.png=b.png"),
        ("--swap", "a.png=b.png", "--swap", "a.png=anna", "--swap", "anna=a.png"),
        ("--source", "b.png", "--only", "anna"),
        ("--persons", "who.json", "--swap", "2=anna"),
        ("--assign", "left-to-right", "a.png", "b.png"),
    ],
)
def test_persons_are_asked_for_in_two_steps(
    run: Run, server: FakeServer, flags: tuple[str, ...]
) -> None:
    code, err = run(*flags)
    assert (code, err) == (0, "")
    models = [model for model, _, _ in server.places]
    assert models[-1] == "swap_found_faces_bgr"
    assert {"find_faces_bgr", "embed_face_bgr", "encode_source_bgr"} <= set(models)


def test_a_server_that_knows_nobody_is_named(run: Run, server: FakeServer) -> None:
    server.behavior.models = tuple(
        model for model in server.behavior.models if model != "embed_face_bgr"
    )
    code, err = run("--swap", "a.png=b.png")
    assert code == 1
    assert "faces cannot be followed: the server at" in err
    assert "has no model embed_face_bgr" in err


def test_a_survey_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "who.json"
    path.write_text(json.dumps(Survey((someone(1),), frames=4, duration_s=1.5).to_json()))
    again = read_survey(path)
    (one,) = again.persons
    assert (again.frames, again.duration_s) == (4, 1.5)
    assert (one.number, one.share, one.pose, one.box) == (1, 0.75, (1, 2, 3), (1, 2, 3, 4))
    np.testing.assert_array_equal(one.embedding, person(1))
