"""Our request bytes and response reader against protobuf itself."""

from __future__ import annotations

import numpy as np
import pytest
from frameswap.wire import (
    ResponseError,
    ResponseReader,
    SharedOutput,
    TensorInfo,
    build_header,
    join_request,
)
from tritonclient.grpc import service_pb2

IN_REGIONS = frozenset({"frame"})


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
    outputs = ResponseReader().read(message)
    np.testing.assert_array_equal(outputs["frame"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(outputs["faces"], np.float32([[1, 2]]))
    assert np.shares_memory(outputs["frame"], np.frombuffer(message, np.uint8))


def test_an_output_in_shared_memory_has_no_bytes() -> None:
    response = make_response()
    response.raw_output_contents[0] = b""
    outputs = ResponseReader().read(response.SerializeToString(), in_regions=IN_REGIONS)
    assert outputs["frame"] == SharedOutput("UINT8", (2, 3))
    np.testing.assert_array_equal(outputs["faces"], np.float32([[1, 2]]))


def test_every_truncation_of_a_response_is_an_error_or_lacks_an_output() -> None:
    message = make_response().SerializeToString()
    for length in range(len(message)):
        try:
            outputs = ResponseReader().read(message[:length])
        except ResponseError:
            continue
        assert len(outputs) < 2


def test_every_truncation_of_a_response_from_shared_memory_is_one_too() -> None:
    response = make_response()
    response.raw_output_contents[0] = b""
    message = response.SerializeToString()
    for length in range(len(message)):
        try:
            outputs = ResponseReader().read(message[:length], in_regions=IN_REGIONS)
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
        ResponseReader().read(response.SerializeToString())


@pytest.mark.parametrize("junk", [b"\x0b", b"\x7f" * 30, b"\xff" * 30, b"\x0a\xff\xff\xff\xff\x0f"])
def test_junk_is_an_error(junk: bytes) -> None:
    with pytest.raises(ResponseError, match="response"):
        ResponseReader().read(junk)


def outcome(reader: ResponseReader, message: bytes, in_regions: frozenset[str]) -> object:
    """What is read, in a form that compares bit for bit, or the error's sentence."""
    try:
        outputs = reader.read(message, in_regions=in_regions)
    except ResponseError as error:
        return str(error)
    return {
        name: out if isinstance(out, SharedOutput) else (out.dtype, out.shape, out.tobytes())
        for name, out in outputs.items()
    }


@pytest.mark.parametrize("in_regions", [frozenset(), IN_REGIONS])
def test_what_was_read_before_changes_nothing_in_what_is_read_of_the_next(
    in_regions: frozenset[str],
) -> None:
    response = make_response()
    if in_regions:
        response.raw_output_contents[0] = b""
    message = response.SerializeToString()
    seen = set()
    for place in range(len(message)):
        for bit in range(8):
            reader = ResponseReader()
            known = outcome(reader, message, in_regions)
            flipped = bytearray(message)
            flipped[place] ^= 1 << bit
            expected = outcome(ResponseReader(), bytes(flipped), in_regions)
            assert outcome(reader, bytes(flipped), in_regions) == expected
            assert outcome(reader, message, in_regions) == known
            seen.add(expected == known)
    # A model's name is not read; tensors, names and sizes are.
    assert seen == {False, True}


def test_tensors_of_answers_of_one_form_are_each_their_own() -> None:
    reader, response = ResponseReader(), make_response()
    for value in range(3):
        response.raw_output_contents[1] = np.float32([value, -value]).tobytes()
        outputs = reader.read(response.SerializeToString())
        np.testing.assert_array_equal(outputs["faces"], np.float32([[value, -value]]))
        np.testing.assert_array_equal(outputs["frame"], [[0, 1, 2], [3, 4, 5]])


def test_an_output_of_no_bytes_has_its_shape() -> None:
    response = make_response()
    response.outputs[1].shape[:] = [1, 0]
    response.raw_output_contents[1] = b""
    for _ in range(2):
        assert ResponseReader().read(response.SerializeToString())["faces"].shape == (1, 0)
