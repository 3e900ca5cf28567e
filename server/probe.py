"""A real inference that tells whether a model answers: Triton 24.10 calls dead models ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import tritonclient.grpc as triton_grpc
from google.protobuf.message import Message
from tritonclient.grpc.model_config_pb2 import DataType
from tritonclient.utils import np_to_triton_dtype

from graphs.contract import FRAME, MIN_FRAME_SIDE

_ELEMENTS: Final = {
    "TYPE_UINT8": np.uint8,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
}


def probe(client: triton_grpc.InferenceServerClient, config: Message, *, timeout_s: float) -> None:
    """Send one small request of zeros to a model and wait for its answer.

    Args:
        client: connected to the server.
        config: the model's `ModelConfig`.
        timeout_s: how long the answer may take.

    Raises:
        tritonclient.utils.InferenceServerException: no answer, or an error.
    """
    inputs = []
    for tensor in config.input:
        shape = [1] * bool(config.max_batch_size) + list(_probe_dims(tensor.name, tensor.dims))
        array = np.zeros(shape, _ELEMENTS[DataType.Name(tensor.data_type)])
        given = triton_grpc.InferInput(tensor.name, shape, np_to_triton_dtype(array.dtype))
        given.set_data_from_numpy(array)
        inputs.append(given)
    # Every output is asked for: a subset of an ensemble's can be answered with an error.
    client.infer(config.name, inputs, client_timeout=timeout_s)


def _probe_dims(name: str, dims: Sequence[int]) -> Sequence[int]:
    """Return a legal shape: a small frame (I420 has rank 2), 1 for any other free axis."""
    if name != FRAME:
        return [1 if size < 0 else size for size in dims]
    if len(dims) == 2:
        return [MIN_FRAME_SIDE * 3 // 2, MIN_FRAME_SIDE]
    return [MIN_FRAME_SIDE, MIN_FRAME_SIDE, 3]
