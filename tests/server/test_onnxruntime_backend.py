"""The Python-based onnxruntime backend inside the real tritonserver, on tiny networks.

The networks compute with whole numbers, or one product and sum, so that every comparison is exact
or within float32 rounding of one operation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.server.asking import Array, Asker
from tests.server.tiny_models import CROP, MOST_FACES

NO_OPTIONS = np.zeros((1, 4), np.float32)
ONE_ROUNDING = 1e-6


def frame(random: np.random.Generator, height: int = 16, width: int = 24) -> Array:
    return random.integers(0, 256, (1, height, width, 3), np.uint8)


def face_request(random: np.random.Generator, slots: int, filled: list[int]) -> dict[str, Array]:
    """A request of the tint network: K slots, those in `filled` with a face."""
    faces = np.zeros((1, 16, 15), np.float32)
    faces[0, filled, 4] = 0.9
    faces[0, filled, 0] = random.uniform(-1, 1, len(filled))
    return {
        "crops": random.uniform(0, 1, (1, slots, 3, CROP, CROP)).astype(np.float32),
        "source": random.uniform(-1, 1, (1, slots, 2)).astype(np.float32),
        "faces": faces,
    }


def tinted(request: dict[str, Array]) -> Array:
    """What the tint network must give: written with NumPy, empty slots 0."""
    crops, source, faces = request["crops"], request["source"], request["faces"]
    slots = crops.shape[1]
    gain, bias, corner = source[..., 0], source[..., 1], faces[:, :slots, 0]
    result = crops * gain[..., None, None, None] + (bias + corner)[..., None, None, None]
    result[faces[:, :slots, 4] == 0] = 0
    return result


def test_one_request_comes_back_right(asker: Asker, random: np.random.Generator) -> None:
    image = frame(random)
    answer = asker.ask("invert_frame", frame=image, options=NO_OPTIONS)
    np.testing.assert_array_equal(answer["inverted_frame"], 255 - image)


def test_a_passthrough_output_is_the_input_byte_for_byte(
    asker: Asker, random: np.random.Generator
) -> None:
    image = frame(random)
    answer = asker.ask("invert_frame", frame=image, options=NO_OPTIONS)
    np.testing.assert_array_equal(answer["seen_frame"], image)


def test_requests_of_one_size_form_batches_and_come_apart_again(
    asker: Asker, random: np.random.Generator
) -> None:
    images = [frame(random) for _ in range(32)]
    before = asker.counts("invert_frame")
    answers = asker.ask_together(
        "invert_frame", [{"frame": image, "options": NO_OPTIONS} for image in images]
    )
    for image, answer in zip(images, answers, strict=True):
        np.testing.assert_array_equal(answer["inverted_frame"], 255 - image)
    # 8 is the largest batch; the first requests may run before the others have arrived.
    assert asker.mean_batch_since("invert_frame", before) >= 4


def test_each_row_of_a_batch_keeps_its_own_options(
    asker: Asker, random: np.random.Generator
) -> None:
    image = random.integers(8, 256, (1, 8, 8, 3), np.uint8)
    shifts = [np.array([[shift, 0, 0, 0]], np.float32) for shift in range(8)]
    answers = asker.ask_together(
        "invert_frame", [{"frame": image, "options": shift} for shift in shifts]
    )
    for shift, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["inverted_frame"], 255 - image + shift)


def test_a_client_batch_is_answered_as_one(asker: Asker, random: np.random.Generator) -> None:
    images = random.integers(0, 256, (3, 8, 8, 3), np.uint8)
    answer = asker.ask("invert_frame", frame=images, options=np.zeros((3, 4), np.float32))
    np.testing.assert_array_equal(answer["inverted_frame"], 255 - images)


def test_sizes_and_models_in_flight_at_once_stay_apart(
    asker: Asker, random: np.random.Generator
) -> None:
    images = [frame(random, 8 + 2 * i, 8 + 4 * (i % 5)) for i in range(16)]
    answers = asker.ask_together(
        "invert_twice", [{"frame": image, "options": NO_OPTIONS} for image in images]
    )
    for image, answer in zip(images, answers, strict=True):
        np.testing.assert_array_equal(answer["twice"], image)


@pytest.mark.parametrize(
    ("slots", "filled"),
    [(1, [0]), (1, []), (3, [0, 1, 2]), (3, [0, 2]), (5, []), (5, [4]), (2, [0, 1, 2, 3])],
)
def test_face_rows_are_computed_and_empty_slots_are_zero(
    asker: Asker, random: np.random.Generator, slots: int, filled: list[int]
) -> None:
    request = face_request(random, slots, filled)
    answer = asker.ask("tint_faces", **request)["swapped_crops"]
    assert answer.shape == request["crops"].shape
    np.testing.assert_allclose(answer, tinted(request), atol=ONE_ROUNDING)


def test_requests_of_different_face_counts_form_one_batch(
    asker: Asker, random: np.random.Generator
) -> None:
    requests = []
    for i in range(32):
        slots = 1 + i % MOST_FACES
        filled = [slot for slot in range(slots) if random.random() < 0.6]
        requests.append(face_request(random, slots, filled))
    before = asker.counts("tint_faces")
    answers = asker.ask_together("tint_faces", requests)
    for request, answer in zip(requests, answers, strict=True):
        np.testing.assert_allclose(answer["swapped_crops"], tinted(request), atol=ONE_ROUNDING)
    assert asker.mean_batch_since("tint_faces", before) >= 4


def test_more_face_rows_than_one_run_takes_are_run_in_parts(
    asker: Asker, random: np.random.Generator
) -> None:
    # 8 requests of 5 faces are 40 rows; the config lets one run have 6.
    requests = [face_request(random, 5, [0, 1, 2, 3, 4]) for _ in range(8)]
    for request, answer in zip(requests, asker.ask_together("tint_faces", requests), strict=True):
        np.testing.assert_allclose(answer["swapped_crops"], tinted(request), atol=ONE_ROUNDING)


def test_face_rows_of_a_client_batch_are_kept_apart(
    asker: Asker, random: np.random.Generator
) -> None:
    first, second = face_request(random, 3, [1]), face_request(random, 3, [0, 2])
    both = {name: np.concatenate([first[name], second[name]]) for name in first}
    answer = asker.ask("tint_faces", **both)["swapped_crops"]
    np.testing.assert_allclose(answer, tinted(both), atol=ONE_ROUNDING)


def test_a_bad_request_of_a_batch_fails_alone(asker: Asker, random: np.random.Generator) -> None:
    requests: list[Any] = [{"frame": frame(random), "options": NO_OPTIONS.copy()} for _ in range(8)]
    requests[3]["options"][0, 0] = 99
    before = asker.counts("invert_frame")
    answers = asker.ask_together("invert_frame", requests)
    assert "option 0 (shift)" in str(answers.pop(3))
    requests.pop(3)
    for request, answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(answer["inverted_frame"], 255 - request["frame"])
    assert asker.mean_batch_since("invert_frame", before) > 1


BAD_FRAMES = {
    "invert_frame": [
        ((6, 24, 3), "24x6 .* takes at least 8x8"),
        ((16, 6, 3), "6x16 .* takes at least 8x8"),
        ((66, 24, 3), "24x66 .* takes at most 96x64"),
        ((16, 98, 3), "98x16 .* takes at most 96x64"),
    ],
    "invert_i420": [
        ((25, 16), "25 is not a multiple of 3"),
        ((24, 15), "even width, and this one is 15 wide"),
        ((99, 16), "16x66 .* takes at most 96x64"),
    ],
}


@pytest.mark.parametrize(
    ("model", "shape", "sentence"),
    [(model, shape, text) for model, cases in BAD_FRAMES.items() for shape, text in cases],
)
def test_a_frame_out_of_bounds_is_refused_with_a_sentence(
    asker: Asker, model: str, shape: tuple[int, ...], sentence: str
) -> None:
    inputs = {"frame": np.zeros((1, *shape), np.uint8)}
    if model == "invert_frame":
        inputs["options"] = NO_OPTIONS
    with pytest.raises(InferenceServerException, match=sentence):
        asker.ask(model, **inputs)


def test_a_frame_at_the_bounds_is_served(asker: Asker) -> None:
    for shape in ((1, 8, 8, 3), (1, 64, 96, 3)):
        image = np.full(shape, 9, np.uint8)
        answer = asker.ask("invert_frame", frame=image, options=NO_OPTIONS)
        assert (answer["inverted_frame"] == 246).all()
    answer = asker.ask("invert_i420", frame=np.full((1, 12, 8), 9, np.uint8))
    assert (answer["inverted_frame"] == 246).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([8, 0, 0, 0], r"option 0 \(shift\) must be a whole number from 0 to 7, and is 8"),
        ([-1, 0, 0, 0], r"option 0 \(shift\) must be"),
        ([1.5, 0, 0, 0], r"option 0 \(shift\) must be a whole number .* and is 1.5"),
        ([0, 1.01, 0, 0], r"option 1 \(strength\) must be 0 to 1, and is 1.01"),
        ([0, 0, 0, 1], r"option 3 \(reserved\) must be 0, and is 1"),
        ([np.nan, 0, 0, 0], "'options' of invert_frame holds a NaN or an infinity"),
        ([0, np.inf, 0, 0], "'options' of invert_frame holds a NaN or an infinity"),
    ],
)
def test_an_unknown_option_is_refused_with_a_sentence(
    asker: Asker, options: list[float], sentence: str
) -> None:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(InferenceServerException, match=sentence):
        asker.ask("invert_frame", frame=image, options=np.array([options], np.float32))


@pytest.mark.parametrize(
    ("slots", "sentence"),
    [(0, "0 faces were asked for"), (MOST_FACES + 1, f"{MOST_FACES + 1} faces .* takes 1 to 5")],
)
def test_a_face_count_out_of_bounds_is_refused_with_a_sentence(
    asker: Asker, random: np.random.Generator, slots: int, sentence: str
) -> None:
    with pytest.raises(InferenceServerException, match=sentence):
        asker.ask("tint_faces", **face_request(random, slots, []))


def test_inputs_that_disagree_on_the_face_count_are_refused(
    asker: Asker, random: np.random.Generator
) -> None:
    request = face_request(random, 3, [0])
    request["source"] = request["source"][:, :2]
    with pytest.raises(InferenceServerException, match=r"same number of faces.*crops 3, source 2"):
        asker.ask("tint_faces", **request)


def test_nan_in_a_source_is_refused_and_nan_in_a_crop_is_not(
    asker: Asker, random: np.random.Generator
) -> None:
    request = face_request(random, 2, [0, 1])
    request["crops"][0, 1, 0, 0, 0] = np.nan
    answer = asker.ask("tint_faces", **request)["swapped_crops"]
    assert np.isnan(answer).sum() == 1
    request["source"][0, 1, 0] = np.nan
    with pytest.raises(InferenceServerException, match="'source' of tint_faces holds a NaN"):
        asker.ask("tint_faces", **request)


def test_a_nan_score_reaches_the_network_and_shows_in_the_answer(
    asker: Asker, random: np.random.Generator
) -> None:
    request = face_request(random, 1, [0])
    request["faces"][...] = np.nan
    assert np.isnan(asker.ask("tint_faces", **request)["swapped_crops"]).all()


def test_the_server_answers_on_after_every_kind_of_refusal(
    asker: Asker, random: np.random.Generator
) -> None:
    for _ in range(20):
        with pytest.raises(InferenceServerException, match="takes at most"):
            asker.ask("invert_frame", frame=np.zeros((1, 66, 64, 3), np.uint8), options=NO_OPTIONS)
    image = frame(random)
    answer = asker.ask("invert_frame", frame=image, options=NO_OPTIONS)
    np.testing.assert_array_equal(answer["inverted_frame"], 255 - image)
