"""What graphs rely on of their runtime: shown on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from graphs import face_blender, face_landmarker
from graphs.authoring import GraphAuthor
from graphs.contract import SCORE_COLUMN
from graphs.letterbox import letterbox
from graphs.suppression import suppress
from networks.landmarkers import LANDMARKERS
from networks.opset import MICROSOFT_DOMAIN
from networks.passes import GPU_LANDMARKER_PASSES
from tests.graphs.test_face_blender import ROUNDED_SHARE, ROUNDING, SIZE, expected, make_request
from tests.graphs.test_face_landmarker import make_feeds
from tests.graphs.test_letterbox import SAMPLED_TOLERANCE
from tests.landmark_networks import landmarker_network
from tests.reference import detection

CANDIDATES = 8400
every_runtime = pytest.mark.parametrize(
    "provider",
    ["CPUExecutionProvider", pytest.param("CUDAExecutionProvider", marks=pytest.mark.gpu)],
)


def session(model: Any, provider: str, profile: Path | None = None) -> onnxruntime.InferenceSession:
    if provider == "CUDAExecutionProvider":
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "profile")
    made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider])
    assert provider in made.get_providers()
    return made


@every_runtime
def test_of_equal_scores_suppression_in_a_loop_takes_the_first(provider: str) -> None:
    """ArgMax of ONNX names the first; a kernel that compares in parallel has to keep to it."""
    rng = np.random.default_rng(3)
    author = GraphAuthor("ties")
    scores = author.builder.input("scores", ir.DataType.FLOAT, ["B", CANDIDATES])
    boxes = author.builder.input("boxes", ir.DataType.FLOAT, ["B", 4, CANDIDATES])
    limits = [author.builder.input(f"limit_{i}", ir.DataType.FLOAT, ["B", 1]) for i in range(2)]
    kept = suppress(
        author.op,
        scores,
        boxes,
        anchor_count=CANDIDATES,
        score_threshold=limits[0],
        nms_threshold=limits[1],
        loop=True,
    )
    author.builder.add_output(kept.index, "index")
    # 20 places a row share the best score; their boxes are far apart
    values = np.zeros((16, CANDIDATES), np.float32)
    places = [np.sort(rng.choice(CANDIDATES, 20, replace=False)) for _ in values]
    corners = np.zeros((16, 4, CANDIDATES), np.float32)
    corners[:, 0] = corners[:, 1] = 100.0 * np.arange(CANDIDATES)
    corners[:, 2:] = corners[:, :2] + 10.0
    for row, chosen in zip(values, places, strict=True):
        row[chosen] = 0.75
    feeds = {
        "scores": values, "boxes": corners,
        "limit_0": np.full((16, 1), 0.5, np.float32),
        "limit_1": np.full((16, 1), 0.4, np.float32),
    }  # fmt: skip
    (index,) = session(author.finish(), provider).run(None, feeds)
    np.testing.assert_array_equal(index, np.stack([chosen[:16] for chosen in places]))


@every_runtime
@pytest.mark.parametrize(("height", "width"), [(90, 122), (1080, 1920)])
def test_frames_are_sampled_where_the_rest_runs(
    provider: str, height: int, width: int, tmp_path: Path
) -> None:
    """On a GPU ONNX's own GridSample was run by the CPU; the one that is used must not be."""
    author = GraphAuthor("letterbox")
    author.builder.graph.opset_imports[MICROSOFT_DOMAIN] = 1
    frame = author.builder.input("frame", ir.DataType.UINT8, ["B", "H", "W"])
    options = author.builder.input("options", ir.DataType.FLOAT, ["B", 16])
    box = letterbox(author.op, frame, "i420", options, "rgb", sampled=True)
    author.builder.add_output(box.pixels, "pixels")
    running = session(author.finish(), provider, tmp_path)
    shape = (2, height * 3 // 2, width)
    feeds = {
        "frame": np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8),
        "options": np.zeros((2, 16), np.float32),
    }
    feeds["options"][1, 1:4] = (2, 1, 1)
    (pixels,) = running.run(None, feeds)
    events = json.loads(Path(running.end_profiling()).read_text())
    placed = {
        event["args"]["provider"] for event in events
        if event["name"].endswith("_kernel_time")
        and event["args"]["op_name"] == "GridSample"
    }  # fmt: skip
    assert placed == {provider}
    for row in range(2):
        expected = detection.letterbox(feeds["frame"][row], "i420", feeds["options"][row])
        np.testing.assert_allclose(pixels[row], expected, atol=SAMPLED_TOLERANCE)


@pytest.mark.gpu
def test_the_landmark_network_runs_where_the_rest_does(tmp_path: Path) -> None:
    """A GridSample or an Atan that the CPU has alone would make the GPU wait for copies."""
    row = LANDMARKERS["face_mesh_attention"]
    network = landmarker_network(row.name)
    model = face_landmarker.build(
        row, network, passes=GPU_LANDMARKER_PASSES, skip_empty=False
    )
    running = session(model, "CUDAExecutionProvider", tmp_path)
    running.run(None, make_feeds(row))
    events = json.loads(Path(running.end_profiling()).read_text())
    on_host = {
        event["args"]["op_name"] for event in events
        if event["name"].endswith("_kernel_time")
        and event["args"]["provider"] == "CPUExecutionProvider"
    }  # fmt: skip
    # Arithmetic on shapes.
    assert on_host <= {"Concat"}


@every_runtime
@pytest.mark.parametrize("slots", [1, 3])
def test_patches_are_laid_on_once_a_slot(provider: str, slots: int, tmp_path: Path) -> None:
    """A loop whose count was read from another value's memory gave the right picture, slowly."""
    places = [[(60.0 + 40 * k, 50.0, 40.0, 0.3) for k in range(slots)]] * 2
    request = make_request("i420", 120, 256, places)
    running = session(face_blender.build("i420", SIZE, method="patches"), provider, tmp_path)
    (swapped,) = running.run(None, request)
    events = json.loads(Path(running.end_profiling()).read_text())
    laid = [
        event for event in events
        if event["name"].endswith("_kernel_time")
        and event["args"]["op_name"] == "ScatterElements"
    ]  # fmt: skip
    assert len(laid) == slots
    difference = np.abs(swapped.astype(int) - expected(request))
    assert difference.max() <= ROUNDING
    # Values that lie at a half: a GPU's multiply-add rounds once where a CPU rounds twice.
    assert (difference > 0).mean() <= 2 * ROUNDED_SHARE
    request["faces"][..., SCORE_COLUMN] = 0
    (untouched,) = session(
        face_blender.build("i420", SIZE, method="patches"), provider
    ).run(None, request)  # fmt: skip
    np.testing.assert_array_equal(untouched, request["frame"])
