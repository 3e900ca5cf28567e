"""Jobs in segments: what a run that was cut short leaves, and what the next one makes of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import grpc
import numpy as np
import pytest
from clips import Clip, read_contents, read_sound, write_clip
from fake_server import FakeServer
from frameswap import Encoding, FaceSwapper, ServerFault, Source, SwapOptions, UnwritableFile
from frameswap.job_control import JobControl, JobStopped
from frameswap.journal import job_folder
from frameswap.preview import Preview
from frameswap.provenance import Edit
from frameswap.report import Tally
from frameswap.segmented_job import Journaling
from frameswap.swap_job import swap_video
from frameswap.video import VideoReader
from frameswap.video_writer import VideoWriter
from test_swapper import PHOTO

SOURCE = Source(np.ones(4, np.float32), "identity", "fake_identity", np.zeros((0, 15), np.float32))
FRAMES = 40
SEGMENT = 8


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "in.mp4", Clip(frames=FRAMES))


def swap(server: FakeServer, clip: Path, output: Path, **options: object) -> Tally:
    """One run of a job over a fake server."""
    given: dict[str, object] = {
        "force": False, "encoding": Encoding(), "audio": "auto",
        "on_notes": lambda notes: None, "on_frame": lambda done: None,
        "journaling": Journaling(segment_frames=SEGMENT), **options,
    }  # fmt: skip
    with FaceSwapper(server.address, in_flight=4, reconnect_s=1) as swapper, VideoReader(
        clip
    ) as reader:
        source = SOURCE
        return swap_video(swapper, reader, [source], SwapOptions(), output, **given)


def cut_short(
    server: FakeServer, clip: Path, output: Path, after: int, **options: object
) -> None:
    """A run whose server breaks for good after so many frames; it is whole again then."""
    answered = 0

    def fail(value: int, context: grpc.ServicerContext) -> None:
        nonlocal answered
        answered += 1
        if answered > after:
            context.abort(grpc.StatusCode.INTERNAL, "CUDA error: out of memory")

    server.behavior.fail = fail
    with pytest.raises(ServerFault, match="out of memory"):
        swap(server, clip, output, **options)
    server.behavior.fail = None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_job_that_is_gone_on_with_makes_the_same_file(
    server: FakeServer, clip: Path, tmp_path: Path, suffix: str
) -> None:
    swap(server, clip, tmp_path / f"whole{suffix}")
    output = tmp_path / f"out{suffix}"
    cut_short(server, clip, output, after=20)
    assert not output.exists()
    before = server.requests
    notes: list[str] = []
    tally = swap(server, clip, output, on_notes=notes.extend)
    assert any("going on behind frame" in note for note in notes)
    assert server.requests - before < FRAMES
    whole, resumed = read_contents(tmp_path / f"whole{suffix}"), read_contents(output)
    assert len(resumed.frames) == FRAMES
    assert all(np.array_equal(a, b) for a, b in zip(whole.frames, resumed.frames, strict=True))
    assert (whole.times_s, whole.sounds) == (resumed.times_s, resumed.sounds)
    if suffix != ".mkv":  # which has a random identity of its own
        assert output.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert (tally.frames, tally.faces) == (FRAMES, FRAMES)
    assert not job_folder(output).exists()


def test_segments_have_the_times_and_frames_of_one_pass(
    server: FakeServer, tmp_path: Path
) -> None:
    pts = tuple(int(index * 1000 + 300 * (index % 3)) for index in range(FRAMES))
    clip = write_clip(tmp_path / "in.mp4", Clip(frames=FRAMES, pts=pts))
    swap(server, clip, tmp_path / "out.mp4")
    swap(server, clip, tmp_path / "one.mp4", journaling=Journaling(segment_frames=10_000))
    parts, one = read_contents(tmp_path / "out.mp4"), read_contents(tmp_path / "one.mp4")
    assert parts.times_s == one.times_s == read_contents(clip).times_s
    assert parts.sounds == one.sounds == read_contents(clip).sounds
    with av.open(str(tmp_path / "out.mp4")) as container:
        packets = [each for each in container.demux(video=0) if each.size]
    assert [packet.is_keyframe for packet in packets[::SEGMENT]] == [True] * (FRAMES // SEGMENT)
    times = [packet.dts for packet in packets]
    assert times == sorted(set(times))
    assert all(packet.dts <= packet.pts for packet in packets)


@pytest.mark.parametrize(("size", "frames"), [((160, 128), 750), ((1280, 720), 60)])
def test_segments_cost_at_most_three_percent_of_size(
    server: FakeServer, tmp_path: Path, size: tuple[int, int], frames: int
) -> None:
    """Beside x264 itself, in one pass and with one thread, which makes the smallest file."""
    width, height = size
    clip = Clip(frames=frames, width=width, height=height, audio=None)
    path = write_clip(tmp_path / "in.mp4", clip)
    journaling = Journaling(segment_frames=max(30, frames // 3), threads=3)
    swap(server, path, tmp_path / "parts.mp4", journaling=journaling)
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 30000), Fraction(30)
    encoder.options, encoder.thread_count = {"crf": "18", "preset": "veryfast"}, 1
    packets = []
    with VideoReader(path) as reader:
        for frame in reader.frames():
            inverted = av.VideoFrame.from_ndarray(255 - frame.restore(frame.as_array()), "yuv420p")
            inverted.pts, inverted.time_base = frame.pts, encoder.time_base
            packets += encoder.encode(inverted)
    one = sum(packet.size for packet in [*packets, *encoder.encode(None)])
    with av.open(str(tmp_path / "parts.mp4")) as container:
        assert sum(packet.size for packet in container.demux(video=0)) <= 1.03 * one


def test_the_video_writer_without_segments_makes_the_same_pictures(
    server: FakeServer, clip: Path, tmp_path: Path
) -> None:
    """One segment is one pass: no frame, time or sound is other than a plain writer's."""
    swap(server, clip, tmp_path / "job.mp4", journaling=Journaling(segment_frames=10_000))
    with VideoReader(clip) as reader, FaceSwapper(server.address) as swapper:
        source = swapper.encode_source(PHOTO)
        writer = VideoWriter(
            tmp_path / "plain.mp4", reader, shown=tmp_path / "plain.mp4",
            edit=Edit(swapper.swapper, swapper.provenance),
        )  # fmt: skip
        for swapped in swapper.stream(reader.frames(), source):
            writer.write_frame(swapped.original.restore(swapped.frame), swapped.original.pts)
        writer.finish()
    job, plain = read_contents(tmp_path / "job.mp4"), read_contents(tmp_path / "plain.mp4")
    assert (job.times_s, job.sounds, job.tags) == (plain.times_s, plain.sounds, plain.tags)
    psnr = [cv2.PSNR(a, b) for a, b in zip(job.frames, plain.frames, strict=True)]
    # The encoders may have another number of threads.
    assert min(psnr) > 40


