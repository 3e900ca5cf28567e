"""Videos that are not there, are damaged or cut off, or cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from clips import Clip, write_clip
from frameswap import UnreadableFile, UnwritableFile
from frameswap.video import VideoReader
from frameswap.video_writer import VideoWriter
from test_video import EDIT, clip, read_frames  # noqa: F401


def test_a_missing_video_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"there is no file .*none.mp4"):
        VideoReader(tmp_path / "none.mp4")


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="is a folder, not a video"):
        VideoReader(tmp_path)


def test_an_empty_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "zero.mp4").touch()
    with pytest.raises(UnreadableFile, match=r"zero\.mp4 is empty"):
        VideoReader(tmp_path / "zero.mp4")


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("flags", [{}, {"movflags": "faststart"}])
def test_a_cut_off_mp4_is_said_wherever_its_index_is(
    tmp_path: Path, keep: float, flags: dict[str, str]
) -> None:
    path = write_clip(tmp_path / "in.mp4", Clip(frames=240, container_options=flags))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    if flags and keep == 0.99:
        # Less than a second is missing: it is read as far as it goes.
        assert len(read_frames(path)) >= 200
        return
    with pytest.raises(UnreadableFile, match="cut off"):
        read_frames(path)


def test_a_cut_off_matroska_file_is_said(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mkv", Clip(frames=240))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableFile, match=r"is cut off: the last \d\.\d of 8\.0 s are missing"):
        read_frames(path)


def test_frames_that_change_their_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.h264"
    parts = []
    for width in (64, 96):
        write_clip(tmp_path / f"{width}.h264", Clip(width=width, audio=None, frames=3))
        parts.append((tmp_path / f"{width}.h264").read_bytes())
    path.write_bytes(b"".join(parts))
    with pytest.raises(UnreadableFile, match="changes its size at frame 3 from 64 x 48 to 96 x 48"):
        read_frames(path)


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50])
def test_a_file_of_something_else_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "junk.mp4"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"is empty|is no video that FFmpeg reads"):
        VideoReader(path)


def test_a_full_disk_is_said(clip: Path, tmp_path: Path) -> None:  # noqa: F811
    # /dev/full answers every write with ENOSPC.
    full = tmp_path / "full.mp4"
    full.symlink_to("/dev/full")
    with (
        VideoReader(clip) as reader,
        pytest.raises(UnwritableFile, match=r"the disk of .* is full: nothing was written"),
    ):
        VideoWriter(full, reader, shown=tmp_path / "out.mp4", edit=EDIT)


def test_a_file_that_may_not_grow_is_said_at_its_end(tmp_path: Path) -> None:
    # The limit holds for the whole process, so it is set in one of its own.
    path = write_clip(tmp_path / "in.mp4", Clip(frames=30, width=320, height=240))
    code = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from test_video import LOSSLESS, copy_video\n"
        "from frameswap import UnwritableFile\n"
        "try: copy_video(Path(sys.argv[1]), Path(sys.argv[2]), encoding=LOSSLESS)\n"
        "except UnwritableFile as error: print(error)"
    )
    output = tmp_path / "out.mp4"
    arguments = [sys.executable, "-c", code, str(path), str(output), str(Path(__file__).parent)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert "grew beyond the file size that is allowed here: nothing was written" in done.stdout
    assert list(tmp_path.iterdir()) == [path]
