"""The real ahead-of-time compiler takes detector and aligner at every shape up to 4K."""

import pytest

from engines.compilers import choose_compiler
from engines.profiles import AxisRange, ProfileLimits, make_profile
from graphs import face_aligner, face_detector
from networks.detectors import DETECTORS
from networks.landmarkers import LANDMARKERS
from networks.swappers import SWAPPERS
from tests.detector_networks import empty_scene, plant

UP_TO_4K = ProfileLimits(
    batch=AxisRange(1, 4, 8),
    faces=AxisRange(1, 1, 4),
    height=AxisRange(64, 1080, 2160),
    width=AxisRange(64, 1920, 3840),
)


@pytest.mark.parametrize(
    ("frame_format", "detector_name", "landmarker_name"),
    [
        ("i420", "yunet", "face_mesh_attention"),
        ("bgr", "scrfd_2.5g", "face_landmarker_v2"),
        ("bgr", "yoloface_8n", None),
    ],
)
def test_every_shape_up_to_4k_compiles(frame_format, detector_name, landmarker_name):
    detector = DETECTORS[detector_name]
    landmarker = LANDMARKERS.get(landmarker_name)
    network = plant(detector, [empty_scene(detector)])
    compile_up_to_4k(face_detector.build(frame_format, detector, network, landmarker=landmarker))


@pytest.mark.parametrize(
    ("frame_format", "swapper_name", "pixel_boost"),
    [("i420", "image_swapper_256", 1), ("bgr", "inswapper_128", 2)],
)
def test_every_shape_up_to_4k_is_aligned(frame_format, swapper_name, pixel_boost):
    swapper, landmarker = SWAPPERS[swapper_name], LANDMARKERS["face_mesh_attention"]
    compile_up_to_4k(
        face_aligner.build(
            frame_format, swapper, landmarker=landmarker, pixel_boost=pixel_boost
        )
    )


def compile_up_to_4k(model):
    plan = choose_compiler("tensorrt_rtx").compile(
        model.SerializeToString(),
        profile=make_profile(model, UP_TO_4K),
        compute_capabilities=["8.9"],
    )
    assert plan.data
