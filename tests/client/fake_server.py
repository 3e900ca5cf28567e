"""A gRPC server that keeps to the contract without any network: the client's tests talk to it.

Its swap is arithmetic that a test can repeat: the frame's bytes inverted, and one face whose x1
is the frame's first byte. `Behavior` makes it slow, broken, late, or other than it should be.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from frameswap.shared_memory import FOLDER, PREFIX, server_of
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

MAX_DETECTIONS = 16
SOURCE_LENGTH = 4
VIEWS, POINTS = 4, 6
NO_SLOT = 3

TYPES = {"UINT8": np.uint8, "FP32": np.float32}


def regions(address: str) -> int:
    """How much shared memory there is of clients of that server, in files."""
    names = (path.name for path in FOLDER.glob(PREFIX + "*"))
    return sum(server_of(name) == address for name in names)


def _set(event: threading.Event) -> threading.Event:
    event.set()
    return event


@dataclass
class Behavior:
    """What the server does; a test changes it while the server runs."""

    ready: bool = True
    models_ready: bool = True
    contract_version: str = "2"
    source_kind: str = "identity"
    swapper: str = "fake_identity"
    provenance: str | None = "compositeWithTrainedAlgorithmicMedia"
    """What its outputs are said to be; None: it does not say."""
    models: tuple[str, ...] = (
        "swap_faces_i420", "swap_faces_bgr", "find_faces_i420", "find_faces_bgr",
        "swap_found_faces_i420", "swap_found_faces_bgr", "encode_source_bgr", "embed_face_bgr",
    )  # fmt: skip
    parameters: dict[str, str] = field(default_factory=dict)
    max_batch_size: int = 8
    faces: int = 1
    nan_faces: bool = False
    verdict: int = 0
    """Of the first face; the others get NO_SLOT where the request has no source for them."""
    missing_output: str | None = None
    allow_shared_memory: bool = True
    swapped_shape: tuple[int, ...] | None = None
    version: str = "2.51.0"
    fail: Callable[[int, grpc.ServicerContext], None] | None = None
    """Called with the first byte of a request's frame; may sleep, or abort the call."""
    goes_on: threading.Event = field(default_factory=lambda: _set(threading.Event()))
    """Cleared, the server answers nothing any more of what a client asks while it works."""


