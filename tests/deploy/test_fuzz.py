"""Ten thousand broken requests through the edge, while another client swaps: it notices nothing."""

from __future__ import annotations

import random
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
from frameswap import FaceSwapper
from frameswap.contract import OPTION_COUNT
from tritonclient.grpc import service_pb2

from demo.photos import read_photo
from graphs.contract import ENSEMBLE_SPECS, MODEL_SPECS
from tests.deploy.proxy import Envoy
from tests.deploy.serving import EntryPoint
from tests.deploy.test_rollout import Load

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SEED = 20_261_128
REQUESTS = 10_000
IN_FLIGHT = 16
DATATYPES = ("UINT8", "FP32", "FP16", "INT64", "BYTES", "BOOL", "", "NOPE", "FP32" * 50)
SIZES = (-(2**63), -1, 0, 1, 2, 3, 64, 2**16, 2**31 - 1, 2**31, 2**62, 2**63 - 1)


def real_request(model: str, source: bytes, length: int) -> service_pb2.ModelInferRequest:
    """A right request of 64 by 64 grey pixels."""
    request = service_pb2.ModelInferRequest(model_name=model)
    arrays = {
        "frame": ("UINT8", (1, 64, 64, 3), bytes(64 * 64 * 3)),
        "source": ("FP32", (1, 1, length), source),
        "options": ("FP32", (1, OPTION_COUNT), bytes(4 * OPTION_COUNT)),
    }
    for name, (datatype, shape, data) in arrays.items():
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(data)
    return request


class Fuzzer:
    """Makes broken requests out of a right one; the same seed makes the same ones."""

    def __init__(self, right: service_pb2.ModelInferRequest) -> None:
        self._random = random.Random(SEED)
        self._right = right
        self._bytes = right.SerializeToString()
        self._models = [*MODEL_SPECS, *ENSEMBLE_SPECS, "", "nobody", "../etc/passwd", "x" * 5000]
        self._ways = (
            self._noise, self._cut, self._flipped, self._shape, self._datatype, self._missing,
            self._lengths, self._not_finite, self._parameters, self._model, self._outputs,
            self._version, self._contents,
        )  # fmt: skip

    def next(self) -> tuple[str, bytes]:
        """A method's path and a message."""
        dice = self._random
        if dice.random() < 0.02:
            name = dice.choice(["ModelMetadata", "ModelConfig", "ModelReady", "RepositoryModelLoad",
                                "SystemSharedMemoryRegister", "TraceSetting"])  # fmt: skip
            return f"/inference.GRPCInferenceService/{name}", self._noise()
        return "/inference.GRPCInferenceService/ModelInfer", dice.choice(self._ways)()

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.randrange(400))

    def _cut(self) -> bytes:
        return self._bytes[: self._random.randrange(len(self._bytes))]

    def _flipped(self) -> bytes:
        data = bytearray(self._bytes)
        # The first bytes hold the message's structure, the rest is pixels.
        for _ in range(self._random.randint(1, 8)):
            data[self._random.randrange(min(300, len(data)))] ^= 1 << self._random.randrange(8)
        return bytes(data)

    def _copy(self) -> service_pb2.ModelInferRequest:
        request = service_pb2.ModelInferRequest()
        request.CopyFrom(self._right)
        return request

    def _shape(self) -> bytes:
        request = self._copy()
        tensor = self._random.choice(request.inputs)
        rank = self._random.randrange(7)
        del tensor.shape[:]
        tensor.shape.extend(self._random.choice(SIZES) for _ in range(rank))
        return request.SerializeToString()

    def _datatype(self) -> bytes:
        request = self._copy()
        self._random.choice(request.inputs).datatype = self._random.choice(DATATYPES)
        return request.SerializeToString()

    def _missing(self) -> bytes:
        request = self._copy()
        position = self._random.randrange(len(request.inputs))
        if self._random.random() < 0.5:
            del request.inputs[position]
        if self._random.random() < 0.7:
            del request.raw_input_contents[position]
        else:
            request.inputs.add(name="frame", datatype="UINT8", shape=[1, 1, 1, 3])
        return request.SerializeToString()

    def _lengths(self) -> bytes:
        request = self._copy()
        position = self._random.randrange(len(request.raw_input_contents))
        request.raw_input_contents[position] = self._random.randbytes(self._random.randrange(9000))
        return request.SerializeToString()

    def _not_finite(self) -> bytes:
        request = self._copy()
        position = self._random.choice((1, 2))
        data = np.frombuffer(request.raw_input_contents[position], np.float32).copy()
        data[self._random.randrange(len(data))] = self._random.choice(
            (np.nan, np.inf, -np.inf, np.float32(3e38), np.float32(-5))
        )
        request.raw_input_contents[position] = data.tobytes()
        return request.SerializeToString()

    def _parameters(self) -> bytes:
        request = self._copy()
        parameters = self._random.choice(
            [request.parameters, self._random.choice(request.inputs).parameters]
        )
        for name in self._random.sample(
            ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "priority",
             "sequence_id", "sequence_start", "timeout", "binary_data", "triton_x", "x" * 3000], 3,
        ):  # fmt: skip
            kind = self._random.randrange(3)
            if kind == 0:
                parameters[name].int64_param = self._random.choice(SIZES)
            elif kind == 1:
                parameters[name].string_param = self._random.choice(("", "a", "../x", "é" * 900))
            else:
                parameters[name].bool_param = True
        return request.SerializeToString()

    def _model(self) -> bytes:
        request = self._copy()
        request.model_name = self._random.choice(self._models)
        return request.SerializeToString()

    def _outputs(self) -> bytes:
        request = self._copy()
        for _ in range(self._random.randint(1, 5)):
            name = self._random.choice(("swapped_frame", "faces", "nobody", "", "\0"))
            request.outputs.add(name=name)
        return request.SerializeToString()

    def _version(self) -> bytes:
        request = self._copy()
        request.model_version = self._random.choice(("0", "-1", "99", "x", "1" * 400))
        return request.SerializeToString()

    def _contents(self) -> bytes:
        request = self._copy()
        tensor = self._random.choice(request.inputs)
        tensor.contents.fp32_contents.extend([1.5] * self._random.randrange(50))
        tensor.contents.bytes_contents.extend([b"x"] * self._random.randrange(50))
        if self._random.random() < 0.5:
            del request.raw_input_contents[:]
        return request.SerializeToString()


