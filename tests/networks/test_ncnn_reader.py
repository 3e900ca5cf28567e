"""ncnn's files as ONNX: Real-ESRGAN against ncnn itself, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fetching import weights
from networks.batching import with_free_batch
from networks.ncnn_reader import NcnnError, read_ncnn
from tests.graphs.evaluation import open_session

RECORDED = Path(__file__).resolve().parent.parent / "reference" / "real_esrgan.npz"
"""What ncnn 1.0.20261020 made (tests/oracles/ncnn_upscale.py)."""

SMALL = """7767517
4 4
Input data 0 1 data
Convolution conv 1 1 data a 0=2 1=1 5=1 6=6 9=2 -23310=1,2.000000e-01
PReLU slope 1 1 a b 0=2
Interp wide 1 1 b output 0=1 1=2.000000e+00 2=2.000000e+00
"""
WEIGHTS = (
    np.uint32(0).tobytes()
    + np.arange(6, dtype="<f4").tobytes()
    + np.float32([0.5, -40]).tobytes()
    + np.float32([0.1, 0.5]).tobytes()
)


@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("realesrgan_x4plus", "REALESRGAN_X4PLUS_UP4X"),
        ("realesr_animevideov3_x4", "REALESRGAN_ANIMAVIDEOV3_UP4X"),
    ],
)
def test_real_esrgan_is_what_ncnn_makes_of_it_in_any_batch(name: str, recorded: str) -> None:
    weights.fetch(name)
    made = np.load(RECORDED)
    picture = made["picture"]
    network = open_session(weights.load_network(name))
    (given,) = (value.name for value in network.get_inputs())
    batch = np.stack([picture, picture[:, ::-1]])
    (found,) = network.run(None, {given: batch})
    # float32 in another order of additions
    np.testing.assert_allclose(found[0], made[recorded], atol=1e-4)
    (alone,) = network.run(None, {given: batch[1:]})
    np.testing.assert_allclose(found[1:], alone, atol=1e-5)


def test_every_layer_computes_what_ncnn_says() -> None:
    network = with_free_batch(read_ncnn(SMALL, WEIGHTS), image_size=2)
    picture = np.random.default_rng(0).normal(size=(1, 3, 2, 2)).astype(np.float32) * 20
    (found,) = open_session(network).run(None, {"data": picture})
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    linear = np.einsum("oc,bchw->bohw", weight, picture) + np.float32([0.5, -40]).reshape(2, 1, 1)
    leaky = np.where(linear > 0, linear, 0.2 * linear)
    sloped = np.where(leaky > 0, leaky, leaky * np.float32([0.1, 0.5]).reshape(2, 1, 1))
    np.testing.assert_allclose(found, sloped.repeat(2, axis=2).repeat(2, axis=3), rtol=1e-5)


def test_half_precision_weights_fill_up_to_whole_words() -> None:
    layers = SMALL.replace("0=2 1=1 5=1 6=6", "0=1 1=1 5=1 6=3").replace("b 0=2", "b 0=1")
    content = (
        np.uint32(0x01306B47).tobytes()
        + np.float16([1, 2, 3]).tobytes() + b"\0\0"
        + np.float32([0.5, 0.25]).tobytes()
    )  # fmt: skip
    (found,) = open_session(read_ncnn(layers, content)).run(
        None, {"data": np.ones((1, 3, 1, 1), np.float32)}
    )
    np.testing.assert_allclose(found, np.full((1, 1, 2, 2), 6.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("7767517", "7767518"), "a .param of ncnn begins with 7767517"),
        (("4 4", "5 4"), "the .param says 5 layers and holds 4"),
        (("PReLU", "Softmax"), "the .param holds the layer Softmax, which is not known"),
        (("0=1 1=2.000000e+00", "0=2 1=2.000000e+00"), "wide is an Interp other than nearest"),
        (("9=2", "9=4"), "conv has the activation 4, which is not known"),
        (("1=1 5=1", "1=1 3=2 5=1"), "the convolution conv has a form that is not known"),
    ],
)
def test_what_is_not_known_is_refused_by_name(change: tuple[str, str], sentence: str) -> None:
    with pytest.raises(NcnnError, match=sentence):
        read_ncnn(SMALL.replace(*change, 1), WEIGHTS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (WEIGHTS + b"\0\0\0\0", "the .bin holds 4 bytes more"),
        (WEIGHTS[:-4], "the .bin ends before the weights"),
        (b"\1\0\0\0" + WEIGHTS[4:], "weights of the kind 0x1, which is not known"),
    ],
)
def test_weights_that_do_not_fit_the_layers_are_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(NcnnError, match=sentence):
        read_ncnn(SMALL, content)
