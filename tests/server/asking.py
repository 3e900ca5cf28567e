"""Asking a server with NumPy arrays, one request at a time or many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any

import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

Array = NDArray[Any]


class Asker:
    """A client that takes and gives NumPy arrays."""

    def __init__(self, url: str) -> None:
        self.client = triton_grpc.InferenceServerClient(url)

    def ask(self, model: str, **arrays: Array) -> dict[str, Array]:
        """Run one request and return all outputs."""
        return self.outputs(self.client.infer(model, self.inputs(arrays), client_timeout=60))

    def ask_together(self, model: str, requests: list[Mapping[str, Array]]) -> list[Any]:
        """Send all requests before waiting; return outputs, or the exception of each."""
        return self.ask_mixed([(model, arrays) for arrays in requests])

    def ask_mixed(self, requests: Sequence[tuple[str, Mapping[str, Array]]]) -> list[Any]:
        """As `ask_together`, with a model for each request."""
        arrived: SimpleQueue[tuple[int, Any, Any]] = SimpleQueue()
        for position, (model, arrays) in enumerate(requests):
            self.client.async_infer(
                model,
                self.inputs(arrays),
                lambda result, error, position=position: arrived.put((position, result, error)),
                client_timeout=60,
            )
        answers: list[Any] = [None] * len(requests)
        for _ in requests:
            position, result, error = arrived.get(timeout=90)
            answers[position] = error if error is not None else self.outputs(result)
        return answers

    def mean_batch_since(self, model: str, before: tuple[int, int]) -> float:
        """Return requests an execution since `counts` was read."""
        inferences, executions = self.counts(model)
        return (inferences - before[0]) / (executions - before[1])

    def counts(self, model: str) -> tuple[int, int]:
        """Return how many inferences and executions of a model the server has counted."""
        (statistics,) = self.client.get_inference_statistics(model).model_stats
        return statistics.inference_count, statistics.execution_count

    @staticmethod
    def inputs(arrays: Mapping[str, Array]) -> list[triton_grpc.InferInput]:
        inputs = []
        for name, array in arrays.items():
            tensor = triton_grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            inputs.append(tensor.set_data_from_numpy(array))
        return inputs

    @staticmethod
    def outputs(result: triton_grpc.InferResult) -> dict[str, Array]:
        names = [output.name for output in result.get_response().outputs]
        return {name: result.as_numpy(name) for name in names}
