"""HDR to SDR, against Debian's ffmpeg with zimg, which is another implementation of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import Clip, write_clip
from frameswap.read_options import ReadOptions
from frameswap.tone_mapping import HLG, PQ, ToneMapper, tone_map
from frameswap.video import VideoReader
from other_readers import call, probe, video_of
from test_video import copy_video

PATCH = 16
NAMES = {PQ: "smpte2084", HLG: "arib-std-b67"}


def patches() -> list[np.ndarray]:
    """Y, U, V of yuv420p10le in patches of even colour that BT.709 can show, none above 1000 nits.

    Greys over the whole range, then faint colours in the middle of it.
    """
    rng = np.random.default_rng(1)
    luma = np.concatenate([np.linspace(64, 720, 16), np.linspace(300, 600, 32)])
    chroma = np.concatenate([np.zeros((16, 2)), rng.uniform(-22, 22, (32, 2))]) + 512
    grid = [luma.reshape(4, 12), chroma[:, 0].reshape(4, 12), chroma[:, 1].reshape(4, 12)]
    sizes = (PATCH, PATCH // 2, PATCH // 2)
    return [
        np.kron(np.rint(values), np.ones((size, size))).astype("<u2")
        for values, size in zip(grid, sizes, strict=True)
    ]


def as_frame(planes: list[np.ndarray]) -> av.VideoFrame:
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, "yuv420p10le")
    for plane, values in zip(frame.planes, planes, strict=True):
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        lines[: values.shape[0], : values.shape[1] * 2] = values.view(np.uint8)
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    return frame


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_colours_are_mapped_as_ffmpegs_filters_do(transfer: int) -> None:
    planes = patches()
    height, width = planes[0].shape
    with ToneMapper(transfer, full_range=False) as mapper:
        ours = mapper.convert(as_frame(planes)).to_ndarray().astype(int)
    filters = (
        f"setparams=colorspace=bt2020nc:color_primaries=bt2020:color_trc={NAMES[transfer]}:"
        "range=tv,zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,"
        "tonemap=tonemap=hable:desat=0:peak=10,zscale=t=bt709:m=bt709:r=tv,format=yuv420p"
    )
    raw = call(
        "ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p10le",
        "-s", f"{width}x{height}", "-i", "-", "-vf", filters, "-f", "rawvideo", "-",
        content=b"".join(plane.tobytes() for plane in planes),
    )  # fmt: skip
    theirs = np.frombuffer(raw, np.uint8).reshape(ours.shape).astype(int)
    middle = slice(PATCH // 2, None, PATCH)
    luma = np.abs(ours - theirs)[: height][middle, middle]
    # The table's steps, between which it is straight, and two roundings to 8 bits.
    assert luma.max() <= 3
    assert luma.mean() <= 0.75
    chroma = np.abs(ours - theirs)[height:]
    assert np.percentile(chroma, 95) <= 3


def test_black_stays_black_and_more_light_is_never_less() -> None:
    greys = np.repeat(np.linspace(0.0, 1.0, 101)[:, None], 3, axis=1)
    for transfer in (PQ, HLG):
        mapped = tone_map(greys, transfer)
        assert mapped[0].max() < 0.02
        assert mapped.max() <= 1.0
        assert (np.diff(mapped[:, 1]) >= 0).all()


@pytest.mark.parametrize(("transfer", "kind"), [(16, "PQ (HDR10)"), (18, "HLG")])
def test_hdr_video_becomes_sdr_with_its_tags_on_request(
    tmp_path: Path, transfer: int, kind: str
) -> None:
    path = write_clip(
        tmp_path / "in.mp4",
        Clip(pixel_format="yuv420p10le", transfer=transfer, matrix=9, primaries=9, range=1,
             frames=3, audio=None, options={"preset": "ultrafast"}),
    )  # fmt: skip
    notes = copy_video(path, tmp_path / "out.mp4", read=ReadOptions(hdr="tonemap"))
    assert notes == [f"{kind} video is mapped to SDR (BT.709) of 8 bits"]
    found = video_of(probe(tmp_path / "out.mp4"))
    assert (found["pix_fmt"], found["color_range"]) == ("yuv420p", "tv")
    tags = {found[f"color_{tag}"] for tag in ("space", "transfer", "primaries")}
    assert tags == {"bt709"}
    with VideoReader(path, ReadOptions(hdr="tonemap")) as reader:
        assert len(list(reader.frames())) == 3
