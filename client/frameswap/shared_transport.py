"""Frames through memory that client and server share: gRPC carries only the words.

Each request in flight has a slot (`frameswap.slots`). A slot whose frame was searched for faces
serves the swap of what was found, too.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from frameswap.connection import CLOSING_S, Connection, PendingCall
from frameswap.contract import SWAPPED_FRAME
from frameswap.errors import (
    FrameswapError,
    ServerFault,
    ServerTimeout,
    ServerUnreachable,
    TransportUnavailable,
)
from frameswap.shared_memory import Region, unregister_when_idle
from frameswap.slots import Layout, Slot, fill
from frameswap.transport import (
    DOING,
    GrpcTransport,
    PendingSwap,
    SwapRequest,
    TransportName,
    is_own,
    read_outputs,
)
from frameswap.wire import SharedOutput

__all__ = ["SharedTransport"]

logger = logging.getLogger("frameswap")

_IN_REGIONS: Final = frozenset({SWAPPED_FRAME})
_UNKNOWN_REGION: Final = "unable to find shared memory region"
"""What Triton says of a region that it does not map."""
_TOO_SMALL: Final = re.compile(r"should be at least (\d+) bytes to hold the results")
"""What Triton says of a region that is smaller than an output."""
_MOST_BYTES: Final = 1 << 48
"""No output has more: what a processor can address. Triton 24.10 was seen to name 0x50 << 56 bytes,
twice under load: it read its own memory wrongly."""
MOST_REGISTRATIONS: Final = 8
"""How often one request has its region mapped again."""
MOST_LENT: Final = 4
"""Slots that may lie with those who hold results; who holds more is given copies. A display or an
encoder's threads hold a few, a list of all frames would fill the memory with frames in threes."""
_UNREGISTERS_SAFELY: Final = (2, 53)
"""From Triton 24.12 on, a region in use is unregistered when its last request ends; before, the
server unmaps it under the request."""


