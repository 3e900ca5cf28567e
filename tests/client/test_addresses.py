"""Videos that are read from an address: what is fetched, and what is never opened."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from clips import Clip, read_contents, write_clip
from commands import arguments
from fake_server import FakeServer
from frameswap import ReadOptions, UnreadableFile, Url
from frameswap.addresses import as_target
from frameswap.video import VideoReader


@dataclass
class Site:
    """Files on loopback. moved: where a name is now; cut: names whose answer breaks off once.
    closes: whether it says that a connection ends with its answer."""

    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    hangs: threading.Event = field(default_factory=threading.Event)
    closes: bool = False
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def url(self, name: str) -> Url:
        return Url(f"{self.address}/{name}")


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = urlsplit(self.path).path[1:]
            site.asked.append(self.path[1:])
            if name == "hangs":
                site.hangs.wait()
            if name in site.moved:
                self.send_response(302)
                self.send_header("Location", site.moved[name])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = site.files.get(name)
            if content is None:
                self.send_error(404)
                return
            first = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
            part = content[first:]
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Accept-Ranges", "bytes")
            if site.closes:
                self.send_header("Connection", "close")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if name in site.cut:
                site.cut.remove(name)
                part = part[: len(part) // 2]
                self.close_connection = True
            try:
                self.wfile.write(part)
            except OSError:  # the reader has seen enough
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A reader that has seen enough is no error."""


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()
    with Server(("127.0.0.1", 0), handler(served)) as server:
        served.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield served
        served.hangs.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "in.mp4", Clip())


@pytest.mark.parametrize("closes", [True, False])
def test_a_video_at_an_address_is_swapped_as_its_file_is(
    run, server: FakeServer, photo: Path, site: Site, clip: Path, tmp_path: Path,
    closes: bool,
) -> None:  # fmt: skip
    site.closes = closes
    site.files["a//b.mp4"] = clip.read_bytes()
    address = f"{site.address}/a//b.mp4?token=x//y"
    # x264 makes the same of the same frames only where new memory is zeroed: of jobs in segments.
    codec = ("--codec", "ffv1")
    assert run(*arguments(photo, clip, tmp_path / "file.mkv", server), *codec)[0] == 0
    code, _, err = run(*arguments(photo, address, tmp_path / "address.mkv", server), *codec)
    assert (code, err) == (0, "")
    file, fetched = (read_contents(tmp_path / name) for name in ("file.mkv", "address.mkv"))
    np.testing.assert_array_equal(file.frames, fetched.frames)
    assert (file.times_s, file.sounds) == (fetched.times_s, fetched.sounds)
    assert set(site.asked) == {"a//b.mp4?token=x//y"}
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"face.png", "in.mp4", "file.mkv", "address.mkv"}


def test_a_part_of_it_is_cut_exactly(site: Site, clip: Path) -> None:
    site.files["in.mp4"] = clip.read_bytes()
    part = ReadOptions(start_s=Fraction(1, 10), end_s=Fraction(3, 10))
    frames = []
    for target in (clip, site.url("in.mp4")):
        with VideoReader(target, part) as reader:
            frames.append([frame.as_array() for frame in reader.frames()])
    np.testing.assert_array_equal(*frames)
    assert len(frames[0]) == 6


def test_what_breaks_off_is_fetched_on_and_what_has_moved_is_found(site: Site, clip: Path) -> None:
    site.files["in.mp4"] = clip.read_bytes()
    site.moved["old.mp4"] = "/in.mp4"
    site.cut.add("in.mp4")
    with VideoReader(site.url("old.mp4")) as reader:
        assert len(list(reader.frames())) == 12
    assert not site.cut


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lost.mp4", r"/lost\.mp4 cannot be fetched \(.*404"),
        ("secret.mp4?key=abc", r"/secret\.mp4 cannot be fetched"),
        ("text.mp4", "is no video that FFmpeg reads, or is damaged"),
        ("photo.png", "is a picture: download it"),
        ("to_file.mp4", r"/to_file\.mp4 is damaged, or a playlist"),
    ],
)
def test_what_cannot_be_read_there_is_one_sentence(
    run, server: FakeServer, photo: Path, site: Site, clip: Path, tmp_path: Path,
    name: str, text: str,
) -> None:  # fmt: skip
    site.files |= {"text.mp4": b"no video at all" * 99, "photo.png": photo.read_bytes()}
    site.moved["to_file.mp4"] = f"file://{clip}"
    address = f"{site.address.replace('//', '//me:password@')}/{name}"
    code, _, err = run(*arguments(photo, address, tmp_path / "out.mp4", server))
    assert code == 1
    assert re.search(text, err), err
    assert len(err.splitlines()) == 1
    assert "password" not in err
    assert "key" not in err
    assert server.requests == 0
    assert not (tmp_path / "out.mp4").exists()


