"""Templates, fits and crops against NumPy, OpenCV and insightface's literals."""

import cv2
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import alignment
from graphs.authoring import GraphAuthor
from tests.graphs.evaluation import evaluate, open_session
from tests.reference import geometry as reference

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
    np.testing.assert_allclose(alignment.TEMPLATES["arcface_112_v2"] * 112, ARCFACE_112, atol=1e-6)
    np.testing.assert_allclose(
        alignment.TEMPLATES["arcface_128"] * 128, ARCFACE_112 + np.array([8.0, 0.0]), atol=1e-6
    )
    literals = {
        "arcface_112_v1": ([0.35473214, 0.45658929], [0.62086607, 0.77687500]),
        "ffhq_512": ([0.37691676, 0.46864664], [0.61150205, 0.72490465]),
    }
    for name, (left_eye, right_mouth) in literals.items():
        template = alignment.TEMPLATES[name]
        np.testing.assert_array_equal(template[[0, 4]], [left_eye, right_mouth])


@pytest.mark.parametrize("template", alignment.TEMPLATES.values(), ids=alignment.TEMPLATES.keys())
def test_templates_look_like_an_upright_face(template):
    left_eye, right_eye, nose, left_mouth, right_mouth = template
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert not template.flags.writeable


def fit(points, template):
    points = np.asarray(points, dtype=np.float32)
    return evaluate(lambda op, p: alignment.fit_similarity(op, p, template), points)[0]


@pytest.fixture(scope="module")
def fit_session():
    """One session for many fits to the 128-pixel template."""
    author = GraphAuthor("fit")
    points = author.builder.input("points", ir.DataType.FLOAT, ["N", 5, 2])
    template = alignment.TEMPLATES["arcface_128"] * 128
    author.builder.add_output(alignment.fit_similarity(author.op, points, template), "warps")
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
    template = alignment.TEMPLATES["arcface_128"] * 128
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
    template = alignment.TEMPLATES["ffhq_512"] * 512
    points = template * 0.4 + [300, 200] + random.normal(0, 6.0, (50, 5, 2))
    warps = fit(points, template)
    for warp, five in zip(warps, points, strict=True):
        # float32 against double on numbers up to 500
        np.testing.assert_allclose(warp, reference.fit_umeyama(five, template), atol=2e-3)


def test_a_mirrored_face_is_not_reflected():
    template = alignment.TEMPLATES["arcface_128"] * 128
    mirrored = template * [-1.0, 1.0] + [128.0, 0.0]
    warp = fit(mirrored, template)
    assert np.linalg.det(warp[:, :2]) > 0
    np.testing.assert_allclose(
        warp, reference.fit_least_squares(mirrored, template), rtol=1e-4, atol=2e-3
    )


def test_points_that_are_all_one_point_give_no_warp_at_all():
    template = alignment.TEMPLATES["arcface_128"] * 128
    points = np.stack([np.zeros((5, 2)), np.full((5, 2), 777.25), np.full((5, 2), -3e5)])
    np.testing.assert_array_equal(fit(points, template), np.zeros((3, 2, 3)))


def test_points_that_no_similarity_can_shape_give_no_warp_at_all():
    template = alignment.TEMPLATES["arcface_128"] * 128
    centred = template - template.mean(axis=0)
    # a weighted combination orthogonal to the template and to its quarter turn: a = b = 0
    basis = np.stack([centred.ravel(), np.stack([centred[:, 1], -centred[:, 0]], 1).ravel()])
    points = np.random.default_rng(3).normal(0, 50.0, 10).reshape(5, 2)
    points -= points.mean(axis=0)
    points = points.ravel() - np.linalg.pinv(basis) @ (basis @ points.ravel())
    np.testing.assert_array_equal(fit(points.reshape(1, 5, 2), template), np.zeros((1, 2, 3)))


def test_collinear_points_still_have_a_finite_fit():
    template = alignment.TEMPLATES["arcface_128"] * 128
    points = np.stack([np.linspace(10, 90, 5), np.linspace(20, 40, 5)], axis=1)
    np.testing.assert_allclose(
        fit(points, template), reference.fit_least_squares(points, template), atol=1e-3
    )


def faces_of(landmarks, scores):
    """`faces` (1, K, 15) with landmarks (K, 5, 2); boxes are 0."""
    rows = np.zeros((1, len(scores), 15), np.float32)
    rows[0, :, 4], rows[0, :, 5:] = scores, np.reshape(landmarks, (-1, 10))
    return rows


def test_a_slot_without_a_score_has_no_warp():
    template = alignment.TEMPLATES["arcface_128"] * 128
    landmarks = np.stack([template * 2 + 30, template * 3 - 5, template])
    faces = faces_of(landmarks, [0.9, 0.0, 0.5])
    warps = evaluate(lambda op, rows: alignment.fit_warps(op, rows, template), faces)[0]
    np.testing.assert_array_equal(warps[0, 1], np.zeros((2, 3)))
    for slot in (0, 2):
        expected = reference.fit_least_squares(landmarks[slot], template)
        # float32 of shifts up to 30
        np.testing.assert_allclose(warps[0, slot], expected, atol=1e-4)


def test_the_crop_of_a_first_face_is_the_one_that_the_detector_makes():
    frames = np.random.default_rng(5).integers(0, 256, (1, 90, 120, 3), dtype=np.uint8)
    template = alignment.TEMPLATES["ffhq_512"] * 64
    faces = faces_of([template * 0.7 + [20, 11]], [0.8])

    def piece(op, frames, faces):
        present = alignment.has_first_face(op, faces)
        first = alignment.crop_first_face(op, frames, faces, present, template="ffhq_512", size=64)
        warps = alignment.fit_warps(op, faces, template)
        return [first, warps, alignment.crop_bgr(op, frames, warps, 64)]

    first, warps, crops = evaluate(piece, frames, faces)
    # a division and a product with the inverse: one last bit of a number up to 1
    np.testing.assert_allclose(first, crops[:, 0], atol=1.2e-7)
    matrix = warps[0, 0].astype(np.float64)
    expected = cv2.warpAffine(
        frames[0].astype(np.float32), matrix, (64, 64), borderMode=cv2.BORDER_REPLICATE
    )
    # OpenCV rounds positions to 1/32 pixel; neighbours of noise differ by up to 255 levels
    found = crops[0, 0].transpose(1, 2, 0)[..., ::-1] * 255
    np.testing.assert_allclose(found, expected, atol=2 * 255 / 32)
