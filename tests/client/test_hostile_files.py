"""Files that wait, never end, claim any size, or name other files: refused at little cost."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import Clip, write_clip
from frameswap.errors import UnreadableFile
from frameswap.photo import MOST_PIXELS, read_photo
from frameswap.picture_header import picture_size
from frameswap.video import VideoReader
from frameswap.video_input import _FORMATS_OF_OTHER_FILES, _read_formats

READERS = [read_photo, VideoReader]
Reader = Callable[[Path], object]


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, read: Reader) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableFile, match="is a pipe or a device"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/urandom"])
def test_a_device_is_refused(device: str, read: Reader) -> None:
    with pytest.raises(UnreadableFile, match="is a pipe or a device"):
        read(Path(device))


def png(width: int, height: int) -> bytes:
    """A black picture of 1 bit a pixel, whole and of few bytes."""
    compressor = zlib.compressobj(9)
    line = bytes(1 + (width + 7) // 8)
    data = b"".join(compressor.compress(line) for _ in range(height)) + compressor.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


READ_WITH_PEAK = """
import sys
from pathlib import Path
from frameswap.errors import UnreadableFile
from frameswap.photo import read_photo
from frameswap.video import VideoReader
# Not getrusage's: that begins with what the process had that started this one.
def peak_kib():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
before = peak_kib()
read = {"photo": read_photo, "video": VideoReader}[sys.argv[1]]
try:
    read(Path(sys.argv[2]))
except UnreadableFile as error:
    print(error)
