"""The frames of one stream on their way: sent, waited for, sent again if their server was lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import SWAP_MODELS
from frameswap.errors import (
    ContractMismatch,
    FrameswapError,
    ServerNotReady,
    ServerTimeout,
    ServerUnreachable,
)
from frameswap.frames import Frame, frame_format
from frameswap.models import Ensemble, Ensembles, check_size
from frameswap.options import SwapOptions
from frameswap.sources import Source, stack_sources
from frameswap.transport import PendingSwap, SwapRequest, Transport

__all__ = ["InFlight", "Job"]

_PATIENCE: Final = 4.0
"""A request is sent once more when it is so many times older than the slowest that was answered: a
server that is merely slow is not given twice the work."""
_LEAST_PATIENCE_S: Final = 5.0
_FIRST_LATENCY_S: Final = 5.0
"""What is assumed before anything was answered."""
_LOOK_S: Final = 0.02


class Job:
    """What the frames of one stream share: sources and options, as tensors, and the way.

    Args:
        reconnect_s: how long a lost server is waited for, seconds.
        await_server: waits for a lost server until a moment of `time.monotonic`.
    """

    def __init__(
        self,
        ensembles: Ensembles,
        transport: Transport,
        sources: Source | Sequence[Source],
        options: SwapOptions,
        *,
        reconnect_s: float,
        await_server: Callable[[float], None],
    ) -> None:
        self._ensembles = ensembles
        self._transport = transport
        self.reconnect_s = reconnect_s
        self.await_server = await_server
        self._sources = sources
        self._options = options.to_tensor()
        # Made once an ensemble, not once a frame: an image source is most of a megabyte, and the
        # same array tells shared memory that what it holds is still right.
        self._stacked: dict[Ensemble, NDArray[np.float32]] = {}
        self._fitting: tuple[Ensemble, tuple[int, ...]] | None = None
        self._slowest_s = _FIRST_LATENCY_S

    @property
    def patience_s(self) -> float:
        """How old a request may be before it is taken for lost."""
        return max(_LEAST_PATIENCE_S, _PATIENCE * self._slowest_s)

    def note_latency(self, latency_s: float) -> None:
        """Learn how long this server takes, from an answered request."""
        known = self._slowest_s != _FIRST_LATENCY_S
        self._slowest_s = max(self._slowest_s, latency_s) if known else latency_s

    def means_lost(self, error: FrameswapError) -> bool:
        """Whether the server went away, or its models did: they may come back, or another's be."""
        if isinstance(error, ContractMismatch):
            # One that is leaving has no models any more; one that never had them is the wrong one.
            return self._fitting is not None
        return isinstance(error, ServerUnreachable | ServerNotReady | ServerTimeout)

    def submit(self, frame: Frame) -> PendingSwap:
        ensemble = self._ensembles.get(SWAP_MODELS[frame_format(frame)])
        # A stream's frames are mostly of one size: it is checked when it, or the server, changes.
        if self._fitting is None or self._fitting != (ensemble, frame.shape):
            check_size(frame, ensemble)
            self._fitting = (ensemble, frame.shape)
        if ensemble not in self._stacked:
            self._stacked[ensemble] = stack_sources(self._sources, ensemble)
        return self._transport.submit(
            SwapRequest(
                model=ensemble.name,
                frame=frame,
                source=self._stacked[ensemble],
                options=self._options,
                batched=ensemble.batched,
            )
        )


class InFlight:
    """One frame of a stream: sent when made, sent again if its server was lost."""

    def __init__(self, job: Job, frame: Frame) -> None:
        self._job = job
        self.frame = frame
        self._sent_s = 0.0
        self._pending: PendingSwap | None = None
        try:
            self._submit()
        except FrameswapError as error:
            # Its turn comes: `result` waits for the server.
            if not (job.reconnect_s and job.means_lost(error)):
                raise

    def _submit(self) -> None:
        self._sent_s = time.monotonic()
        self._pending = self._job.submit(self.frame)

    def result(self) -> Mapping[str, NDArray[Any]]:
        """Wait for the outputs; views of them are good until `release`.

        Raises:
            FrameswapError: how it failed, or that its server did not come back in time.
        """
        job = self._job
        deadline_s: float | None = None
        while True:
            try:
                if self._pending is None:
                    job.await_server(deadline_s or time.monotonic() + job.reconnect_s)
                    self._submit()
                outputs = self._answered().result()
                job.note_latency(time.monotonic() - self._sent_s)
                return outputs
            except FrameswapError as error:
                if not job.means_lost(error):
                    raise
                now_s = time.monotonic()
                if deadline_s is None:
                    deadline_s = now_s + job.reconnect_s
                if now_s >= deadline_s:
                    raise
            # A swap changes nothing on the server, so sending the frame again is safe.
            self.release()
            self._pending = None

    def _answered(self) -> PendingSwap:
        """Wait for the answer; one that is long overdue is asked for once more.

        Triton never answers some of the requests that a model's process had when it died.
        """
        assert self._pending is not None
        overdue_s = self._sent_s + self._job.patience_s - time.monotonic()
        if not self._job.reconnect_s or self._pending.wait(max(0.0, overdue_s)):
            return self._pending
        first, sent_s = self._pending, self._sent_s
        self._submit()
        again = self._pending
        try:
            while not (again.wait(_LOOK_S) or first.wait(_LOOK_S)):
                pass
        except BaseException:
            first.cancel()
            first.release(patience_s=0.0)
            raise
        late = first
        if not again.wait(0.0):
            self._pending, self._sent_s, late = first, sent_s, again
        late.cancel()
        late.release(patience_s=0.0)
        return self._pending

    def cancel(self) -> None:
        if self._pending is not None:
            self._pending.cancel()

    def release(self, *, patience_s: float | None = None) -> None:
        if self._pending is not None:
            self._pending.release(patience_s=patience_s)
