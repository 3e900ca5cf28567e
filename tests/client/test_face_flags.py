"""The flags about faces and one frame, and what the command says of faces that it left."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import Clip, write_clip
from fake_server import FakeServer
from frameswap import (
    AreaFlag,
    KeepFlag,
    MaskFlag,
    RegionFlag,
    SwapOptions,
    Verdict,
    arguments,
    face_flags,
)
from frameswap.contract import Option
from frameswap.one_frame import read_frame_at
from frameswap.video import VideoReader

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, server: FakeServer, photo: Path, clip: Path, run: Run) -> Run:
    """Swap a clip of twelve frames: exit code, standard output, standard error."""

    def swap(
        *flags: object, target: str = clip.name, output: str = "out.mp4"
    ) -> tuple[int, str, str]:
        return run(
            "swap", "--source", photo, "--target", tmp_path / target,
            "--output", tmp_path / output, "--server", server.address, *flags,
        )  # fmt: skip

    return swap


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (face_flags.masks, "none", MaskFlag.NONE),
        (face_flags.masks, "box", MaskFlag.BOX),
        (face_flags.masks, "own,box,hull", MaskFlag.BOX | MaskFlag.HULL | MaskFlag.SWAPPER),
        (face_flags.masks, "box,box", MaskFlag.BOX),
        (face_flags.masks, "regions,occlusion", MaskFlag.REGIONS | MaskFlag.OCCLUSION),
        (face_flags.regions, "skin,upper-lip", RegionFlag.SKIN | RegionFlag.UPPER_LIP),
        (face_flags.parts, "mouth", KeepFlag.MOUTH),
        (face_flags.areas, "mouth,upper-face", AreaFlag.UPPER_FACE | AreaFlag.MOUTH),
        (face_flags.parts, "brows,lips,eyes", KeepFlag.BROWS | KeepFlag.LIPS | KeepFlag.EYES),
        (face_flags.padding, "5", (5, 5, 5, 5)),
        (face_flags.padding, "0,1,2,63", (0, 1, 2, 63)),
        (face_flags.degrees, "180", 180.0),
        (arguments.share_or_zero, "0", 0.0),
        (arguments.share_or_zero, "1", 1.0),
        (arguments.time_of, "62.5", Fraction(125, 2)),
        (arguments.time_of, "00:01:02", 62),
        (arguments.time_of, "1:2.25", Fraction(249, 4)),
    ],
)
def test_a_value_is_read(reader: Callable[[str], Any], text: str, value: object) -> None:
    assert reader(text) == value


@pytest.mark.parametrize(
    ("reader", "texts", "rule"),
    [
        (face_flags.masks, ["", "box,none", "oval", "box,", "Box"], "one or more of box, hull"),
        (face_flags.regions, ["", "hair", "skin;nose"], "one or more of skin, left-brow"),
        (face_flags.parts, ["", "nose", "eyes;brows", "none"], "mouth, lips, eyes, brows"),
        (face_flags.areas, ["", "eyes", "mouth;nose"], "upper-face, lower-face, mouth"),
        (face_flags.padding, ["64", "1,2", "1,2,3,4,5", "-1", "1.5", "", "²"],
         "TOP,RIGHT,BOTTOM,LEFT or one number for all, whole percent from 0 to 63"),
        (face_flags.degrees, ["0", "181", "nan", "far"], "greater than 0 and at most 180 degrees"),
        (arguments.share_or_zero, ["-0.1", "1.1", "nan", "all"], "a share from 0 to 1"),
        (arguments.time_of, ["", "-1", "1:2:3:4", "1h", "nan", ":5", "1.5:2"],
         "seconds, MM:SS or HH:MM:SS"),
    ],
)  # fmt: skip
def test_what_is_no_such_value_is_refused(
    reader: Callable[[str], Any], texts: list[str], rule: str
) -> None:
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError) as refused:
            reader(text)
        assert rule in str(refused.value)
        assert repr(text) in str(refused.value)


def test_flags_reach_the_server(run: Run, server: FakeServer) -> None:
    flags = ["--mask", "box,hull", "--keep", "mouth,brows", "--weight", "0.5", "--box-blur", "0.25",
             "--box-padding", "1,2,3,4", "--pose-limit", "50", "--refinement", "off",
             "--areas", "upper-face,mouth"]  # fmt: skip
    code, _, err = run(*flags)
    assert (code, err) == (0, "")
    sent = server.received[-1]["options"][0]
    padding = 1 + 2 * 64 + 3 * 64**2 + 4 * 64**3
    expected = [1, 3, 5, 0.25, padding, 0.5, 50, 5, 0, 0]
    np.testing.assert_array_equal(sent[Option.REFINEMENT :], expected)


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--mask", "hull"], "the mask `hull` needs the landmarks of a face"),
        (["--keep", "eyes"], "parts of the target to keep needs the landmarks"),
        (["--areas", "mouth"], "a mask of areas of the face needs the landmarks"),
        (["--pose-limit", "40"], "a pose limit needs the landmarks"),
    ],
)
def test_what_needs_landmarks_says_what_to_build_where_there_are_none(
    run: Run, server: FakeServer, flags: list[str], what: str
) -> None:
    server.behavior.parameters = {"landmarker": "none"}
    code, _, err = run(*flags)
    assert code == 1
    assert what in err
    assert "build_engines.py --landmarker face_mesh_attention" in err
    assert run("--mask", "box", "--force")[0] == 0


def test_a_swapper_without_a_mask_of_its_own_is_named(run: Run, server: FakeServer) -> None:
    server.behavior.parameters = {"gives_mask": "0"}
    code, _, err = run("--mask", "own")
    assert code == 1
    assert "swapper fake_identity gives no mask of its own: build one that does" in err


@pytest.mark.parametrize(
    ("flags", "what", "build"),
    [
        (["--mask", "box,occlusion"], "the mask `occlusion` needs an occluder",
         "--occluder xseg_1"),
        (["--mask", "regions"], "the mask `regions` needs a parser", "--parser bisenet_resnet_34"),
        (["--regions", "nose"], "the mask `regions` needs a parser", "--parser bisenet_resnet_34"),
        (["--enhance", "0.8"], "an enhanced face needs an enhancer",
         "--enhancer realesrgan_x4plus"),
        (["--enhancer-weight", "0.2"], "an enhanced face needs an enhancer", "--enhancer"),
    ],
)  # fmt: skip
def test_what_needs_a_network_that_the_server_lacks_says_what_to_build(
    run: Run, flags: list[str], what: str, build: str
) -> None:
    code, _, err = run(*flags)
    assert code == 1
    assert f"{what}, and the server has none" in err
    assert f"`build_engines.py {build}" in err


def test_flags_of_extras_reach_a_server_that_has_them(run: Run, server: FakeServer) -> None:
    server.behavior.parameters = {
        "occluder": "xseg_1", "parser": "bisenet_resnet_18", "enhancer": "codeformer",
        "enhancer_weight": "1",
    }  # fmt: skip
    flags = ["--mask", "box,occlusion,regions", "--regions", "skin,nose", "--enhance", "0.8",
             "--enhancer-weight", "0"]  # fmt: skip
    code, _, err = run(*flags)
    assert (code, err) == (0, "")
    sent = server.received[-1]["options"][0]
    assert (sent[Option.MASKS], sent[Option.REGIONS]) == (1 + 32 + 64, 1 + 64)
    assert sent[Option.ENHANCER] == 81 + 128


@pytest.mark.parametrize("masks", ["box", "box,occlusion", "none"])
def test_regions_of_a_mask_that_is_left_out_are_a_usage_error(
    run: Run, server: FakeServer, masks: str
) -> None:
    code, _, err = run("--mask", masks, "--regions", "skin,nose")
    assert code == 2
    assert "regions are parts that the mask regions shows" in err
    assert server.requests == 0


def test_an_enhancer_without_a_weight_is_named(run: Run, server: FakeServer) -> None:
    server.behavior.parameters = {"enhancer": "gfpgan_1.4"}
    code, _, err = run("--enhancer-weight", "0.5")
    assert code == 1
    assert "the server's enhancer gfpgan_1.4 takes no weight: build one that does" in err
    assert run("--enhance", "0.5", "--force")[0] == 0


def test_the_summary_says_why_faces_were_left(run: Run, server: FakeServer, tmp_path: Path) -> None:
    server.behavior.faces, server.behavior.verdict = 2, Verdict.LOOKS_AWAY
    report = tmp_path / "report.jsonl"
    code, out, _ = run("--source-face", "largest-first", "--report", report)
    assert code == 0
    summary, left = out.splitlines()
    assert summary.endswith("24 faces found, 0 frames without a face")
    assert left == (
        "faces left as they are: 12 frames: looks away, "
        "12 frames: no source is left for it (--faces)"
    )
    *frames, last = [json.loads(line) for line in report.read_text().splitlines()]
    assert [face["verdict"] for face in frames[0]["faces"]] == ["looks_away", "no_slot"]
    assert frames[0]["why_not"] == "looks away, 1 more than --faces 1"
    assert last["summary"]["left"] == {"looks_away": 12, "no_slot": 12}


def test_three_faces_ask_for_four_slots_the_last_of_them_empty(
    run: Run, server: FakeServer
) -> None:
    server.behavior.faces = 4
    code, out, _ = run("--source-face", "largest-first", "--faces", "3")
    assert code == 0
    source = server.received[-1]["source"][0]
    assert source.shape[0] == 4
    np.testing.assert_array_equal(source.any(axis=1), [True, True, True, False])
    assert "12 frames: no source is left for it" in out


@pytest.mark.parametrize("at", ["0", "00:00:00.251", "0.36"])
def test_one_frame_is_swapped_as_it_is_shown_then(run: Run, tmp_path: Path, at: str) -> None:
    assert run("--crf", "0")[0] == 0
    code, out, err = run("--at", at, output="frame.png")
    assert (code, err) == (0, "")
    assert "1 frame in" in out
    index = int(float(at.rpartition(":")[2]) * Clip().rate)
    with VideoReader(tmp_path / "out.mp4") as reader:
        expected = list(reader.frames())[index]
        picture = np.empty(expected.shape, np.uint8)
        expected.copy_to(picture)
    image = cv2.imread(str(tmp_path / "frame.png"))
    assert image is not None
    assert image.shape == (Clip().height, Clip().width, 3)
    luma = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    # Another conversion there and back: BT.601's rounding, and chroma on a coarser grid.
    assert np.abs(luma.astype(int) - picture).mean() < 6


def test_a_moment_past_the_end_is_one_sentence(run: Run) -> None:
    code, out, err = run("--at", "00:01:02", output="frame.png")
    assert (code, out) == (1, "")
    assert "in.mp4 ends at" in err
    assert "62.00 s is past it" in err
    assert len(err.splitlines()) == 1


def test_one_frame_goes_into_a_photo_and_comes_of_a_video(run: Run, tmp_path: Path) -> None:
    code, _, err = run("--at", "1")
    assert code == 1
    assert "a photo is written as .png" in err
    code, _, err = run("--at", "0", target="face.png", output="frame.png")
    assert code == 2
    assert "--at is a moment of a video" in err
    code, _, err = run("--at", "0", "--target", tmp_path / "face.png", output="folder")
    assert code == 2
    assert "--at writes one frame of one video" in err


@pytest.mark.parametrize("at", [Fraction(0), Fraction(1, 50), Fraction(39, 100)])
def test_the_frame_that_is_shown_is_the_last_one_before(tmp_path: Path, at: Fraction) -> None:
    path = write_clip(tmp_path / "in.mp4", Clip())
    with VideoReader(path) as reader:
        times = [frame.pts * reader.time_base for frame in reader.frames()]
    with VideoReader(path) as reader:
        shown = read_frame_at(reader, at)
        expected = max(time for time in times if time <= at)
        # A frame that is decoded twice, before the search and after it, is told apart by a tick.
        assert 0 <= shown.pts * reader.time_base - expected <= reader.time_base


def test_a_default_request_has_no_options() -> None:
    parser = argparse.ArgumentParser()
    face_flags.add_face_flags(parser)
    assert face_flags.face_options(parser.parse_args([])) == SwapOptions()
