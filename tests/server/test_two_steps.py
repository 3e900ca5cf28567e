"""The client's two steps on the real server, beside its one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import pytest
from frameswap import (
    FaceOrder,
    FaceSwapper,
    FoundFrame,
    KeepFlag,
    MaskFlag,
    Placement,
    Source,
    SwapOptions,
    Verdict,
)

from demo.photos import read_photo
from server.launcher import EmbeddedServer
from tests.server.test_ensembles import assert_same_frame, two_faces

pytestmark = pytest.mark.e2e
LEFT_FIRST = SwapOptions(face_order=FaceOrder.LEFT_TO_RIGHT)


@pytest.fixture(params=["grpc", "system"])
def swapper(real_server: EmbeddedServer, request: pytest.FixtureRequest) -> Iterator[FaceSwapper]:
    with FaceSwapper(real_server.grpc_url, transport=request.param, in_flight=4) as connected:
        yield connected


@pytest.fixture
def people(swapper: FaceSwapper) -> list[Source]:
    photos = [cv2.resize(read_photo(name), (480, 480)) for name in ("collins", "newton")]
    return [swapper.encode_source(photo) for photo in photos]


def as_i420(bgr: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)


def test_found_faces_are_swapped_as_in_one_step(
    swapper: FaceSwapper, people: list[Source]
) -> None:
    for frame in (two_faces(), as_i420(two_faces())):
        found = swapper.find(frame, LEFT_FIRST)
        assert found.faces.shape == (2, 15)
        assert found.landmarks.shape == (2, 478, 3)
        assert found.pose.any(axis=1).all()
        swapped = swapper.swap_found(frame, people, found.faces, found.landmarks, LEFT_FIRST)
        together = swapper.swap(frame, people, LEFT_FIRST)
        assert swapped.verdicts == together.verdicts == (Verdict.SWAPPED, Verdict.SWAPPED)
        assert_same_frame(swapped.frame, together.frame)
        assert (swapped.frame != frame).any()


def test_a_stream_of_two_steps_is_the_stream_of_one(
    swapper: FaceSwapper, people: list[Source]
) -> None:
    def plan(founds: Iterable[FoundFrame]) -> Iterator[Placement]:
        for each in founds:
            yield Placement(each.found.faces, people, each.found.landmarks)

    frames = [as_i420(np.roll(two_faces(), 6 * shift, axis=0)) for shift in range(12)]
    one = list(swapper.stream(frames, people, LEFT_FIRST))
    two = list(swapper.stream_found(frames, plan, LEFT_FIRST, persons=2, ahead=3))
    for first, second in zip(one, two, strict=True):
        assert first.verdicts == second.verdicts
        assert_same_frame(second.frame, first.frame)


def test_a_third_slot_without_a_person_changes_nothing(
    swapper: FaceSwapper, people: list[Source]
) -> None:
    """Three sources are four slots, and a fourth face would stay as it is."""
    frame = two_faces()
    pair = swapper.swap(frame, people, LEFT_FIRST)
    three = swapper.swap(frame, [*people, people[0]], LEFT_FIRST)
    assert three.verdicts == pair.verdicts
    assert_same_frame(three.frame, pair.frame)
    four = np.concatenate([frame, frame])
    left = swapper.swap(four, [*people, people[0]])
    assert sorted(left.verdicts) == [Verdict.SWAPPED] * 3 + [Verdict.NO_SLOT]


def test_masks_parts_and_weight_show_less_of_the_swap(
    swapper: FaceSwapper, people: list[Source]
) -> None:
    frame = two_faces()

    def changed(**asked: object) -> int:
        swapped = swapper.swap(frame, people, SwapOptions(**asked))  # type: ignore[arg-type]
        return int(np.abs(swapped.frame.astype(int) - frame).sum())

    usual = changed()
    assert changed(masks=MaskFlag.BOX | MaskFlag.HULL) == usual
    assert changed(masks=MaskFlag.NONE) > usual
    assert changed(keep=KeepFlag.EYES | KeepFlag.LIPS | KeepFlag.BROWS) < usual
    assert changed(weight=0.5) == pytest.approx(usual / 2, rel=0.1)
    # What is left is the way into a crop and back.
    assert changed(weight=0.0) < usual / 10
    assert changed(pose_limit=1.0) == 0
