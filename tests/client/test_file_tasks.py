"""Folders, several targets, pipes, numbered pictures and parts, on the command line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import Clip, read_contents, write_clip
from commands import arguments
from fake_server import FakeServer
from frameswap import BadOptions, UnreadableFile, UnwritableFile
from frameswap.codecs import try_decoders, try_encoders
from frameswap.encoders import ENCODERS, Encoding, choose_encoder
from frameswap.file_kinds import is_sequence
from frameswap.file_tasks import FileTask, plan_folder
from frameswap.read_options import ReadOptions
from frameswap.video import VideoReader
from test_video import copy_video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos, a clip, a text, a damaged photo, and one in a folder below."""
    path = tmp_path / "holiday"
    (path / "second day").mkdir(parents=True)
    for name in ("a.png", "second day/b.jpg"):
        cv2.imwrite(str(path / name), np.full((80, 96, 3), 90, np.uint8))
    write_clip(path / "c.mp4", Clip(frames=3))
    (path / "notes.txt").write_text("not a picture")
    (path / ".hidden.png").write_bytes((path / "a.png").read_bytes())
    (path / "broken.png").write_bytes((path / "a.png").read_bytes()[:60])
    return path


def test_a_folder_is_swapped_file_by_file_and_goes_on_after_an_error(
    run, server: FakeServer, photo: Path, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    code, out, err = run(*arguments(photo, folder, output, server))
    assert code == 1
    written = sorted(str(path.relative_to(output)) for path in output.rglob("*.*"))
    assert written == ["a.png", "c.mp4", "second day/b.jpg"]
    assert "4 files: 3 done, 1 failed, 1 that are no photo or video left alone" in out
    assert f"  {folder}/broken.png: " in out.splitlines()[-1]
    assert "is damaged, cut off" in err
    np.testing.assert_array_equal(cv2.imread(str(output / "a.png")), 255 - 90)


def test_a_folder_done_again_keeps_what_is_there_and_says_so(
    run, server: FakeServer, photo: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "broken.png").unlink()
    assert run(*arguments(photo, folder, tmp_path / "out", server))[0] == 0
    code, out, _ = run(*arguments(photo, folder, tmp_path / "out", server))
    assert code == 1
    assert "3 files: 0 done, 3 failed" in out
    assert run(*arguments(photo, folder, tmp_path / "out", server), "--force")[0] == 0


def test_several_targets_go_into_a_folder(
    run, server: FakeServer, photo: Path, folder: Path, tmp_path: Path
) -> None:
    code, out, _ = run("swap", "--source", photo, "--target", folder / "a.png", folder / "c.mp4",
                       "--output", tmp_path / "out", "--server", server.address)  # fmt: skip
    assert code == 0
    assert "2 files: 2 done" in out
    assert (tmp_path / "out" / "c.mp4").exists()


def test_a_lost_server_ends_a_folder_and_says_what_was_not_tried(
    run, server: FakeServer, photo: Path, folder: Path, tmp_path: Path
) -> None:
    server.behavior.fail = lambda value, context: (
        server.behavior.__setattr__("ready", False) if server.requests > 1 else None
    )

    def stop(value: int, context: object) -> None:
        if server.requests > 1:
            server.behavior.models_ready = server.behavior.ready = False
            context.abort(__import__("grpc").StatusCode.UNAVAILABLE, "gone")

    server.behavior.fail = stop
    code, out, _ = run(*arguments(photo, folder, tmp_path / "out", server), "--reconnect-s", 1)
    assert code == 1
    assert "not done" in out


def test_a_format_that_is_not_written_becomes_one_that_is(folder: Path, tmp_path: Path) -> None:
    (folder / "a.png").rename(folder / "a.ppm")
    (folder / "c.mp4").rename(folder / "c.flv")
    write_clip(folder / "c.mpg", Clip(codec="mpeg2video", audio=None, frames=3, rate=25,
                                      time_base=Fraction(1, 25)))  # fmt: skip
    cv2.imwrite(str(folder / "a.ppm"), np.zeros((80, 80, 3), np.uint8))
    names = {str(task.output.name) for task in plan_folder([folder], tmp_path / "out").tasks}
    assert names == {"a.png", "b.jpg", "broken.png", "c.mp4", "c.mpg.mp4"}


def test_results_in_the_folder_of_the_inputs_are_refused(folder: Path) -> None:
    with pytest.raises(UnwritableFile, match="would be written over"):
        plan_folder([folder], folder)
    plan = plan_folder([folder], folder / "out")
    (folder / "out").mkdir()
    (folder / "out" / "a.png").write_bytes((folder / "a.png").read_bytes())
    # What an earlier job put there is not taken for an input.
    assert plan_folder([folder], folder / "out").tasks == plan.tasks
    assert FileTask(folder / "a.png", folder / "out" / "a.png") in plan.tasks


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="there is no photo and no video in"):
        plan_folder([tmp_path], tmp_path / "out")


