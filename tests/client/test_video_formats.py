"""A zoo of videos, each made here, copied as a swap would, and read back by ffprobe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import Clip, write_clip
from frameswap.encoders import Encoding
from frameswap.read_options import ReadOptions
from other_readers import frame_times, kinds, make, probe, video_of
from test_video import copy_video

pytestmark = pytest.mark.e2e

PICTURES = "-f lavfi -i testsrc2=s=96x64:r=30:d=0.5"
TONE = "-f lavfi -i sine=d=0.5"
X264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p"
WHOLE = ReadOptions()
MILLISECOND = Fraction(1, 1000)


@dataclass(frozen=True)
class Case:
    """An input, as ffmpeg's arguments, and what becomes of it.

    lost: of "tags", "sound", "aspect" and "rate", what the output cannot hold, or the input does
    not say; notes: parts of the sentences, one each, in order.
    """

    name: str
    arguments: str
    output: str = "out.mp4"
    notes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    frames: int = 15
    codec: str | None = None
    read: ReadOptions = WHOLE


def clip(more: str = "", *, size: str = "96x64", rate: str = "30") -> str:
    return f"-f lavfi -i testsrc2=s={size}:r={rate}:d=0.5 {more}"


TEN_BIT = "10-bit video"
AS_420 = "is swapped and written as 4:2:0"
CASES = (
    # Codecs.
    Case("h264.mp4", clip(X264)),
    Case("b_frames.mp4", clip("-c:v libx264 -bf 3 -b_strategy 0 -pix_fmt yuv420p")),
    Case("open_gop.mp4", clip("-c:v libx264 -g 5 -bf 2 -x264-params open-gop=1 -pix_fmt yuv420p")),
    Case("hevc.mp4", clip("-c:v libx265 -preset ultrafast -x265-params log-level=0")),
    Case("hevc10.mkv", clip("-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le "
                            "-x265-params log-level=0"), notes=(TEN_BIT,)),
    Case("vp8.webm", clip("-c:v libvpx -b:v 200k"), lost=("tags",)),
    Case("vp9.webm", clip("-c:v libvpx-vp9 -b:v 200k -cpu-used 8")),
    Case("av1.mkv", clip("-c:v libsvtav1 -preset 12", size="128x96")),
    Case("mpeg2.mpg", clip("-c:v mpeg2video", rate="25"), frames=13),
    Case("mpeg4.avi", clip("-c:v mpeg4"), lost=("aspect",)),
    Case("theora.ogv", clip("-c:v libtheora"), lost=("rate",)),
    Case("prores.mov", clip("-c:v prores_ks"), notes=(TEN_BIT,), lost=("tags",)),
    Case("ffv1.mkv", clip("-c:v ffv1 -pix_fmt yuv420p")),
    Case("mjpeg.avi", clip("-c:v mjpeg"), lost=("aspect", "tags")),
    Case("dnxhd.mov", clip("-c:v dnxhd -profile:v dnxhr_lb", size="256x128"),
         notes=(AS_420,), lost=("tags",)),
    Case("raw.nut", clip("-c:v rawvideo -pix_fmt yuv420p")),
    Case("raw.y4m", clip("-pix_fmt yuv420p"), lost=("aspect",)),
    Case("huffyuv.avi", clip("-c:v huffyuv -pix_fmt yuv422p"), notes=(AS_420,), lost=("aspect",)),
    Case("utvideo.avi", clip("-c:v utvideo -pix_fmt gbrp"), notes=(AS_420,),
         lost=("tags", "aspect")),
    Case("annexb.h264", clip(X264)),
    # Containers.
    Case("in.mov", clip(f"{TONE} {X264} -c:a pcm_s16le")),
    Case("in.ts", clip(f"{TONE} {X264} -c:a aac")),
    Case("in.flv", clip(f"{TONE} {X264} -c:a aac")),
    Case("in.3gp", clip("-c:v h263 -s 128x96"), lost=("aspect",)),
    Case("in.asf", clip(f"{TONE} -c:v wmv2 -c:a wmav2"), notes=("wmav2 audio: it is made AAC",),
         lost=("sound",)),
    Case("in.gif", clip(rate="10"), notes=(AS_420,), frames=5, lost=("tags", "aspect")),
    Case("in.apng", clip("-f apng"), notes=(AS_420,), lost=("tags", "aspect")),
    Case("fragmented.mp4", clip(f"{X264} -movflags frag_keyframe+empty_moov")),
    Case("faststart.mp4", clip(f"{X264} -movflags faststart")),
    # Times.
    Case("ntsc.mkv", clip(X264, rate="30000/1001")),
    Case("film.webm", clip("-c:v libvpx-vp9 -b:v 200k -cpu-used 8", rate="24000/1001"), frames=12),
    Case("rate_24.webm", clip("-c:v libvpx-vp9 -b:v 200k -cpu-used 8", rate="24"), frames=12),
    Case("odd_rate.mp4", clip(X264, rate="17"), frames=9),
    Case("rate_120.mp4", clip(X264, rate="120"), frames=60),
    Case("vfr.mp4", clip(f"-vf select='not(eq(mod(n\\,4)\\,2))' -fps_mode vfr {X264} -bf 0"),
         frames=11, lost=("rate",)),
    Case("vfr_b_frames.mp4", clip("-vf select='not(eq(mod(n\\,4)\\,2))' -fps_mode vfr "
                                  "-c:v libx264 -bf 3 -b_strategy 0 -pix_fmt yuv420p"), frames=11),
    Case("vfr_gap.mp4", clip("-vf setpts='PTS+if(gt(N\\,6)\\,7\\,0)/30/TB' -fps_mode passthrough "
                             "-c:v libx264 -bf 3 -b_strategy 0 -pix_fmt yuv420p")),
    Case("vfr.mkv", clip(f"-vf select='not(eq(mod(n\\,4)\\,2))' -fps_mode vfr {X264}"), frames=11,
         lost=("rate",)),
    Case("late.ts", clip(f"{X264} -output_ts_offset 95000")),
    Case("edit_list.mp4", f"-ss 0.1 {PICTURES} {X264} -bf 2", frames=12),
    Case("part.mp4", clip(f"{TONE} {X264} -c:a aac"), frames=6,
         read=ReadOptions(start_s=Fraction(1, 10), end_s=Fraction(3, 10))),
    # Pixels.
    Case("full_range.mp4", clip("-c:v libx264 -pix_fmt yuvj420p -color_range pc")),
    Case("444.mp4", clip("-c:v libx264 -pix_fmt yuv444p"), notes=(AS_420,)),
    Case("422.mp4", clip("-c:v libx264 -pix_fmt yuv422p"), notes=(AS_420,)),
    Case("gray.mkv", clip("-c:v ffv1 -pix_fmt gray"), notes=(AS_420,)),
    Case("12bit.mkv", clip("-c:v ffv1 -pix_fmt yuv420p12le"), notes=("12-bit video",)),
    Case("rgb.mkv", clip("-c:v ffv1 -pix_fmt bgr0"), notes=(AS_420,), lost=("tags",)),
    Case("bt709.mp4", clip(f"{X264} -colorspace bt709 -color_primaries bt709 -color_trc bt709")),
    Case("bt601.mp4", clip(f"{X264} -colorspace smpte170m -color_primaries smpte170m "
                           "-color_trc smpte170m -color_range tv")),
    Case("bt2020_sdr.mp4", clip(f"{X264} -colorspace bt2020nc -color_primaries bt2020 "
                                "-color_trc bt2020-10")),
    Case("odd_size.mkv", "-f lavfi -i testsrc=s=97x65:r=30:d=0.5 -c:v ffv1 -pix_fmt yuv420p",
         notes=("is written as 98 x 66",)),
    Case("tiny.mp4", clip(X264, size="64x36")),
    Case("wide_pixels.mp4", clip(f"{X264} -vf setsar=4/3")),
    Case("interlaced.mp4", clip("-c:v libx264 -flags +ildct+ilme -x264-params tff=1 "
                                "-pix_fmt yuv420p"), notes=("interlaced video",)),
    Case("alpha.webm", "-f lavfi -i color=red@0.5:s=96x64:r=30:d=0.5,format=yuva420p "
         "-c:v libvpx-vp9 -b:v 200k -auto-alt-ref 0", notes=("has transparency: x264",)),
    Case("alpha.mov", "-f lavfi -i color=red@0.5:s=96x64:r=30:d=0.5,format=yuva444p10 "
         "-c:v prores_ks", notes=("12-bit video", "has transparency: x264"), lost=("tags",)),
    # What lies beside the pictures.
    Case("two_sounds.mkv", clip(f"{TONE} {TONE} -map 0 -map 1 -map 2 {X264} -c:a aac")),
    Case("opus.mkv", clip(f"{TONE} {X264} -c:a libopus")),
    Case("flac.mkv", clip(f"{TONE} {X264} -c:a flac")),
    Case("ac3.mp4", clip(f"{TONE} {X264} -c:a ac3")),
    Case("pcm_u8.mkv", clip(f"{TONE} {X264} -c:a pcm_u8"), notes=("pcm_u8 audio: it is made AAC",),
         lost=("sound",)),
    Case("sound.mp4", clip(f"{TONE} {X264} -c:a aac"), "out.webm", ("it is made OPUS",),
         ("sound",)),
    Case("sound_avi.mp4", clip(f"{TONE} {X264} -c:a aac"), "out.avi", ("it is made MP3",),
         ("sound",)),
    Case("sound_ts.mp4", clip(f"{TONE} {X264} -c:a aac"), "out.ts"),
    Case("opus_to_mov.mkv", clip(f"{TONE} {X264} -c:a libopus"), "out.mov",
         ("opus audio: it is made AAC",), ("sound",)),
    Case("late_24.webm", clip(f"{TONE} -c:v libvpx-vp9 -b:v 200k -cpu-used 8 -c:a libopus",
                              rate="24"), frames=12),
    Case("to_mkv.mp4", clip(f"{TONE} {X264} -c:a aac"), "out.mkv"),
    Case("to_x265.mp4", clip(X264), codec="x265"),
    Case("to_av1.mp4", clip(X264, size="128x96"), codec="av1"),
    Case("to_ffv1.mp4", clip(X264), "out.mkv", codec="ffv1"),
    Case("to_prores.mp4", clip(X264), "out.mov", codec="prores"),
    Case("to_gif.mp4", clip(X264), "out.gif", lost=("tags", "aspect")),
    Case("to_y4m.mp4", clip(X264), "out.y4m", lost=("tags", "aspect")),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_video_keeps_what_its_output_can_hold(tmp_path: Path, case: Case) -> None:
    path = make(tmp_path / case.name, case.arguments)
    output = tmp_path / case.output
    notes = copy_video(path, output, encoding=Encoding(case.codec), read=case.read)
    assert len(notes) == len(case.notes), notes
    assert all(part in note for part, note in zip(case.notes, notes, strict=True)), notes
    before, after = probe(path), probe(output)
    times = frame_times(output)
    assert len(times) == case.frames
    if case.read == WHOLE and case.name != "annexb.h264":
        check_times(path, output, times)
    check_picture(video_of(before), video_of(after), case.lost)
    if "sound" not in case.lost:
        assert kinds(after, "audio") == kinds(before, "audio")
    assert len(kinds(after, "audio")) == len(kinds(before, "audio"))
    assert "Edited" in str(after["format"].get("tags", {})) or case.output in (
        "out.gif", "out.y4m", "out.ts"
    )  # fmt: skip


def test_a_video_is_as_long_as_its_input(tmp_path: Path) -> None:
    for name, arguments in (
        ("vfr.mp4", clip(f"-vf select='not(eq(mod(n\\,4)\\,2))' -fps_mode vfr {X264} -bf 0")),
        ("vfr_b_frames.mp4", clip("-vf select='not(eq(mod(n\\,4)\\,2))' -fps_mode vfr "
                                  "-c:v libx264 -bf 3 -b_strategy 0 -pix_fmt yuv420p")),
        ("steady.mp4", clip(X264)),
        ("film.webm", clip("-c:v libvpx-vp9 -b:v 200k -cpu-used 8", rate="24")),
    ):
        path = make(tmp_path / name, arguments)
        copy_video(path, tmp_path / f"{name}.mp4")
        lengths = [
            Fraction(probe(file)["format"]["duration"]) for file in (path, tmp_path / f"{name}.mp4")
        ]
        assert abs(lengths[0] - lengths[1]) <= MILLISECOND
    # WebM's milliseconds are 24 frames a second again.
    assert video_of(probe(tmp_path / "film.webm.mp4"))["avg_frame_rate"] == "24/1"


def check_times(path: Path, output: Path, times: list[Fraction]) -> None:
    """Frames at their times, to the millisecond that Matroska rounds to, or GIF's hundredth."""
    limit = MILLISECOND * (10 if output.suffix == ".gif" else 1)
    for ours, theirs in zip(times, frame_times(path), strict=True):
        assert abs(ours - theirs) <= limit


