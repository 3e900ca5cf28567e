"""The published landmark networks on the sample photos: float16, refined points, a compiler."""

from __future__ import annotations

import numpy as np
import pytest

from engines.compilers import choose_compiler
from engines.precision import to_fp16
from engines.profiles import AxisRange, ProfileLimits, make_profile
from engines.rounding import with_explicit_rounding
from networks.landmarkers import LANDMARKERS
from tests.graphs.photo_landmarks import (
    NETWORKS,
    PHOTOS,
    PORTRAITS,
    detect,
    graph_of,
    look,
    run,
    view_scale,
)

# In pixels of the view, so that the measure is the same for faces of every size: 0.09 (v2, one of
# the Solvay faces, 30 pixels wide) and 0.03 were the most seen; with the coordinates' last layers
# in float16 as well it would be 0.09 and 0.25 on portraits.
FP16_VIEW_PX = 0.1
FP16_DEGREES = 0.1


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("photo", PHOTOS)
def test_a_network_in_float16_moves_no_landmark_by_a_tenth_of_a_pixel(
    name: str, photo: str
) -> None:
    feeds = look(photo, detect("scrfd_2.5g", photo), LANDMARKERS[name])
    exact = run(graph_of(name), feeds)
    typed = run(with_explicit_rounding(to_fp16(graph_of(name))), feeds)
    assert exact["landmarks"].any(axis=(2, 3)).all()
    moved = np.linalg.norm((exact["landmarks"] - typed["landmarks"])[..., :2], axis=-1)
    assert (moved[0].max(axis=1) * view_scale(feeds)).max() < FP16_VIEW_PX
    np.testing.assert_allclose(typed["pose"], exact["pose"], atol=FP16_DEGREES)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("detector", ["yunet", "scrfd_2.5g"])
def test_refined_landmarks_lie_near_the_detectors(name: str, detector: str) -> None:
    off = []
    for photo in PORTRAITS:
        detections = detect(detector, photo)
        feeds = look(photo, detections, LANDMARKERS[name])
        refined = run(graph_of(name), feeds)["faces"]
        ours, theirs = (rows[0, 0, 5:].reshape(5, 2) for rows in (refined, detections))
        eyes = np.linalg.norm(ours[1] - ours[0])
        off.append(np.linalg.norm(ours - theirs, axis=1) / eyes)
    # In eye distances, over five portraits. A detector sees a face on 100 or 200 pixels; YuNet's
    # right mouth corner is the farthest off: 0.13 on average, 0.2 at most.
    mean = np.mean(off, axis=0)
    print(f"{name} {detector}: {np.round(100 * mean, 1)} % of the eye distance, {np.max(off):.3f}")
    assert (mean < 0.15).all()
    assert np.max(off) < 0.25


@pytest.mark.parametrize("name", NETWORKS)
def test_the_second_look_from_the_refined_points_moves_little(name: str) -> None:
    for photo in PORTRAITS:
        feeds = look(photo, detect("scrfd_2.5g", photo), LANDMARKERS[name])
        first = run(graph_of(name), feeds)
        second = run(graph_of(name), look(photo, first["faces"], LANDMARKERS[name]))
        moved = np.linalg.norm((first["landmarks"] - second["landmarks"])[0, 0, :, :2], axis=1)
        eyes = first["faces"][0, 0, 5:].reshape(5, 2)
        assert moved.mean() < 0.02 * np.linalg.norm(eyes[1] - eyes[0])


# Yaw, pitch and roll of MediaPipe's own facial transformation matrix (FaceLandmarker, 0.10.21; it
# has a perspective camera), in this project's signs.
MEDIAPIPE_POSES = {
    "newton": (11.3, -8.0, 2.9),
    "gauss": (11.5, -10.8, -4.6),
    "collins": (0.6, -14.9, 3.5),
    "obama": (5.1, 0.5, -6.3),
    "ardern": (4.4, -5.6, -6.0),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("photo", PORTRAITS)
def test_poses_are_mediapipes_but_for_its_camera(name: str, photo: str) -> None:
    feeds = look(photo, detect("scrfd_2.5g", photo), LANDMARKERS[name])
    yaw, pitch, roll = run(graph_of(name), feeds)["pose"][0, 0]
    expected = MEDIAPIPE_POSES[photo]
    assert abs(yaw - expected[0]) < 4
    assert abs(pitch - expected[1]) < 8
    assert abs(roll - expected[2]) < 2


@pytest.mark.parametrize("name", NETWORKS)
def test_a_view_of_no_face_leaves_its_detection(name: str) -> None:
    detections = detect("scrfd_2.5g", "collins").copy()
    # The flag behind her, and something in the lower corner: boxes that a careless detector gave.
    detections[0, 1] = detections[0, 0]
    detections[0, 1, :4] = [0, 300, 90, 420]
    away = np.array([-180, 270], np.float32)
    detections[0, 1, 5:] = (detections[0, 0, 5:].reshape(5, 2) + away).reshape(-1)
    found = run(graph_of(name), look("collins", detections, LANDMARKERS[name]))
    assert found["landmarks"][0, 0].any()
    assert not found["landmarks"][0, 1].any()
    np.testing.assert_array_equal(found["faces"][0, 1], detections[0, 1])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("half", [False, True])
def test_a_real_compiler_takes_the_published_network(name: str, half: bool) -> None:
    model = to_fp16(graph_of(name)) if half else graph_of(name)
    limits = ProfileLimits(batch=AxisRange(1, 8, 8), views=AxisRange(1, 1, 4))
    plan = choose_compiler("tensorrt_rtx").compile(
        model.SerializeToString(),
        profile=make_profile(model, limits),
        compute_capabilities=["8.9"],
    )
    assert len(plan.data) > 100_000
