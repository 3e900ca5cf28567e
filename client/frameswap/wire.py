"""Triton's `ModelInfer` messages, put together and taken apart with one copy each way.

A protobuf message is a sequence of tagged fields, and fields that follow one another in a byte
string form one message. So the small part of a request (names, shapes, datatypes) is serialised
by protobuf once a shape, and the frame's bytes are appended as `raw_input_contents`: measured at
1080p I420, this costs 2.6 to 3.5 CPU-ms a frame in the client where `tritonclient` costs 4.3 to
6.5, which copies the frame into the message and the message into bytes. A response is walked
field by field; its `raw_output_contents` stay where gRPC put them.

Source: protobuf.dev/programming-guides/encoding (wire format, "last one wins" and concatenation);
service_pb2.ModelInferRequest and ModelInferResponse of tritonclient (field numbers, by name).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

__all__ = [
    "DTYPES",
    "ResponseError",
    "ResponseReader",
    "SharedOutput",
    "TensorInfo",
    "build_header",
    "join_request",
]

INFER_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"

DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "UINT8": np.dtype(np.uint8),
    "FP32": np.dtype("<f4"),
}
"""Triton's datatype names that the contract uses."""

_LENGTH_DELIMITED: Final = 2
_RAW_INPUTS: Final = service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"]
_RAW_OUTPUTS: Final = service_pb2.ModelInferResponse.DESCRIPTOR.fields_by_name[
    "raw_output_contents"
]
_FIXED_SIZES: Final = {1: 8, 5: 4}
"""Wire type -> bytes, of protobuf's two fixed-size types."""
_MOST_FORMS: Final = 64


