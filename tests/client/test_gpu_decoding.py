"""A GPU's own decoder beside FFmpeg's: the same frames at the same times."""

from __future__ import annotations

from fractions import Fraction
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, write_clip
from frameswap.codecs import try_decoders
from frameswap.read_options import Decoder, ReadOptions
from frameswap.video import VideoReader

pytestmark = pytest.mark.gpu


def frames(path: Path, decoder: Decoder, start_s: Fraction | None) -> list[tuple[int, np.ndarray]]:
    with VideoReader(path, ReadOptions(decoder=decoder, start_s=start_s)) as reader:
        return [(frame.pts, frame.as_array()) for frame in reader.frames()]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("start_s", [None, Fraction(1, 2)])
@pytest.mark.parametrize("size", [(640, 360), (322, 182)])
def test_a_gpu_decodes_what_the_cpu_does(
    tmp_path: Path, codec: str, start_s: Fraction | None, size: tuple[int, int]
) -> None:
    """Decoding H.264 and HEVC is exact by their standards: both give the same bytes."""
    clip = Clip(frames=45, codec=codec, width=size[0], height=size[1], audio=None)
    path = write_clip(tmp_path / "in.mp4", clip)
    pairs = list(
        zip_longest(frames(path, "auto", start_s), frames(path, "cuda", start_s), fillvalue=None)
    )
    assert len(pairs) > 20
    for cpu, gpu in pairs:
        assert cpu is not None
        assert gpu is not None
        assert cpu[0] == gpu[0]
        np.testing.assert_array_equal(cpu[1], gpu[1])


def test_a_gpus_decoders_are_listed_as_working() -> None:
    working = {trial.name.split(":")[0] for trial in try_decoders() if trial.works}
    assert {"H.264 (cuda", "HEVC (cuda"} <= working
