"""The request loop that every Python-based backend shares.

A backend's `model.py` makes a network and a memory and hands them to a `RequestLoop`; the loop
checks each request, joins what can be joined, runs, splits, and answers each request by itself:
one bad request of a batch fails alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from server.backends.common import Memory, ModelSettings, RequestError, check_request
from server.backends.failures import end_soon, explain, is_fatal
from server.backends.joining import group_by_shape, run_joined, run_rows

MOST_JOINED_BYTES = 2**31 - 1
"""Of one input of a run on a GPU: ONNX Runtime's CUDA kernels of GatherElements and
ScatterElements reckon a row's offset in 32 bits (providers/cuda/tensor/gather_elements_impl.cu)."""


class Network(Protocol):
    """An engine that runs joined arrays."""

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> dict[str, Any]:
        """Run inputs [N, ...] and return the named outputs [N, ...]; only `rows` rows count."""


class TensorMemory(Memory, Protocol):
    """A memory that reads and writes Triton's tensors too."""

    @property
    def device_id(self) -> int | None:
        """The CUDA device that it is on; None for the host."""

    def begin(self) -> None:
        """Called once before a batch is read."""

    def view(self, tensor: Any) -> Any:
        """View an input tensor as an array, where it is."""

    def place(self, array: Any) -> Any:
        """Return a viewed array in this memory: itself, or a copy where it was elsewhere."""

    def write(self, name: str, array: Any) -> Any:
        """Return a Triton tensor of an array of this memory."""

    def hand_through(self, name: str, tensor: Any, array: Any) -> Any:
        """Return an input under an output's name; `array` is the tensor as `place` gave it."""

    def finish(self) -> None:
        """Wait until everything written is there; called once before a batch is answered."""


