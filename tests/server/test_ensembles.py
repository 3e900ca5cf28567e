"""The project's own ensembles through the real server, against the graphs run one by one.

The oracle is ONNX Runtime in this process, one request at a time and step by step: it shares the
graphs with the server, and nothing of the server, the backend or the wiring.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest

from demo.photos import read_photo
from graphs.contract import FaceOrder, FrameFormat
from server.launcher import EmbeddedServer
from server.watchdog import Watchdog
from tests.server.asking import Array, Asker
from tests.server.test_launcher import model_processes

# A joined batch sums in another order than a single run: a pixel that lies between two grey levels
# may round the other way.
GREY_LEVEL = 1
ROUNDED_OTHERWISE = 1e-3
"""Share of pixels that may differ by one grey level for that reason."""
FP32_ROUNDING = 1e-3
"""Boxes and landmarks are up to 1,920 pixels, of which float32 resolves 1.2e-4."""


def two_faces(height: int = 360, width: int = 640) -> Array:
    """A BGR picture of the given size with Newton on the left and Gauss on the right."""
    half = width // 2
    return np.hstack([cv2.resize(read_photo(n), (half, height)) for n in ("newton", "gauss")])


def as_format(bgr: Array, frame_format: FrameFormat) -> Array:
    frame = bgr if frame_format == "bgr" else cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    return np.ascontiguousarray(frame)[None]


def options(order: FaceOrder = FaceOrder.LARGEST_FIRST) -> Array:
    values = np.zeros((1, 8), np.float32)
    values[0, 0] = order
    return values


class Steps:
    """The graphs of a repository, run step by step as the ensembles are meant to."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._sessions: dict[str, ort.InferenceSession] = {}

    def run(self, model: str, **inputs: Array) -> dict[str, Array]:
        if model not in self._sessions:
            session_options = ort.SessionOptions()
            session_options.intra_op_num_threads = 1
            path = self._repository / model / "1" / "model.onnx"
            self._sessions[model] = ort.InferenceSession(path, session_options)
        session = self._sessions[model]
        wanted = {entry.name for entry in session.get_inputs()}
        given = {name: array for name, array in inputs.items() if name in wanted}
        names = [entry.name for entry in session.get_outputs()]
        return dict(zip(names, session.run(names, given), strict=True))

    def swap(self, frame_format: FrameFormat, **request: Array) -> dict[str, Array]:
        found = self.run(f"face_detector_{frame_format}", **request)
        swapped = self.run("face_swapper", **{**request, **found})
        blender = f"face_blender_{frame_format}"
        blended = self.run(blender, **{**request, **found, **swapped})
        return {"swapped_frame": blended["swapped_frame"], "faces": found["faces"]}


@pytest.fixture(scope="session")
def steps(real_repository: Path) -> Steps:
    return Steps(real_repository)


@pytest.fixture(scope="session")
def sources(real_asker: Asker) -> dict[str, Array]:
    """`source` rows of three people, [1, D] each."""
    found = {}
    for name in ("newton", "gauss", "collins"):
        photo = cv2.resize(read_photo(name), (480, 480))[None]
        found[name] = real_asker.ask("encode_source_bgr", frame=photo, options=options())["source"]
    return found


def rows(sources: dict[str, Array], *names: str) -> Array:
    return np.stack([sources[name] for name in names], axis=1)


def assert_same_frame(answer: Array, expected: Array) -> None:
    difference = np.abs(answer.astype(np.int16) - expected)
    assert difference.max() <= GREY_LEVEL
    assert (difference > 0).mean() <= ROUNDED_OTHERWISE


@pytest.mark.parametrize("frame_format", ["i420", "bgr"])
@pytest.mark.parametrize("people", [("newton",), ("collins", "newton"), ("gauss",) * 4])
def test_an_ensemble_is_its_steps_composed(
    real_asker: Asker,
    steps: Steps,
    sources: dict[str, Array],
    frame_format: FrameFormat,
    people: tuple[str, ...],
) -> None:
    request = {
        "frame": as_format(two_faces(), frame_format),
        "source": rows(sources, *people),
        "options": options(FaceOrder.LEFT_TO_RIGHT),
    }
    answer = real_asker.ask(f"swap_faces_{frame_format}", **request)
    expected = steps.swap(frame_format, **request)
    assert (answer["faces"][0, :, 4] > 0).sum() == 2
    np.testing.assert_allclose(answer["faces"], expected["faces"], atol=FP32_ROUNDING)
    assert_same_frame(answer["swapped_frame"], expected["swapped_frame"])
    assert (answer["swapped_frame"] != request["frame"]).any()


