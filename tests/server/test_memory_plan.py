"""Planned memory, against sums done by hand."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from server import shared_memory
from server.errors import StartError
from server.launcher import EmbeddedServer
from server.memory_plan import MEBIBYTE, MemoryPlan, check_shared_memory, plan_memory
from tests.server.tiny_models import TINY_MODELS

BLENDER = """
name: "blender" backend: "onnxruntime" max_batch_size: 8
input { name: "frame" data_type: TYPE_UINT8 dims: [-1, -1, 3] }
input { name: "crops" data_type: TYPE_FP32 dims: [-1, 3, 256, 256] }
output { name: "swapped_frame" data_type: TYPE_UINT8 dims: [-1, -1, 3] }
instance_group { kind: KIND_%s count: 2 }
"""
ENSEMBLE = """
name: "swap" platform: "ensemble" max_batch_size: 8
ensemble_scheduling { step { model_name: "blender" model_version: -1 } }
"""
FRAME = 1920 * 1080 * 3
CROP = 3 * 256 * 256 * 4


def parse(*texts: str) -> list[ModelConfig]:
    return [text_format.Parse(text, ModelConfig()) for text in texts]


def plan(kind: str, *, in_flight: int = 16, faces: int = 1) -> MemoryPlan:
    return plan_memory(
        parse(BLENDER % kind, ENSEMBLE),
        frame_size=(1920, 1080),
        requests_in_flight=in_flight,
        faces=faces,
    )


def test_each_process_is_planned_a_batch_of_its_tensors() -> None:
    assert plan("CPU").processes == 2
    assert plan("CPU").regions == 2 * 8 * (2 * FRAME + CROP)
    assert plan("CPU", faces=4).regions == 2 * 8 * (2 * FRAME + 4 * CROP)
    assert plan("CPU", in_flight=3).regions == 2 * 3 * (2 * FRAME + CROP)


def test_the_cuda_pool_holds_what_lies_between_the_steps() -> None:
    planned = plan("GPU")
    assert planned.cuda_pool >= 16 * FRAME * 1.5
    assert planned.cuda_pool % (64 * MEBIBYTE) == 0
    assert planned.pinned_pool >= 256 * MEBIBYTE
    assert plan("GPU", in_flight=64).cuda_pool > planned.cuda_pool
    assert (plan("CPU").cuda_pool, plan("CPU").pinned_pool) == (0, 0)


def test_the_plan_tells_a_person_its_figures() -> None:
    told = "\n".join(plan("GPU").describe())
    assert "planned for 16 requests in flight of 1920x1080" in told
    assert "of CUDA memory a GPU" in told
    assert "pools: none" in "\n".join(plan("CPU").describe())


def test_too_little_shared_memory_is_refused_before_anything_starts(
    tiny_repository: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_shared_memory(plan("CPU"), 32 * MEBIBYTE)
    sentence = r"/dev/shm has 31 MiB free, .* at least 32 MiB.*--shm-size=1g"
    with pytest.raises(StartError, match=sentence):
        check_shared_memory(plan("CPU"), 31 * MEBIBYTE)
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: MEBIBYTE)
    server = EmbeddedServer(tiny_repository)  # type: ignore[arg-type]
    with pytest.raises(StartError, match=f"{len(TINY_MODELS) - 1} model processes need at least"):
        server.start()
    assert not server.is_running
