"""Reading and writing videos, against PyAV's own reading of the files."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, picture, read_contents, read_sound, write_clip
from frameswap import UnreadableFile, UnwritableFile
from frameswap.contract import ChromaLocation, ColorMatrix, ColorRange
from frameswap.encoders import Encoding
from frameswap.output_file import ready_output
from frameswap.provenance import Edit
from frameswap.read_options import ReadOptions
from frameswap.video import VideoReader
from frameswap.video_writer import VideoWriter

LOSSLESS = Encoding("x264", quality=0)
EDIT = Edit("none", "compositeWithTrainedAlgorithmicMedia")


def read_frames(path: Path) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        frames = []
        for frame in reader.frames():
            out = np.full(frame.shape, 77, np.uint8)
            frame.copy_to(out)
            frames.append(out)
        return frames


def copy_video(path: Path, output: Path, **options: Any) -> list[str]:
    """Read and write as the swap does, with nothing in between."""
    read = options.pop("read", ReadOptions())
    with VideoReader(path, read) as reader, ready_output(output, force=False) as temporary:
        writer = VideoWriter(temporary, reader, shown=output, edit=EDIT, **options)
        for frame in reader.frames():
            upright = np.empty(frame.shape, np.uint8)
            frame.copy_to(upright)
            writer.write_frame(
                frame.restore(upright), frame.pts, duration=frame.duration, alpha=frame.alpha
            )
        writer.finish()
        return [*reader.notes, *writer.notes, *reader.damage]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "in.mp4", Clip())


def test_an_8_bit_420_frame_is_read_as_the_decoder_gave_it(clip: Path) -> None:
    expected = read_contents(clip).frames
    frames = read_frames(clip)
    assert len(frames) == 12
    for frame, reference in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame, reference)


@pytest.mark.parametrize(("width", "height"), [(65, 48), (64, 47), (63, 51), (62, 50), (34, 18)])
def test_odd_sizes_are_padded_by_repeating_the_last_row_and_column(
    tmp_path: Path, width: int, height: int
) -> None:
    # FFV1 is lossless and takes any size; 62 x 50 has H mod 4 = 2, where U ends in mid-row.
    path = write_clip(
        tmp_path / "odd.mkv", Clip(width=width, height=height, codec="ffv1", audio=None, frames=2)
    )
    with av.open(str(path)) as container:
        planes = [
            np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width]
            for p in next(container.decode(video=0)).planes
        ]
    luma = np.pad(planes[0], ((0, height % 2), (0, width % 2)), mode="edge")
    flat = np.concatenate([luma.ravel(), planes[1].ravel(), planes[2].ravel()])
    frame = read_frames(path)[0]
    assert frame.shape == (luma.shape[0] * 3 // 2, luma.shape[1])
    np.testing.assert_array_equal(frame.ravel(), flat)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_are_handed_out_upright_and_stored_as_before(
    tmp_path: Path, rotation: int, mirrored: bool
) -> None:
    path = write_clip(
        tmp_path / "r.mp4", Clip(rotation=rotation, mirrored=mirrored, frames=2, audio=None)
    )
    reference = read_contents(path)
    with VideoReader(path) as reader:
        frame = next(reader.frames())
        upright = np.empty(frame.shape, np.uint8)
        frame.copy_to(upright)
        np.testing.assert_array_equal(frame.restore(upright), reference.frames[0])
    luma = reference.frames[0][:48]
    # set_display_rotation turns counter-clockwise, then mirrors; np.rot90 turns the same way.
    shown = np.rot90(luma, rotation // 90)
    if mirrored:
        shown = np.fliplr(shown)
    np.testing.assert_array_equal(upright[: shown.shape[0]], shown)


def test_a_copied_video_keeps_its_frames_times_sound_and_tags(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "in.mp4",
        Clip(
            pts=(0, 500, 2002, 2500, 6006, 6007, 9009),
            matrix=1,
            range=1,
            primaries=1,
            transfer=1,
            rotation=90,
            aspect=Fraction(4, 3),
            audio_streams=2,
            metadata={"title": "A title", "comment": "An earlier comment"},
        ),
    )
    output = tmp_path / "out.mp4"
    assert copy_video(path, output, encoding=LOSSLESS) == []
    before, after = read_contents(path), read_contents(output)
    assert after.times_s == before.times_s
    assert len(after.sounds) == 2
    assert after.sounds == before.sounds
    assert (after.rotation, after.tags, after.aspect, after.size) == (
        before.rotation,
        before.tags,
        before.aspect,
        before.size,
    )
    assert before.tags == (1, 1, 1, 1)
    # CRF 0 is lossless: nothing but the encoder stands between the two.
    np.testing.assert_array_equal(after.frames, before.frames)
    assert after.metadata["title"] == "A title"
    assert after.metadata["comment"].startswith("Edited by AI: faces in this picture were replaced")
    assert after.metadata["comment"].endswith("An earlier comment")
    assert "compositeWithTrainedAlgorithmicMedia" in after.metadata["description"]


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv"])
def test_every_container_keeps_count_and_sound(tmp_path: Path, clip: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    copy_video(clip, output)
    after = read_contents(output)
    assert len(after.frames) == 12
    assert [data for _, data in after.sounds[0]] == [data for _, data in read_sound(clip, 0)]
    # Matroska counts in milliseconds, and where AAC's priming block would lie below zero FFmpeg
    # moves it there, and the pictures with it.
    before = read_contents(clip)
    limit = Fraction(1, 1000) if suffix == ".mkv" else 0
    shift = after.sounds[0][0][0] - before.sounds[0][0][0] if suffix == ".mkv" else 0
    assert 0 <= shift <= Fraction(1024, 48000) + limit
    for ours, theirs in zip(after.times_s, before.times_s, strict=True):
        assert abs(ours - shift - theirs) <= limit
    assert "Edited by AI" in {k.lower(): v for k, v in after.metadata.items()}["comment"]


def test_a_broadcast_stream_begins_at_zero_in_the_output(tmp_path: Path) -> None:
    late = {"max_delay": "700000"}
    path = write_clip(
        tmp_path / "in.ts", Clip(time_base=Fraction(1, 90000), container_options=late)
    )
    before = read_contents(path)
    # FFmpeg's MPEG-TS muxer begins twice its delay late.
    assert before.times_s[0] > 1
    copy_video(path, tmp_path / "out.mp4")
    after = read_contents(tmp_path / "out.mp4")
    first_sound = before.sounds[0][0][0]
    start = min(before.times_s[0], first_sound)
    # MP4 writes down in milliseconds how late a stream begins.
    limit = Fraction(1, 1000)
    for ours, theirs in zip(after.times_s, before.times_s, strict=True):
        assert abs(ours - (theirs - start)) <= limit
    assert abs(after.sounds[0][0][0] - (first_sound - start)) <= limit
    # What a TS carries before each block of AAC is in the MP4's header instead.
    assert [len(data) for _, data in after.sounds[0]] == [
        len(data) - 7 for _, data in before.sounds[0]
    ]


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("in.webm", Clip(codec="libvpx-vp9", audio="libopus")),
        ("in.avi", Clip(codec="mpeg4", audio="mp3", time_base=Fraction(1, 30))),
        ("in.mkv", Clip(codec="ffv1", audio="flac")),
        ("in.mov", Clip(codec="prores_ks", pixel_format="yuv422p10le", audio="pcm_s16le")),
        (
            "in.gif",
            Clip(codec="gif", pixel_format="rgb8", audio=None, rate=25, time_base=Fraction(1, 100)),
        ),
        ("in.flv", Clip(audio="aac", time_base=Fraction(1, 1000))),
        ("in.mpg", Clip(codec="mpeg2video", audio="mp2", rate=25, time_base=Fraction(1, 25))),
    ],
)
def test_common_formats_go_in(tmp_path: Path, name: str, clip: Clip) -> None:
    path = write_clip(tmp_path / name, clip)
    for suffix in (".mp4", ".mkv"):
        output = tmp_path / f"out{suffix}"
        copy_video(path, output)
        with VideoReader(output) as reader:
            assert len(list(reader.frames())) == 12
            assert len(reader.container.streams.audio) == (clip.audio is not None)


def test_a_video_without_sound_stays_without(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mp4", Clip(audio=None))
    copy_video(path, tmp_path / "out.mp4")
    assert read_contents(tmp_path / "out.mp4").sounds == []


def test_sound_that_comes_before_the_first_frame_is_kept(tmp_path: Path) -> None:
    # The pictures start half a second in, so sound packets come first in the file.
    times = tuple(15000 + 1000 * index for index in range(12))
    path = write_clip(tmp_path / "in.mkv", Clip(pts=times, time_base=Fraction(1, 30000)))
    copy_video(path, tmp_path / "out.mkv")
    assert read_contents(tmp_path / "out.mkv").sounds == read_contents(path).sounds


def test_sound_that_the_container_cannot_hold_is_made_anew_and_said(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.asf", Clip(audio="wmav2"))
    notes = copy_video(path, tmp_path / "out.mp4")
    assert ".mp4 cannot hold the input's wmav2 audio: it is made AAC" in notes
    assert len(read_sound(tmp_path / "out.mp4", 0)) > 10


def test_sound_that_is_to_be_copied_and_cannot_be_says_what_to_do(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.asf", Clip(audio="wmav2"))
    output = tmp_path / "out.mp4"
    with pytest.raises(UnwritableFile, match=r"\.mp4 cannot hold the input's wmav2 .*--audio copy"):
        copy_video(path, output, audio="copy")
    assert list(tmp_path.iterdir()) == [path]


def test_transcoded_sound_is_aac_of_the_same_length(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.asf", Clip(audio="wmav2", frames=60))
    copy_video(path, tmp_path / "out.mp4", audio="transcode")
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.name == "aac"
        samples = sum(frame.samples for frame in container.decode(stream))
    with av.open(str(path)) as container:
        expected = sum(frame.samples for frame in container.decode(audio=0))
    # AAC works in blocks of 1024, with up to two of them as start and end padding.
    assert abs(samples - expected) <= 3 * 1024


def test_dropped_sound_is_not_there(tmp_path: Path, clip: Path) -> None:
    copy_video(clip, tmp_path / "out.mp4", audio="drop")
    assert read_contents(tmp_path / "out.mp4").sounds == []


def test_odd_sizes_are_written_even_and_said(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "odd.mkv", Clip(width=65, height=47, codec="ffv1", audio=None))
    notes = copy_video(path, tmp_path / "out.mp4", encoding=LOSSLESS)
    assert notes == ["65 x 47 is written as 66 x 48: x264 wants even sizes"]
    after = read_contents(tmp_path / "out.mp4")
    assert after.size == (66, 48)
    np.testing.assert_array_equal(after.frames[0], read_frames(path)[0])


@pytest.mark.parametrize(
    ("pixel_format", "codec", "note"),
    [
        ("yuv422p", "ffv1", "yuv422p video is swapped and written as 4:2:0"),
        ("yuv444p", "ffv1", "yuv444p video is swapped and written as 4:2:0"),
        ("gray", "ffv1", "gray video is swapped and written as 4:2:0"),
        ("bgr0", "ffv1", "bgr0 video is swapped and written as 4:2:0"),
        ("yuv420p10le", "ffv1", r"10-bit video \(yuv420p10le\) is swapped and written with 8 bits"),
    ],
)
def test_other_pixel_formats_are_brought_to_420_and_said(
    tmp_path: Path, pixel_format: str, codec: str, note: str
) -> None:
    path = write_clip(
        tmp_path / "in.mkv", Clip(pixel_format=pixel_format, codec=codec, audio=None, frames=3)
    )
    with VideoReader(path) as reader:
        assert re.fullmatch(note, reader.notes[0])
        frames = list(reader.frames())
        assert len(frames) == 3
        out = np.empty(frames[0].shape, np.uint8)
        frames[0].copy_to(out)
    reference = av.VideoFrame.from_ndarray(picture(0, 64, 48), format="rgb24")
    luma = reference.reformat(format="yuv420p").to_ndarray()[:48].astype(int)
    # Two conversions, each rounding once: swscale through another format and back.
    assert np.abs(out[:48].astype(int) - luma).max() <= 4


@pytest.mark.parametrize(
    ("tags", "matrix", "color_range"),
    [
        ((2, 0), ColorMatrix.AUTO, ColorRange.LIMITED),
        ((1, 1), ColorMatrix.BT709, ColorRange.LIMITED),
        ((5, 1), ColorMatrix.BT601, ColorRange.LIMITED),
        ((6, 2), ColorMatrix.BT601, ColorRange.FULL),
        ((9, 1), ColorMatrix.BT2020, ColorRange.LIMITED),
    ],
)
def test_colour_tags_become_options_and_are_kept(
    tmp_path: Path, tags: tuple[int, int], matrix: ColorMatrix, color_range: ColorRange
) -> None:
    path = write_clip(tmp_path / "in.mp4", Clip(matrix=tags[0], range=tags[1], frames=3))
    with VideoReader(path) as reader:
        assert reader.tags.color_matrix is matrix
        assert reader.tags.color_range is color_range
        assert reader.chroma_location is ChromaLocation.LEFT
    copy_video(path, tmp_path / "out.mp4")
    assert read_contents(tmp_path / "out.mp4").tags == read_contents(path).tags


def test_motion_jpeg_is_full_range_with_centred_chroma(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "in.mkv",
        Clip(codec="mjpeg", pixel_format="yuvj420p", audio=None, frames=3, range=2),
    )
    with VideoReader(path) as reader:
        assert reader.tags.color_range is ColorRange.FULL
        assert reader.chroma_location is ChromaLocation.CENTER


@pytest.mark.parametrize(("transfer", "name"), [(16, r"PQ \(HDR10\)"), (18, "HLG")])
def test_hdr_is_refused_with_a_reason(tmp_path: Path, transfer: int, name: str) -> None:
    path = write_clip(
        tmp_path / "in.mp4",
        Clip(
            pixel_format="yuv420p10le",
            transfer=transfer,
            matrix=9,
            primaries=9,
            frames=3,
            options={"preset": "ultrafast"},
        ),
    )
    said = f"is HDR, {name}: only SDR video is swapped; .* --hdr tonemap"
    with pytest.raises(UnreadableFile, match=said):
        VideoReader(path)


def test_streams_that_are_left_out_are_said(tmp_path: Path) -> None:
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        container.add_attachment("font.ttf", "font/ttf", b"not a font")
        streams = [container.add_stream("libx264", rate=30) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(3):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(index, 64, 48), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 30)
                container.mux(stream.encode(frame.reformat(format="yuv420p")))
        for stream in streams:
            container.mux(stream.encode(None))
    assert copy_video(path, tmp_path / "out.mp4") == [
        "left out of the input: 1 attached stream, 1 further video stream"
    ]
    assert len(read_contents(tmp_path / "out.mp4").frames) == 3


def test_interlaced_video_is_said(tmp_path: Path) -> None:
    options = {"preset": "ultrafast", "x264-params": "interlaced=1"}
    path = write_clip(tmp_path / "in.mp4", Clip(options=options, frames=4, audio=None))
    notes = copy_video(path, tmp_path / "out.mp4")
    assert notes == ["interlaced video is swapped and written frame by frame"]


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), "s16", "stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UnreadableFile, match=r"has no video stream \(it has audio\)"):
        VideoReader(path)


def test_a_stream_without_times_gets_them_from_its_rate(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.h264", Clip(audio=None, frames=6))
    copy_video(path, tmp_path / "out.mp4")
    times = read_contents(tmp_path / "out.mp4").times_s
    steps = {b - a for a, b in itertools.pairwise(times)}
    assert len(times) == 6
    assert len(steps) == 1
