"""face_blender on requests that nobody chose: any size, any number of slots, faces anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.contract import SCORE_COLUMN
from graphs.face_blender import Method
from tests.graphs.test_face_blender import (
    METHODS,
    ROUNDED_SHARE,
    ROUNDING,
    expected,
    make_request,
    run,
)

EVEN = st.integers(4, 70).map(lambda half: 2 * half)
"""8 to 140 pixels: multiples of four and not."""
OPTIONS = st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 2))


@st.composite
def requests(draw: st.DrawFn, frame_format: str) -> dict[str, np.ndarray]:
    """1 to 3 rows of 1 to 16 slots; some empty, some on the edge, some far outside."""
    height, width = draw(EVEN), draw(EVEN)
    rows, slots = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 5, 16]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    places = [
        [
            (
                rng.uniform(-0.5, 1.5) * width,
                rng.uniform(-0.5, 1.5) * height,
                np.exp(rng.uniform(np.log(4.0), np.log(300.0))),
                rng.uniform(-np.pi, np.pi),
            )
            for _ in range(slots)
        ]
        for _ in range(rows)
    ]
    codes = [draw(OPTIONS) for _ in range(rows)]
    request = make_request(
        frame_format, height, width, places,
        options=[[0.0, *map(float, code), 0.0, 0.0, 0.0, 0.0] for code in codes],
        seed=int(rng.integers(2**32)),
    )  # fmt: skip
    empty = rng.random((rows, slots)) < 0.25
    request["faces"][:, :slots, SCORE_COLUMN][empty] = 0.0
    request["warps"][empty] = 0.0
    return request


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frame_format", ["i420", "bgr"])
def test_faces_anywhere_are_laid_on_as_the_oracle_does(frame_format: str, method: Method) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(requests(frame_format))
    def check(request: dict[str, np.ndarray]) -> None:
        wanted = expected(request)
        difference = np.abs(run(request, method=method).astype(int) - wanted)
        assert difference.max() <= ROUNDING
        # Each slot may round some values the other way; small frames hold few values.
        slots = request["warps"].shape[1]
        assert (difference > 0).sum() <= 3 + slots * ROUNDED_SHARE * difference.size

    check()


@pytest.mark.parametrize("frame_format", ["i420", "bgr"])
@pytest.mark.parametrize("width", [140.0, 250.0, 420.0, 900.0])
def test_a_face_of_many_strips_has_no_seam(frame_format: str, width: float) -> None:
    # boxes of one to several strips, the last of them of any height, the largest beyond the frame
    request = make_request(frame_format, 482, 640, [[(310.0, 250.0, width, 0.7)]])
    difference = np.abs(run(request, method="regions").astype(int) - expected(request))
    assert difference.max() <= ROUNDING
    assert (difference > 0).mean() <= ROUNDED_SHARE
