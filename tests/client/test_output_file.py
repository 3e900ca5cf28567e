"""An output is whole or not there, and one job alone writes it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from frameswap import UnwritableFile
from frameswap.output_file import check_output, output_file

LONG_NAME = "面" * 80 + ".mp4"
HOLD = (
    "import sys, time; from pathlib import Path; from frameswap.output_file import output_file\n"
    "with output_file(Path(sys.argv[1]), force=False) as temporary:\n"
    "    temporary.write_bytes(b'half'); print('held', flush=True); time.sleep(60)"
)


def start_job(path: Path) -> subprocess.Popen[str]:
    """Another process that has reserved `path` and written half of it."""
    job = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert job.stdout is not None
    assert job.stdout.readline() == "held\n"
    return job


def stop_job(job: subprocess.Popen[str]) -> None:
    job.send_signal(signal.SIGKILL)
    job.communicate(timeout=10)


def test_an_output_is_not_there_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    with output_file(path, force=False) as temporary:
        temporary.write_bytes(b"whole")
        assert temporary.suffix == ".bin"
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_an_interrupted_output_leaves_nothing_behind(
    tmp_path: Path, stop: type[BaseException]
) -> None:
    def write_half() -> None:
        with output_file(tmp_path / "o", force=False) as temporary:
            temporary.write_bytes(b"half")
            raise stop("now")

    with pytest.raises(stop, match="now"):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with (
        pytest.raises(UnwritableFile, match=r"exists already.*--force"),
        output_file(path, force=False) as temporary,
    ):
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"old"
    with output_file(path, force=True) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_a_write_that_fails_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UnwritableFile, match="is full"), output_file(tmp_path / "o", force=False):
        raise OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(UnwritableFile, match="beyond the file size that is allowed"),
        output_file(tmp_path / "o", force=False),
    ):
        raise OSError(errno.EFBIG, "File too large")


def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path: Path) -> None:
    path = tmp_path / LONG_NAME
    assert len(os.fsencode(path.name)) == 244
    with output_file(path, force=False) as temporary:
        assert len(os.fsencode(temporary.name)) < 50
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"


def test_a_name_that_is_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnwritableFile, match=r"name is 274 bytes long and .* takes 255: shorten"):
        check_output(tmp_path / ("面" * 90 + ".mp4"), force=False)


def test_a_second_job_with_the_same_output_is_told_at_its_start(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    first = start_job(path)
    try:
        with (
            pytest.raises(UnwritableFile, match=r"another job is writing .*out\.mp4 now"),
            output_file(path, force=True),
        ):
            pytest.fail("it was reserved twice")
        with output_file(tmp_path / "other.mp4", force=False) as temporary:
            temporary.write_bytes(b"whole")
        # The living job's file is still there.
        assert len(list(tmp_path.glob(".frameswap-*"))) == 1
    finally:
        stop_job(first)


@pytest.mark.parametrize("name", ["out.mp4", "other.mp4"])
def test_what_a_killed_job_left_is_taken_away_by_the_next_one_there(
    tmp_path: Path, name: str
) -> None:
    stop_job(start_job(tmp_path / "out.mp4"))
    assert len(list(tmp_path.iterdir())) == 1
    with output_file(tmp_path / name, force=False) as temporary:
        assert temporary.read_bytes() == b""
        temporary.write_bytes(b"whole")
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_a_file_system_without_locks_is_written_to_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    path = tmp_path / "out.mp4"
    with output_file(path, force=False) as temporary:
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_put_under_the_hidden_name_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    with output_file(tmp_path / "out.mp4", force=False) as temporary:
        temporary.write_bytes(b"")
    temporary.symlink_to(victim)
    with (
        pytest.raises(UnwritableFile, match="cannot be written"),
        output_file(tmp_path / "out.mp4", force=True),
    ):
        pytest.fail("the link was followed")
    assert victim.read_bytes() == b"mine"
