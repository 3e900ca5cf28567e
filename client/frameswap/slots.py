"""Slots of shared memory: what lies where in one, and writing a request into it.

A slot is one region, registered once and used again: the frame, the swapped frame and the source,
side by side. `options`, `faces` and `landmarks` are small and stay in the messages.
"""

from __future__ import annotations

import math
import weakref
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import FRAME, SOURCE, SWAPPED_FRAME
from frameswap.shared_memory import Region
from frameswap.transport import SwapRequest
from frameswap.wire import TensorInfo, build_header, join_request

__all__ = ["Layout", "Slot", "fill"]

_ALIGNMENT: Final = 4096
"""Tensors begin on pages of their own, so that no cache line is written by both sides."""


class Slot:
    """One region and what is in it.

    source: the array whose values it holds.
    layout: what lies where in it.
    messages: the request that was last sent to each model, and the options that it was made of: the
        next one with the same is the same bytes, because the frame is not in them.
    in_doubt: whether the server may be working on it: it was sent, and no answer came yet.
    is_lent: whether somebody outside holds a swapped frame that lies in it.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        self.source: NDArray[np.float32] | None = None
        self.layout: tuple[Any, ...] = ()
        self.messages: dict[str, tuple[NDArray[np.float32], bytes]] = {}
        self.in_doubt = False
        self._loan: weakref.ref[memoryview] | None = None

    @property
    def is_lent(self) -> bool:
        return self._loan is not None and self._loan() is not None

    def view(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start,) uint8 of its region; `lend` can tell when nobody has it any more."""
        # NumPy would put the region's own array under a view of an array.
        return np.frombuffer(self.region.host.data[start:stop], np.uint8)

    def lend(self, view: NDArray[np.uint8]) -> None:
        """Have `is_lent` say yes as long as an array that was made of a `view` is held.

        Every array over that memory, and whatever else was made of one, holds the memoryview which
        NumPy put under the first.
        """
        below: Any = view
        while isinstance(below, np.ndarray):
            below = below.base
        assert isinstance(below, memoryview)
        self._loan = weakref.ref(below)


class Layout:
    """Where the tensors of a request lie in its slot, in bytes."""

    def __init__(self, request: SwapRequest) -> None:
        self.frame_size = math.prod(request.frame.shape)
        self.swapped = _round_up(self.frame_size)
        self.source = 2 * self.swapped
        room = request.room if request.source is None else request.source.nbytes
        self.size = self.source + _round_up(room)
        self.key = (request.batched, request.frame.shape)


def fill(slot: Slot, request: SwapRequest, layout: Layout, *, holds_frame: bool) -> bytes:
    """The one copy of a frame on its way out; source and message only when they are others.

    Returns:
        The message to send.
    """
    region = slot.region
    if slot.layout != layout.key:
        # The frame may be written over what lay elsewhere, and writing it may fail.
        slot.layout, slot.source = layout.key, None
        slot.messages.clear()
    if not holds_frame:
        target = region.host[: layout.frame_size].reshape(request.frame.shape)
        if isinstance(request.frame, np.ndarray):
            target[...] = request.frame
        else:
            request.frame.copy_to(target)
        region.push(0, layout.frame_size)
    if request.source is not None and slot.source is not request.source:
        if slot.source is None or slot.source.shape != request.source.shape:
            slot.messages.clear()
        stop = layout.source + request.source.nbytes
        region.host[layout.source : stop] = request.source.reshape(-1).view(np.uint8)
        region.push(layout.source, stop)
        slot.source = request.source
    options, message = slot.messages.get(request.model, (None, b""))
    if options is not request.options or request.found:
        header = _build_header(region.name, request, layout)
        message = join_request(header, list(request.small_tensors.values()))
        slot.messages[request.model] = (request.options, message)
    return message


def _build_header(region: str, request: SwapRequest, layout: Layout) -> bytes:
    frame_shape = request.shape_on_wire(request.frame.shape)
    inputs = [TensorInfo(FRAME, "UINT8", frame_shape, region, 0, layout.frame_size)]
    if request.source is not None:
        shape, size = request.shape_on_wire(request.source.shape), request.source.nbytes
        inputs.append(TensorInfo(SOURCE, "FP32", shape, region, layout.source, size))
    for name, array in request.small_tensors.items():
        inputs.append(TensorInfo(name, "FP32", request.shape_on_wire(array.shape)))
    outputs: list[TensorInfo | str] = list(request.outputs)
    if SWAPPED_FRAME in request.outputs:
        outputs[request.outputs.index(SWAPPED_FRAME)] = TensorInfo(
            SWAPPED_FRAME, "UINT8", frame_shape, region, layout.swapped, layout.frame_size
        )
    return build_header(request.model, inputs, outputs)


def _round_up(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
