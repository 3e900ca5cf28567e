"""The library's front door: connect, encode a source, swap one frame, stream many.

>>> with FaceSwapper("localhost:8001") as swapper:                       # doctest: +SKIP
...     source = swapper.encode_source(cv2.imread("person.png"))
...     swapped = swapper.swap(cv2.imread("group.png"), source)
...     cv2.imwrite("swapped.png", swapped.frame)
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frameswap.connection import CLOSING_S, Connection
from frameswap.contract import (
    ENCODE_MODEL,
    FACE_COLUMNS,
    FACES,
    FRAME,
    LANDMARK_COLUMN,
    MAX_DETECTIONS,
    OPTIONS,
    SCORE_COLUMN,
    SOURCE,
    SWAP_MODELS,
    SWAPPED_FRAME,
    FaceOrder,
    FrameFormat,
)
from frameswap.errors import (
    BadFrame,
    BadOptions,
    NoFaceFound,
    ServerFault,
    ServerNotReady,
    ServerTimeout,
    ServerUnreachable,
    SeveralFacesFound,
)
from frameswap.frames import Frame, frame_format
from frameswap.models import Ensemble, Ensembles, SourceKind, check_size, fit_photo
from frameswap.options import SwapOptions
from frameswap.padding import cut_frame, pad_frame, pad_photo
from frameswap.sources import Source, stack_sources
from frameswap.transport import PendingSwap, SwapRequest, Transport, TransportName, read_outputs
from frameswap.transports import choose_transport
from frameswap.wire import TensorInfo, build_header, join_request

__all__ = ["FaceSwapper", "SwappedFrame"]

DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_IN_FLIGHT: Final = 16
_RETRY_PAUSE_S: Final = 0.1


@dataclass(frozen=True, eq=False)
class SwappedFrame:
    """A finished frame.

    frame: uint8, shape and format of the frame that was sent; pixels outside the blend are its.
    faces: (F, 15) float32, the faces found, in the order asked for: x1 y1 x2 y2, score, five
        landmarks x y; pixels.
    original: the frame that was sent.
    """

    frame: NDArray[np.uint8]
    faces: NDArray[np.float32]
    original: Frame


class FaceSwapper:
    """A connection to a server that swaps faces.

    Args:
        server: HOST:PORT of its gRPC endpoint, or `dns:///HOST:PORT` for several behind one name.
        timeout_s: deadline of every single request, in seconds.
        transport: "auto" takes shared memory when server and client share a host and the server
            allows it, and gRPC otherwise; a name insists on that transport.
        in_flight: most requests that `stream` keeps under way.
        reconnect_s: how long to wait for a lost server to come back before giving up, in seconds;
            its unanswered frames are then sent again, in order. 0 gives up at once. A request that
            ran into `timeout_s` counts as lost too.

    Raises:
        ServerUnreachable, ServerTimeout, ServerNotReady: no ready server at that address.
        ContractMismatch: a server without our models, or with another contract version.
        TransportUnavailable: the transport that was insisted on cannot be used.
    """

    def __init__(
        self,
        server: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        transport: TransportName = "auto",
        in_flight: int = DEFAULT_IN_FLIGHT,
        reconnect_s: float = 0.0,
    ) -> None:
        if in_flight < 1:
            raise BadOptions(f"in_flight must be at least 1, not {in_flight}")
        self.in_flight = in_flight
        self.reconnect_s = reconnect_s
        self._connection = Connection(server, timeout_s=timeout_s)
        self._ensembles = Ensembles(self._connection)
        try:
            self._connection.check_ready()
            ensemble = self._ensembles.any()
            self.swapper, self.provenance = ensemble.swapper, ensemble.provenance
            self.source_kind: SourceKind = ensemble.source_kind
            self._transport: Transport = choose_transport(transport, self._connection)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> FaceSwapper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give shared memory back and close the connection; more than once does no harm."""
        self._connection.hurry()
        try:
            self._transport.close()
        finally:
            self._connection.close()

    @property
    def transport(self) -> TransportName:
        """The transport in use."""
        return self._transport.name

    def check_model(self, pixel: FrameFormat) -> None:
        """Raise ContractMismatch or ServerNotReady unless frames of that format can be swapped."""
        self._ensembles.get(SWAP_MODELS[pixel])

    def encode_source(
        self,
        image_bgr: NDArray[np.uint8],
        *,
        face: FaceOrder | None = None,
        score_threshold: float | None = None,
    ) -> Source:
        """Encode the person in a photo, in the form that the server's swapper wants.

        A photo larger than the server takes is scaled down to fit.

        Args:
            image_bgr: (H, W, 3) uint8 BGR.
            face: which face, when the photo has several; None wants exactly one.
            score_threshold: the detector's, in (0, 1]; None is the server's default.

        Raises:
            BadFrame: not such an array.
            NoFaceFound, SeveralFacesFound: the text says which argument helps.
            FrameswapError: the call failed.
        """
        if frame_format(image_bgr) != "bgr":
            raise BadFrame(f"a source photo is (H, W, 3) uint8 BGR, not {image_bgr.shape}")
        ensemble = self._ensembles.get(ENCODE_MODEL)
        options = SwapOptions(
            face_order=FaceOrder.LARGEST_FIRST if face is None else face,
            score_threshold=score_threshold,
        )
        photo, scale = fit_photo(pad_photo(image_bgr), ensemble)
        vector, faces = self._encode(ensemble, photo, options)
        if len(faces) == 0:
            raise NoFaceFound(
                "no face was found in the source photo: use one with a larger, upright face, or "
                "lower the score threshold (--score-threshold 0.3, for one)"
            )
        if face is None and len(faces) > 1:
            # The server reports no more than so many.
            count = f"{len(faces)}{' or more' if len(faces) == MAX_DETECTIONS else ''}"
            raise SeveralFacesFound(
                f"{count} faces were found in the source photo and it is not said which one "
                f"is meant: crop it, or say which (--source-face largest-first, for one)"
            )
        faces[:, :SCORE_COLUMN] *= scale
        faces[:, LANDMARK_COLUMN:] *= scale
        if not np.isfinite(vector).all():
            raise ServerFault("the server encoded the source photo to numbers that are not finite")
        return Source(vector, self.source_kind, ensemble.swapper, faces)

    def _encode(
        self, ensemble: Ensemble, photo: NDArray[np.uint8], options: SwapOptions
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        tensor = options.to_tensor()
        shapes = (photo.shape, tensor.shape)
        leading = (1,) if ensemble.batched else ()
        header = build_header(
            ENCODE_MODEL,
            [
                TensorInfo(FRAME, "UINT8", leading + shapes[0]),
                TensorInfo(OPTIONS, "FP32", leading + shapes[1]),
            ],
            [SOURCE, FACES],
        )
        message = join_request(header, [np.ascontiguousarray(photo), tensor])
        answer = self._connection.submit(message, doing="while encoding a source photo").result()
        outputs = read_outputs(answer, self._connection)
        vector = self._output(outputs, SOURCE).reshape(-1)
        return np.array(vector, np.float32), self._found_faces(outputs)

    def swap(
        self,
        frame: Frame,
        sources: Source | Sequence[Source],
        options: SwapOptions | None = None,
    ) -> SwappedFrame:
        """Swap the faces of one frame.

        Args:
            frame: (H, W, 3) uint8 BGR, or (H*3/2, W) uint8 I420.
            sources: one a face slot: the k-th face, in the order asked for, is given the k-th.

        Raises:
            BadFrame, BadSource, BadOptions: what was given cannot be sent.
            FrameswapError: the call failed.
        """
        return next(self.stream([frame], sources, options))

    def stream(
        self,
        frames: Iterable[Frame],
        sources: Source | Sequence[Source],
        options: SwapOptions | None = None,
        *,
        reuse_buffers: bool = False,
    ) -> Iterator[SwappedFrame]:
        """Swap many frames, at most `in_flight` at a time, and return them in order.

        Frames are taken as there is room, so memory does not grow with their number. An error of
        one frame is raised in its place, after the frames before it. Closing the generator early
        cancels what is under way, and waits a few seconds for what cannot be called back.

        Args:
            reuse_buffers: leave out one copy: each result is a read-only view that is good only
                until the next one is asked for.

        Raises:
            As `swap`, and whatever `frames` raises.
        """
        job = _Job(self, sources, options or SwapOptions())
        window: deque[_InFlight] = deque()
        arriving = iter(frames)
        failure: Exception | None = None
        exhausted = False
        try:
            while True:
                while not exhausted and len(window) < self.in_flight:
                    try:
                        window.append(_InFlight(job, next(arriving)))
                    except StopIteration:
                        exhausted = True
                    except Exception as error:  # raised below, in its place
                        failure, exhausted = error, True
                if not window:
                    break
                head = window[0]
                swapped = head.result(copy=not reuse_buffers)
                try:
                    yield swapped
                finally:
                    window.popleft()
                    head.release()
            if failure is not None:
                raise failure
        finally:
            for waiting in window:
                waiting.cancel()
            deadline_s = time.monotonic() + CLOSING_S
            for waiting in window:
                waiting.release(patience_s=max(0.0, deadline_s - time.monotonic()))

    def _await_server(self, deadline_s: float) -> None:
        """Wait for a lost server; what it has then is looked up again."""
        # A server that is ready while one of its models is not would be asked without a pause.
        time.sleep(_RETRY_PAUSE_S)
        self._connection.wait_ready(max(0.0, deadline_s - time.monotonic()))
        self._ensembles.forget()

    def _output(self, outputs: Any, name: str) -> NDArray[Any]:
        array = outputs.get(name)
        if array is None:
            # Triton drops an output that a step did not produce, without an error.
            raise ServerFault(
                f"the server at {self._connection.address} did not return the output {name}: one "
                f"of its models is broken; look at its log"
            )
        return np.asarray(array)

    def _found_faces(self, outputs: Any) -> NDArray[np.float32]:
        """(F, 15): the rows of `faces` that hold a face."""
        faces = self._output(outputs, FACES).reshape(-1, FACE_COLUMNS)
        if len(faces) != MAX_DETECTIONS:
            raise ServerFault(f"the server returned {len(faces)} rows of faces")
        if np.isnan(faces).any():
            raise BadOptions(
                "the server could not use the options of the request: an option has a value that "
                "it does not know, or the source is not finite"
            )
        return np.array(faces[faces[:, SCORE_COLUMN] > 0.0], np.float32)

    def _finish(self, frame: Frame, outputs: Any, *, copy: bool) -> SwappedFrame:
        swapped = self._output(outputs, SWAPPED_FRAME)
        sent = pad_frame(frame).shape
        if swapped.dtype != np.uint8 or swapped.size != math.prod(sent):
            raise ServerFault(
                f"the server returned a frame of {swapped.dtype} {swapped.shape} for one of "
                f"uint8 {sent}"
            )
        swapped = cut_frame(swapped.reshape(sent), frame)
        return SwappedFrame(
            frame=swapped.copy() if copy else swapped,
            faces=self._found_faces(outputs),
            original=frame,
        )


class _Job:
    """What the frames of one stream share: sources and options, as tensors."""

    def __init__(
        self, swapper: FaceSwapper, sources: Source | Sequence[Source], options: SwapOptions
    ) -> None:
        self.swapper = swapper
        self._sources = sources
        self._options = options.to_tensor()
        # Made once an ensemble, not once a frame: an image source is most of a megabyte, and the
        # same array tells shared memory that what it holds is still right.
        self._stacked: dict[Ensemble, NDArray[np.float32]] = {}
        self._fitting: tuple[Ensemble, tuple[int, ...]] | None = None

    def submit(self, frame: Frame) -> PendingSwap:
        swapper = self.swapper
        frame = pad_frame(frame)
        ensemble = swapper._ensembles.get(SWAP_MODELS[frame_format(frame)])
        # A stream's frames are mostly of one size: it is checked when it, or the server, changes.
        if self._fitting is None or self._fitting != (ensemble, frame.shape):
            check_size(frame, ensemble)
            self._fitting = (ensemble, frame.shape)
        if ensemble not in self._stacked:
            self._stacked[ensemble] = stack_sources(self._sources, ensemble)
        return swapper._transport.submit(
            SwapRequest(
                model=ensemble.name,
                frame=frame,
                source=self._stacked[ensemble],
                options=self._options,
                batched=ensemble.batched,
            )
        )


class _InFlight:
    """One frame of a stream: sent when made, sent again if its server was lost."""

    def __init__(self, job: _Job, frame: Frame) -> None:
        self._job = job
        self._frame = frame
        self._pending: PendingSwap | None = job.submit(frame)

    def result(self, *, copy: bool) -> SwappedFrame:
        swapper = self._job.swapper
        deadline_s: float | None = None
        while True:
            try:
                if self._pending is None:
                    swapper._await_server(deadline_s or 0.0)
                    self._pending = self._job.submit(self._frame)
                return swapper._finish(self._frame, self._pending.result(), copy=copy)
            except (ServerUnreachable, ServerNotReady, ServerTimeout):
                now_s = time.monotonic()
                if deadline_s is None:
                    deadline_s = now_s + swapper.reconnect_s
                if now_s >= deadline_s:
                    raise
            # A swap changes nothing on the server, so sending the frame again is safe.
            self.release()
            self._pending = None

    def cancel(self) -> None:
        if self._pending is not None:
            self._pending.cancel()

    def release(self, *, patience_s: float | None = None) -> None:
        if self._pending is not None:
            self._pending.release(patience_s=patience_s)
