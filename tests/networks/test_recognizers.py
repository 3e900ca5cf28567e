"""The recognisers' rows against literals from their publishers."""

import dataclasses

import pytest

from networks.recognizers import DEFAULT_RECOGNIZER, RECOGNIZERS


def test_the_default_recognizer_is_the_one_that_is_free_to_use() -> None:
    assert DEFAULT_RECOGNIZER == "sface"


@pytest.mark.parametrize(
    ("name", "pixel", "network_value"),
    [
        ("sface", 0, 0.0),
        ("sface", 255, 255.0),
        ("w600k_r50", 0, -1.0),
        ("w600k_r50", 255, 1.0),
        ("w600k_r50", 128, 0.5 / 127.5),
    ],
)
def test_a_pixel_becomes_the_value_that_the_network_was_trained_on(
    name: str, pixel: int, network_value: float
) -> None:
    row = RECOGNIZERS[name]
    # 1e-9: the row's arithmetic is exact up to double rounding.
    assert (pixel / 255 - row.mean) / row.std == pytest.approx(network_value, abs=1e-9)


@pytest.mark.parametrize(("name", "length"), [("sface", 128), ("w600k_r50", 512)])
def test_crops_are_arcface_112_and_embeddings_have_the_published_length(
    name: str, length: int
) -> None:
    row = RECOGNIZERS[name]
    assert (row.crop_size, row.template, row.embedding_length) == (112, "arcface_112_v2", length)


def test_rows_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        RECOGNIZERS["sface"].mean = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError, match="does not support item assignment"):
        RECOGNIZERS["mine"] = RECOGNIZERS["sface"]  # type: ignore[index]