WRONG_KINDS = [
    ("--source", "https://example.org/a.png", "is an address: download the source photo"),
    ("--source", "FOLDER", "is a folder: give the photos in it one by one"),
    ("--source", "CLIP", "is a video: a source is a photo; save a frame"),
    ("--source", "-", "is read from a file, not from standard input"),
    ("--target", "rtsp://example.org/a.mp4", "of those http and https are read"),
    ("--target", "FOLDER", "names a file, out.mp4"),
]


@pytest.mark.parametrize(("flag", "value", "text"), WRONG_KINDS)
def test_a_wrong_kind_of_file_is_said_with_what_works(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path,
    flag: str, value: str, text: str,
) -> None:  # fmt: skip
    given = {"FOLDER": tmp_path, "CLIP": clip}.get(value, value)
    files = {"--source": photo, "--target": clip, flag: given}
    code, _, err = run("swap", *(part for pair in files.items() for part in pair),
                       "--output", tmp_path / "out.mp4", "--server", server.address)  # fmt: skip
    assert code == 1
    assert text in err
    assert len(err.splitlines()) == 1
    assert server.requests == 0


def command(server: FakeServer, photo: Path, *more: object) -> list[str]:
    words = ["-m", "frameswap", "swap", "--source", photo, "--server", server.address, *more]
    return [sys.executable, *map(str, words)]


