"""Requests as bytes, sent in hundreds and given up: whatever becomes of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from server.launcher import EmbeddedServer

PATIENCE_S = 5.0
"""Triton never answers some of the requests that a process had when it died."""


class Sender:
    """Sends serialised requests, a window at a time."""

    def __init__(self, server: EmbeddedServer, *, timeout_s: float = PATIENCE_S) -> None:
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(server.grpc_url)
        self._call = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def send(
        self,
        messages: list[bytes],
        *,
        given_up: float = 0.0,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        calls = [self._call.future(message, timeout=self._timeout_s) for message in messages]
        for call in calls:
            if random.random() < given_up:
                call.cancel()
        meanwhile()
        for call in calls:
            try:
                call.result()
            except (grpc.RpcError, grpc.FutureCancelledError):
                continue  # that it lives on is what is looked at

    def close(self) -> None:
        self._channel.close()


def request(
    shape: tuple[int, ...], shift: float = 0, *, name: str = "invert_twice", tag: str = ""
) -> bytes:
    message = service_pb2.ModelInferRequest(model_name=name, id=tag)
    frame = np.zeros(shape, np.uint8)
    for tensor, kind, array in (
        ("frame", "UINT8", frame),
        ("options", "FP32", np.float32([[shift, 0, 0, 0]])),
    ):
        message.inputs.add(name=tensor, datatype=kind, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return bytes(message.SerializeToString())
