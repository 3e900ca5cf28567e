"""What the GPU bench promises without a GPU: cells that resume, an honest report, right scenes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from bench.gpu import SCENES, Results, report
from bench.peer_way import PeerPipeline, frames_per_second
from bench.scenes import Scene
from graphs import weights
from tests.networks import swapper_network


@pytest.fixture(scope="module")
def pipeline() -> PeerPipeline:
    weights.fetch("yunet")
    return PeerPipeline(
        weights.load_network("yunet"), swapper_network("inswapper_128"), ["CPUExecutionProvider"]
    )


def test_a_cell_is_measured_once_and_a_failed_one_again(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    first = Results(path, time.monotonic() + 60)
    assert first.measure("good", lambda: 7.0) == 7.0
    assert first.measure("bad", lambda: 1 / 0) is None
    again = Results(path, time.monotonic() + 60, json.loads(path.read_text())["cells"])
    assert again.measure("good", lambda: pytest.fail("measured twice")) == 7.0
    assert again.measure("bad", lambda: 3.0) == 3.0


def test_what_time_did_not_allow_is_listed_as_not_run(tmp_path: Path) -> None:
    late = Results(tmp_path / "results.json", time.monotonic() - 1)
    assert late.measure("late", lambda: pytest.fail("ran after the deadline")) is None
    text = report(late)
    assert "Not run (out of time; run again to go on): late" in text
    assert "| frames a second, CUDA shared memory | 600 | 1000 | not run |" in text


def test_the_report_relates_cells_of_one_run(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.json", time.monotonic() + 60)
    results.measure("one face, CUDA shared memory", lambda: {"per second": 800.0})
    results.measure("engine alone, batch 16", lambda: 1000.0)
    results.measure("peers' way, 8 threads", lambda: 100.0)
    text = report(results)
    assert "| % of the engine alone | 70 | 90 | 80.0 |" in text
    assert "| times the peers' way | 4 | 8 | 8.0 |" in text


@pytest.mark.parametrize("scene", SCENES.values(), ids=list(SCENES))
def test_a_scene_holds_the_faces_that_it_says(scene: Scene, pipeline: PeerPipeline) -> None:
    frame = scene.bgr()
    assert frame.shape == (scene.height, scene.width, 3)
    assert (pipeline.detect(frame) is not None) == (scene.faces > 0)
    assert scene.i420().shape == (scene.height * 3 // 2, scene.width)
    # float32 square roots of sums of 512 squares
    np.testing.assert_allclose(np.linalg.norm(scene.source(), axis=1), 1.0, atol=1e-6)


def test_the_peers_way_changes_the_face_and_nothing_far_from_it(pipeline: PeerPipeline) -> None:
    scene = SCENES["one face"]
    frame = scene.bgr()
    swapped, had_face = pipeline.swap(frame, scene.source())
    assert had_face
    changed = (swapped != frame).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert 200 < rows.max() - rows.min() < 800
    assert 200 < columns.max() - columns.min() < 800
    assert frames_per_second(pipeline, frame, scene.source(), threads=1, seconds=0.2) > 0
