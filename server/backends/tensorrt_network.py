"""A TensorRT or TensorRT-RTX plan as a network of the request loop (`serving.Network`).

The library module, the memory and the graph capture are given, so that nothing here imports
TensorRT, CuPy or Triton. One execution context an instance, all work on the memory's stream.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from server.backends.plans import PlanError, check_shapes

ELEMENT_TYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8"}
"""TensorRT's names of the element types that the serving contract has, and NumPy's."""

CAPTURE_AFTER = 3
"""Runs of one shape before its CUDA graph is captured: a shape of one odd request never is."""

MOST_GRAPHS = 16
"""Captured shapes kept; each holds its own input and output buffers."""


class EngineMemory(Protocol):
    """What is needed of `device.DeviceMemory`."""

    @property
    def stream_ptr(self) -> int: ...

    def empty(self, shape: Sequence[int], element_type: str) -> Any: ...


Capture = Callable[[Callable[[], None]], Callable[[], None] | None]
"""Runs a function while its work is captured; returns what replays it, None if it cannot be."""


@dataclass(frozen=True)
class _Captured:
    """One captured shape: its buffers, and what launches its graph."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    launch: Callable[[], None]


def make_log(trt: Any) -> Any:
    """A logger that keeps the library's last error, for the sentence that a client gets."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the base is known only when it is imported
        def __init__(self) -> None:
            super().__init__()
            self.last = "no reason given"

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = " ".join(message.split())

    return Log()


def load_engine(trt: Any, plan: bytes, log: Any, name: str) -> Any:
    """Deserialise a plan.

    Raises:
        PlanError: the library refuses it; the sentence has its reason.
    """
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise PlanError(
            f"the plan of {name} cannot be loaded by {trt.__name__} {trt.__version__} "
            f"({log.last}): run `python build_engines.py --models {name}` on this machine"
        )
    return engine


class TensorRTNetwork:
    """Runs one plan.

    Args:
        name: the model's, for messages.
        engine: the deserialised plan.
        context: its execution context.
        memory: where outputs are made; its stream runs everything.
        capture: captures CUDA graphs; None leaves them out.
        log: the logger of `make_log`.
    """

    def __init__(
        self,
        name: str,
        trt: Any,
        engine: Any,
        context: Any,
        memory: EngineMemory,
        log: Any,
        capture: Capture | None = None,
    ) -> None:
        self._name = name
        self._engine = engine
        self._context = context
        self._memory = memory
        self._log = log
        self._capture = capture
        self._seen: dict[object, int] = {}
        self._graphs: OrderedDict[object, _Captured] = OrderedDict()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
        self._outputs = {
            name: ELEMENT_TYPES[engine.get_tensor_dtype(name).name]
            for name in names
            if modes[name] == trt.TensorIOMode.OUTPUT
        }
        profiles = {name: engine.get_tensor_profile_shape(name, 0) for name in inputs}
        self.ranges = {name: (tuple(low), tuple(high)) for name, (low, _, high) in profiles.items()}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Every output of the plan."""
        return tuple(self._outputs)

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> dict[str, Any]:
        """Run device arrays; the outputs are new device arrays.

        Raises:
            RequestError: a shape is outside the plan's profile.
            RuntimeError: TensorRT could not run it.
        """
        shapes = {name: tuple(array.shape) for name, array in inputs.items()}
        check_shapes(self._name, shapes, self.ranges)
        key = tuple(sorted(shapes.items()))
        captured = self._graphs.get(key)
        if captured is not None:
            self._graphs.move_to_end(key)
        elif self._capture is not None:
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] > CAPTURE_AFTER:
                captured = self._capture_graph(key, inputs)
        if captured is not None:
            return self._replay(captured, inputs, outputs)
        made = self._bind(inputs)
        self._enqueue()
        return {name: made[name] for name in outputs}

    def _bind(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Give the context its memory; every output needs some, asked for or not."""
        context = self._context
        for name in self.ranges:
            if not context.set_input_shape(name, tuple(inputs[name].shape)):
                raise RuntimeError(self._log.last)
            context.set_tensor_address(name, inputs[name].data.ptr)
        missing = context.infer_shapes()
        if missing:
            raise RuntimeError(f"the plan leaves the shape of {', '.join(missing)} open")
        made = {}
        for name, element_type in self._outputs.items():
            shape = tuple(context.get_tensor_shape(name))
            made[name] = self._memory.empty(shape, element_type)
            context.set_tensor_address(name, made[name].data.ptr)
        return made

    def _enqueue(self) -> None:
        context = self._context
        if not context.execute_async_v3(self._memory.stream_ptr):
            raise RuntimeError(self._log.last)

    def _capture_graph(self, key: object, inputs: Mapping[str, Any]) -> _Captured | None:
        """Capture this shape on buffers of its own; None, for good, where the plan cannot be."""
        assert self._capture is not None
        buffers = {
            name: self._memory.empty(inputs[name].shape, inputs[name].dtype.name)
            for name in self.ranges
        }
        for name, buffer in buffers.items():
            buffer[...] = inputs[name]
        made = self._bind(buffers)
        # The first run of a shape does work that a capture must not hold (NVIDIA's documentation
        # of CUDA graphs asks for it).
        self._enqueue()
        launch = self._capture(self._enqueue)
        if launch is None:
            # Loops and conditions on data wait for the host: such a plan runs without graphs.
            self._capture = None
            return None
        captured = _Captured(buffers, made, launch)
        self._graphs[key] = captured
        while len(self._graphs) > MOST_GRAPHS:
            oldest, _ = self._graphs.popitem(last=False)
            self._seen.pop(oldest, None)
        return captured

    def _replay(
        self, captured: _Captured, inputs: Mapping[str, Any], outputs: Sequence[str]
    ) -> dict[str, Any]:
        """Copy in, launch, copy out: Triton may still read outputs while the next batch runs."""
        for name, buffer in captured.inputs.items():
            buffer[...] = inputs[name]
        captured.launch()
        return {name: captured.outputs[name].copy() for name in outputs}