def test_a_job_that_ends_early_holds_what_is_done_and_is_gone_on_with(
    server: FakeServer, clip: Path, tmp_path: Path
) -> None:
    output, control = tmp_path / "out.mp4", JobControl()
    swap(server, clip, tmp_path / "whole.mp4")

    def end(done: int) -> None:
        if done == 20:
            control.end_early()

    tally = swap(server, clip, output, control=control, on_frame=end)
    part = read_contents(output)
    assert 20 <= tally.frames == len(part.frames) < FRAMES
    whole = read_contents(tmp_path / "whole.mp4")
    # Whole segments are the same; the last one of the part ended where the whole job's went on.
    same = tally.frames // SEGMENT * SEGMENT
    assert all(
        np.array_equal(a, b) for a, b in zip(part.frames[:same], whole.frames[:same], strict=True)
    )
    end_s = Fraction(tally.frames, 30)
    assert end_s - Fraction(1, 20) < part.sounds[0][-1][0] < end_s + Fraction(1, 20)
    swap(server, clip, output)
    assert output.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not job_folder(output).exists()


def test_a_job_pauses_goes_on_and_stops(server: FakeServer, clip: Path, tmp_path: Path) -> None:
    import threading

    control, seen = JobControl(), []

    def watch(done: int) -> None:
        seen.append(done)
        if done == 10:
            control.pause()
            threading.Timer(0.5, control.go_on).start()
        if done == 30:
            control.stop()

    with pytest.raises(JobStopped):
        swap(server, clip, tmp_path / "out.mp4", control=control, on_frame=watch)
    assert seen == list(range(1, 31))
    assert not (tmp_path / "out.mp4").exists()
    assert swap(server, clip, tmp_path / "out.mp4").resumed_at == 24