print((peak_kib() - before) // 1024)
"""


def read_with_peak(kind: str, path: Path) -> tuple[str, int]:
    """The refusal, and by how many MiB the memory of a fresh process grew at most."""
    done = subprocess.run(
        [sys.executable, "-c", READ_WITH_PEAK, kind, str(path)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    *told, peak = done.stdout.splitlines()
    return "".join(told), int(peak)


def test_a_photo_of_any_size_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(30_000, 30_000))
    assert path.stat().st_size < 1_000_000
    told, peak_mib = read_with_peak("photo", path)
    assert "says that it has 30000 x 30000 pixels, and photos of up to 268 million are read" in told
    assert peak_mib < 32


PHOTOS = [
    ".png", ".jpg", ".webp", ".bmp", ".tiff", ".gif", ".avif", ".jp2", ".pbm", ".pgm", ".ppm",
    ".pam", ".pfm", ".hdr", ".sr",
]  # fmt: skip
"""One suffix of each format that OpenCV's wheels read: `cv2.getBuildInformation`."""


def encoded_photo(suffix: str, width: int, height: int, *options: int) -> bytes:
    picture = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    if suffix in (".pbm", ".pgm"):
        picture = picture[..., 0]
    given = picture.astype(np.float32) / 255 if suffix in (".pfm", ".hdr") else picture
    _, encoded = cv2.imencode(suffix, given, options)
    return bytes(encoded.tobytes())


@pytest.mark.parametrize("suffix", PHOTOS)
@pytest.mark.parametrize("size", [(35, 50), (64, 48), (257, 40)])
def test_headers_are_read_as_opencv_writes_them(suffix: str, size: tuple[int, int]) -> None:
    for options in ([], [cv2.IMWRITE_WEBP_QUALITY, 50]) if suffix == ".webp" else ([],):
        assert picture_size(encoded_photo(suffix, *size, *options)) == size


def with_numbers(form: str, *places: int) -> Callable[[bytes], bytes]:
    """Puts 30,000 into a header at each of these places."""

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        for place in places:
            struct.pack_into(form, changed, place, 30_000)
        return bytes(changed)

    return change


def after(mark: bytes, form: str, *places: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        start = content.index(mark) + len(mark)
        return with_numbers(form, *(start + place for place in places))(content)

    return change


BOMBS: dict[str, Callable[[bytes], bytes]] = {
    ".bmp": with_numbers("<i", 18, 22),
    ".gif": with_numbers("<H", 6, 8),
    ".avif": after(b"ispe", ">I", 4, 8),
    ".jp2": after(b"\xff\x4f\xff\x51", ">I", 4, 8),
    ".jpg": after(b"\xff\xc0", ">H", 3, 5),
    ".sr": with_numbers(">I", 4, 8),
    ".pbm": lambda _: b"P4 30000 30000\n",
    ".pgm": lambda _: b"P5 # a remark\n30000\n#another 1 2\n30000 255\n",
    ".ppm": lambda _: b"P6\n30000 30000\n255\n",
    ".pam": lambda _: b"P7\nWIDTH 30000\nHEIGHT 30000\nDEPTH 3\nMAXVAL 255\nENDHDR\n",
    ".pfm": lambda _: b"PF\n30000 30000\n-1.0\n",
    ".hdr": lambda content: content.replace(b"-Y 48 +X 64", b"-Y 30000 +X 30000"),
}


@pytest.mark.parametrize("suffix", BOMBS)
def test_a_photo_of_any_format_that_claims_any_size_is_refused(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(BOMBS[suffix](encoded_photo(suffix, 64, 48)) + bytes(100))
    with pytest.raises(UnreadableFile, match="says that it has 30000 x 30000 pixels"):
        read_photo(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_big_tiff_header_is_read(order: str) -> None:
    mark = b"II" if order == "<" else b"MM"
    entries = struct.pack(f"{order}HHQI4x", 256, 4, 1, 70_000)
    entries += struct.pack(f"{order}HHQQ", 257, 16, 1, 80_000)
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, 16)
    assert picture_size(mark + head + struct.pack(f"{order}Q", 2) + entries) == (70_000, 80_000)


def test_a_picture_without_a_size_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded_photo(".png", 64, 48))
    monkeypatch.setattr("frameswap.photo.picture_size", lambda content: None)
    with pytest.raises(UnreadableFile, match="is damaged, cut off, or no picture"):
        read_photo(path)


def test_a_long_jpeg_without_a_size_costs_no_time() -> None:
    began = time.monotonic()
    assert picture_size(b"\xff\xd8" + bytes(50_000_000)) is None
    assert picture_size(b"\xff\xd8\xff\xda\0\x02" + b"\x11" * 50_000_000) is None
    # Byte by byte it is ten seconds and more.
    assert time.monotonic() - began < 3


def test_an_extended_webp_header_is_read() -> None:
    header = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" + b"\xff\x1f\0"
    assert picture_size(header) == (0x4000, 0x2000)


@pytest.mark.parametrize(
    "damaged",
    [
        b"", b"\x89PNG", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\x04", b"\xff\xd8\0\0", b"BM", b"II*\0",
        b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPVP8 ", b"II*\0\xff\xff\xff\xff", b"GIF89a", b"text",
        b"P6 3", b"II*\0\x08\0\0\0\x01\0\0\x01\x02\0\x01\0\0\0\x05\0\0\0",
        b"P7\nWIDTH 3\n", b"PF", b"#?RADIANCE\n\n-Y", b"\0\0\0\x0cjP  ", b"\0\0\0\x20ftypavif",
    ],
)  # fmt: skip
def test_a_damaged_or_unknown_header_tells_nothing(damaged: bytes) -> None:
    assert picture_size(damaged) is None


def test_photos_of_phones_are_within_the_limit() -> None:
    assert MOST_PIXELS > 16_320 * 12_240


def with_size_in_its_header(path: Path, side: int) -> Path:
    """The clip's container and its sample entry claim that its frames are `side` x `side`."""
    content = bytearray(path.read_bytes())
    entry = content.find(b"avc1", content.find(b"stsd"))
    content[entry + 28 : entry + 32] = side.to_bytes(2, "big") * 2
    path.write_bytes(bytes(content))
    return path


@pytest.mark.parametrize(("codec", "suffix"), [("png", ".mov"), ("mjpeg", ".mkv")])
def test_a_video_of_any_size_is_refused_by_its_header(
    tmp_path: Path, codec: str, suffix: str
) -> None:
    path, side = tmp_path / f"big{suffix}", 8_400
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width = stream.height = side
        stream.pix_fmt = {"png": "gray", "mjpeg": "yuvj420p"}[codec]
        frame = av.VideoFrame(side, side, stream.pix_fmt)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux([*stream.encode(frame), *stream.encode(None)])
    told, peak_mib = read_with_peak("video", path)
    assert f"frames have {side} x {side} pixels, and frames of up to 67 million are read" in told
    # A frame of it has 144 MB.
    assert peak_mib < 64


def test_a_container_that_claims_more_than_its_frames_have_costs_nothing(tmp_path: Path) -> None:
    path = with_size_in_its_header(write_clip(tmp_path / "in.mp4", Clip(frames=3)), 16_384)
    *_, peak_mib = read_with_peak("video", path)
    assert peak_mib < 64


def limited(container: Any) -> Any:
    stream = container.streams.video[0]
    stream.codec_context.options = {"max_pixels": "64"}
    return stream


def test_frames_that_are_larger_than_their_container_says_are_refused_by_the_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "in.mp4", Clip(frames=3))
    monkeypatch.setattr("frameswap.video_input.MOST_PIXELS", 64)
    with pytest.raises(UnreadableFile, match=r"frames have \d+ x \d+ pixels"):
        VideoReader(path)
    # A header may lie: then the decoder is what refuses.
    monkeypatch.setattr("frameswap.video.choose_stream", lambda container, path: limited(container))
    with pytest.raises(UnreadableFile):
        VideoReader(path)


SCRIPTS = {
    "playlist.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n",
    "renamed.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n",
    "script.mp4": "ffconcat version 1.0\nfile '{other}'\n",
    "script.mkv": "ffconcat version 1.0\nfile {name}\n",
    "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 29992 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_names_other_files_opens_none(tmp_path: Path, name: str) -> None:
    other = write_clip(tmp_path / "other.ts", Clip(frames=3))
    path = tmp_path / name
    path.write_text(SCRIPTS[name].format(other=other, name=other.name))
    seen = other.stat().st_atime_ns
    with pytest.raises(UnreadableFile, match=r"names other files, which are not|is no video"):
        VideoReader(path)
    assert other.stat().st_atime_ns == seen


@pytest.mark.parametrize("name", ["concat:in.mp4", "http:x.mp4", "%05d.mp4", "-in.mp4", "a|b.mp4"])
def test_a_name_is_a_files_and_never_a_protocols_or_a_patterns(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(frames=3))
    monkeypatch.chdir(tmp_path)
    clip.rename(tmp_path / name)
    with VideoReader(Path(name)) as reader:
        assert len(list(reader.frames())) == 3


def test_every_format_but_those_of_other_files_is_read() -> None:
    formats = set(_read_formats().split(","))
    assert _FORMATS_OF_OTHER_FILES & formats == set()
    assert {"mov", "mp4", "webm", "avi", "mpegts", "gif"} <= formats