class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, behavior: Behavior | None = None, credentials: Any = None) -> None:
        self.behavior = behavior or Behavior()
        self.credentials = credentials
        self.tokens: set[str] = set()
        self.requests = 0
        self.running = 0
        self.most_running = 0
        self.regions: dict[str, tuple[str, int]] = {}
        self.registrations = 0
        self.received: list[dict[str, np.ndarray]] = []
        self.places: list[tuple[str, str, int]] = []
        """Of each request: its model, and region and offset of its frame; "" for bytes."""
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, port: int = 0) -> FakeServer:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._pool = ThreadPoolExecutor(32)
        self._server = grpc.server(self._pool, options=options)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{port}"
        if self.credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self.credentials)
        self._server.start()
        return self

    def stop(self) -> None:
        """Drop the connections at once, as a killed server would."""
        self.behavior.goes_on.set()
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._pool.shutdown(wait=True)
            self._server = None
        self.regions.clear()

    def __enter__(self) -> FakeServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # The service's methods, with the names that the protocol gives them.

    def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=self.behavior.ready)

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        self.behavior.goes_on.wait()
        return service_pb2.ServerMetadataResponse(name="triton", version=self.behavior.version)

    def ModelReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=self.behavior.models_ready)

    def ModelConfig(self, request: Any, context: Any) -> Any:
        behavior = self.behavior
        if request.name not in behavior.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}'")
        config = model_config_pb2.ModelConfig(
            name=request.name, max_batch_size=behavior.max_batch_size
        )
        dims = [-1, -1, 3] if request.name.endswith("bgr") else [-1, -1]
        config.input.add(name="frame", data_type="TYPE_UINT8", dims=dims)
        config.input.add(name="options", data_type="TYPE_FP32", dims=[16])
        is_given = request.name.startswith("swap_found")
        side = config.input if is_given else config.output
        side.add(name="faces", data_type="TYPE_FP32", dims=[16, 15])
        if is_given or request.name.startswith("find"):
            side.add(name="landmarks", data_type="TYPE_FP32", dims=[VIEWS, POINTS, 3])
        if request.name.startswith("find"):
            config.output.add(name="pose", data_type="TYPE_FP32", dims=[VIEWS, 3])
        elif request.name.startswith("swap"):
            config.input.add(name="source", data_type="TYPE_FP32", dims=[-1, SOURCE_LENGTH])
            config.output.add(name="swapped_frame", data_type="TYPE_UINT8", dims=dims)
            config.output.add(name="verdicts", data_type="TYPE_FP32", dims=[16])
        else:
            answer = "embedding" if request.name.startswith("embed") else "source"
            config.output.add(name=answer, data_type="TYPE_FP32", dims=[SOURCE_LENGTH])
        parameters = {
            "contract_version": behavior.contract_version,
            "swapper": behavior.swapper,
            "source_kind": behavior.source_kind,
            "max_faces": "4",
            "landmarker": "fake_mesh",
            **behavior.parameters,
        }
        if behavior.provenance is not None:
            parameters["provenance"] = behavior.provenance
        for key, value in parameters.items():
            config.parameters[key].string_value = value
        return service_pb2.ModelConfigResponse(config=config)

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        if not self.behavior.allow_shared_memory:
            context.abort(grpc.StatusCode.UNAVAILABLE, "client shared memory is not allowed")
        if not os.path.exists(f"/dev/shm{request.key}"):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Unable to open shared memory region")
        with self._lock:
            if request.name in self.regions:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, "region already in manager")
            self.regions[request.name] = (request.key, request.byte_size)
            self.registrations += 1
        return service_pb2.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        self.behavior.goes_on.wait()
        with self._lock:
            self.regions.pop(request.name, None)
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        metadata = dict(context.invocation_metadata())
        self.tokens.add(str(metadata.get("authorization", "")))
        with self._lock:
            self.requests += 1
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.behavior.goes_on.wait()
        try:
            return self._infer(request, context)
        finally:
            with self._lock:
                self.running -= 1

    def _infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        inputs = self._read_inputs(request, context)
        (frame,) = [info.parameters for info in request.inputs if info.name == "frame"]
        self.places.append((
            request.model_name, frame["shared_memory_region"].string_param,
            frame["shared_memory_offset"].int64_param,
        ))  # fmt: skip
        if self.behavior.fail is not None:
            self.behavior.fail(int(inputs["frame"].reshape(-1)[0]), context)
        self.received.append({name: array.copy() for name, array in inputs.items()})
        del self.received[:-4]
        outputs = self._compute(request.model_name, inputs)
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for wanted in request.outputs:
            if wanted.name == self.behavior.missing_output:
                continue
            array = outputs[wanted.name]
            response.outputs.add(
                name=wanted.name,
                datatype="UINT8" if array.dtype == np.uint8 else "FP32",
                shape=array.shape,
            )
            if "shared_memory_region" in wanted.parameters:
                with self._region(wanted.parameters, context) as view:
                    view[: array.nbytes] = array.tobytes()
                # Triton 24.10 does not repeat the region's name here.
                response.raw_output_contents.append(b"")
            else:
                response.raw_output_contents.append(array.tobytes())
        return response

    def _read_inputs(self, request: Any, context: Any) -> dict[str, np.ndarray]:
        inputs: dict[str, np.ndarray] = {}
        raws = iter(request.raw_input_contents)
        for info in request.inputs:
            dtype = TYPES[info.datatype]
            if "shared_memory_region" in info.parameters:
                count = int(np.prod(info.shape))
                with self._region(info.parameters, context) as view:
                    array = np.frombuffer(view, dtype, count).copy()
            else:
                array = np.frombuffer(next(raws), dtype)
            inputs[info.name] = array.reshape(tuple(info.shape))
        return inputs

    @contextlib.contextmanager
    def _region(self, parameters: Any, context: Any) -> Iterator[memoryview]:
        name = parameters["shared_memory_region"].string_param
        offset = parameters["shared_memory_offset"].int64_param
        size = parameters["shared_memory_byte_size"].int64_param
        if name not in self.regions:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{name}'"
            )
        key, region_size = self.regions[name]
        if offset + size > region_size:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Invalid offset + byte size")
        descriptor = os.open(f"/dev/shm{key}", os.O_RDWR)
        try:
            with (
                mmap.mmap(descriptor, 0) as whole,
                memoryview(whole) as view,
                view[offset : offset + size] as window,
            ):
                yield window
        finally:
            os.close(descriptor)

    def _compute(self, model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        behavior = self.behavior
        frame = inputs["frame"]
        leading = (1,) if behavior.max_batch_size else ()
        faces = np.zeros((*leading, MAX_DETECTIONS, 15), np.float32)
        faces[..., : behavior.faces, :] = np.arange(15) + 1
        faces[..., : behavior.faces, 4] = 0.9
        if behavior.faces:
            faces[..., 0, 0] = frame.reshape(-1)[0]
        if behavior.nan_faces:
            faces[:] = np.nan
        if model in ("encode_source_bgr", "embed_face_bgr"):
            mean = frame.reshape(-1, 3).mean(axis=0)
            vector = np.array([*mean, 1.0], np.float32)
            answer = "embedding" if model.startswith("embed") else "source"
            unit = (vector / np.linalg.norm(vector)).reshape(*leading, -1)
            return {answer: unit, "faces": faces}
        if model.startswith("find"):
            landmarks = np.zeros((*leading, VIEWS, POINTS, 3), np.float32)
            landmarks[..., : behavior.faces, :, :] = faces[..., :VIEWS, :1, None][
                ..., : behavior.faces, :, :
            ]
            return {"faces": faces, "landmarks": landmarks, "pose": landmarks[..., 0, :] / 2}
        swapped = 255 - frame
        if behavior.swapped_shape is not None:
            swapped = swapped.reshape(behavior.swapped_shape)
        faces = inputs.get("faces", faces)
        return {
            "swapped_frame": swapped,
            "faces": faces,
            "verdicts": self._judge(faces, inputs["source"]),
        }

    def _judge(self, faces: np.ndarray, source: np.ndarray) -> np.ndarray:
        """A slot's row of zeros in `source` is none, as rows behind K are none."""
        has_source = np.zeros(faces.shape[:-1], bool)
        has_source[..., : source.shape[-2]] = source.any(axis=-1)
        verdicts = np.where(has_source, 0, NO_SLOT).astype(np.float32)
        verdicts[..., 0] = self.behavior.verdict
        verdicts[faces[..., 4] <= 0] = 0
        verdicts[np.isnan(faces).any(axis=-1)] = np.nan
        return verdicts


def sleep_s(seconds: float) -> Callable[[int, Any], None]:
    def behave(first_byte: int, context: Any) -> None:
        time.sleep(seconds)

    return behave
