"""The one line of a log that says why, out of logs as Triton 24.10 writes them."""

from __future__ import annotations

import pytest

from server.server_log import explain_failure, says_address_in_use

CUDA = 'E1122 17:34:25.411 77 server.cc:241] "CudaDriverHelper has not been initialized."'
LOADING = (
    "E1122 17:34:26.120 77 model_lifecycle.cc:642] \"failed to load 'face_swapper' version 1: "
    "Internal: TritonModelException: face_swapper: parameter max_rows must be a whole number.\\n"
    '\\nAt:\\n  /cache/onnxruntime/model.py(90): initialize\\n"'
)
VERSION = (
    "E1122 17:34:26.120 77 model_lifecycle.cc:642] \"failed to load 'blender' version 1: "
    'Invalid argument: instance group blender_0 has kind KIND_GPU but no GPUs are available"'
)
OTHER = 'E1122 17:34:27.000 77 main.cc:1] "something else."'
BIND = (
    'E1122 18:02:11.1 9 main.cc:218] "failed to start GRPC service: Unavailable - Socket '
    "'127.0.0.1:8001' already in use \""
)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([CUDA, LOADING, OTHER], "face_swapper: parameter max_rows must be a whole number"),
        (
            [CUDA, VERSION, OTHER],
            "blender: Invalid argument: instance group blender_0 has kind KIND_GPU but no GPUs "
            "are available",
        ),
        ([OTHER, CUDA], "something else"),
        (["error: creating server: Internal - failed"], "creating server: Internal - failed"),
        ([CUDA], ""),
        ([], ""),
    ],
)
def test_the_most_telling_line_is_found(lines: list[str], told: str) -> None:
    assert explain_failure("\n".join(lines)) == told


def test_a_taken_port_is_told_from_other_failures() -> None:
    assert says_address_in_use(f"{CUDA}\n{BIND}")
    assert not says_address_in_use(f"{CUDA}\n{LOADING}")
