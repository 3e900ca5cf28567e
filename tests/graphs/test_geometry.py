"""Warps and samplers against NumPy and OpenCV."""

import cv2
import numpy as np

from graphs import geometry
from tests.graphs.evaluation import evaluate
from tests.reference import geometry as reference
from tests.reference.pixels import sample_bilinear


def test_inverting_twice_gives_the_warp_back_and_zeros_stay_zeros():
    random = np.random.default_rng(8)
    warps = random.normal(0, 1, (3, 4, 2, 3)).astype(np.float32)
    warps[..., 2] *= 500
    warps[0, 1] = 0.0
    warps[1, 2] = [[1, 2, 5], [2, 4, 6]]

    def piece(op, warps):
        inverse = geometry.invert_warps(op, warps)
        return [inverse, geometry.invert_warps(op, inverse)]

    inverse, back = evaluate(piece, warps)
    singular = np.zeros((3, 4), dtype=bool)
    singular[0, 1] = singular[1, 2] = True
    assert not inverse[singular].any()
    for warp, got in zip(warps[~singular], inverse[~singular], strict=True):
        expected = reference.invert(warp.astype(np.float64))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(back[~singular], warps[~singular], rtol=1e-3, atol=0.05)


def test_grids_are_warped_like_opencv_warps_points():
    warps = np.random.default_rng(9).normal(0, 2, (2, 3, 2, 3)).astype(np.float32)

    def piece(op, warps, height, width):
        x = op.Unsqueeze(op.Cast(op.Range(0, op.Squeeze(width, [0]), 1), to=1), [0])
        y = op.Unsqueeze(op.Cast(op.Range(0, op.Squeeze(height, [0]), 1), to=1), [1])
        return list(geometry.apply_warps(op, warps, x, y))

    sizes = [np.array([5], dtype=np.int64), np.array([7], dtype=np.int64)]
    x, y = evaluate(piece, warps, *sizes)
    assert x.shape == y.shape == (2, 3, 5, 7)
    grid = np.stack(np.meshgrid(np.arange(7.0), np.arange(5.0)), axis=-1)
    for b in range(2):
        for k in range(3):
            expected = cv2.transform(grid, warps[b, k].astype(np.float64))
            np.testing.assert_allclose(np.stack([x[b, k], y[b, k]], -1), expected, atol=1e-4)


def test_gathered_taps_read_between_pixels_and_repeat_the_edge():
    random = np.random.default_rng(10)
    planes = random.random((2, 3, 19, 31), dtype=np.float32) * 255
    x = random.uniform(-6, 37, (2, 8, 9)).astype(np.float32)
    y = random.uniform(-6, 25, (2, 8, 9)).astype(np.float32)
    x[:, 0, :3], y[:, 0, :3] = [0.0, 30.0, 15.0], [0.0, 18.0, 9.0]

    def gather(op, planes, x, y):
        size = [op.Shape(planes, start=axis, end=axis + 1) for axis in (2, 3)]
        flat = [op.Reshape(v, [0, -1]) for v in (planes, x, y)]
        taps = geometry.bilinear_taps(op, flat[1], flat[2], *size)
        channels = [
            geometry.gather_bilinear(op, flat[0], taps, start=c * 19 * 31) for c in range(3)
        ]
        stacked = op.Concat(*[op.Unsqueeze(c, [1]) for c in channels], axis=1)
        return op.Reshape(stacked, [0, 3, 8, 9])

    values = evaluate(gather, planes, x, y)[0]
    for b in range(2):
        for c in range(3):
            expected = sample_bilinear(planes[b, c], x[b], y[b])
            # neighbours differ by up to 255, coordinates by a few 2^-24 * 31 px
            np.testing.assert_allclose(values[b, c], expected, atol=3e-3)


def test_interleaved_pixels_are_gathered_by_their_stride():
    frame = np.random.default_rng(11).random((1, 5 * 6 * 3), dtype=np.float32)
    x, y = np.array([[0.0, 2.5, 5.0]], np.float32), np.array([[0.0, 1.5, 4.0]], np.float32)

    def piece(op, frame, x, y, height, width):
        taps = geometry.bilinear_taps(op, x, y, height, width)
        return geometry.gather_bilinear(op, frame, taps, stride=3, start=2)

    sizes = [np.array([5], dtype=np.int64), np.array([6], dtype=np.int64)]
    values = evaluate(piece, frame, x, y, *sizes)[0]
    plane = frame.reshape(5, 6, 3)[..., 2]
    np.testing.assert_allclose(values, sample_bilinear(plane, x, y), atol=1e-6)
