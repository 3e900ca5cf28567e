"""Only as many convolutions in 8 bits as the swapped face can take."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from bench import random_inswapper
from engines.errors import PrecisionError
from engines.fidelity import measure
from engines.mixed_quantization import quantize_within
from engines.precision import to_fp16
from engines.quantization import calibrate, convolution_work, quantize
from engines.samples import Sample, answer, open_session
from graphs import face_swapper
from graphs.contract import SCORE_COLUMN
from networks.swappers import SWAPPERS
from tests.generated_networks import source_vectors

ROW = SWAPPERS["inswapper_128"]


@pytest.fixture(scope="module")
def swapper() -> onnx.ModelProto:
    return face_swapper.build(ROW, random_inswapper.build(channels=32), skip_empty=False)


@pytest.fixture(scope="module")
def samples(swapper: onnx.ModelProto) -> list[Sample]:
    rng = np.random.default_rng(5)
    faces = np.zeros((1, 16, 15), np.float32)
    faces[:, 0, SCORE_COLUMN] = 0.9
    feeds: dict[str, NDArray[Any]] = {
        "crops": rng.random((1, 1, 3, 128, 128), dtype=np.float32),
        "source": source_vectors(ROW, 1)[None],
        "faces": faces,
    }
    return [Sample(feeds, answer(open_session(swapper), feeds))]


def psnr_db(model: onnx.ModelProto, samples: list[Sample]) -> float:
    found = measure("face_swapper", "int8", model, samples).crop_psnr_db
    assert found is not None
    return found


def pairs(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "DequantizeLinear" for node in model.graph.node) // 2


def test_a_limit_between_all_and_none_is_held_with_some(
    swapper: onnx.ModelProto, samples: list[Sample]
) -> None:
    typed, ranges = to_fp16(swapper), calibrate(swapper, [samples[0].feeds])
    every = quantize(typed, ranges, "int8")
    limit = psnr_db(every, samples) + 3
    said: list[str] = []
    mixed = quantize_within(typed, ranges, "int8", samples, lowest_db=limit, announce=said.append)
    assert psnr_db(mixed, samples) >= limit
    assert 0 < pairs(mixed) < pairs(every)
    assert len(said) == 2
    assert "looking for those that may be" in said[0]
    assert f"{pairs(mixed)} of {pairs(every)} convolutions" in said[1]


def test_nothing_is_searched_where_all_convolutions_hold_the_limit(
    swapper: onnx.ModelProto, samples: list[Sample]
) -> None:
    typed, ranges = to_fp16(swapper), calibrate(swapper, [samples[0].feeds])
    said: list[str] = []
    found = quantize_within(typed, ranges, "int8", samples, lowest_db=20.0, announce=said.append)
    assert pairs(found) == pairs(quantize(typed, ranges, "int8"))
    assert said == []


def test_a_limit_that_none_holds_is_refused(
    swapper: onnx.ModelProto, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed, ranges = to_fp16(swapper), calibrate(swapper, [samples[0].feeds])
    # Two are enough to see that none will do.
    first_two = dict(list(convolution_work(typed).items())[:2])
    monkeypatch.setattr("engines.mixed_quantization.convolution_work", lambda _: first_two)
    with pytest.raises(PrecisionError, match="no convolution can be in int8 within 200 dB"):
        quantize_within(typed, ranges, "int8", samples, lowest_db=200.0, announce=print)


def test_frames_without_a_face_cannot_tell(swapper: onnx.ModelProto, samples: list[Sample]) -> None:
    typed, ranges = to_fp16(swapper), calibrate(swapper, [samples[0].feeds])
    nobody = {**samples[0].feeds, "faces": np.zeros((1, 16, 15), np.float32)}
    with pytest.raises(PrecisionError, match="int8 needs frames that show faces"):
        quantize_within(
            typed,
            ranges,
            "int8",
            [Sample(nobody, samples[0].expected)],
            lowest_db=35.0,
            announce=print,
        )


def test_work_is_counted_in_multiplications(swapper: onnx.ModelProto) -> None:
    work = convolution_work(to_fp16(swapper))
    # The residual blocks: 32 to 32 channels, 3 x 3, on 32 x 32 pixels.
    assert list(work.values()).count(32 * 32 * 9 * 32 * 32) == 12
