"""The library's front door: connect, encode a source, swap one frame, stream many.

>>> with FaceSwapper("localhost:8001") as swapper:                       # doctest: +SKIP
...     source = swapper.encode_source(cv2.imread("person.png"))
...     swapped = swapper.swap(cv2.imread("group.png"), source)
...     cv2.imwrite("swapped.png", swapped.frame)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.answers import SwappedFrame, found_faces, take_output
from frameswap.contract import (
    EMBED_MODEL,
    EMBEDDING,
    ENCODE_MODEL,
    FACES,
    FIND_MODELS,
    FRAME,
    LANDMARK_COLUMN,
    MAX_DETECTIONS,
    OPTIONS,
    SCORE_COLUMN,
    SOURCE,
    SWAP_FOUND_MODELS,
    SWAP_MODELS,
    FaceOrder,
    FrameFormat,
)
from frameswap.errors import BadFrame, BadOptions, NoFaceFound, ServerFault, SeveralFacesFound
from frameswap.found_faces import FoundFaces, FoundFrame, Placement, Plan
from frameswap.found_stream import FindStream, SwapFoundStream, swap_planned
from frameswap.frames import Frame, frame_format
from frameswap.models import Ensemble, SourceKind, fit_photo
from frameswap.one_server import Server
from frameswap.options import SwapOptions
from frameswap.padding import pad_photo
from frameswap.security import Security
from frameswap.servers import Servers
from frameswap.sources import Source
from frameswap.stream import FrameStream
from frameswap.transport import TransportName, read_outputs
from frameswap.wire import TensorInfo, build_header, join_request

__all__ = ["FaceSwapper", "SwappedFrame"]

DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_IN_FLIGHT: Final = 16
DEFAULT_RECONNECT_S: Final = 60.0
"""A server that is started again loads its models in less, mostly."""


class FaceSwapper:
    """A connection to a server that swaps faces, or to several with the same swapper.

    Args:
        server: HOST:PORT of its gRPC endpoint; several, separated by commas; `dns:///HOST:PORT`
            for all addresses behind one name. A frame goes to the one with the fewest in flight.
        timeout_s: deadline of every single request, in seconds.
        transport: "auto" takes shared memory when server and client share a host and the server
            allows it, and gRPC otherwise; a name insists on that transport.
        in_flight: most requests that `stream` keeps under way at each server.
        reconnect_s: how long a lost server is waited for before giving up, in seconds; its
            unanswered frames are then sent again, in order. 0 gives up at once. A request that
            ran into `timeout_s` counts as lost too. At connecting nothing is waited for.
        security: TLS, certificates and token; None is none of them.

    Raises:
        ServerUnreachable, ServerTimeout, ServerNotReady: no ready server at any of the addresses.
        ContractMismatch: a server without our models, with another contract version, or with
            another swapper than the others.
        TransportUnavailable: the transport that was insisted on cannot be used.
    """

    def __init__(
        self,
        server: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        transport: TransportName = "auto",
        in_flight: int = DEFAULT_IN_FLIGHT,
        reconnect_s: float = DEFAULT_RECONNECT_S,
        security: Security | None = None,
    ) -> None:
        if in_flight < 1:
            raise BadOptions(f"in_flight must be at least 1, not {in_flight}")
        self.in_flight = in_flight
        self.reconnect_s = reconnect_s
        self._servers = Servers(
            server, timeout_s=timeout_s, transport=transport, most=in_flight, security=security
        )
        ensemble = self._servers.first
        self.swapper, self.provenance = ensemble.swapper, ensemble.provenance
        self.source_kind: SourceKind = ensemble.source_kind
        self.landmarker, self.gives_mask = ensemble.landmarker, ensemble.gives_mask
        self.occluder, self.parser = ensemble.occluder, ensemble.parser
        self.enhancer = ensemble.enhancer

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
        self._servers.close()

    @property
    def transport(self) -> TransportName:
        """The transport in use; the first server's, where there are several."""
        return self._servers.all[0].transport

    def check_model(self, pixel: FrameFormat, *, found: bool = False) -> None:
        """Raise ContractMismatch or ServerNotReady unless frames of that format can be swapped.

        Args:
            found: in two steps, too.
        """
        steps = (SWAP_MODELS, FIND_MODELS, SWAP_FOUND_MODELS) if found else (SWAP_MODELS,)
        self.check_models([models[pixel] for models in steps])

    def check_models(self, models: Sequence[str]) -> None:
        """Raise ContractMismatch or ServerNotReady unless the servers have these models ready."""
        for model in models:
            self._find(model)

    def mesh_rows(self, pixel: FrameFormat) -> int:
        """Of how many faces `swap_found` takes landmarks, in frames of that format."""
        return max(0, self._find(SWAP_FOUND_MODELS[pixel]).landmark_shape[0])

    def _find(self, model: str) -> Ensemble:
        return self._servers.call(partial(Server.find, model=model), patience_s=self.reconnect_s)

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
        options = SwapOptions(
            face_order=FaceOrder.LARGEST_FIRST if face is None else face,
            score_threshold=score_threshold,
        )
        ensemble, vector, faces = self._servers.call(
            lambda server: _ask_of_photo(server, ENCODE_MODEL, SOURCE, image_bgr, options),
            patience_s=self.reconnect_s,
        )
        _check_one_face(faces, face)
        if not np.isfinite(vector).all():
            raise ServerFault("the server encoded the source photo to numbers that are not finite")
        return Source(vector, self.source_kind, ensemble.swapper, faces)

    def embed(
        self,
        image_bgr: NDArray[np.uint8],
        *,
        face: FaceOrder | None = None,
        score_threshold: float | None = None,
    ) -> NDArray[np.float32]:
        """Who the person in a photo is: (E,) float32 of unit length, to tell her from others.

        Args and Raises:
            As `encode_source`; ContractMismatch: the server has no `embed_face_bgr` loaded.
        """
        if frame_format(image_bgr) != "bgr":
            raise BadFrame(f"a photo of a person is (H, W, 3) uint8 BGR, not {image_bgr.shape}")
        options = SwapOptions(
            face_order=FaceOrder.LARGEST_FIRST if face is None else face,
            score_threshold=score_threshold,
        )
        vector, faces = self.embed_first(image_bgr, options)
        _check_one_face(faces, face)
        if not np.isfinite(vector).all() or not vector.any():
            raise ServerFault("the server returned an embedding that is none")
        return vector

    def embed_first(
        self, image_bgr: NDArray[np.uint8], options: SwapOptions
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Who the first face of a picture is, in the options' order, and all its faces.

        Returns:
            (E,) float32 of unit length, zeros where there is no face; (F, 15) float32, pixels.

        Raises:
            As `find`.
        """
        _, vector, faces = self._servers.call(
            lambda server: _ask_of_photo(server, EMBED_MODEL, EMBEDDING, image_bgr, options),
            patience_s=self.reconnect_s,
        )
        return vector, faces

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
            reuse_buffers: leave out the copy that a writable frame takes where it came in a
                message: the frames of all results are read-only then.

        Raises:
            As `swap`, and whatever `frames` raises.
        """
        job = FrameStream(
            self._servers, sources, options or SwapOptions(), reconnect_s=self.reconnect_s
        )
        return job.run(frames, writable=not reuse_buffers)

    def find(self, frame: Frame, options: SwapOptions | None = None) -> FoundFaces:
        """Find the faces of one frame, their landmarks, and which way they look.

        Raises:
            BadFrame, BadOptions: what was given cannot be sent.
            ContractMismatch: the server has no `find_faces` loaded.
            FrameswapError: the call failed.
        """
        return next(self.find_stream([frame], options)).found

    def find_stream(
        self, frames: Iterable[Frame], options: SwapOptions | None = None
    ) -> Iterator[FoundFrame]:
        """`find` for many frames, at most `in_flight` at a time, in order; see `stream`."""
        stream = FindStream(self._servers, options or SwapOptions(), reconnect_s=self.reconnect_s)
        return stream.run(frames, writable=True)

    def swap_found(
        self,
        frame: Frame,
        sources: Source | Sequence[Source],
        faces: NDArray[np.float32],
        landmarks: NDArray[np.float32] | None = None,
        options: SwapOptions | None = None,
    ) -> SwappedFrame:
        """Swap faces that are known: row k of `faces` is given the k-th source.

        Args:
            faces: (R, 15) float32, as `find` gives them or made up; a row of zeros is left out.
            landmarks: (R, P, 3) float32, pixels; None, or rows of zeros: none, and the box mask.

        Raises:
            BadFrame, BadFaces, BadSource, BadOptions: what was given cannot be sent.
            ContractMismatch: the server has no `swap_found_faces` loaded.
            FrameswapError: the call failed.
        """
        persons = 1 if isinstance(sources, Source) else len(sources)
        stream = SwapFoundStream(
            self._servers,
            options or SwapOptions(),
            reconnect_s=self.reconnect_s,
            persons=persons,
        )
        return stream.swap(frame, Placement(faces, sources, landmarks))

    def stream_found(
        self,
        frames: Iterable[Frame],
        plan: Plan,
        options: SwapOptions | None = None,
        *,
        finding: SwapOptions | None = None,
        persons: int = 1,
        ahead: int | None = None,
        reuse_buffers: bool = False,
    ) -> Iterator[SwappedFrame]:
        """Find the faces of many frames, let `plan` say who is who, and swap them, in order.

        Where memory is shared, a frame is sent once and both requests name the same region, which
        is free again when both are answered. As bytes over gRPC it crosses twice.

        Args:
            plan: is given an iterator of found frames, and yields a placement for each, in order.
                It may read up to `ahead` frames before it places the first of them.
            finding: what the first step is asked for; None is `options`.
            persons: the most sources that any placement has: K of all requests, rounded up.
            ahead: how many frames are looked for faces at a time; None is `in_flight`.
            reuse_buffers: as in `stream`.

        Raises:
            As `swap_found`, and whatever `frames` and `plan` raise; BadOptions where the plan reads
            farther ahead, or does not yield one placement a frame.
        """
        if persons < 1 or (ahead is not None and ahead < 1):
            raise BadOptions(f"persons and ahead must be at least 1, not {persons} and {ahead}")
        return swap_planned(
            self._servers,
            frames,
            plan,
            options or SwapOptions(),
            finding=finding or options or SwapOptions(),
            persons=persons,
            ahead=ahead or self.in_flight,
            reconnect_s=self.reconnect_s,
            writable=not reuse_buffers,
        )


def _check_one_face(faces: NDArray[np.float32], face: FaceOrder | None) -> None:
    """Raise NoFaceFound or SeveralFacesFound for a photo of which it is not clear who is meant."""
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


def _ask_of_photo(
    server: Server, model: str, answer: str, image_bgr: NDArray[np.uint8], options: SwapOptions
) -> tuple[Ensemble, NDArray[np.float32], NDArray[np.float32]]:
    """The ensemble that answered, its answer as a vector, and the faces (F, 15) in pixels of the
    image."""
    ensemble = server.find(model)
    photo, scale = fit_photo(pad_photo(image_bgr), ensemble)
    tensor = options.to_tensor()
    leading = (1,) if ensemble.batched else ()
    header = build_header(
        model,
        [
            TensorInfo(FRAME, "UINT8", leading + photo.shape),
            TensorInfo(OPTIONS, "FP32", leading + tensor.shape),
        ],
        [answer, FACES],
    )
    message = join_request(header, [np.ascontiguousarray(photo), tensor])
    pending = server.connection.submit(message, doing="while looking at the face of a photo")
    outputs = read_outputs(pending.result(), server.connection)
    vector = take_output(outputs, answer, server.address).reshape(-1)
    faces = found_faces(outputs, server.address)
    faces[:, :SCORE_COLUMN] *= scale
    faces[:, LANDMARK_COLUMN:] *= scale
    return ensemble, np.array(vector, np.float32), faces