@pytest.mark.parametrize(("more", "form"), [
    ([], "matroska"), (["--codec", "y4m"], "yuv4mpegpipe"),
])  # fmt: skip
def test_a_pipe_goes_in_and_out(
    server: FakeServer, photo: Path, tmp_path: Path, more: list[str], form: str
) -> None:
    source = write_clip(tmp_path / "in.mkv", Clip(frames=6))
    done = subprocess.run(
        command(server, photo, "--target", "-", "--output", "-", *more, "--audio", "drop"),
        input=source.read_bytes(), capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert b"-: 6 frames in" in done.stderr
    with av.open(io.BytesIO(done.stdout)) as container:
        assert container.format.name.split(",")[0] == form
        assert len(list(container.decode(video=0))) == 6


def test_y4m_goes_in_through_a_pipe(
    server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in.y4m"
    copy_video(write_clip(tmp_path / "in.mp4", Clip(frames=5, audio=None)), source)
    output = tmp_path / "out.mp4"
    subprocess.run(
        command(server, photo, "--target", "-", "--output", output),
        input=source.read_bytes(), capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    contents = read_contents(output)
    assert contents.times_s == [Fraction(index, 30) for index in range(5)]


def test_numbered_pictures_go_in_and_out(
    run, server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    for index in range(4):
        image = np.full((70, 80, 3), index * 20, np.uint8)
        cv2.imwrite(str(tmp_path / f"in_{index + 7:03d}.png"), image)
    pattern = tmp_path / "in_%03d.png"
    assert is_sequence(pattern)
    code, out, _ = run(*arguments(photo, pattern, tmp_path / "out_%04d.png", server))
    assert code == 0
    assert ": 4 frames in" in out
    assert len(list(tmp_path.glob("out_*.png"))) == 4
    # 20 of 255 is 33 of 16 to 235; the fake server makes 222 of it, which is 240 of 255.
    assert np.abs(cv2.imread(str(tmp_path / "out_0002.png")).astype(int) - 240).max() <= 3
    code, _, _ = run(*arguments(photo, pattern, tmp_path / "out.mp4", server), "--rate", "10")
    assert code == 0
    assert read_contents(tmp_path / "out.mp4").times_s == [Fraction(n, 10) for n in range(4)]
    code, _, err = run(*arguments(photo, pattern, tmp_path / "out_%04d.png", server))
    assert code == 1
    assert "out_0001.png exists already" in err


@pytest.mark.parametrize(("start", "end", "count"), [
    ("0.1", "0.3", 6), ("0:00.2", None, 6), (None, "0.05", 2), ("0.11", "0.3", 6),
])  # fmt: skip
def test_a_part_is_cut_exactly(
    tmp_path: Path, start: str | None, end: str | None, count: int
) -> None:
    from frameswap.arguments import time_of

    path = write_clip(tmp_path / "in.mp4", Clip())
    part = ReadOptions(
        start_s=None if start is None else time_of(start), end_s=None if end is None else
        time_of(end),
    )  # fmt: skip
    copy_video(path, tmp_path / "out.mp4", read=part, encoding=Encoding("x264", 0))
    after, before = read_contents(tmp_path / "out.mp4"), read_contents(path)
    assert len(after.frames) == count
    first = int((part.start_s or 0) * 30)
    np.testing.assert_array_equal(after.frames, before.frames[first : first + count])
    assert after.times_s[0] == 0
    # Sound of the part alone, its first packet within one packet's length.
    length = float((part.end_s or Fraction(12, 30)) - (part.start_s or 0))
    times = [float(time) for time, _ in after.sounds[0]]
    assert 0 <= times[0] <= 1024 / 48000 or part.start_s is None
    assert times[-1] <= length


def test_a_part_beyond_the_end_is_said(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mp4", Clip(frames=3))
    with (
        VideoReader(path, ReadOptions(start_s=Fraction(5))) as reader,
        pytest.raises(UnreadableFile, match="has no frame from 5 s on"),
    ):
        list(reader.frames())


def test_a_part_without_a_length_is_wrong_usage(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    code, _, err = run(*arguments(photo, clip, tmp_path / "o.mp4", server), "--from", 3, "--to", 2)
    assert code == 2
    assert "a part ends after its beginning" in err


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_states_what_it_can_do(name: str) -> None:
    encoder = ENCODERS[name]
    pattern = "x_%04d" if encoder.suffixes[0] in (".png", ".jpg") else "x"
    assert choose_encoder(Path(pattern + encoder.suffixes[0]), Encoding(name))[0] == name
    best, worst = encoder.qualities
    for quality in (best, worst, encoder.quality) if encoder.quality_option else ():
        choose_encoder(Path(pattern + encoder.suffixes[0]), Encoding(name, quality))
    beyond = max(best, worst) + 1
    with pytest.raises(BadOptions, match="quality"):
        choose_encoder(Path(pattern + encoder.suffixes[0]), Encoding(name, beyond))
    with pytest.raises(BadOptions, match="preset"):
        choose_encoder(Path(pattern + encoder.suffixes[0]), Encoding(name, None, "no such"))


def test_a_codec_that_the_file_does_not_hold_is_said() -> None:
    with pytest.raises(UnwritableFile, match=r"\.webm does not hold x264: write to \.mp4"):
        choose_encoder(Path("a.webm"), Encoding("x264"))


def test_codecs_are_listed_as_they_were_tried(run) -> None:
    code, out, _ = run("codecs")
    assert code == 0
    for trial in try_encoders():
        line = next(line for line in out.splitlines() if line.split()[0] == trial.name)
        assert ("works" in line) == trial.works
    working = {trial.name for trial in try_encoders() if trial.works}
    assert {"x264", "x265", "av1", "vp9", "ffv1", "prores", "gif", "webp", "png"} <= working
    assert any(trial.works for trial in try_decoders())
    if not os.path.exists("/dev/nvidia0"):
        assert "h264_nvenc" not in working


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has such a GPU")
@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_a_gpus_decoder_that_is_not_there_is_said_and_not_replaced(
    tmp_path: Path, codec: str
) -> None:
    path = tmp_path / "in.mkv"
    write_clip(path, Clip(frames=3, codec=codec, audio=None, time_base=Fraction(1, 30)))
    with pytest.raises(UnreadableFile, match=r"cannot be decoded on an NVIDIA GPU here \([^\[]"):
        VideoReader(path, ReadOptions(decoder="cuda"))


def test_frames_that_are_damaged_are_counted_or_refused(
    run, server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    options = {"crf": "20", "preset": "ultrafast"}
    path = write_clip(tmp_path / "in.mp4", Clip(frames=48, width=320, height=240, options=options))
    content = bytearray(path.read_bytes())
    for place in np.random.default_rng(3).integers(3000, len(content) - 5000, 60):
        content[place] ^= 0x55
    path.write_bytes(content)
    output = tmp_path / "out.mp4"
    code, _, err = run(*arguments(photo, path, output, server))
    assert code == 0
    assert "frames of in.mp4 are damaged" in err
    with av.open(str(output)) as container:
        assert container.duration / 1e6 == pytest.approx(1.6, abs=0.03)
    code, _, err = run(
        *arguments(photo, path, output, server), "--force", "--corrupt", "refuse"
    )
    assert code == 1
    assert "in.mp4 is damaged at" in err