class SharedTransport:
    """Slots of shared memory, one a request in flight.

    Args:
        make_region: makes a region of so many bytes.
        fallback: takes the frames that no slot can be made for; None raises instead.
    """

    def __init__(
        self,
        name: TransportName,
        connection: Connection,
        make_region: Callable[[int], Region],
        *,
        fallback: GrpcTransport | None,
    ) -> None:
        self.name = name
        self._connection = connection
        self._make_region = make_region
        self._fallback = fallback
        self._lock = threading.Lock()
        self._free: list[Slot] = []
        self._slots: list[Slot] = []
        self._lent: list[Slot] = []
        self._given_up: list[_PendingShared] = []
        self._doubtful: list[Slot] = []

    def submit(self, request: SwapRequest) -> PendingSwap:
        """Send one frame; one copy is made of it, into the slot."""
        layout = Layout(request)
        slot = self._take_over(request.held, layout.size)
        holds_frame = slot is not None
        try:
            if slot is None:
                slot = self._acquire(layout.size)
        except TransportUnavailable as error:
            return self.submit_as_bytes(request, error)
        try:
            return _PendingShared(self, slot, request, layout, holds_frame=holds_frame)
        except BaseException:
            self.give_back(slot)
            raise

    def submit_as_bytes(self, request: SwapRequest, reason: FrameswapError) -> PendingSwap:
        """Send one frame over gRPC, because of a reason; raise that where it may not be."""
        if self._fallback is None:
            raise reason
        # Once: the frames in flight so far keep their slots, the others go as bytes.
        if self.name != "grpc":
            logger.info("some frames are sent over gRPC, because %s", reason)
            self.name = "grpc"
        return self._fallback.submit(request)

    def close(self) -> None:
        """Unregister and remove every region, whatever the server answers."""
        with self._lock:
            self._free, self._lent, self._given_up, self._doubtful = [], [], [], []
        answers, deadline_s = True, time.monotonic() + CLOSING_S
        # One by one: whoever was interrupted here can go on by closing again.
        while True:
            with self._lock:
                if not self._slots:
                    return
                slot = self._slots.pop()
            answers = self._remove(slot, ask=answers and time.monotonic() < deadline_s)

    def renew(self) -> None:
        """Remove the slots whose requests were lost: a server that lives on may still write."""
        self._collect()
        with self._lock:
            doubtful, self._doubtful = self._doubtful, []
            mine = [slot for slot in doubtful if slot in self._slots]
            self._slots = [slot for slot in self._slots if slot not in mine]
        for slot in mine:
            self._remove(slot)

    def send(self, slot: Slot, message: bytes) -> PendingCall:
        slot.in_doubt = True
        return self._connection.submit(message, doing=DOING)

    def read(
        self, message: bytes, *, in_regions: frozenset[str]
    ) -> dict[str, NDArray[Any] | SharedOutput]:
        return read_outputs(message, self._connection, in_regions=in_regions)

    def register_again(self, slot: Slot) -> None:
        """Make a server that was restarted map the slot's region."""
        with suppress(FrameswapError):
            slot.region.unregister(self._connection)
        slot.region.register(self._connection)

    def give_back(self, slot: Slot) -> None:
        with self._lock:
            if slot in self._slots:
                (self._doubtful if slot.in_doubt else self._free).append(slot)

    def lend(self, slot: Slot, frame: NDArray[np.uint8]) -> bool:
        """Let a frame that lies in a slot outlast its request, unless many slots are lent."""
        with self._lock:
            self._lent = [each for each in self._lent if each.is_lent]
            if len(self._lent) >= MOST_LENT:
                return False
            slot.lend(frame)
            self._lent.append(slot)
        return True

    def give_up(self, pending: _PendingShared) -> None:
        """Let its slot be used again when its answer has come after all."""
        with self._lock:
            if pending.slot in self._slots:
                self._given_up.append(pending)

    def _collect(self) -> None:
        with self._lock:
            given_up, self._given_up = self._given_up, []
        for pending in given_up:
            pending.release(patience_s=0.0)

    def _take_over(self, held: PendingSwap | None, size: int) -> Slot | None:
        """The slot of an answered request, if it is ours, still there and large enough."""
        if not isinstance(held, _PendingShared) or not held.can_be_taken_over(self):
            return None
        if held.slot.region.host.size < size:
            return None
        held.was_taken_over()
        return held.slot

    def owns(self, slot: Slot) -> bool:
        """Whether a slot is registered, and not removed by `renew` or `close`."""
        with self._lock:
            return slot in self._slots

    def _acquire(self, size: int) -> Slot:
        self._collect()
        with self._lock:
            slot = next((each for each in reversed(self._free) if not each.is_lent), None)
            if slot is not None:
                self._free.remove(slot)
        if slot is not None:
            if slot.region.host.size >= size:
                return slot
            with self._lock:
                self._slots.remove(slot)
            self._remove(slot)
        slot = Slot(self._make_region(size))
        with self._lock:
            self._slots.append(slot)
        try:
            slot.region.register(self._connection)
        except BaseException:
            with self._lock:
                self._slots.remove(slot)
            slot.region.close()
            raise
        return slot

    def _remove(self, slot: Slot, *, ask: bool = True) -> bool:
        """Remove a slot's region; whether the server, if it was asked to forget it, answered."""
        try:
            if ask and (not slot.in_doubt or self._unregisters_safely()):
                unregister_when_idle(slot.region, self._connection)
        except ServerTimeout:
            return False
        except FrameswapError:
            pass  # One that never mapped it, or was started again since, has nothing to give back.
        finally:
            slot.region.close()
        return ask

    def _unregisters_safely(self) -> bool:
        version = self._connection.call(
            "ServerMetadata", service_pb2.ServerMetadataRequest(), doing="while closing"
        ).version
        parts = version.split(".")[:2]
        return all(part.isdigit() for part in parts) and (
            tuple(int(part) for part in parts) >= _UNREGISTERS_SAFELY
        )


