"""Every served graph passes the real TensorRT-RTX compiler, and the 2^31 check, at its profile.

One plan for compute capability 8.0, 8.6, 8.9 and 12.0; batch 1 to 8; frames from 64x64 to 1080p
and, for one of each, 4K; one to four faces. Networks are small ones with the published contracts.
What is shown is that the graphs parse and lower; no kernel runs here.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
import tensorrt_rtx

from engines.compilers import RtxCompiler
from engines.precision import to_fp16
from engines.profiles import AxisRange, ProfileLimits, make_profile
from engines.shapes import MAX_ELEMENTS, check_elements
from graphs import (
    face_blender,
    face_detector,
    face_recognizer,
    face_swapper,
    image_swapper,
    source_encoder,
)
from graphs.contract import FRAME_FORMATS
from networks.detectors import DETECTORS
from networks.recognizers import RECOGNIZERS
from networks.swappers import SWAPPERS
from tests.detector_networks import empty_scene, plant
from tests.generated_networks import converter_network, recognizer_network, swapper_network

DEVICES = ("8.0", "8.6", "8.9", "12.0")
DEFAULT = ProfileLimits()
UHD = ProfileLimits(height=AxisRange(64, 1080, 2160), width=AxisRange(64, 1920, 3840))
ROWS = ProfileLimits(batch=AxisRange(1, 8, 32), faces=AxisRange(1, 1, 1))

Author = Callable[[], onnx.ModelProto]


def detector(name: str, frame_format: str, swapper: str | None, boost: int = 1) -> Author:
    row = DETECTORS[name]
    chosen = None if swapper is None else SWAPPERS[swapper]

    def author() -> onnx.ModelProto:
        network = plant(row, [empty_scene(row)])
        return face_detector.build(
            frame_format,
            row,
            network,
            swapper=chosen,
            pixel_boost=boost,  # type: ignore[arg-type]
        )

    return author


def swapper(name: str, boost: int = 1, *, half: bool = True, skip_empty: bool = True) -> Author:
    row = SWAPPERS[name]

    def author() -> onnx.ModelProto:
        if row.weight is None:
            network = image_swapper.build_network(row.crop_size)
        else:
            network = swapper_network(name)
        graph = face_swapper.build(row, network, pixel_boost=boost, skip_empty=skip_empty)
        return to_fp16(graph) if half else graph

    return author


def encoder(name: str) -> Author:
    row = SWAPPERS[name]

    def author() -> onnx.ModelProto:
        if row.recognizer is None:
            return source_encoder.build(row)
        converter = None if row.converter is None else converter_network(row.converter)
        graph = source_encoder.build(
            row,
            recognizer_network=recognizer_network(row.recognizer),
            converter_network=converter,
        )
        return to_fp16(graph)

    return author


def recognizer(name: str) -> Author:
    row = RECOGNIZERS[name]
    return lambda: to_fp16(face_recognizer.build(row, recognizer_network(name)))


def blender(frame_format: str, size: int) -> Author:
    return lambda: face_blender.build(frame_format, size)  # type: ignore[arg-type]


GRAPHS: dict[str, tuple[Author, ProfileLimits]] = {
    **{
        f"face_detector_{pixel} {name}": (detector(name, pixel, "image_swapper_256"), DEFAULT)
        for pixel, name in zip(FRAME_FORMATS * 2, DETECTORS, strict=True)
    },
    "face_detector_bgr yunet 4K, boost 2": (detector("yunet", "bgr", "inswapper_128", 2), UHD),
    "face_locator_bgr yunet": (detector("yunet", "bgr", None), DEFAULT),
    **{f"face_swapper {name}": (swapper(name), DEFAULT) for name in SWAPPERS},
    "face_swapper inswapper_128 boost 4": (swapper("inswapper_128", 4), DEFAULT),
    "face_swapper inswapper_128 fp32": (swapper("inswapper_128", half=False), DEFAULT),
    "face_swapper inswapper_128 by rows": (swapper("inswapper_128", skip_empty=False), ROWS),
    # One of each way to make a source: crop, embedding, embedding and each converter.
    **{
        f"source_encoder {name}": (encoder(name), DEFAULT)
        for name in ("image_swapper_256", "inswapper_128", "simswap_256", "ghost_1_256")
    },
    **{f"face_recognizer {name}": (recognizer(name), DEFAULT) for name in RECOGNIZERS},
    "face_blender_i420 256": (blender("i420", 256), DEFAULT),
    "face_blender_bgr 128": (blender("bgr", 128), DEFAULT),
    "face_blender_i420 512, 4K": (blender("i420", 512), UHD),
    "face_blender_bgr 256, 4K": (blender("bgr", 256), UHD),
}


@pytest.fixture(scope="module")
def rtx() -> RtxCompiler:
    return RtxCompiler(tensorrt_rtx)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_compiles_for_every_shape_of_its_profile(rtx: RtxCompiler, name: str) -> None:
    author, limits = GRAPHS[name]
    graph = author()
    profile = make_profile(graph, limits)
    largest = {tensor: shapes.max for tensor, shapes in profile.items()}
    assert check_elements(graph, largest).largest.elements <= MAX_ELEMENTS
    plan = rtx.compile(graph.SerializeToString(), profile=profile, compute_capabilities=DEVICES)
    assert plan.compute_capabilities == DEVICES
    assert len(plan.data) > 1000


@pytest.mark.parametrize("name", ["face_blender_bgr 128", "face_swapper inswapper_128"])
def test_layers_are_listed_through_loops_and_branches(rtx: RtxCompiler, name: str) -> None:
    author, _ = GRAPHS[name]
    layers = rtx.layers(author().SerializeToString())
    kinds = {layer.kind for layer in layers}
    assert kinds & {"TRIP_LIMIT", "CONDITION", "CONDITIONAL_OUTPUT"}
    assert all(layer.precision for layer in layers if layer.kind in ("CONVOLUTION", "GRID_SAMPLE"))


def test_every_frame_format_detector_swapper_and_recognizer_is_among_them() -> None:
    words = {word for name in GRAPHS for word in name.replace(",", "").split()}
    assert set(DETECTORS) | set(SWAPPERS) | set(RECOGNIZERS) <= words
    assert {f"face_detector_{p}" for p in FRAME_FORMATS} <= words
    assert {f"face_blender_{p}" for p in FRAME_FORMATS} <= words
