"""Frames that are found and swapped in two requests, on the real server of a GPU-less machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from bench.gpu.two_steps import TwoStepLoad, two_step_rate
from bench.scenes import Scene
from networks.swappers import SWAPPERS
from server.launcher import EmbeddedServer

pytestmark = pytest.mark.e2e
LENGTH = SWAPPERS["image_swapper_256"].source_length


@dataclass(frozen=True)
class PackedScene(Scene):
    """A scene for the project's own swapper. level: of the source's bytes, all of them."""

    level: float = 0.0

    def source(self) -> np.ndarray:
        return np.full((self.slots, LENGTH), self.level, np.float32)


def load(faces: int, level: float) -> TwoStepLoad:
    scene = PackedScene("small", width=320, height=240, faces=faces, level=level)
    return TwoStepLoad(processes=2, in_flight=2, seconds=1.0, memory="system", scene=scene)


def test_frames_are_found_and_swapped(real_server: EmbeddedServer) -> None:
    found = two_step_rate(real_server.grpc_url, load(1, 100.0))
    assert found["in flight"] == 4
    assert found["per second"] > 0
    assert 0 < found["p50 ms"] <= found["p95 ms"] <= found["p99 ms"]
    assert found["CPU ms a frame"] > 0


def test_a_face_that_is_not_swapped_is_no_frame(real_server: EmbeddedServer) -> None:
    """A source of zeros is nobody: what is timed must be a swap."""
    with pytest.raises(RuntimeError, match="a face was left as it is"):
        two_step_rate(real_server.grpc_url, load(1, 0.0))
