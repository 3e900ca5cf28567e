"""Two requests a frame: `find` runs ahead, and what it found comes back to be swapped.

Where memory is shared, both name the same region: it is free again when both are answered. As bytes
over gRPC a frame crosses twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frameswap.answers import (
    SwappedFrame,
    is_row,
    read_rows,
    read_verdicts,
    take_output,
)
from frameswap.contract import (
    FACES,
    FIND_MODELS,
    LANDMARKS,
    POSE,
    SWAP_FOUND_MODELS,
    SWAPPED_FRAME,
    VERDICTS,
)
from frameswap.errors import BadOptions, ServerFault
from frameswap.fading import mix_faces
from frameswap.found_faces import (
    FoundFaces,
    FoundFrame,
    Placement,
    Plan,
    placement_rows,
    placement_tensors,
)
from frameswap.frames import Frame, frame_format
from frameswap.models import Ensemble, check_size
from frameswap.one_server import Server
from frameswap.options import SwapOptions, check_deployed
from frameswap.padding import pad_frame
from frameswap.servers import Servers
from frameswap.sources import Source, slot_count, stack_sources
from frameswap.stream import InFlight, RequestStream
from frameswap.transport import PendingSwap, SwapRequest

__all__ = ["FindStream", "SwapFoundStream", "swap_planned"]

_MOST_STACKED: Final = 64
"""Who is given whose face changes seldom: so many combinations of sources are kept as tensors."""


@dataclass(frozen=True, eq=False)
class _Held:
    """An answered `find`, whose memory the frame's swap may use, and the server of it."""

    server: Server
    pending: PendingSwap

    def release(self) -> None:
        """Give the memory back, unless a swap took it over; more than once does no harm."""
        self.pending.release()


class FindStream(RequestStream[Frame, FoundFrame]):
    """Frames to look for faces in.

    Args:
        persons: how many sources the frames will be swapped with later; 0: they will not be.
        ahead: requests under way, at most; None: as many as the servers take.

    Attributes:
        held: of each frame that will be swapped, in order.
    """

    def __init__(
        self,
        servers: Servers,
        options: SwapOptions,
        *,
        reconnect_s: float,
        persons: int = 0,
        ahead: int | None = None,
    ) -> None:
        super().__init__(servers, reconnect_s=reconnect_s)
        self._options = options.to_tensor()
        self._persons = persons
        self._ahead = ahead
        self.held: deque[_Held] = deque()

    def _has_room(self) -> bool:
        if self._ahead is not None and len(self._window) >= self._ahead:
            return False
        return super()._has_room()

    def _model(self, item: Frame) -> str:
        return FIND_MODELS[frame_format(item)]

    def _request(self, server: Server, model: str, item: Frame) -> SwapRequest:
        ensemble = server.find(model)
        frame = pad_frame(item)
        check_size(frame, ensemble)
        room = 0
        if self._persons:
            later = server.find(SWAP_FOUND_MODELS[frame_format(item)])
            slots = slot_count(self._persons, most=later.max_faces)
            room = slots * max(0, later.source_length) * np.dtype(np.float32).itemsize
        return SwapRequest(
            model=ensemble.name,
            frame=frame,
            options=self._options,
            outputs=(FACES, LANDMARKS, POSE),
            batched=ensemble.batched,
            room=room,
        )

    def _finish(
        self, entry: InFlight[Frame], outputs: Mapping[str, Any], server: Server, *, writable: bool
    ) -> FoundFrame:
        rows = read_rows(outputs, server.address)
        landmarks = take_output(outputs, LANDMARKS, server.address)
        pose = take_output(outputs, POSE, server.address)
        # A batch axis in front, where the model has one.
        landmarks = landmarks.reshape(landmarks.shape[-3:])
        pose = pose.reshape(pose.shape[-2:])
        if len(landmarks) != len(pose) or not np.isfinite(landmarks).all():
            raise ServerFault(
                f"the server at {server.address} returned landmarks {landmarks.shape} with poses "
                f"{pose.shape}, or ones that are no numbers"
            )
        held = is_row(rows)
        count = int(held.sum())
        found = FoundFaces(rows[held], _first_rows(landmarks, count), _first_rows(pose, count))
        if self._persons:
            self.held.append(_Held(server, entry.hand_over()))
        return FoundFrame(entry.item, found)

    def let_go(self) -> None:
        """Release what no swap took over."""
        while self.held:
            self.held.popleft().release()


@dataclass(frozen=True, eq=False)
class _Planned:
    """One frame with its faces, and the answered `find` whose memory holds it, if it does."""

    frame: Frame
    placement: Placement
    held: _Held | None = None