class ResponseError(ValueError):
    """The bytes are no ModelInferResponse, or their tensors do not fit their shapes."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a request: where its bytes are is said by `region`.

    datatype: a key of DTYPES. shape: with the batch axis.
    region, offset, byte_size: the shared-memory region that holds it, or None when the bytes
        follow in the message.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    region: str | None = None
    offset: int = 0
    byte_size: int = 0


@dataclass(frozen=True)
class SharedOutput:
    """An output that is in a region: its datatype and shape, with the batch axis."""

    datatype: str
    shape: tuple[int, ...]


def build_header(
    model: str, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo | str]
) -> bytes:
    """Serialise everything of a request but the tensors' bytes.

    Args:
        outputs: every output that is wanted, by name, or with the region to be written into.
    """
    request = service_pb2.ModelInferRequest(model_name=model)
    for info in inputs:
        tensor = request.inputs.add(name=info.name, datatype=info.datatype, shape=info.shape)
        _add_region(tensor.parameters, info)
    for wanted in outputs:
        if isinstance(wanted, str):
            request.outputs.add(name=wanted)
        else:
            _add_region(request.outputs.add(name=wanted.name).parameters, wanted)
    return bytes(request.SerializeToString())


def _add_region(parameters: Any, info: TensorInfo) -> None:
    if info.region is None:
        return
    parameters["shared_memory_region"].string_param = info.region
    parameters["shared_memory_byte_size"].int64_param = info.byte_size
    if info.offset:
        parameters["shared_memory_offset"].int64_param = info.offset


def join_request(header: bytes, arrays: Sequence[NDArray[Any]]) -> bytes:
    """Append the tensors' bytes to a header: the one copy of a frame on its way out.

    Args:
        arrays: C-contiguous, in the order of the header's inputs that have no region.
    """
    tag = _varint(_RAW_INPUTS.number << 3 | _LENGTH_DELIMITED)
    parts: list[Any] = [header]
    for array in arrays:
        parts += (tag, _varint(array.nbytes), array.data)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


class ResponseReader:
    """Reads ModelInferResponses without copying their tensors.

    The answers of a stream differ in their tensors alone. What stands around those is taken apart
    once, and then only compared, in an eighth of the time.
    """

    def __init__(self) -> None:
        self._forms: dict[tuple[int, frozenset[str]], _Form] = {}

    def read(
        self, message: bytes, *, in_regions: frozenset[str] = frozenset()
    ) -> dict[str, NDArray[Any] | SharedOutput]:
        """Read one response.

        Args:
            in_regions: outputs that were asked for in shared memory. Not every server says in its
                answer which ones are (Triton 24.10 does not).

        Returns:
            For each output that the server sent, a read-only view with the batch axis, or what is
            known of one that was written into shared memory.

        Raises:
            ResponseError: damaged bytes, an unknown datatype, or bytes that do not fill their
                shape.
        """
        key = (len(message), in_regions)
        form = self._forms.get(key)
        if form is None or not form.fits(message):
            form = _take_apart(message, in_regions)
            # A video has one form; a mixed stream should not let this table grow for ever.
            if len(self._forms) >= _MOST_FORMS:
                self._forms.clear()
            self._forms[key] = form
        return form.view(message)


@dataclass(frozen=True)
class _Form:
    """All of a response but what its tensors hold.

    around: the bytes between tensors, each piece with its place in the message.
    shared: outputs in regions. tensors: name, dtype, place of the first byte, shape of the others.
    """

    around: tuple[tuple[int, bytes], ...]
    shared: Mapping[str, SharedOutput]
    tensors: tuple[tuple[str, np.dtype[Any], int, tuple[int, ...]], ...]

    def fits(self, message: bytes) -> bool:
        """Whether a message of the same length is of this form."""
        return all(message.startswith(piece, place) for place, piece in self.around)

    def view(self, message: bytes) -> dict[str, NDArray[Any] | SharedOutput]:
        outputs: dict[str, NDArray[Any] | SharedOutput] = dict(self.shared)
        for name, dtype, place, shape in self.tensors:
            count = math.prod(shape)
            outputs[name] = np.frombuffer(message, dtype, count, place).reshape(shape)
        return outputs


def _take_apart(message: bytes, in_regions: frozenset[str]) -> _Form:
    raws: list[tuple[int, int]] = []
    around: list[tuple[int, bytes]] = []
    rest = bytearray()
    begin = position = 0
    for number, field, payload in _walk(memoryview(message)):
        position += len(field)
        if number == _RAW_OUTPUTS.number:
            raws.append((position - len(payload), len(payload)))
            around.append((begin, message[begin : position - len(payload)]))
            begin = position
        else:
            rest += field
    around.append((begin, message[begin:]))
    shared: dict[str, SharedOutput] = {}
    tensors = []
    # Triton adds one raw entry an output, empty for those written into shared memory.
    for index, info in enumerate(_parse(bytes(rest)).outputs):
        if info.name in in_regions:
            shared[info.name] = SharedOutput(info.datatype, tuple(info.shape))
            continue
        if index >= len(raws):
            raise ResponseError(f"output {info.name!r} came without its bytes")
        place, size = raws[index]
        tensors.append((info.name, _check_tensor(info, size), place, tuple(info.shape)))
    return _Form(tuple(around), shared, tuple(tensors))


def _parse(message: bytes) -> Any:
    try:
        return service_pb2.ModelInferResponse.FromString(message)
    except DecodeError as error:
        raise ResponseError(f"the response is not a ModelInferResponse ({error})") from error


def _check_tensor(info: Any, size: int) -> np.dtype[Any]:
    dtype = DTYPES.get(info.datatype)
    if dtype is None:
        raise ResponseError(f"output {info.name!r} has datatype {info.datatype!r}")
    shape = tuple(info.shape)
    if math.prod(shape) * dtype.itemsize != size:
        raise ResponseError(f"output {info.name!r} has {size} bytes for shape {shape}")
    return dtype


def _walk(view: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield (field number, whole field, payload) for each top-level field of a message."""
    position = 0
    while position < len(view):
        start = position
        key, position = _read_varint(view, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            _, end = _read_varint(view, position)
        elif wire_type == _LENGTH_DELIMITED:
            length, position = _read_varint(view, position)
            end = position + length
        elif wire_type in _FIXED_SIZES:
            end = position + _FIXED_SIZES[wire_type]
        else:
            raise ResponseError(f"the response has a field of wire type {wire_type}")
        if end > len(view):
            raise ResponseError("the response ends in the middle of a field")
        yield number, view[start:end], view[position:end]
        position = end


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(view) or shift > 63:
            raise ResponseError("the response ends in the middle of a number")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