def test_the_same_seed_makes_the_same_requests() -> None:
    right = real_request("swap_faces_bgr", bytes(8), 2)
    first, second = Fuzzer(right), Fuzzer(right)
    assert [first.next() for _ in range(200)] == [second.next() for _ in range(200)]


def test_broken_requests_reach_nobody_else(real_repository: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(EntryPoint(real_repository, tmp_path / str(number)))
            for number in range(2)
        ]
        for server in servers:
            server.wait_ready()
        ports = [(server.grpc_port, server.health_port) for server in servers]
        proxy = stack.enter_context(
            Envoy(tmp_path / "envoy", ports, "--set=edge.requestsPerSecond=100000")
        )
        proxy.wait_healthy(2)
        swapper = stack.enter_context(FaceSwapper(proxy.address, transport="grpc", in_flight=2))
        source = swapper.encode_source(read_photo("newton"))
        face = cv2.resize(read_photo("gauss"), (160, 120), interpolation=cv2.INTER_AREA)
        right = real_request("swap_faces_bgr", source.vector.tobytes(), len(source.vector))
        load = stack.enter_context(Load(swapper, [face, face[:, ::-1].copy()], source))
        codes = send(proxy.address, Fuzzer(right))
        load.wait_for_more()
        processes = [server.triton for server in servers]
        assert all(server.process.poll() is None for server in servers), "a server ended"
        assert all(process.is_running() for process in processes)
        assert load.count > 50
    assert sum(codes.values()) == REQUESTS
    # Some are harmless (an unknown parameter, say); most are refused.
    assert codes["OK"] < REQUESTS / 2
    assert codes["INVALID_ARGUMENT"] > REQUESTS / 10
    print(dict(codes))


def send(address: str, fuzzer: Fuzzer) -> Counter[str]:
    """Send the requests, so many at a time; return how each ended."""
    room = threading.Semaphore(IN_FLIGHT)
    codes: Counter[str] = Counter()
    lock = threading.Lock()

    def done(call: grpc.Future) -> None:
        with lock:
            codes[call.code().name] += 1
        room.release()

    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        for _ in range(REQUESTS):
            path, message = fuzzer.next()
            room.acquire()
            channel.unary_unary(path).future(message, timeout=60).add_done_callback(done)
        for _ in range(IN_FLIGHT):
            room.acquire()
    return codes
