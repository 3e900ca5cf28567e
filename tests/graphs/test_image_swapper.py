"""image_swapper against OpenCV's Gaussian and its own promises."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from graphs import image_swapper
from tests.graphs.evaluation import open_session

SIZE = 256


def make_crops(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two smooth random pictures [2, 3, S, S] float32 RGB in [0, 1]."""
    rng = np.random.default_rng(seed)
    noise = rng.random((12, SIZE, SIZE)).astype(np.float32)
    planes = np.stack([cv2.GaussianBlur(p, (0, 0), 6.0) for p in noise])
    planes = np.clip((planes - 0.5) * 4.0 + 0.5, 0.05, 0.95).reshape(2, 2, 3, SIZE, SIZE)
    return planes[0], planes[1]


def swap(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    model = image_swapper.build_network(SIZE)
    feeds = {"target": target, "source": source}
    return np.asarray(open_session(model).run(None, feeds)[0])


def reference(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The same swap with OpenCV's blur over mirrored borders, in double precision."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    u, v = (x - 0.50 * SIZE) / (0.26 * SIZE), (y - 0.56 * SIZE) / (0.34 * SIZE)
    rho = np.hypot(u, v)
    slope = np.hypot(u / (0.26 * SIZE), v / (0.34 * SIZE))
    t = np.clip(0.5 - (rho - 1.0) * rho / np.maximum(slope, 1e-9) / (0.06 * SIZE), 0.0, 1.0)
    mask = t * t * (3 - 2 * t)

    t = np.clip((rho - 0.55) / 0.5, 0.0, 1.0)
    share = t * t * (3 - 2 * t)

    def blur(plane: np.ndarray, sigma: float = 0.12) -> np.ndarray:
        return cv2.GaussianBlur(plane, (511, 511), sigma * SIZE, borderType=cv2.BORDER_REFLECT)

    out = np.empty_like(target, dtype=np.float64)
    for index in np.ndindex(target.shape[:2]):
        t_plane, s_plane = target[index].astype(np.float64), source[index].astype(np.float64)
        wide = blur((t_plane - s_plane) * mask) / (blur(mask) + 1e-4)
        light = (1 - share) * wide + share * blur(t_plane - s_plane, 0.03)
        out[index] = t_plane + (np.clip(s_plane + light, 0, 1) - t_plane) * mask
    return out


def test_the_swap_is_the_formula_with_opencvs_blur() -> None:
    target, source = make_crops(0)
    # A sampled, cut-off Gaussian and the cosine basis differ in the fourth digit: a tenth of a
    # grey level.
    np.testing.assert_allclose(swap(target, source), reference(target, source), atol=4e-4)


def test_outside_the_ellipse_the_target_comes_back_exactly() -> None:
    target, source = make_crops(1)
    outside = image_swapper.ellipse_mask(SIZE) == 0
    assert 0.5 < outside.mean() < 0.8
    np.testing.assert_array_equal(swap(target, source)[..., outside], target[..., outside])


def test_a_face_onto_itself_changes_nothing() -> None:
    target, _ = make_crops(2)
    np.testing.assert_allclose(swap(target, target), target, atol=1e-6)


def test_light_comes_from_the_target_and_detail_from_the_source() -> None:
    target, source = make_crops(3)
    inner = np.s_[..., 120:168, 104:152]
    darker = swap(target * 0.5, source)[inner].mean()
    assert darker < 0.65 * swap(target, source)[inner].mean()
    detail = swap(target, source)[inner] - target[inner].mean()
    wanted = source[inner] - source[inner].mean()
    assert np.corrcoef(detail.ravel(), wanted.ravel())[0, 1] > 0.7


def test_a_batch_is_its_rows() -> None:
    target, source = make_crops(4)
    both = swap(target, source)
    for row in range(2):
        alone = swap(target[row : row + 1], source[row : row + 1])
        # matrix products of another size may sum in another order
        np.testing.assert_allclose(alone[0], both[row], atol=1e-6)


def test_values_stay_in_range() -> None:
    target, source = make_crops(5)
    swapped = swap((target > 0.5).astype(np.float32), (source > 0.5).astype(np.float32))
    assert swapped.min() >= 0.0
    assert swapped.max() <= 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_in_the_source_stays_in_the_ellipse(value: float) -> None:
    target, source = make_crops(6)
    source[0, 1, 140, 130] = value
    outside = image_swapper.ellipse_mask(SIZE) == 0
    swapped = swap(target, source)
    np.testing.assert_array_equal(swapped[..., outside], target[..., outside])
    assert np.isfinite(swapped[1]).all()


def test_the_edge_has_no_seam_where_source_and_target_differ_in_light() -> None:
    # A white face on black and a grey one whose right half is dark: the swap's light must follow
    # the target across the ellipse's edge.
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    target = np.broadcast_to(np.where(x < 150, 0.7, 0.2), (1, 3, SIZE, SIZE)).astype(np.float32)
    disc = np.hypot(x - 128, y - 143) < 100
    source = np.broadcast_to(np.where(disc, 0.9, 0.0), (1, 3, SIZE, SIZE)).astype(np.float32)
    target = np.stack([[cv2.GaussianBlur(plane, (0, 0), 8.0) for plane in target[0]]])
    rim = np.abs(image_swapper.ellipse_radius(SIZE)[0] - 1.0) < 0.1
    error = np.abs(swap(target, source) - target)[..., rim]
    # 0.008 here; the wide blur alone leaves 0.039.
    assert error.mean() < 0.02


@pytest.mark.parametrize("sigma", [image_swapper.WIDE_SIGMA, image_swapper.NARROW_SIGMA])
@pytest.mark.parametrize("size", [128, 256])
def test_the_dropped_frequencies_carry_nothing(size: int, sigma: float) -> None:
    analysis, _ = image_swapper.blur_basis(size, sigma)
    kept = len(analysis)
    assert kept < 64
    assert np.exp(-0.5 * (np.pi * kept * sigma) ** 2) < 1e-6