@pytest.mark.parametrize(
    ("ensemble", "second_step"),
    [("encode_source_bgr", "source_encoder"), ("embed_face_bgr", "face_recognizer")],
)
def test_the_photo_ensembles_are_their_steps_composed(
    real_asker: Asker, steps: Steps, ensemble: str, second_step: str
) -> None:
    request = {"frame": two_faces()[None], "options": options(FaceOrder.RIGHT_TO_LEFT)}
    answer = real_asker.ask(ensemble, **request)
    faces = steps.run("face_locator_bgr", **request)["faces"]
    (expected,) = steps.run(second_step, frame=request["frame"], faces=faces).values()
    np.testing.assert_allclose(answer["faces"], faces, atol=FP32_ROUNDING)
    (name,) = set(answer) - {"faces"}
    # Both outputs are of unit size (colours in 0..1, or a unit vector).
    np.testing.assert_allclose(answer[name], expected, atol=1e-4)


@pytest.mark.parametrize("frame_format", ["i420", "bgr"])
def test_a_frame_without_a_face_comes_back_bit_identical(
    real_asker: Asker,
    sources: dict[str, Array],
    random: np.random.Generator,
    frame_format: FrameFormat,
) -> None:
    smooth = cv2.GaussianBlur(random.integers(0, 256, (270, 480, 3), np.uint8), (0, 0), 9)
    smooth = cv2.resize(smooth, (482, 270))
    frame = as_format(smooth, frame_format)
    answer = real_asker.ask(
        f"swap_faces_{frame_format}",
        frame=frame, source=rows(sources, "newton", "gauss"), options=options(),
    )  # fmt: skip
    assert (answer["faces"] == 0).all()
    np.testing.assert_array_equal(answer["swapped_frame"], frame)