class _PendingShared:
    def __init__(
        self,
        transport: SharedTransport,
        slot: Slot,
        request: SwapRequest,
        layout: Layout,
        *,
        holds_frame: bool,
    ) -> None:
        self._transport = transport
        self.slot = slot
        self._layout = layout
        self._request = request
        self._released = False
        self._as_bytes: PendingSwap | None = None
        self._message = fill(slot, request, layout, holds_frame=holds_frame)
        self._call: PendingCall | None = transport.send(slot, self._message)

    def result(self) -> Mapping[str, NDArray[Any]]:
        if self._as_bytes is None:
            try:
                return self._shared_result()
            except FrameswapError as error:
                if _UNKNOWN_REGION not in str(error).lower():
                    raise
                self._as_bytes = self._transport.submit_as_bytes(self._request, error)
        return self._as_bytes.result()

    def _shared_result(self) -> Mapping[str, NDArray[Any]]:
        in_regions = _IN_REGIONS if SWAPPED_FRAME in self._request.outputs else frozenset()
        outputs = self._transport.read(self._answer(), in_regions=in_regions)
        shared = outputs.get(SWAPPED_FRAME)
        if isinstance(shared, SharedOutput):
            expected = self._request.shape_on_wire(self._request.frame.shape)
            if (shared.datatype, shared.shape) != ("UINT8", expected):
                raise ServerFault(
                    f"the server returned a frame of {shared.datatype} {shared.shape} for one of "
                    f"UINT8 {expected}"
                )
            start, stop = self._layout.swapped, self._layout.swapped + self._layout.frame_size
            self.slot.region.pull(start, stop)
            outputs[SWAPPED_FRAME] = self.slot.view(start, stop).reshape(expected)
        return {
            name: array for name, array in outputs.items() if not isinstance(array, SharedOutput)
        }

    def _answer(self) -> bytes:
        """Wait, and have the region mapped again as often as the server does not know it.

        It does not after a restart, and after any of its clients unregistered all regions. What a
        server cannot have meant is asked once more.
        """
        has_misread = False
        for _ in range(MOST_REGISTRATIONS):
            try:
                return self._wait()
            except FrameswapError as error:
                if _names_no_size(error) and not has_misread:
                    logger.warning("a frame is sent once more, because %s", error)
                    has_misread = True
                elif _UNKNOWN_REGION in str(error).lower():
                    self._transport.register_again(self.slot)
                else:
                    raise
            # Should sending be interrupted, no earlier answer may be taken for this one's.
            self._call = None
            self._call = self._transport.send(self.slot, self._message)
        return self._wait()

    def _wait(self) -> bytes:
        assert self._call is not None, "nothing was sent"
        try:
            answer: bytes = self._call.result()
        except FrameswapError as error:
            # After these it may still come, into memory that another frame would be in by then.
            self.slot.in_doubt = isinstance(error, ServerTimeout | ServerUnreachable)
            raise
        self.slot.in_doubt = False
        return answer

    def keep(self, frame: NDArray[np.uint8], *, writable: bool) -> NDArray[np.uint8]:
        if self._as_bytes is not None:
            return self._as_bytes.keep(frame, writable=writable)
        if not is_own(frame) and not self._transport.lend(self.slot, frame):
            return frame.copy()
        frame.flags.writeable = writable
        return frame

    def wait(self, patience_s: float) -> bool:
        if self._as_bytes is not None:
            return self._as_bytes.wait(patience_s)
        return self._call is not None and self._call.wait(patience_s)

    def can_be_taken_over(self, transport: SharedTransport) -> bool:
        """Whether another request may have its slot: this one was answered, and keeps it."""
        return (
            transport is self._transport
            and not self._released
            and self._as_bytes is None
            and not self.slot.in_doubt
            and transport.owns(self.slot)
        )

    def was_taken_over(self) -> None:
        """The slot is another request's now, which gives it back."""
        self._released = True

    def cancel(self) -> None:
        """In shared memory nothing: a server that is told so may still write, and not say when."""
        if self._as_bytes is not None:
            self._as_bytes.cancel()

    def release(self, *, patience_s: float | None = None) -> None:
        """Wait until the server is done with the slot, then let another frame use it."""
        if self._released:
            return
        self._released, given_up = True, False
        try:
            if self.slot.in_doubt and self._call is not None:
                given_up = patience_s is not None and not self._call.wait(patience_s)
                if not given_up:
                    with suppress(FrameswapError):
                        self._wait()
        finally:
            if given_up:
                self._released = False
                self._transport.give_up(self)
            else:
                self._transport.give_back(self.slot)


def _names_no_size(error: FrameswapError) -> bool:
    """Whether the server wants more memory for an output than there can be."""
    found = _TOO_SMALL.search(str(error))
    return found is not None and int(found[1]) > _MOST_BYTES
