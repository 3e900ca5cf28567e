"""A black-and-white frame through aligner, swapper, masker and blender, in both formats."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import onnxruntime
import pytest

from graphs import face_aligner, face_blender, face_masker, face_swapper, image_swapper
from graphs.contract import (
    FACE_COLUMNS,
    LANDMARK_COLUMN,
    MAX_DETECTIONS,
    MAX_VIEWS,
    OPTION_COUNT,
    SCORE_COLUMN,
    ColorRange,
    FrameFormat,
    Option,
)
from networks.landmarkers import LANDMARKERS
from networks.swappers import SWAPPERS
from tests.generated_networks import source_vectors
from tests.graphs.evaluation import open_session
from tests.reference import heads

SWAPPER = SWAPPERS["image_swapper_256"]
LANDMARKER = LANDMARKERS["face_landmarker_v2"]
HEIGHT, WIDTH = 258, 320

Array = np.ndarray


@functools.cache
def sessions(frame_format: FrameFormat) -> tuple[onnxruntime.InferenceSession, ...]:
    """Aligner, swapper, masker and blender."""
    models = (
        face_aligner.build(frame_format, SWAPPER, landmarker=LANDMARKER),
        face_swapper.build(SWAPPER, image_swapper.build_network(256)),
        face_masker.build(SWAPPER, crop_size=256),
        face_blender.build(frame_format, 256),
    )
    return tuple(open_session(model) for model in models)


def swap(frame: Array, frame_format: FrameFormat, **options: float) -> Array:
    """The frame with a noisy source's face on a head in its middle."""
    points = heads.head(10, 0)
    five = [points[list(group), :2].mean(axis=0) for group in LANDMARKER.five]
    values = {
        "frame": frame[None],
        "faces": np.zeros((1, MAX_DETECTIONS, FACE_COLUMNS), np.float32),
        "landmarks": np.zeros((1, MAX_VIEWS, len(points), 3), np.float32),
        "source": source_vectors(SWAPPER, 1)[None],
        "options": np.zeros((1, OPTION_COUNT), np.float32),
    }
    values["faces"][0, 0, :SCORE_COLUMN] = 40, 30, 220, 230
    values["faces"][0, 0, SCORE_COLUMN] = 0.9
    values["faces"][0, 0, LANDMARK_COLUMN:] = np.reshape(five, -1)
    values["landmarks"][0, 0] = points
    for name, value in options.items():
        values["options"][0, Option[name.upper()]] = value
    for session in sessions(frame_format):
        wanted = {entry.name for entry in session.get_inputs()}
        given = {name: value for name, value in values.items() if name in wanted}
        names = [entry.name for entry in session.get_outputs()]
        values.update(zip(names, session.run(names, given), strict=True))
        values["landmarks"] = values["slot_landmarks"]
        values["faces"] = values["chosen_faces"]
    return np.asarray(values["swapped_frame"][0])


def smooth_plane() -> Array:
    noise = np.random.default_rng(5).integers(40, 200, (24, 32)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


def i420(luma: Array, blue: int, red: int) -> Array:
    quarter = HEIGHT * WIDTH // 4
    flat = [luma.reshape(-1), np.full(quarter, blue, np.uint8), np.full(quarter, red, np.uint8)]
    return np.concatenate(flat).reshape(HEIGHT * 3 // 2, WIDTH)


def test_a_grey_bgr_frame_keeps_its_channels_equal() -> None:
    frame = np.repeat(smooth_plane()[:, :, None], 3, axis=2)
    swapped = swap(frame, "bgr")
    assert (swapped != frame).any(axis=2).mean() > 0.1
    assert not np.ptp(swapped, axis=2).any()


@pytest.mark.parametrize("color_range", list(ColorRange))
@pytest.mark.parametrize(("blue", "red"), [(128, 128), (129, 128), (127, 129)])
def test_a_grey_i420_frame_keeps_its_chroma(blue: int, red: int, color_range: ColorRange) -> None:
    frame = i420(smooth_plane(), blue, red)
    swapped = swap(frame, "i420", color_range=color_range)
    pixels = HEIGHT * WIDTH
    luma, chroma = (values.astype(int) for values in np.split(swapped.reshape(-1), [pixels]))
    assert (luma != frame.reshape(-1)[:pixels]).mean() > 0.1
    # The chroma of compression's noise stays outside the mask; inside it, it is 128.
    assert np.abs(chroma - 128).max() <= 1
    assert np.abs(chroma - frame.reshape(-1)[pixels:]).max() <= 1


def test_a_coloured_frame_gets_a_coloured_face() -> None:
    frame = np.stack([smooth_plane() // 2, smooth_plane() // 4 * 3, smooth_plane()], axis=2)
    swapped = swap(frame.astype(np.uint8), "bgr")
    changed = (swapped != frame).any(axis=2)
    assert np.ptp(swapped[changed], axis=1).mean() > 20