def test_nobody_there_and_nobody_answering_are_said(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnreadableFile, match=r"cannot be fetched \(Connection refused\)"):
        VideoReader(Url("http://127.0.0.1:1/in.mp4"))
    monkeypatch.setattr("frameswap.video_input._PATIENCE_S", 0.3)
    with pytest.raises(UnreadableFile, match=r"cannot be fetched \(no answer for 0\.3 s\)"):
        VideoReader(site.url("hangs"))


@pytest.mark.parametrize("address", ["rtsp://h/a", "file:///etc/passwd", "ftp://h/a.mp4"])
def test_other_kinds_of_addresses_are_refused(address: str) -> None:
    with pytest.raises(UnreadableFile, match="of those http and https are read"):
        VideoReader(Url(address))


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.4,\n{}\n#EXT-X-ENDLIST\n"
OPEN = ReadOptions(playlists=True)


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "part.ts", Clip())


def count(target: Path | Url, options: ReadOptions) -> int:
    with VideoReader(target, options) as reader:
        return len(list(reader.frames()))


def test_a_playlist_at_an_address_opens_its_parts_only_where_it_is_allowed_to(
    site: Site, stream: Path
) -> None:
    site.files |= {"list.m3u8": PLAYLIST.format("part.ts").encode(), "part.ts": stream.read_bytes()}
    with pytest.raises(UnreadableFile, match="--open-playlists"):
        VideoReader(site.url("list.m3u8"))
    assert "part.ts" not in site.asked
    assert count(site.url("list.m3u8"), OPEN) == 12


def test_a_playlist_at_an_address_never_opens_a_file(site: Site, stream: Path) -> None:
    site.files["list.m3u8"] = PLAYLIST.format(f"file://{stream}").encode()
    seen = stream.stat().st_atime_ns
    with pytest.raises(UnreadableFile):
        VideoReader(site.url("list.m3u8"), OPEN)
    assert stream.stat().st_atime_ns == seen


def test_a_playlist_in_a_file_opens_files_and_addresses_only_where_it_is_allowed_to(
    site: Site, stream: Path, tmp_path: Path
) -> None:
    site.files["part.ts"] = stream.read_bytes()
    for name, entry in (("near", "part.ts"), ("far", f"{site.address}/part.ts")):
        path = tmp_path / f"{name}.m3u8"
        path.write_text(PLAYLIST.format(entry))
        with pytest.raises(UnreadableFile, match="--open-playlists"):
            VideoReader(path)
        assert not site.asked
        assert count(path, OPEN) == 12


@pytest.mark.parametrize(
    ("text", "shown", "name"),
    [
        ("http://me:pass@host:80/a/c%20d.mp4?key=1#x", "http://host:80/a/c%20d.mp4", "c d.mp4"),
        ("https://me:p@ss@host?key=a/b", "https://host", "https://host"),
        ("http://[::1/a.mp4", "http://[::1/a.mp4", "a.mp4"),
    ],
)
def test_secrets_of_an_address_are_not_shown(text: str, shown: str, name: str) -> None:
    assert (str(Url(text)), Url(text).name) == (shown, name)


def test_an_address_is_told_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_target("http://h/a//b?c=d//e") == Url("http://h/a//b?c=d//e")
    assert as_target("http:a.mp4") == Path("http:a.mp4")
    assert as_target("-") == Path("-")
    (tmp_path / "http:").mkdir()
    (tmp_path / "http:" / "a.mp4").touch()
    assert as_target("http://a.mp4") == Path("http:/a.mp4")


def test_an_address_is_swapped_alone(
    run, server: FakeServer, photo: Path, clip: Path, site: Site, tmp_path: Path
) -> None:
    code, _, err = run("swap", "--source", photo, "--target", clip, f"{site.address}/a.mp4",
                       "--output", tmp_path / "out", "--server", server.address)  # fmt: skip
    assert code == 2
    assert "a.mp4 is swapped alone, not among several targets" in err
