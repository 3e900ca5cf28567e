"""The journal of a job, its segments and its lease: what is gone on with, and by whom."""

from __future__ import annotations

import json
import os
import time
from fractions import Fraction
from pathlib import Path

import pytest
from fake_server import FakeServer
from frameswap import Encoding, UnwritableFile
from frameswap.journal import KEPT_S, Journal, job_folder
from frameswap.lease import EXPIRES_S, Lease
from frameswap.segmented_job import Journaling
from frameswap.segments import Packet, read_segment, reorder_depth, timed_packets, write_segment
from test_jobs import FRAMES, SEGMENT, clip, cut_short, swap  # noqa: F401


def test_the_journal_names_no_folder(server: FakeServer, clip: Path, tmp_path: Path) -> None:  # noqa: F811
    output = tmp_path / "out.mp4"
    cut_short(server, clip, output, after=20)
    text = (job_folder(output) / "journal.jsonl").read_text()
    assert str(tmp_path) not in text
    assert "/" not in json.dumps(json.loads(text.splitlines()[0])["job"]["input"])


def test_another_worker_takes_a_job_over(server: FakeServer, clip: Path, tmp_path: Path) -> None:  # noqa: F811
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
    server: FakeServer, clip: Path, tmp_path: Path, damage: object  # noqa: F811
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
    server: FakeServer, clip: Path, tmp_path: Path, change: dict[str, object]  # noqa: F811
) -> None:
    output = tmp_path / "out.mp4"
    cut_short(server, clip, output, after=20)
    before = server.requests
    swap(server, clip, output, **change)
    assert server.requests - before == FRAMES


def test_resume_insists(server: FakeServer, clip: Path, tmp_path: Path) -> None:  # noqa: F811
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
    server: FakeServer, clip: Path, tmp_path: Path  # noqa: F811
) -> None:
    output = tmp_path / "out.mp4"
    with Journal(output), pytest.raises(UnwritableFile, match=r"another job is writing .*out\.mp4"):
        swap(server, clip, output)
    swap(server, clip, output)


def test_an_output_that_exists_costs_no_journal(
    server: FakeServer, clip: Path, tmp_path: Path  # noqa: F811
) -> None:
    output = tmp_path / "out.mp4"
    cut_short(server, clip, output, after=20)
    output.write_bytes(b"mine")
    with pytest.raises(UnwritableFile, match="exists already"):
        swap(server, clip, output)
    assert (job_folder(output) / "000000.segment").exists()
    swap(server, clip, output, force=True)


def test_a_job_that_stood_still_for_too_long_does_not_write_its_output(
    server: FakeServer, clip: Path, tmp_path: Path  # noqa: F811
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
    server: FakeServer, clip: Path, tmp_path: Path, row: str  # noqa: F811
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
    server: FakeServer, clip: Path, tmp_path: Path  # noqa: F811
) -> None:
    cut_short(server, clip, tmp_path / "old.mp4", after=20)
    cut_short(server, clip, tmp_path / "new.mp4", after=20)
    old, new = job_folder(tmp_path / "old.mp4"), job_folder(tmp_path / "new.mp4")
    long_ago = time.time() - KEPT_S - 60
    for path in (*old.iterdir(), old):
        os.utime(path, (long_ago, long_ago))
    swap(server, clip, tmp_path / "out.mp4")
    assert (old.exists(), new.exists()) == (False, True)


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