class SwapFoundStream(RequestStream[_Planned, SwappedFrame]):
    """Frames whose faces are known.

    Args:
        persons: K before it is rounded up; placements with fewer sources have empty slots.
    """

    def __init__(
        self, servers: Servers, options: SwapOptions, *, reconnect_s: float, persons: int
    ) -> None:
        super().__init__(servers, reconnect_s=reconnect_s)
        self._asked = options
        self._options = options.to_tensor()
        self._persons = persons
        self._checked: Ensemble | None = None
        # The same array tells shared memory that what it holds is still right.
        self._stacked: dict[tuple[Ensemble, tuple[Source, ...]], NDArray[np.float32]] = {}

    def swap(self, frame: Frame, placement: Placement) -> SwappedFrame:
        """Swap one frame."""
        return next(self.run([_Planned(frame, placement)], writable=True))

    def _choose(self, item: _Planned) -> Server | None:
        if item.held is not None and item.held.server.is_usable:
            return item.held.server
        return super()._choose(item)

    def _model(self, item: _Planned) -> str:
        return SWAP_FOUND_MODELS[frame_format(item.frame)]

    def _request(self, server: Server, model: str, item: _Planned) -> SwapRequest:
        ensemble = server.find(model)
        frame = pad_frame(item.frame)
        check_size(frame, ensemble)
        if self._checked != ensemble:
            check_deployed(self._asked, ensemble)
            self._checked = ensemble
        faces, landmarks = placement_tensors(item.placement, ensemble)
        return SwapRequest(
            model=ensemble.name,
            frame=frame,
            source=self._stack(item.placement.sources, ensemble),
            options=self._options,
            found={FACES: faces, LANDMARKS: landmarks},
            outputs=(SWAPPED_FRAME, VERDICTS),
            batched=ensemble.batched,
            held=None if item.held is None else item.held.pending,
        )

    def _stack(self, sources: Source | Sequence[Source], ensemble: Ensemble) -> NDArray[np.float32]:
        several = (sources,) if isinstance(sources, Source) else tuple(sources)
        key = (ensemble, several)
        if key not in self._stacked:
            if len(self._stacked) >= _MOST_STACKED:
                self._stacked.clear()
            self._stacked[key] = stack_sources(several, ensemble, persons=self._persons)
        return self._stacked[key]

    def _finish(
        self,
        entry: InFlight[_Planned],
        outputs: Mapping[str, Any],
        server: Server,
        *,
        writable: bool,
    ) -> SwappedFrame:
        placement = entry.item.placement
        faces = placement_rows(placement)
        held = is_row(faces)
        swapped = entry.keep(entry.item.frame, outputs, server.address, writable=writable)
        if placement.weights is not None:
            swapped = mix_faces(swapped, entry.item.frame, placement.faces, placement.weights)
        return SwappedFrame(
            frame=swapped,
            faces=faces[held],
            original=entry.item.frame,
            verdicts=read_verdicts(outputs, held, server.address),
        )


def swap_planned(
    servers: Servers,
    frames: Iterable[Frame],
    plan: Plan,
    options: SwapOptions,
    *,
    finding: SwapOptions,
    persons: int,
    ahead: int,
    reconnect_s: float,
    writable: bool,
) -> Generator[SwappedFrame, None, None]:
    """Find, plan and swap; see `FaceSwapper.stream_found`."""
    find = FindStream(servers, finding, reconnect_s=reconnect_s, persons=persons, ahead=ahead)
    swap = SwapFoundStream(servers, options, reconnect_s=reconnect_s, persons=persons)
    founds = find.run(frames, writable=True)
    planned = _planned(founds, find, plan, ahead=ahead)
    swapping = swap.run(planned, writable=writable)
    try:
        yield from swapping
    finally:
        for generator in (swapping, planned, founds):
            generator.close()
        find.let_go()


def _planned(
    finding: Iterator[FoundFrame], find: FindStream, plan: Plan, *, ahead: int
) -> Generator[_Planned, None, None]:
    unplaced: deque[FoundFrame] = deque()

    def read() -> Iterator[FoundFrame]:
        for found in finding:
            unplaced.append(found)
            if len(unplaced) > ahead:
                raise BadOptions(
                    f"the plan reads more than {ahead} frames ahead of its placements: raise "
                    f"`ahead`, or place earlier"
                )
            yield found

    for placement in plan(read()):
        if not unplaced:
            raise BadOptions("the plan gave a placement without reading a frame for it")
        held = find.held.popleft()
        try:
            yield _Planned(unplaced.popleft().frame, placement, held)
        finally:
            held.release()
    if unplaced or next(finding, None) is not None:
        raise BadOptions("the plan ended before the frames: it owes one placement for each")


def _first_rows(array: NDArray[Any], count: int) -> NDArray[np.float32]:
    """The first `count` rows, those that are not there being 0."""
    rows = np.zeros((count, *array.shape[1:]), np.float32)
    rows[: len(array)] = array[:count]
    return rows
