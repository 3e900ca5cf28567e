"""Our request bytes and response reader against protobuf itself."""

from __future__ import annotations

import numpy as np
import pytest
from frameswap.wire import (
    ResponseError,
    SharedOutput,
    TensorInfo,
    build_header,
    join_request,
    read_response,
)
from tritonclient.grpc import service_pb2


@pytest.mark.parametrize("count", [0, 1, 127, 128, 20_000, 3_110_400])
def test_protobuf_reads_the_request_that_was_joined(count: int) -> None:
    frame = np.arange(count, dtype=np.uint32).astype(np.uint8)
    source = np.float32([[0.5, -1.0]])
    header = build_header(
        "m", [TensorInfo("frame", "UINT8", (count,)), TensorInfo("source", "FP32", (1, 2))], ["out"]
    )
    message = join_request(header, [frame, source])
    expected = service_pb2.ModelInferRequest(model_name="m")
    expected.inputs.add(name="frame", datatype="UINT8", shape=[count])
    expected.inputs.add(name="source", datatype="FP32", shape=[1, 2])
    expected.outputs.add(name="out")
    expected.raw_input_contents.extend([frame.tobytes(), source.tobytes()])
    assert service_pb2.ModelInferRequest.FromString(message) == expected


def test_a_region_is_said_in_the_parameters() -> None:
    info = TensorInfo("frame", "UINT8", (6,), region="r", offset=64, byte_size=6)
    request = service_pb2.ModelInferRequest.FromString(build_header("m", [info], [info]))
    for parameters in (request.inputs[0].parameters, request.outputs[0].parameters):
        assert parameters["shared_memory_region"].string_param == "r"
        assert parameters["shared_memory_offset"].int64_param == 64
        assert parameters["shared_memory_byte_size"].int64_param == 6


def make_response() -> service_pb2.ModelInferResponse:
    response = service_pb2.ModelInferResponse(model_name="m", id="1")
    response.parameters["unknown_to_us"].string_param = "x"
    response.outputs.add(name="frame", datatype="UINT8", shape=[2, 3])
    response.outputs.add(name="faces", datatype="FP32", shape=[1, 2])
    response.raw_output_contents.extend([bytes(range(6)), np.float32([1, 2]).tobytes()])
    return response


def test_a_response_is_read_without_a_copy() -> None:
    message = make_response().SerializeToString()
    outputs = read_response(message)
    np.testing.assert_array_equal(outputs["frame"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(outputs["faces"], np.float32([[1, 2]]))
    assert np.shares_memory(outputs["frame"], np.frombuffer(message, np.uint8))


def test_an_output_in_shared_memory_has_no_bytes() -> None:
    response = make_response()
    response.raw_output_contents[0] = b""
    outputs = read_response(response.SerializeToString(), in_regions={"frame"})
    assert outputs["frame"] == SharedOutput("UINT8", (2, 3))
    np.testing.assert_array_equal(outputs["faces"], np.float32([[1, 2]]))


def test_every_truncation_of_a_response_is_an_error_or_lacks_an_output() -> None:
    message = make_response().SerializeToString()
    for length in range(len(message)):
        try:
            outputs = read_response(message[:length])
        except ResponseError:
            continue
        assert len(outputs) < 2


def test_every_truncation_of_a_response_from_shared_memory_is_one_too() -> None:
    response = make_response()
    response.raw_output_contents[0] = b""
    message = response.SerializeToString()
    for length in range(len(message)):
        try:
            outputs = read_response(message[:length], in_regions={"frame"})
        except ResponseError:
            continue
        assert "faces" not in outputs


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda r: r.raw_output_contents.pop(), "'faces' came without its bytes"),
        (lambda r: r.outputs[1].shape.append(2), r"has 8 bytes for shape \(1, 2, 2\)"),
        (lambda r: setattr(r.outputs[0], "datatype", "BYTES"), "has datatype 'BYTES'"),
    ],
)
def test_a_response_that_contradicts_itself_is_an_error(change, text: str) -> None:
    response = make_response()
    change(response)
    with pytest.raises(ResponseError, match=text):
        read_response(response.SerializeToString())


@pytest.mark.parametrize("junk", [b"\x0b", b"\x7f" * 30, b"\xff" * 30, b"\x0a\xff\xff\xff\xff\x0f"])
def test_junk_is_an_error(junk: bytes) -> None:
    with pytest.raises(ResponseError, match="response"):
        read_response(junk)