@dataclass(frozen=True)
class Step:
    """One network with what it takes to run requests through it.

    padded_rows: the batch size to run for a number of rows.
    """

    settings: ModelSettings
    network: Network
    memory: TensorMemory
    padded_rows: Callable[[int], int]

    def compute(
        self,
        requests: Sequence[Mapping[str, Any]],
        wanted: Sequence[str],
        *,
        masks: Sequence[Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Run requests together and return the wanted outputs of each.

        Args:
            requests: input name to array; of equal shapes, unless the model joins face rows.
            masks: for such a model, see `joining.run_rows`.
        """

        def run(inputs: dict[str, Any], rows: int) -> dict[str, Any]:
            return self.network.run(inputs, wanted, rows)

        if self.settings.rows is None:
            return run_joined(requests, run, self.memory, padded_rows=self.padded_rows)
        return run_rows(
            requests,
            self.settings.rows,
            run,
            self.memory,
            padded_rows=self.padded_rows,
            output_shape=self._slot_shape,
            masks=masks,
        )

    def _slot_shape(self, output: str, arrays: Mapping[str, Any]) -> tuple[int, ...]:
        """Shape of one slot of a row output, from the config, else from the first row input."""
        dims = self.settings.dims[output][1:]
        rule = self.settings.rows
        if rule is not None and any(size < 0 for size in dims):
            return tuple(int(size) for size in arrays[rule.inputs[0]].shape[2:])
        return dims


@dataclass(frozen=True)
class _Accepted:
    """A request that passed the checks: Triton's tensors, our arrays, the outputs it asks for."""

    position: int
    tensors: Mapping[str, Any]
    arrays: Mapping[str, Any]
    wanted: frozenset[str]


@dataclass(frozen=True)
class _Looked:
    """A request's tensors, views of them where they are, and the same with host copies to check."""

    tensors: Mapping[str, Any]
    views: Mapping[str, Any]
    checked: Mapping[str, Any]


class RequestLoop:
    """Answers Triton's requests with one network.

    Args:
        settings: the model's.
        network: the engine.
        memory: keeps its arrays.
        backend_utils: the module `triton_python_backend_utils`.
        padded_rows: the batch size to run for a number of rows.
        end_process: called after an error that leaves the process unable to use its GPU.

    Attributes:
        step: the network as a step of something larger.
    """

    def __init__(
        self,
        settings: ModelSettings,
        network: Network,
        memory: TensorMemory,
        backend_utils: Any,
        *,
        padded_rows: Callable[[int], int] = lambda rows: rows,
        end_process: Callable[[], None] = end_soon,
    ) -> None:
        self.step = Step(settings, network, memory, padded_rows)
        self._settings = settings
        self._memory = memory
        self._utils = backend_utils
        self._end_process = end_process

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return one response a request, in order."""
        responses: list[Any] = [None] * len(requests)
        try:
            self._memory.begin()
            looked = self._look_at(requests, responses)
        except Exception as error:
            # The device failed, perhaps for another process that shares it: nobody is served.
            return [self._turn_down(error) for _ in requests]
        accepted: list[_Accepted] = []
        for position, seen in looked.items():
            try:
                accepted.append(self._read(position, requests[position], seen))
            except Exception as error:  # no memory for its copy on the device, for one
                responses[position] = self._turn_down(error)
        for group in self._groups([request.arrays for request in accepted]):
            members = [accepted[index] for index in group]
            for member, answer in zip(members, self._answer(members), strict=True):
                responses[member.position] = answer
        try:
            self._memory.finish()
        except Exception as error:
            # What a device does comes to light when it is waited for: no answer can be trusted.
            return [self._turn_down(error) for _ in requests]
        return responses

    def _look_at(self, requests: Sequence[Any], responses: list[Any]) -> dict[int, _Looked]:
        """View every input; what the host reads of a whole batch is copied with one wait.

        Args:
            responses: gets the refusal of a request that cannot be viewed.
        """
        tensors: dict[int, dict[str, Any]] = {}
        views: dict[int, dict[str, Any]] = {}
        for position, request in enumerate(requests):
            if request.is_cancelled():
                responses[position] = self._drop()
                continue
            try:
                named = {tensor.name(): tensor for tensor in request.inputs()}
                views[position] = {n: self._memory.view(tensor) for n, tensor in named.items()}
                tensors[position] = named
            except Exception as error:
                responses[position] = self._turn_down(error)
        places = [
            (position, name)
            for position, arrays in views.items()
            for name in self._settings.host_inputs
            if name in arrays
        ]
        copies = self._memory.to_host([views[position][name] for position, name in places])
        checked = {position: dict(arrays) for position, arrays in views.items()}
        for (position, name), copy in zip(places, copies, strict=True):
            checked[position][name] = copy
        return {
            position: _Looked(tensors[position], views[position], checked[position])
            for position in views
        }

    def _read(self, position: int, request: Any, looked: _Looked) -> _Accepted:
        check_request(self._settings, looked.checked)
        if self._memory.device_id is not None:
            self._check_size(looked.views)
        arrays = {name: self._memory.place(array) for name, array in looked.views.items()}
        wanted = frozenset(request.requested_output_names())
        return _Accepted(position, looked.tensors, arrays, wanted)

    def _check_size(self, views: Mapping[str, Any]) -> None:
        for name, array in views.items():
            if array.nbytes > MOST_JOINED_BYTES:
                raise RequestError(
                    f"input {name!r} of {self._settings.name} may have {MOST_JOINED_BYTES} bytes "
                    f"on a GPU, and has {array.nbytes}; send fewer frames in one request"
                )

    def _groups(self, arrays: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        if self._settings.rows is not None:
            return [list(range(len(arrays)))] if arrays else []
        most_bytes = None if self._memory.device_id is None else MOST_JOINED_BYTES
        most_rows = max(1, self._settings.max_batch_size)
        return group_by_shape(arrays, most_rows, most_bytes=most_bytes)

    def _answer(self, requests: Sequence[_Accepted]) -> list[Any]:
        """Run a group and answer it; a failure is narrowed down to the request that causes it."""
        asked = frozenset[str]().union(*(request.wanted for request in requests))
        wanted = [name for name in self._settings.computed_outputs if name in asked]
        try:
            # Nothing to compute where only inputs are handed through: nothing is joined then.
            arrays = [request.arrays for request in requests]
            outputs = self.step.compute(arrays, wanted) if wanted else [{} for _ in requests]
            return [
                self._respond(request, computed)
                for request, computed in zip(requests, outputs, strict=True)
            ]
        except Exception as error:
            # Whatever the engine throws (a shape it refuses, no memory) belongs to these requests
            # alone: the process must live on for the next batch.
            if len(requests) == 1 or is_fatal(error):
                return [self._turn_down(error) for _ in requests]
        # Not inside the handler: the error's frames hold what was joined, which may be what there
        # was no room for.
        return [self._answer([request])[0] for request in requests]

    def _respond(self, request: _Accepted, computed: Mapping[str, Any]) -> Any:
        tensors = []
        for name in self._settings.outputs:
            if name not in request.wanted:
                continue
            source = self._settings.passthrough.get(name)
            if source is None:
                tensors.append(self._memory.write(name, computed[name]))
            else:
                tensors.append(
                    self._memory.hand_through(name, request.tensors[source], request.arrays[source])
                )
        return self._utils.InferenceResponse(tensors)

    def _drop(self) -> Any:
        """The answer to a request that its client gave up while it waited: nobody reads it."""
        code = self._utils.TritonError.CANCELLED
        error = self._utils.TritonError("the client gave the request up", code)
        return self._utils.InferenceResponse([], error)

    def _refuse(self, error: Exception) -> Any:
        code = self._utils.TritonError.INVALID_ARG
        return self._utils.InferenceResponse([], self._utils.TritonError(str(error), code))

    def _turn_down(self, error: Exception) -> Any:
        return self._refuse(error) if isinstance(error, RequestError) else self._fail(error)

    def _fail(self, error: Exception) -> Any:
        told = explain(error, self._memory.device_id)
        text = f"{self._settings.name} could not run this request: {told}"
        if self._memory.device_id is not None and is_fatal(error):
            self._utils.Logger.log_error(text)
            self._end_process()
        code = self._utils.TritonError.INTERNAL
        return self._utils.InferenceResponse([], self._utils.TritonError(text, code))