def check_picture(before: dict[str, Any], after: dict[str, Any], lost: tuple[str, ...]) -> None:
    if "rate" not in lost:
        rates = [Fraction(found["avg_frame_rate"]) for found in (before, after)]
        assert abs(rates[0] - rates[1]) <= rates[0] / 100
    if "tags" not in lost:
        for tag in ("color_space", "color_transfer", "color_primaries"):
            assert after.get(tag) == before.get(tag)
        ranges = [found.get("color_range") or "tv" for found in (before, after)]
        assert ranges[0] == ranges[1]
    if "aspect" not in lost:
        shapes = [found.get("sample_aspect_ratio", "1:1") for found in (before, after)]
        assert shapes[0] == shapes[1]


def test_subtitles_chapters_and_titles_are_kept_where_they_can_be(tmp_path: Path) -> None:
    (tmp_path / "s.srt").write_text("1\n00:00:00,100 --> 00:00:00,400\nHello\n")
    (tmp_path / "c.txt").write_text(
        ";FFMETADATA1\ntitle=A film\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=250\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=250\nEND=500\ntitle=Two\n"
    )
    path = make(
        tmp_path / "in.mkv",
        f"{PICTURES} -i {tmp_path}/s.srt -i {tmp_path}/c.txt -map_metadata 2 -map 0 -map 1 {X264} "
        "-c:s srt",
    )
    for output, subtitles, notes in (
        ("out.mkv", ["subrip"], []),
        ("out.mp4", [], [".mp4 cannot hold the input's srt subtitles: they are left out; "
                         ".mkv can hold them"]),
    ):  # fmt: skip
        assert copy_video(path, tmp_path / output) == notes
        found = probe(tmp_path / output)
        assert kinds(found, "subtitle") == subtitles
        assert [chapter["tags"]["title"] for chapter in found["chapters"]] == ["One", "Two"]
        assert found["format"]["tags"]["title"] == "A film"


