"""Names for the 478 points of MediaPipe's face mesh, and where a face lies in a crop.

Point numbers are MediaPipe's (Face Landmarker v2): 0 to 467 the mesh, 468 to 477 the irises.
Crops are 256 x 256, aligned to the arcface_128 template; coordinates are pixels, x then y, with
pixel centres at integers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

POINTS: Final = 478
CROP: Final = 256
MARGIN: Final = 32
"""Pixels that a stored crop has on each side beyond the 256 x 256 that the network sees."""

# fmt: off
OVAL: Final = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400,
               377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67,
               109)
LIPS_OUTER: Final = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37,
                     39, 40, 185)
LIPS_INNER: Final = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82,
                     81, 80, 191)
LOWER_LIP_INNER: Final = (95, 88, 178, 87, 14, 317, 402, 318, 324)
RIGHT_EYE: Final = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE: Final = (362, 382, 381, 380, 374, 373, 390, 249, 263, 466, 388, 387, 386, 385, 384, 398)
RIGHT_BROW: Final = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
LEFT_BROW: Final = (336, 296, 334, 293, 300, 276, 283, 282, 295, 285)
UPPER_LIDS: Final = (246, 161, 160, 159, 158, 157, 173, 466, 388, 387, 386, 385, 384, 398)
LOWER_LIDS: Final = (7, 163, 144, 145, 153, 154, 155, 249, 390, 373, 374, 380, 381, 382)
LID_CREASES: Final = (247, 30, 29, 27, 28, 56, 190, 467, 260, 259, 257, 258, 286, 414)
# fmt: on
"""UPPER_LIDS, LOWER_LIDS and LID_CREASES name the same 14 places along the two eyes, in order."""

OPENINGS: Final = (
    *zip(UPPER_LIDS, LOWER_LIDS, strict=True),
    *((LIPS_INNER[20 - k], LIPS_INNER[k]) for k in range(1, 10)),
)
"""Upper and lower point of each place along the eyes and the mouth."""

IRISES: Final = tuple(range(468, 478))
MOUTH_GAPS: Final = ((13, 14), (82, 87), (312, 317))
EYE_GAPS: Final = ((159, 145), (160, 144), (158, 153), (386, 374), (385, 380), (387, 373))
EYE_SPAN: Final = (33, 263)
EXPRESSION: Final = LIPS_INNER + LIPS_OUTER + LEFT_EYE + RIGHT_EYE

CHEEK: Final = 50
"""A point on the middle of a cheek."""

FIVE_POINTS: Final = (468, 473, 1, 61, 291)
"""The mesh points that stand for a detector's five: irises, nose, mouth corners."""

ARCFACE_128: Final[npt.NDArray[np.float64]] = np.array(
    [
        (0.36167656, 0.40387734),
        (0.63696719, 0.40235469),
        (0.50019687, 0.56044219),
        (0.38710391, 0.72160547),
        (0.61507734, 0.72034453),
    ]
)
"""The crop's template in units of its side; the same numbers as the project's `arcface_128`."""

ARCFACE_112_V2: Final[npt.NDArray[np.float64]] = np.array(
    [
        (0.34191607, 0.46157411),
        (0.65653393, 0.45983393),
        (0.50022500, 0.64050536),
        (0.37097589, 0.82469196),
        (0.63151696, 0.82325089),
    ]
)
"""The recogniser's template in units of its side of 112; the project's `arcface_112_v2`."""


def fit_similarity(
    from_points: npt.NDArray[np.float64], to_points: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The 2 x 3 similarity (no mirroring) that takes (K, 2) points nearest to (K, 2) points."""
    from_mean, to_mean = from_points.mean(0), to_points.mean(0)
    p, q = from_points - from_mean, to_points - to_mean
    spread = (p * p).sum()
    a = (p * q).sum() / spread
    b = (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum() / spread
    linear = np.array([[a, -b], [b, a]])
    return np.hstack([linear, (to_mean - linear @ from_mean)[:, None]])


def mirror_points(mean_shape: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """For each point the number of its mirror image, from a (478, 3) mean shape centred on x = 0.

    Raises:
        ValueError: the shape is not symmetrical enough for the mirror to be its own inverse.
    """
    mirrored = mean_shape * np.array([-1, 1, 1], np.float32)
    distance = ((mean_shape[:, None] - mirrored[None]) ** 2).sum(-1)
    mirror = distance.argmin(1)
    if (mirror[mirror] != np.arange(len(mirror))).any():
        raise ValueError("the mean shape is not symmetrical: a point's mirror has another mirror")
    return mirror.astype(np.int64)
