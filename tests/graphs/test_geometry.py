"""Templates, fits, warps and samplers against NumPy, OpenCV and insightface's literals."""

import cv2
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import geometry
from tests.graphs.evaluation import evaluate
from tests.reference import geometry as reference
from tests.reference.pixels import sample_bilinear

# insightface/utils/face_align.py (2.1): arcface_dst, pixels of a 112-pixel crop
ARCFACE_112 = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def test_templates_are_the_published_ones():
    # templates carry eight decimals: 112 * 5e-9 is below a millionth of a pixel
    np.testing.assert_allclose(geometry.TEMPLATES["arcface_112_v2"] * 112, ARCFACE_112, atol=1e-6)
    np.testing.assert_allclose(
        geometry.TEMPLATES["arcface_128"] * 128, ARCFACE_112 + np.array([8.0, 0.0]), atol=1e-6
    )
    literals = {
        "arcface_112_v1": ([0.35473214, 0.45658929], [0.62086607, 0.77687500]),
        "ffhq_512": ([0.37691676, 0.46864664], [0.61150205, 0.72490465]),
        "mtcnn_512": ([0.36562865, 0.46733799], [0.61178945, 0.77476328]),
    }
    for name, (left_eye, right_mouth) in literals.items():
        template = geometry.TEMPLATES[name]
        np.testing.assert_array_equal(template[[0, 4]], [left_eye, right_mouth])


@pytest.mark.parametrize("template", geometry.TEMPLATES.values(), ids=geometry.TEMPLATES.keys())
def test_templates_look_like_an_upright_face(template):
    left_eye, right_eye, nose, left_mouth, right_mouth = template
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert not template.flags.writeable


def fit(points, template):
    points = np.asarray(points, dtype=np.float32)
    return evaluate(lambda op, p: geometry.fit_similarity(op, p, template), points)[0]


@pytest.fixture(scope="module")
def fit_session():
    """One session for many fits to the 128-pixel template."""
    from graphs.authoring import GraphAuthor
    from tests.graphs.evaluation import open_session

    author = GraphAuthor("fit")
    points = author.builder.input("points", geometry.ir.DataType.FLOAT, ["N", 5, 2])
    template = geometry.TEMPLATES["arcface_128"] * 128
    author.builder.add_output(geometry.fit_similarity(author.op, points, template), "warps")
    session: onnxruntime.InferenceSession = open_session(author.finish())
    return lambda points: session.run(None, {"points": np.asarray(points, np.float32)})[0]


@given(
    angle=st.floats(-np.pi, np.pi),
    scale=st.floats(0.05, 30.0),
    centre=st.tuples(st.floats(-200, 4100), st.floats(-200, 2400)),
    noise=st.lists(st.floats(-0.08, 0.08), min_size=10, max_size=10),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_fit_is_the_least_squares_similarity(fit_session, angle, scale, centre, noise):
    template = geometry.TEMPLATES["arcface_128"] * 128
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = template - template.mean(axis=0) + np.array(noise).reshape(5, 2) * 128
    points = np.float32(scale * shape @ turn.T + np.array(centre))
    warp = fit_session(points[None])[0]
    expected = reference.fit_least_squares(points.astype(np.float64), template)
    # float32 coordinates up to 4300 have steps of 2.4e-4 px; the crop sees them magnified 1/scale
    magnified = max(1.0, 1.0 / scale)
    np.testing.assert_allclose(warp[:, :2], expected[:, :2], atol=2e-4 * magnified)
    mapped = points @ warp[:, :2].T + warp[:, 2]
    exact = points.astype(np.float64) @ expected[:, :2].T + expected[:, 2]
    np.testing.assert_allclose(mapped, exact, atol=4e-3 * magnified)


def test_the_fit_equals_umeyamas_for_face_like_points():
    random = np.random.default_rng(7)
    template = geometry.TEMPLATES["ffhq_512"] * 512
    points = template * 0.4 + [300, 200] + random.normal(0, 6.0, (50, 5, 2))
    warps = fit(points, template)
    for warp, five in zip(warps, points, strict=True):
        # float32 against double on numbers up to 500
        np.testing.assert_allclose(warp, reference.fit_umeyama(five, template), atol=2e-3)


def test_a_mirrored_face_is_not_reflected():
    template = geometry.TEMPLATES["arcface_128"] * 128
    mirrored = template * [-1.0, 1.0] + [128.0, 0.0]
    warp = fit(mirrored, template)
    assert np.linalg.det(warp[:, :2]) > 0
    np.testing.assert_allclose(
        warp, reference.fit_least_squares(mirrored, template), rtol=1e-4, atol=2e-3
    )


def test_points_that_are_all_one_point_give_no_warp_at_all():
    template = geometry.TEMPLATES["arcface_128"] * 128
    points = np.stack([np.zeros((5, 2)), np.full((5, 2), 777.25), np.full((5, 2), -3e5)])
    np.testing.assert_array_equal(fit(points, template), np.zeros((3, 2, 3)))


def test_points_that_no_similarity_can_shape_give_no_warp_at_all():
    template = geometry.TEMPLATES["arcface_128"] * 128
    centred = template - template.mean(axis=0)
    # a weighted combination orthogonal to the template and to its quarter turn: a = b = 0
    basis = np.stack([centred.ravel(), np.stack([centred[:, 1], -centred[:, 0]], 1).ravel()])
    points = np.random.default_rng(3).normal(0, 50.0, 10).reshape(5, 2)
    points -= points.mean(axis=0)
    points = points.ravel() - np.linalg.pinv(basis) @ (basis @ points.ravel())
    np.testing.assert_array_equal(fit(points.reshape(1, 5, 2), template), np.zeros((1, 2, 3)))


def test_collinear_points_still_have_a_finite_fit():
    template = geometry.TEMPLATES["arcface_128"] * 128
    points = np.stack([np.linspace(10, 90, 5), np.linspace(20, 40, 5)], axis=1)
    np.testing.assert_allclose(
        fit(points, template), reference.fit_least_squares(points, template), atol=1e-3
    )


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