def test_a_cover_picture_is_left_out_and_said(tmp_path: Path) -> None:
    cover = make(tmp_path / "cover.png", "-f lavfi -i testsrc2=s=32x32 -frames:v 1")
    path = make(
        tmp_path / "in.mp4",
        f"{PICTURES} -i {cover} -map 0 -map 1 {X264} -c:v:1 copy -disposition:v:1 attached_pic",
    )
    assert copy_video(path, tmp_path / "out.mp4") == ["left out of the input: 1 further video "
                                                      "stream"]  # fmt: skip


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_stays_turned(tmp_path: Path, degrees: int) -> None:
    flat = make(tmp_path / "flat.mp4", f"{PICTURES} {X264}")
    path = make(tmp_path / "in.mp4", f"-i {flat} -c copy -metadata:s:v rotate={degrees}")
    copy_video(path, tmp_path / "out.mp4")
    turned = [
        video_of(probe(tmp_path / name))["side_data_list"][0]["rotation"]
        for name in ("in.mp4", "out.mp4")
    ]
    assert turned[0] == turned[1]
    assert turned[0] % 360 in (degrees, 360 - degrees)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_mirrored_video_stays_mirrored(tmp_path: Path, rotation: int, suffix: str) -> None:
    path = write_clip(tmp_path / "in.mp4", Clip(frames=6, rotation=rotation, mirrored=True))
    output = tmp_path / f"out{suffix}"
    copy_video(path, output)
    (before,), (after,) = (video_of(probe(file))["side_data_list"] for file in (path, output))
    assert before["side_data_type"] == "Display Matrix"
    assert after["displaymatrix"] == before["displaymatrix"]


