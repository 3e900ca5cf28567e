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
from fetching.weights import load_network
from graphs import (
    face_aligner,
    face_blender,
    face_detector,
    face_enhancer,
    face_landmarker,
    face_masker,
    face_recognizer,
    face_swapper,
    image_swapper,
    source_encoder,
)
from graphs.contract import FRAME_FORMATS, Extras, FrameFormat
from graphs.face_masker import MaskNetworks
from networks.detectors import DETECTORS
from networks.enhancers import ENHANCERS
from networks.face_points import IBUG_POINTS, MEDIAPIPE_POINTS
from networks.landmarkers import LANDMARKERS
from networks.maskers import OCCLUDERS, PARSERS
from networks.recognizers import RECOGNIZERS
from networks.swappers import SWAPPERS
from tests.detector_networks import empty_scene, plant
from tests.generated_networks import (
    converter_network,
    enhancer_network,
    occluder_network,
    parser_network,
    recognizer_network,
    swapper_network,
)
from tests.landmark_networks import landmarker_network

DEVICES = ("8.0", "8.6", "8.9", "12.0")
DEFAULT = ProfileLimits()
UHD = ProfileLimits(height=AxisRange(64, 1080, 2160), width=AxisRange(64, 1920, 3840))
ONE = AxisRange(1, 1, 1)
ROWS = ProfileLimits(batch=AxisRange(1, 8, 32), faces=ONE, views=ONE)
MESH = LANDMARKERS["face_mesh_attention"]

Author = Callable[[], onnx.ModelProto]


def detector(name: str, pixel: FrameFormat, role: face_detector.Role = "detector") -> Author:
    row = DETECTORS[name]

    def author() -> onnx.ModelProto:
        network = plant(row, [empty_scene(row)])
        return face_detector.build(pixel, row, network, landmarker=MESH, role=role)

    return author


def aligner(pixel: FrameFormat, swapper: str, boost: int = 1) -> Author:
    return lambda: face_aligner.build(
        pixel, SWAPPERS[swapper], landmarker=MESH, pixel_boost=boost
    )


def landmarker(name: str, *, skip_empty: bool = True) -> Author:
    row = LANDMARKERS[name]
    network = landmarker_network(name)
    return lambda: to_fp16(face_landmarker.build(row, network, skip_empty=skip_empty))


def swapper(name: str, boost: int = 1, *, half: bool = True, skip_empty: bool = True) -> Author:
    row = SWAPPERS[name]

    def author() -> onnx.ModelProto:
        if row.weight is None:
            network = image_swapper.build_network(row.crop_size)
        elif row.points:
            # Its weights are here: compiled as it is served.
            network = load_network(row.weight)
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


def masker(name: str, size: int, points: int = MEDIAPIPE_POINTS) -> Author:
    return lambda: face_masker.build(SWAPPERS[name], crop_size=size, point_count=points)


def looking_masker(size: int) -> Author:
    def author() -> onnx.ModelProto:
        networks = MaskNetworks(
            extras=Extras(occludes=True, parses=True, enhances="context"),
            occluder=(OCCLUDERS["xseg_1"], occluder_network("xseg_1")),
            parser=(PARSERS["bisenet_resnet_34"], parser_network("bisenet_resnet_34")),
        )
        row = SWAPPERS["inswapper_128"]
        return to_fp16(face_masker.build(row, crop_size=size, networks=networks))

    return author


def enhancer(name: str, size: int, *, occludes: bool = False) -> Author:
    row = ENHANCERS[name]
    extras = Extras(enhances=row.enhances, occludes=occludes)

    def author() -> onnx.ModelProto:
        network = enhancer_network(name, size=size)
        return to_fp16(face_enhancer.build(row, network, crop_size=size, extras=extras))

    return author


def framing_aligner(pixel: FrameFormat, name: str) -> Author:
    row = ENHANCERS[name]
    return lambda: face_aligner.build(
        pixel, SWAPPERS["inswapper_128"], landmarker=MESH, enhancer=row,
        extras=Extras(enhances=row.enhances),
    )  # fmt: skip


GRAPHS: dict[str, tuple[Author, ProfileLimits]] = {
    **{
        f"face_detector_{pixel} {name}": (detector(name, pixel), DEFAULT)
        for pixel, name in zip(FRAME_FORMATS * 2, DETECTORS, strict=True)
    },
    "face_detector_bgr yunet 4K": (detector("yunet", "bgr"), UHD),
    "face_locator_bgr yunet": (detector("yunet", "bgr", "locator"), DEFAULT),
    **{
        f"face_aligner_{pixel} image_swapper_256": (aligner(pixel, "image_swapper_256"), DEFAULT)
        for pixel in FRAME_FORMATS
    },
    "face_aligner_bgr inswapper_128 4K, boost 2": (aligner("bgr", "inswapper_128", 2), UHD),
    **{f"face_landmarker {name}": (landmarker(name), DEFAULT) for name in LANDMARKERS},
    "face_landmarker none": (face_landmarker.build_without_network, DEFAULT),
    "face_landmarker face_mesh_attention by rows": (
        landmarker("face_mesh_attention", skip_empty=False), ROWS
    ),
    **{f"face_swapper {name}": (swapper(name), DEFAULT) for name in SWAPPERS},
    "face_swapper inswapper_128 boost 4": (swapper("inswapper_128", 4), DEFAULT),
    "face_swapper inswapper_128 fp32": (swapper("inswapper_128", half=False), DEFAULT),
    "face_swapper frameswap_256 by rows": (swapper("frameswap_256", skip_empty=False), ROWS),
    "face_swapper inswapper_128 by rows": (swapper("inswapper_128", skip_empty=False), ROWS),
    # One of each way to make a source: crop, with landmarks, embedding, each converter behind it.
    **{
        f"source_encoder {name}": (encoder(name), DEFAULT)
        for name in (
            "image_swapper_256", "frameswap_256", "inswapper_128", "simswap_256", "ghost_1_256",
        )
    },
    **{f"face_recognizer {name}": (recognizer(name), DEFAULT) for name in RECOGNIZERS},
    "face_masker image_swapper_256": (masker("image_swapper_256", 256), DEFAULT),
    "face_masker inswapper_128, 68 points": (masker("inswapper_128", 128, IBUG_POINTS), DEFAULT),
    "face_masker hyperswap_1a_256, boost 4": (masker("hyperswap_1a_256", 1024), DEFAULT),
    "face_masker inswapper_128 by rows": (masker("inswapper_128", 128), ROWS),
    "face_masker occluder and parser": (looking_masker(128), DEFAULT),
    "face_masker occluder and parser by rows": (looking_masker(256), ROWS),
    "face_enhancer gfpgan_1.4 with an occluder": (
        enhancer("gfpgan_1.4", 128, occludes=True), DEFAULT
    ),
    "face_enhancer codeformer by rows": (enhancer("codeformer", 256), ROWS),
    "face_enhancer gpen_bfr_256": (enhancer("gpen_bfr_256", 128), DEFAULT),
    "face_enhancer realesr_animevideov3_x4": (enhancer("realesr_animevideov3_x4", 128), DEFAULT),
    "face_aligner_i420 for gfpgan_1.4": (framing_aligner("i420", "gfpgan_1.4"), DEFAULT),
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
    assert set(DETECTORS) | set(SWAPPERS) | set(RECOGNIZERS) | set(LANDMARKERS) <= words
    assert {f"face_detector_{p}" for p in FRAME_FORMATS} <= words
    assert {f"face_{m}_{p}" for m in ("aligner", "blender") for p in FRAME_FORMATS} <= words
