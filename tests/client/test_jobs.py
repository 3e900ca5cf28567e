"""Jobs in segments: what a run that was cut short leaves, and what the next one makes of it."""

from __future__ import annotations

import json
import os
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
from frameswap.journal import KEPT_S, Journal, job_folder
from frameswap.lease import EXPIRES_S, Lease
from frameswap.preview import Preview
from frameswap.provenance import Edit
from frameswap.report import Tally
from frameswap.segmented_job import Journaling
from frameswap.segments import Packet, read_segment, reorder_depth, timed_packets, write_segment
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


def test_the_journal_names_no_folder(server: FakeServer, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    cut_short(server, clip, output, after=20)
    text = (job_folder(output) / "journal.jsonl").read_text()
    assert str(tmp_path) not in text
    assert "/" not in json.dumps(json.loads(text.splitlines()[0])["job"]["input"])


def test_another_worker_takes_a_job_over(server: FakeServer, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    swap(server, clip, tmp_path / "whole.mp4")
    cut_short(server, clip, output, after=20)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    job_folder(output).rename(job_folder(elsewhere / "out.mp4"))
    moved = clip.rename(elsewhere / "copy-of-in.mp4")
    before = server.requests
    swap(server, moved, elsewhere / "out.mp4")
    assert server.requests - before < FRAMES
    assert (elsewhere / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "000001.segment").write_bytes(b"frameswap segment 1\n"),
        lambda folder: (folder / "000001.segment").unlink(),
        lambda folder: (folder / "000001.jsonl").write_text("{}\n"),
        lambda folder: (folder / "journal.jsonl").write_bytes(
            (folder / "journal.jsonl").read_bytes()[:-7]
        ),
        lambda folder: (folder / "journal.jsonl").write_bytes(b"\xff\x00 no json"),
        lambda folder: (folder / "sources.npy").write_bytes(b""),
    ],
)
def test_what_is_damaged_in_a_journal_is_done_again(
    server: FakeServer, clip: Path, tmp_path: Path, damage: object
) -> None:
    output = tmp_path / "out.mp4"
    swap(server, clip, tmp_path / "whole.mp4")
    cut_short(server, clip, output, after=24)
    damage(job_folder(output))  # type: ignore[operator]
    swap(server, clip, output)
    assert output.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"encoding": Encoding(quality=30)},
        {"encoding": Encoding(preset="fast")},
        {"journaling": Journaling(segment_frames=SEGMENT, resume=False)},
    ],
)
def test_another_job_of_that_name_begins_anew(
    server: FakeServer, clip: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    output = tmp_path / "out.mp4"
    cut_short(server, clip, output, after=20)
    before = server.requests
    swap(server, clip, output, **change)
    assert server.requests - before == FRAMES


def test_resume_insists(server: FakeServer, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    insist = Journaling(segment_frames=SEGMENT, resume=True)
    with pytest.raises(UnwritableFile, match=r"no unfinished job of .*leave --resume out"):
        swap(server, clip, output, journaling=insist)
    cut_short(server, clip, output, after=20)
    with pytest.raises(UnwritableFile, match="no unfinished job"):
        swap(server, clip, output, journaling=insist, encoding=Encoding(quality=30))
    swap(server, clip, output, journaling=insist)
    assert output.exists()


def test_two_jobs_of_one_output_are_told_at_the_start(
    server: FakeServer, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    with Journal(output), pytest.raises(UnwritableFile, match=r"another job is writing .*out\.mp4"):
        swap(server, clip, output)
    swap(server, clip, output)


def test_an_output_that_exists_costs_no_journal(
    server: FakeServer, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    cut_short(server, clip, output, after=20)
    output.write_bytes(b"mine")
    with pytest.raises(UnwritableFile, match="exists already"):
        swap(server, clip, output)
    assert (job_folder(output) / "000000.segment").exists()
    swap(server, clip, output, force=True)


def test_a_job_that_stood_still_for_too_long_does_not_write_its_output(
    server: FakeServer, clip: Path, tmp_path: Path
) -> None:
    """Another machine has taken over meanwhile; here it says so in the lease, after the last
    segment."""
    output = tmp_path / "out.mp4"

    def take_over(done: int) -> None:
        if done == FRAMES:
            (job_folder(output) / "lease").write_text("another-machine 0123")

    with pytest.raises(UnwritableFile, match="another job has taken over"):
        swap(server, clip, output, on_frame=take_over)
    assert not output.exists()


@pytest.mark.parametrize("row", ["{}", '{"frames": 8}', "[1]", '{"unfinished": 1, "x": 2}'])
def test_a_line_that_is_no_row_ends_what_is_gone_on_with(
    server: FakeServer, clip: Path, tmp_path: Path, row: str
) -> None:
    output = tmp_path / "out.mp4"
    swap(server, clip, tmp_path / "whole.mp4")
    cut_short(server, clip, output, after=24)
    path = job_folder(output) / "journal.jsonl"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([first, row, *others, ""]))
    swap(server, clip, output)
    assert output.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_journals_that_nobody_wants_are_removed_after_a_while(
    server: FakeServer, clip: Path, tmp_path: Path
) -> None:
    cut_short(server, clip, tmp_path / "old.mp4", after=20)
    cut_short(server, clip, tmp_path / "new.mp4", after=20)
    old, new = job_folder(tmp_path / "old.mp4"), job_folder(tmp_path / "new.mp4")
    long_ago = time.time() - KEPT_S - 60
    for path in (*old.iterdir(), old):
        os.utime(path, (long_ago, long_ago))
    swap(server, clip, tmp_path / "out.mp4")
    assert (old.exists(), new.exists()) == (False, True)


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


def test_a_segment_is_read_back_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    packets = [Packet(30, 10, True, b"abc"), Packet(10, 0, False, b""), Packet(-5, 1, False, b"x")]
    size, _ = write_segment(tmp_path / "a", packets)
    assert read_segment(tmp_path / "a") == packets
    assert size == (tmp_path / "a").stat().st_size
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:-1])
    with pytest.raises(Exception, match="is cut off"):
        read_segment(tmp_path / "b")


@pytest.mark.parametrize("lengths", [(5, 5), (1, 1, 1), (7, 2, 1), (2,)])
def test_decoding_times_grow_and_are_never_after_presentation(lengths: tuple[int, ...]) -> None:
    segments, pts = [], 0
    for length in lengths:
        order = list(range(length))
        # As an encoder with two B-frames: every third is sent first.
        order.sort(key=lambda place: (place // 3, -(place % 3)))
        segments.append([Packet(pts + 7 * place, 0, place == 0, b"x") for place in order])
        pts += 7 * length + 40
    depth = max(reorder_depth(packets) for packets in segments)
    timed = list(timed_packets(segments, depth=depth, time_base=Fraction(1, 100)))
    times = [packet.dts for packet in timed]
    assert times == sorted(set(times))
    assert all(packet.dts <= packet.pts for packet in timed)
    assert len(timed) == sum(lengths)


def test_a_lease_of_another_machine_counts_until_its_heart_stops(tmp_path: Path) -> None:
    (tmp_path / "lease").write_text("another-machine 0123")
    with pytest.raises(UnwritableFile, match="another job is writing"):
        Lease(tmp_path, of=tmp_path / "out.mp4")
    old = time.time() - EXPIRES_S - 5
    os.utime(tmp_path / "lease", (old, old))
    lease = Lease(tmp_path, of=tmp_path / "out.mp4")
    lease.check()
    (tmp_path / "lease").write_text("another-machine 4567")
    with pytest.raises(UnwritableFile, match="has taken over"):
        lease.check()
    lease.release()


def test_ctrl_c_in_a_folder_sums_up_what_is_done(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, frames in (("a.mp4", 3), ("b.mp4", 300), ("c.mp4", 3)):
        write_clip(tmp_path / "in" / name, Clip(frames=frames))
    cv2.imwrite(str(tmp_path / "face.png"), PHOTO)
    server.behavior.fail = lambda value, context: time.sleep(0.05)
    command = [
        sys.executable, "-m", "frameswap", "swap", "--source", str(tmp_path / "face.png"),
        "--target", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--window", "2",
        "--server", server.address,
    ]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as job:
        try:
            deadline = time.monotonic() + 30
            while server.requests < 20 and time.monotonic() < deadline:
                time.sleep(0.02)
            job.send_signal(signal.SIGINT)
            out, err = job.communicate(timeout=30)
        finally:
            job.kill()
    assert job.returncode == 130
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
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        try:
            deadline = time.monotonic() + 30
            while server.requests < 30 and time.monotonic() < deadline:
                time.sleep(0.02)
            job.send_signal(signal.SIGINT)
            _, err = job.communicate(timeout=30)
        finally:
            job.kill()
    assert job.returncode == 130
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
