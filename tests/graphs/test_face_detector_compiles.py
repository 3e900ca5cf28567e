"""The real ahead-of-time compiler takes the detector graphs at every shape up to 4K."""

import pytest

from engines.compilers import choose_compiler
from engines.profiles import AxisRange, ProfileLimits, make_profile
from graphs import face_detector
from networks.detectors import DETECTORS
from networks.swappers import SWAPPERS
from tests.detector_networks import empty_scene, plant

UP_TO_4K = ProfileLimits(
    batch=AxisRange(1, 4, 8),
    faces=AxisRange(1, 1, 4),
    height=AxisRange(64, 1080, 2160),
    width=AxisRange(64, 1920, 3840),
)


@pytest.mark.parametrize(
    ("frame_format", "detector_name", "swapper_name", "pixel_boost"),
    [
        ("i420", "yunet", "image_swapper_256", 1),
        ("bgr", "scrfd_2.5g", "inswapper_128", 2),
        ("bgr", "yoloface_8n", None, 1),
    ],
)
def test_every_shape_up_to_4k_compiles(frame_format, detector_name, swapper_name, pixel_boost):
    detector = DETECTORS[detector_name]
    swapper = SWAPPERS[swapper_name] if swapper_name else None
    network = plant(detector, [empty_scene(detector)])
    model = face_detector.build(
        frame_format, detector, network, swapper=swapper, pixel_boost=pixel_boost
    )
    plan = choose_compiler("tensorrt_rtx").compile(
        model.SerializeToString(),
        profile=make_profile(model, UP_TO_4K),
        compute_capabilities=["8.9"],
    )
    assert plan.data
