"""Jobs on a disk that fills up, at each place where something is written: one sentence, nothing
half written, and the same job goes on when there is room."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import Clip, write_clip
from fake_server import FakeServer
from frameswap import Encoding, UnwritableFile
from frameswap.job_control import JobControl
from frameswap.journal import Journal, job_folder
from frameswap.output_file import output_file
from frameswap.photo import write_photo
from frameswap.preview import Preview
from frameswap.provenance import Edit
from frameswap.report import Tally
from test_jobs import FRAMES, SEGMENT, cut_short
from test_jobs import swap as swap_job

from tests.small_disk import SmallDisk, small_disk

FULL = r"the disk of .* is full"
LOSSLESS = Encoding(quality=0)
"""So that the files of a job are of many pages."""


def swap(server: FakeServer, clip: Path, output: Path, **options: Any) -> Tally:
    return swap_job(server, clip, output, **{"encoding": LOSSLESS, **options})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, mebibytes=8) as mounted:
        yield mounted


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "in.mp4", Clip(frames=FRAMES, width=160, height=120))


@pytest.fixture
def whole(server: FakeServer, clip: Path, tmp_path: Path) -> Path:
    """What an undisturbed run writes."""
    swap(server, clip, tmp_path / "whole.mp4")
    return tmp_path / "whole.mp4"


def segments(output: Path) -> int:
    return len((job_folder(output) / "journal.jsonl").read_text().splitlines()) - 1


@pytest.mark.parametrize(
    ("room", "done"),
    [(0.0, None), (0.5, range(1, FRAMES // SEGMENT)), (1.5, [FRAMES // SEGMENT])],
    ids=["nothing", "segments", "joining"],
)
def test_a_job_stops_with_a_sentence_and_goes_on_when_there_is_room(
    server: FakeServer, clip: Path, whole: Path, disk: SmallDisk,
    room: float, done: range | list[int] | None,
) -> None:  # fmt: skip
    output = disk.folder / "out.mp4"
    disk.fill(leaving=int(room * whole.stat().st_size))
    with pytest.raises(UnwritableFile, match=FULL):
        swap(server, clip, output)
    if done is None:
        assert disk.names() == []
    else:
        assert segments(output) in done
        assert disk.names() == [job_folder(output).name]
    disk.empty()
    before = server.requests
    swap(server, clip, output)
    if done is not None:
        assert server.requests - before <= FRAMES - SEGMENT * done[0]
    assert output.read_bytes() == whole.read_bytes()
    assert disk.names() == ["out.mp4"]


@pytest.mark.parametrize("room", [4096 * pages for pages in range(1, 8)])
def test_a_job_that_has_no_room_to_begin_leaves_nothing(
    server: FakeServer, clip: Path, disk: SmallDisk, room: int
) -> None:
    """Page by page: the output's header, the lease, the sources, the journal's first line."""
    disk.fill(leaving=room)
    with pytest.raises(UnwritableFile, match=FULL):
        swap(server, clip, disk.folder / "out.mp4")
    assert disk.names() == []


@pytest.mark.parametrize("pages", range(3))
def test_an_interrupted_job_that_has_no_room_to_go_on_is_kept(
    server: FakeServer, clip: Path, whole: Path, disk: SmallDisk, pages: int
) -> None:
    output = disk.folder / "out.mp4"
    cut_short(server, clip, output, after=20, encoding=LOSSLESS)
    kept = segments(output)
    disk.fill(leaving=4096 * pages)
    with pytest.raises(UnwritableFile, match=FULL):
        swap(server, clip, output)
    assert segments(output) == kept
    disk.empty()
    assert swap(server, clip, output).resumed_at == kept * SEGMENT
    assert output.read_bytes() == whole.read_bytes()


def test_a_report_that_has_no_room_keeps_the_journal(
    server: FakeServer, clip: Path, whole: Path, disk: SmallDisk, tmp_path: Path
) -> None:
    output, report = tmp_path / "out.mp4", disk.folder / "out.jsonl"
    disk.fill(leaving=4096)
    with pytest.raises(UnwritableFile, match=FULL):
        swap(server, clip, output, report=report)
    assert (output.exists(), disk.names()) == (False, [])
    disk.empty()
    before = server.requests
    assert swap(server, clip, output, report=report).resumed_at == FRAMES
    assert server.requests == before
    assert len(report.read_text().splitlines()) == FRAMES + 1
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_preview_that_has_no_room_stays_as_it_was_and_fails_no_job(
    server: FakeServer, clip: Path, whole: Path, disk: SmallDisk, tmp_path: Path, suffix: str
) -> None:
    shown = disk.folder / f"now{suffix}"
    noise = np.random.default_rng(1).integers(0, 256, (180, 160), np.uint8)
    Preview(shown).show(noise)
    before = shown.read_bytes()
    disk.fill(leaving=4096)
    Preview(shown).show(255 - noise)
    assert (shown.read_bytes(), disk.names()) == (before, [shown.name])
    swap(server, clip, tmp_path / "out.mp4", preview=Preview(shown))
    assert (tmp_path / "out.mp4").read_bytes() == whole.read_bytes()
    assert cv2.imread(str(shown)) is not None
    assert disk.names() == [shown.name]


def test_an_early_end_that_cannot_be_noted_is_said_and_loses_nothing(
    server: FakeServer, clip: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, control = tmp_path / "out.mp4", JobControl()
    append = Journal._append

    def append_if_room(journal: Journal, row: dict[str, object]) -> None:
        if "unfinished" in row:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(journal, row)

    def end(done: int) -> None:
        if done == 20:
            control.end_early()

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_append", append_if_room)
        with pytest.raises(UnwritableFile, match=r"holds the frames so far, .* go on with --force"):
            swap(server, clip, output, control=control, on_frame=end)
    assert output.exists()
    assert swap(server, clip, output, force=True).resumed_at == 2 * SEGMENT
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".avif", ".tiff"])
def test_a_photo_that_has_no_room_is_not_there(disk: SmallDisk, suffix: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (96, 96, 3), np.uint8)
    disk.fill(leaving=4096)
    with pytest.raises(UnwritableFile, match=FULL):
        write_photo(disk.folder / f"a{suffix}", noise, edit=Edit("x", "composite"), force=False)
    assert disk.names() == []


def test_a_file_in_the_way_survives_a_full_disk(disk: SmallDisk) -> None:
    path = disk.folder / "out.json"
    path.write_text(json.dumps("old"))
    disk.fill(leaving=4096)
    with pytest.raises(UnwritableFile, match=FULL), output_file(path, force=True) as temporary:
        temporary.write_bytes(bytes(100_000))
    assert json.loads(path.read_text()) == "old"
