"""The pictures come from pinned packages and show who they say."""

from __future__ import annotations

import pytest

from demo import photos
from demo.make_clip import FACES


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("newton", (432, 768, 3)),
        ("gauss", (1305, 1024, 3)),
        ("solvay", (2171, 3000, 3)),
        ("collins", (512, 512, 3)),
        ("obama", (785, 682, 3)),
        ("ardern", (900, 689, 3)),
    ],
)
def test_each_picture_is_read(name: str, shape: tuple[int, ...]) -> None:
    assert photos.read_photo(name).shape == shape


def test_each_row_says_why_the_picture_may_be_used() -> None:
    for photo in photos.PHOTOS.values():
        assert photo.provenance
        dead = photo.provenance.endswith("public domain by age")
        assert dead or photo.provenance.endswith("tests only"), photo.name


def test_every_clip_face_is_a_known_picture() -> None:
    assert FACES.keys() <= photos.PHOTOS.keys()