def test_damaged_frames_are_said_and_the_video_stays_as_long(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4", "-f lavfi -i testsrc2=s=320x240:r=30:d=2 "
                "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 10")  # fmt: skip
    content = bytearray(path.read_bytes())
    index = content.rindex(b"moov")
    for place in np.random.default_rng(3).integers(3000, index - 100, 60):
        content[place] ^= 0x55
    path.write_bytes(content)
    (note,) = copy_video(path, tmp_path / "out.mp4")
    assert re.match(r"\d+ frames of in\.mp4 are damaged", note)
    lengths = [
        Fraction(video_of(probe(tmp_path / name))["duration"]) for name in ("in.mp4", "out.mp4")
    ]
    assert lengths[0] == lengths[1] == 2


def test_a_transport_stream_that_was_cut_keeps_what_is_there(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole.ts", clip(f"{TONE} {X264} -g 5 -bf 0 -c:a aac", rate="30"))
    path = tmp_path / "in.ts"
    # In the middle of a packet.
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 5 // 188 * 188 + 90])
    copy_video(path, tmp_path / "out.mp4")
    kept = len(frame_times(tmp_path / "out.mp4"))
    assert 0 < kept < 15
    assert kept == len(frame_times(path))
    assert kinds(probe(tmp_path / "out.mp4"), "audio") == ["aac"]


@pytest.mark.parametrize(("name", "output", "codec"), [
    ("in.webm", "out.webm", None), ("in.webm", "out.webp", None), ("in.webm", "out.gif", None),
    ("in.webm", "out.mov", "prores"), ("in.webm", "out.mkv", "ffv1"),
    ("in.webm", "out_%04d.png", None),
])  # fmt: skip
def test_transparency_is_kept_where_the_output_can_hold_it(
    tmp_path: Path, name: str, output: str, codec: str | None
) -> None:
    path = make(
        tmp_path / name,
        "-f lavfi -i color=red:s=96x64:r=10:d=0.5,format=yuva420p,geq=lum='p(X,Y)':a='255*gt(X,48)'"
        " -c:v libvpx-vp9 -b:v 200k -auto-alt-ref 0",
    )
    notes = copy_video(path, tmp_path / output, encoding=Encoding(codec))
    assert not [note for note in notes if "transparency" in note]
    shown = tmp_path / (output.replace("%04d", "0001"))
    again = tmp_path / "again.mkv"
    if output.endswith((".png", ".webp", ".gif")):
        from PIL import Image

        with Image.open(shown) as opened:
            alpha = opened.convert("RGBA").getchannel("A")
            assert (alpha.getpixel((10, 30)), alpha.getpixel((80, 30))) == (0, 255)
        return
    copy_video(shown, again, encoding=Encoding("ffv1"))
    decoded = make(tmp_path / "a.gray", f"-i {again} -vf alphaextract -f rawvideo -frames:v 1")
    rows = decoded.read_bytes()[96 * 30 : 96 * 31]
    assert rows[10] <= 8
    assert rows[80] >= 247
