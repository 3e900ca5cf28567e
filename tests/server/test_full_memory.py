"""A /dev/shm that is full: one sentence that names no region of the server, which lives on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.copy_repository import write_copy_repository
from tests.server.small_memory import ROOT, run_in_small_memory

pytestmark = pytest.mark.e2e

ASK = """
import json, os, sys
from pathlib import Path
import numpy as np
from frameswap import FaceSwapper, FrameswapError, Source
from server.launcher import EmbeddedServer

source = Source(np.ones(512, np.float32), "identity", "inswapper_128", np.zeros((0, 15)))
told = []
with EmbeddedServer(Path(sys.argv[1]), models=["swap_faces_i420"], one_process=True) as server:
    pid = server.pid
    with FaceSwapper(server.grpc_url, transport="grpc", reconnect_s=0) as swapper:
        # Too large for what the model's process has; then its answer is too large.
        for height, width in ((4000, 6000), (2160, 3840)):
            try:
                swapper.swap(np.zeros((height * 3 // 2, width), np.uint8), source)
            except FrameswapError as error:
                told.append([type(error).__name__, str(error)])
        small = np.random.default_rng(1).integers(0, 256, (96, 64), np.uint8)
        served = bool((swapper.swap(small, source).frame == small).all()) and server.pid == pid
print(json.dumps([told, served, server.grpc_url]))
"""


def test_full_shared_memory_is_said_without_a_name_of_the_servers(tmp_path: Path) -> None:
    write_copy_repository(tmp_path, ROOT / "model_repository")
    # The first region fits, and nothing that it would grow by.
    answer = run_in_small_memory(ASK, str(tmp_path), mebibytes=20)
    told, served, address = json.loads(answer)
    sentence = (
        f"the server at {address} has no shared memory left while swapping a frame: make its "
        "/dev/shm larger (a container: --shm-size=1g), or keep fewer frames in flight (--window)"
    )
    assert told == [["ServerFault", sentence]] * 2
    assert served