def outside_of(warps: Array, size: int, height: int, width: int) -> Array:
    """Pixels [H, W] that no warp of [1, K, 2, 3] brings into a crop of that size, nor near it."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    points = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    outside = np.ones(height * width, bool)
    for warp in warps[0]:
        if warp.any():
            crop_x, crop_y = warp @ points
            inside = (crop_x > -1) & (crop_x < size) & (crop_y > -1) & (crop_y < size)
            outside &= ~inside
    return outside.reshape(height, width)


@pytest.mark.parametrize("frame_format", ["i420", "bgr"])
def test_pixels_outside_the_crops_are_bit_identical(
    real_asker: Asker, sources: dict[str, Array], frame_format: FrameFormat
) -> None:
    height, width = 362, 640  # height mod 4 = 2: the U plane of I420 ends in the middle of a row
    request = {
        "frame": as_format(two_faces(height, width), frame_format),
        "source": rows(sources, "collins", "newton"),
        "options": options(),
    }
    found = real_asker.ask(f"face_detector_{frame_format}", **request)
    answer = real_asker.ask(f"swap_faces_{frame_format}", **request)["swapped_frame"][0]
    frame = request["frame"][0]
    outside = outside_of(found["warps"], found["crops"].shape[-1], height, width)
    assert 0.05 < outside.mean() < 0.95
    if frame_format == "bgr":
        np.testing.assert_array_equal(answer[outside], frame[outside])
        assert (answer[~outside] != frame[~outside]).any()
        return
    np.testing.assert_array_equal(answer[:height][outside], frame[:height][outside])
    assert (answer[:height][~outside] != frame[:height][~outside]).any()
    # A chroma sample belongs to a block of 2x2 pixels: untouched where the whole block is outside.
    block = outside.reshape(height // 2, 2, width // 2, 2).all(axis=(1, 3)).ravel()
    for plane in (0, 1):
        planes = [image[height:].reshape(2, -1)[plane] for image in (answer, frame)]
        np.testing.assert_array_equal(planes[0][block], planes[1][block])


def test_sizes_formats_faces_and_sources_in_flight_at_once_stay_apart(
    real_asker: Asker, sources: dict[str, Array], random: np.random.Generator
) -> None:
    kinds: list[tuple[FrameFormat, int, int]] = [
        ("i420", 240, 320), ("bgr", 240, 320), ("i420", 360, 640), ("bgr", 202, 300),
    ]  # fmt: skip
    people = list(sources)
    cases = []
    for index in range(24):
        frame_format, height, width = kinds[index % len(kinds)]
        chosen = [people[i] for i in random.integers(0, 3, 1 + index % 3)]
        request = {
            "frame": as_format(two_faces(height, width), frame_format),
            "source": rows(sources, *chosen),
            "options": options(FaceOrder(index % 6)),
        }
        cases.append((f"swap_faces_{frame_format}", request))
    alone = [real_asker.ask(model, **request) for model, request in cases]
    together = real_asker.ask_mixed(cases)
    for expected, answer in zip(alone, together, strict=True):
        np.testing.assert_allclose(answer["faces"], expected["faces"], atol=FP32_ROUNDING)
        assert_same_frame(answer["swapped_frame"], expected["swapped_frame"])


@contextmanager
def held_up(server: EmbeddedServer, model: str) -> Iterator[None]:
    """Stop a model's process for a moment, so that requests sent meanwhile queue up together.

    On two cores this client sends more slowly than the models answer: without a hold-up the queue
    would be empty most of the time.
    """
    (process,) = [p for p in model_processes(server) if p.cmdline()[-2].startswith(f"{model}_")]
    process.suspend()
    resume = threading.Timer(0.7, process.resume)
    resume.start()
    try:
        yield
    finally:
        resume.join()


def test_batches_form_with_face_counts_mixed(
    real_server: EmbeddedServer, real_asker: Asker, steps: Steps, sources: dict[str, Array]
) -> None:
    requests = []
    for index in range(24):
        people = ["newton", "gauss", "collins", "newton"][: 1 + index % 4]
        frame = as_format(two_faces(), "bgr")
        request = {"frame": frame, "source": rows(sources, *people), "options": options()}
        found = steps.run("face_detector_bgr", **request)
        requests.append({**request, **{name: found[name] for name in ("crops", "faces")}})
    given = [{name: request[name] for name in ("crops", "source", "faces")} for request in requests]
    before = real_asker.counts("face_swapper")
    with held_up(real_server, "face_swapper"):
        answers = real_asker.ask_together("face_swapper", given)
    mean = real_asker.mean_batch_since("face_swapper", before)
    print(f"\nmean batch of the swapper with 1 to 4 faces a request: {mean:.1f}")
    # The first request runs alone, the others wait and run as 8, 8 and 7.
    assert mean > 4
    for request, answer in zip(given, answers, strict=True):
        expected = steps.run("face_swapper", **request)["swapped_crops"]
        # Colours in 0..1; the joined rows are summed in another order.
        np.testing.assert_allclose(answer["swapped_crops"], expected, atol=1e-4)


@pytest.mark.parametrize("model", ["face_detector_i420", "face_blender_i420"])
def test_frames_that_wait_together_run_one_by_one(
    real_server: EmbeddedServer, real_asker: Asker, sources: dict[str, Array], model: str
) -> None:
    request = {
        "frame": as_format(two_faces(), "i420"),
        "source": rows(sources, "newton"),
        "options": options(),
    }
    before = real_asker.counts(model)
    with held_up(real_server, model):
        answers = real_asker.ask_together("swap_faces_i420", [request] * 8)
    # Frames that share a run leave a CPU's caches.
    assert real_asker.mean_batch_since(model, before) == 1
    for answer in answers:
        assert_same_frame(answer["swapped_frame"], answers[0]["swapped_frame"])


HOSTILE: list[tuple[str, Callable[[dict[str, Array]], None], str]] = [
    ("no face slot", lambda r: r.update(source=r["source"][:, :0]), "0 faces were asked for"),
    (
        "17 face slots",
        lambda r: r.update(source=np.repeat(r["source"], 17, axis=1)),
        "17 faces were asked for",
    ),
    (
        "NaN in 17 sources",
        lambda r: r.update(source=np.full((1, 17, r["source"].shape[2]), np.nan, np.float32)),
        "17 faces were asked for",
    ),
    ("NaN in source", lambda r: r["source"].__setitem__((0, 0, 5), np.nan), "'source' .* NaN"),
    ("unknown order", lambda r: r["options"].__setitem__((0, 0), 9), r"option 0 \(face_order\)"),
    ("reserved option", lambda r: r["options"].__setitem__((0, 7), 1), r"option 7 \(reserved\)"),
    ("a tiny frame", lambda r: r.update(frame=r["frame"][:, :48, :32]), "at least 64x64"),
    ("an odd width", lambda r: r.update(frame=r["frame"][:, :, :319]), "even width"),
    ("a torn frame", lambda r: r.update(frame=r["frame"][:, :-1]), "not a multiple of 3"),
]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [(damage, sentence) for _, damage, sentence in HOSTILE],
    ids=[name for name, _, _ in HOSTILE],
)
def test_a_hostile_request_fails_alone_with_a_sentence(
    real_asker: Asker,
    sources: dict[str, Array],
    damage: Callable[[dict[str, Array]], None],
    sentence: str,
) -> None:
    def request() -> dict[str, Array]:
        return {
            "frame": as_format(two_faces(240, 320), "i420"),
            "source": rows(sources, "newton"),
            "options": options(),
        }

    bad = request()
    damage(bad)
    bad = {name: np.ascontiguousarray(array) for name, array in bad.items()}
    answers = real_asker.ask_together("swap_faces_i420", [request(), bad, request()])
    assert re.search(sentence, str(answers[1]))
    for answer in (answers[0], answers[2]):
        assert (answer["swapped_frame"] != request()["frame"]).any()


def test_the_watchdogs_probe_passes_through_every_ensemble(real_server: EmbeddedServer) -> None:
    asker = Asker(real_server.grpc_url)
    names = [name for name, config in real_server.repository.configs.items() if config.backend]
    before = {name: asker.counts(name)[0] for name in names}
    Watchdog(real_server, print).probe_all()
    assert all(asker.counts(name)[0] > count for name, count in before.items())
    asker.client.close()