def test_a_preview_shows_a_finished_frame(server: FakeServer, clip: Path, tmp_path: Path) -> None:
    swap(server, clip, tmp_path / "out.mp4", preview=Preview(tmp_path / "now.png"))
    assert cv2.imread(str(tmp_path / "now.png")).shape == (48, 64, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "now.png", "out.mp4"]
    with pytest.raises(UnwritableFile, match=r"\.jpg or \.png"):
        Preview(tmp_path / "now.gif")


def interrupted(command: list[str], server: FakeServer, *, after: int) -> tuple[int, str, str]:
    """Press Ctrl-C after so many requests; returns exit code, standard output and error."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as job:
        try:
            deadline = time.monotonic() + 60
            while server.requests < after and time.monotonic() < deadline:
                time.sleep(0.02)
            job.send_signal(signal.SIGINT)
            out, err = job.communicate(timeout=60)
        finally:
            job.kill()
    return job.returncode, out, err


def test_ctrl_c_in_a_folder_sums_up_what_is_done(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, frames in (("a.mp4", 3), ("b.mp4", 300), ("c.mp4", 3)):
        write_clip(tmp_path / "in" / name, Clip(frames=frames))
    cv2.imwrite(str(tmp_path / "face.png"), PHOTO)
    server.behavior.fail = lambda value, context: time.sleep(0.05)
    command = [
        sys.executable, "-m", "frameswap", "swap", "--source", str(tmp_path / "face.png"),
        "--target", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--window", "2",
        "--server", server.address, "--search", "off",  # looks are requests, too
    ]  # fmt: skip
    code, out, err = interrupted(command, server, after=20)
    assert code == 130
    assert "3 files: 1 done, 2 not done" in out
    assert "b.mp4 holds the frames so far" in err
    assert {path.name for path in (tmp_path / "out").glob("*.mp4")} == {"a.mp4", "b.mp4"}


def test_ctrl_c_finishes_the_file_and_the_same_command_goes_on(
    server: FakeServer, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(frames=200))
    cv2.imwrite(str(tmp_path / "face.png"), PHOTO)
    server.behavior.fail = lambda value, context: time.sleep(0.05)
    command = [
        sys.executable, "-m", "frameswap", "swap", "--source", str(tmp_path / "face.png"),
        "--target", str(clip), "--output", str(tmp_path / "out.mp4"), "--server", server.address,
        "--window", "2", "--segment-frames", "8", "--report", str(tmp_path / "out.jsonl"),
        "--search", "off",  # looks are requests, too
    ]  # fmt: skip
    code, _, err = interrupted(command, server, after=30)
    assert code == 130
    assert "out.mp4 holds the frames so far; the same command goes on" in err
    done = len(read_contents(tmp_path / "out.mp4").frames)
    assert 20 <= done < 200
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == done + 1
    server.behavior.fail = None
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (again.returncode, "going on behind frame" in again.stderr) == (0, True)
    assert len(read_contents(tmp_path / "out.mp4").frames) == 200
    assert read_sound(tmp_path / "out.mp4", 0) == read_sound(clip, 0)
    assert not job_folder(tmp_path / "out.mp4").exists()
