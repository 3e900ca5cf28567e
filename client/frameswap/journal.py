"""What a job has done so far: a folder beside its output that the next run goes on from.

`journal.jsonl` holds one line of what the job is and one for each whole segment, whose packets are
in `000000.segment`, whose rows of the report in `000000.jsonl`, and in `000000.found`, where faces
are followed, what was found in its frames. A line is written when its files
are on the disk, so a line that is there tells the truth. No name in it is of a folder elsewhere:
another worker, on another machine, may take the job over.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frameswap.durable_files import sync_folder, write_whole
from frameswap.errors import UnreadableFile, UnwritableFile
from frameswap.lease import Lease, is_held
from frameswap.output_file import explain_failure
from frameswap.segments import Packet, read_segment, reorder_depth, write_segment

__all__ = ["Journal", "SegmentRow", "describe_file", "is_unfinished", "job_folder"]

KEPT_S: Final = 7 * 24 * 3600.0
"""After so long without a change, the next job in a folder removes what a dead one left there."""
_JOURNAL: Final = "journal.jsonl"
_SOURCES: Final = "sources.npy"
_REFERENCES: Final = "references.npy"
_FOLDER: Final = re.compile(r"\.frameswap-[0-9a-f]{12}\.job")
_SAMPLES: Final = 16
_SAMPLE_SIZE: Final = 1 << 16
_SOURCE_TOLERANCE: Final = 0.02
"""Between two encodings of one photo, of its vector's largest number: a GPU's batches differ."""


@dataclass(frozen=True)
class SegmentRow:
    """A whole segment.

    depth: `segments.reorder_depth`. size, crc: of its file.
    found_crc: of the file of what was found in its frames; 0 where there is none.
    """

    frames: int
    faces: int
    frames_without_face: int
    depth: int
    size: int
    crc: int
    found_crc: int = 0


def job_folder(output: Path) -> Path:
    """Where the journal of an output lies."""
    digest = hashlib.sha256(os.fsencode(output.name)).hexdigest()[:12]
    return output.with_name(f".frameswap-{digest}.job")


def is_unfinished(output: Path) -> bool:
    """Whether a file is what a job that was stopped early has written, and can be gone on with."""
    try:
        rows = _read_rows(job_folder(output) / _JOURNAL)
        status = output.stat()
    except (OSError, UnreadableFile):
        return False
    return bool(rows) and rows[-1].get("unfinished") == [status.st_size, status.st_mtime_ns]


def describe_file(path: Path) -> dict[str, Any]:
    """What tells a file from others, wherever it lies: its size, and a digest of samples of it.

    Raises:
        UnreadableFile: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256()
            for number in range(_SAMPLES):
                file.seek(max(0, (size - _SAMPLE_SIZE) * number // (_SAMPLES - 1)))
                digest.update(file.read(_SAMPLE_SIZE))
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
    return {"bytes": size, "samples": digest.hexdigest()}


class Journal:
    """The journal of one output, and the lease on it: `begin` says which job it is for.

    Args:
        output: the file that the job makes.

    Attributes:
        rows: of the whole segments.
        sources: (K, D) float32: those that the whole segments were made with.
        references: (K, E) float32: of whom they replace, likewise; empty where nobody is named.

    Raises:
        UnwritableFile: another job has it.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self.folder = job_folder(output)
        self.rows: list[SegmentRow] = []
        self.sources = np.zeros((0, 0), np.float32)
        self.references = np.zeros((0, 0), np.float32)
        self._has_begun = self._keep = False
        _remove_forgotten(output.parent)
        with self._explained():
            self._make_folder()
            try:
                self._lease = Lease(self.folder, of=output)
            except OSError:
                self._remove_if_new()
                raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the folder, unless there is something in it to go on from."""
        if self._has_begun and (not self.rows or (kind is None and not self._keep)):
            shutil.rmtree(self.folder, ignore_errors=True)
        elif not self._has_begun:
            self._remove_if_new()
        # Last: nothing is removed that another job has taken over meanwhile.
        self._lease.release()

    def begin(
        self,
        job: Mapping[str, Any],
        sources: NDArray[np.float32],
        *,
        references: NDArray[np.float32] | None = None,
        resume: bool | None,
    ) -> None:
        """Take over what an earlier run of the same job has done, or begin anew.

        Args:
            job: what decides how its frames look; JSON.
            sources: (K, D) float32.
            references: (K, E) float32, of whom they replace.
            resume: True insists on an earlier run, False begins anew, None takes what there is.

        Raises:
            UnwritableFile: there is nothing to resume, or a full disk.
        """
        self.sources = sources
        if references is not None:
            self.references = references
        known = json.loads(json.dumps(job))
        with self._explained():
            if resume is False or not self._read(known):
                if resume:
                    raise UnwritableFile(
                        f"there is no unfinished job of {self._output} with this input and these "
                        f"options: leave --resume out to begin"
                    )
                self._begin_anew(known)
        self._has_begun = True

    @property
    def frames(self) -> int:
        """How many frames are in whole segments."""
        return sum(row.frames for row in self.rows)

    def add(
        self,
        packets: Sequence[Packet],
        report: Sequence[str],
        *,
        faces: int,
        frames_without_face: int,
        found: bytes = b"",
    ) -> None:
        """Take in a whole segment.

        Args:
            packets: in the order of decoding.
            report: a line for each frame.
            found: what was found in its frames, for a run that goes on; opaque.

        Raises:
            UnwritableFile: a full disk, or another job took over.
        """
        self.check()
        number = len(self.rows)
        with self._explained():
            write_whole(self._report_path(number), "".join(report).encode())
            if found:
                write_whole(self._found_path(number), found)
            size, crc = write_segment(self._path(number), packets)
            sync_folder(self.folder)
            row = SegmentRow(
                frames=len(report), faces=faces, frames_without_face=frames_without_face,
                depth=reorder_depth(list(packets)), size=size, crc=crc,
                found_crc=zlib.crc32(found),
            )  # fmt: skip
            self._append(asdict(row))
        self.rows.append(row)

    def check(self) -> None:
        """Raise UnwritableFile where another job took over: this process stood still for long."""
        self._lease.check()

    def packets(self) -> Iterator[list[Packet]]:
        """The packets of each whole segment."""
        for number in range(len(self.rows)):
            yield read_segment(self._path(number))

    def found(self) -> Iterator[bytes]:
        """What `add` was told of each whole segment."""
        for number in range(len(self.rows)):
            yield self._found_path(number).read_bytes()

    def report(self) -> Iterator[str]:
        """The lines of the report of each frame of the whole segments."""
        for number in range(len(self.rows)):
            with self._report_path(number).open(encoding="utf-8") as lines:
                yield from lines

    def keep_unfinished(self) -> None:
        """Stay there: the output, which exists now, holds a part, and a next run may go on.

        Raises:
            UnwritableFile: a full disk; it stays all the same, and the next run needs `force`.
        """
        self._keep = True
        try:
            status = self._output.stat()
            self._append({"unfinished": [status.st_size, status.st_mtime_ns]})
        except OSError as error:
            raise UnwritableFile(
                f"{self._output} holds the frames so far, and it could not be noted that it is "
                f"unfinished ({error.strerror}): go on with --force"
            ) from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnwritableFile(
                explain_failure(error.errno, error.strerror, self._output)
            ) from error

    def _make_folder(self) -> None:
        with suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
        status = self.folder.lstat()
        if not self.folder.is_dir() or self.folder.is_symlink() or status.st_uid != os.geteuid():
            raise UnwritableFile(f"{self.folder} is in the way, and not ours: remove it first")

    def _remove_if_new(self) -> None:
        """Remove a folder with nothing in it to go on from."""
        path = self.folder / _JOURNAL
        with suppress(OSError):
            if not path.exists() or not _read_rows(path):
                shutil.rmtree(self.folder)

    def _begin_anew(self, job: dict[str, Any]) -> None:
        self.rows = []
        for path in self.folder.iterdir():
            if path.name != "lease":
                path.unlink()
        for name, rows in ((_SOURCES, self.sources), (_REFERENCES, self.references)):
            content = io.BytesIO()
            np.save(content, rows)
            write_whole(self.folder / name, content.getvalue())
        self._append({"frameswap_journal": 1, "job": job})
        sync_folder(self.folder)
        sync_folder(self.folder.parent)

    def _read(self, job: dict[str, Any]) -> bool:
        """Take over the whole segments of an earlier run of the same job."""
        try:
            rows = _read_rows(self.folder / _JOURNAL)
            sources = np.load(self.folder / _SOURCES, allow_pickle=False)
            references = np.load(self.folder / _REFERENCES, allow_pickle=False)
        except (OSError, ValueError, EOFError, UnreadableFile):
            return False
        if not rows or rows[0].get("frameswap_journal") != 1 or rows[0].get("job") != job:
            return False
        if not _are_alike(sources, self.sources) or not _are_alike(references, self.references):
            return False
        for row in rows[1:]:
            if "unfinished" in row:
                continue
            try:
                segment = SegmentRow(**row)
            except TypeError:  # no row that we write
                break
            if not self._is_whole(len(self.rows), segment):
                break
            self.rows.append(segment)
        self.sources = np.asarray(sources, np.float32)
        self.references = np.asarray(references, np.float32)
        self._rewrite(rows[0])
        return bool(self.rows)

    def _is_whole(self, number: int, row: SegmentRow) -> bool:
        try:
            data = self._path(number).read_bytes()
            lines = self._report_path(number).read_text(encoding="utf-8").count("\n")
            found = self._found_path(number).read_bytes() if row.found_crc else b""
        except (OSError, ValueError):
            return False
        if zlib.crc32(found) != row.found_crc:
            return False
        return (len(data), zlib.crc32(data), lines) == (row.size, row.crc, row.frames)

    def _rewrite(self, head: Mapping[str, Any]) -> None:
        """Leave what is true: no line that was cut off, and no segment that is not whole."""
        new = self.folder / f"{_JOURNAL}.new"
        lines = [head, *(asdict(row) for row in self.rows)]
        write_whole(new, "".join(json.dumps(line) + "\n" for line in lines).encode())
        new.replace(self.folder / _JOURNAL)

    def _append(self, row: Mapping[str, Any]) -> None:
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.segment"

    def _report_path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.jsonl"

    def _found_path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.found"


def _are_alike(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Whether two encodings are of the same photos."""
    tolerance = _SOURCE_TOLERANCE * float(np.abs(second).max(initial=1e-6))
    return first.shape == second.shape and np.allclose(first, second, rtol=0.0, atol=tolerance)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal up to the first that is not whole."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    return rows


def _remove_forgotten(folder: Path) -> None:
    """Remove the journals of jobs that died long ago and were not gone on with."""
    with suppress(OSError):
        for path in folder.iterdir():
            if not _FOLDER.fullmatch(path.name) or path.is_symlink() or is_held(path):
                continue
            newest = max((each.stat().st_mtime for each in path.iterdir()), default=0.0)
            if time.time() - max(newest, path.stat().st_mtime) > KEPT_S:
                shutil.rmtree(path, ignore_errors=True)
