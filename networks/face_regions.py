"""Which landmarks bound a face and its parts, for each kind of landmarks that the project knows.

A part lies between two curves, an upper and a lower one, each through points from left to right as
seen in the image. Sources: MediaPipe 0.10.21 (Apache-2.0), FACEMESH_LIPS, FACEMESH_LEFT_EYE,
FACEMESH_RIGHT_EYE, FACEMESH_LEFT_EYEBROW, FACEMESH_RIGHT_EYEBROW and FACEMESH_FACE_OVAL of
`python/solutions/face_mesh_connections.py`, whose left is the person's; C. Sagonas et al., "300
Faces In-The-Wild Challenge", 2016, for the 68 points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from graphs.contract import AreaFlag, KeepFlag
from networks.face_points import IBUG_POINTS, MEDIAPIPE_POINTS


@dataclass(frozen=True)
class Band:
    """What lies between two curves through landmarks, from left to right."""

    upper: tuple[int, ...]
    lower: tuple[int, ...]


@dataclass(frozen=True)
class FaceRegions:
    """The outline and the parts of a face, as indices of its landmarks.

    parts: bands of each flag of `KeepFlag`.
    areas: points whose convex hull is each flag's of `AreaFlag`.
    top: points along the upper end of the face, moved up to take the forehead in.
    axis: a point high and a point low on the middle of the face: the way up.
    forehead: how far, in lengths of that axis.
    """

    parts: Mapping[KeepFlag, tuple[Band, ...]]
    areas: Mapping[AreaFlag, tuple[int, ...]]
    top: tuple[int, ...]
    axis: tuple[int, int]
    forehead: float


_BELOW_NOSE: Final = (98, 97, 2, 326, 327)
# fmt: off
FACE_OVAL: Final = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
# fmt: on
"""Around the mesh, from the middle of the forehead."""

_MEDIAPIPE: Final = FaceRegions(
    parts=MappingProxyType(
        {
            KeepFlag.MOUTH: (
                Band(
                    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
                    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
                ),
            ),
            KeepFlag.EYES: (
                Band(
                    (33, 246, 161, 160, 159, 158, 157, 173, 133),
                    (33, 7, 163, 144, 145, 153, 154, 155, 133),
                ),
                Band(
                    (362, 398, 384, 385, 386, 387, 388, 466, 263),
                    (362, 382, 381, 380, 374, 373, 390, 249, 263),
                ),
            ),
            KeepFlag.BROWS: (
                Band((70, 63, 105, 66, 107), (46, 53, 52, 65, 55)),
                Band((336, 296, 334, 293, 300), (285, 295, 282, 283, 276)),
            ),
            KeepFlag.LIPS: (
                Band(
                    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
                    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
                ),
            ),
        }
    ),
    # The points of the mesh that lie nearest to those below.
    areas=MappingProxyType(
        {
            AreaFlag.UPPER_FACE: (
                *(127, 234, 93, *_BELOW_NOSE, 323, 454, 356),
                *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
            ),
            AreaFlag.LOWER_FACE: (
                *(132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361),
                *_BELOW_NOSE,
            ),
            AreaFlag.MOUTH: (
                *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),
                *(78, 81, 13, 311, 308, 402, 14, 178),
            ),
        }
    ),
    top=(54, 103, 67, 109, 10, 338, 297, 332, 284),
    axis=(10, 152),
    forehead=0.06,
)

_IBUG: Final = FaceRegions(
    parts=MappingProxyType(
        {
            KeepFlag.MOUTH: (Band((60, 61, 62, 63, 64), (60, 67, 66, 65, 64)),),
            KeepFlag.EYES: (
                Band((36, 37, 38, 39), (36, 41, 40, 39)),
                Band((42, 43, 44, 45), (42, 47, 46, 45)),
            ),
            # one row of points a brow
            KeepFlag.BROWS: (
                Band((17, 18, 19, 20, 21), (17, 18, 19, 20, 21)),
                Band((22, 23, 24, 25, 26), (22, 23, 24, 25, 26)),
            ),
            KeepFlag.LIPS: (
                Band((48, 49, 50, 51, 52, 53, 54), (48, 59, 58, 57, 56, 55, 54)),
            ),
        }
    ),
    # FaceFusion's, `choices.py`.
    areas=MappingProxyType(
        {
            AreaFlag.UPPER_FACE: (0, 1, 2, *range(31, 36), 14, 15, 16, *range(17, 27)),
            AreaFlag.LOWER_FACE: (*range(3, 14), *range(31, 36)),
            AreaFlag.MOUTH: tuple(range(48, 68)),
        }
    ),
    # these points end at the brows: the forehead is all theirs to add
    top=(17, 18, 19, 20, 21, 22, 23, 24, 25, 26),
    axis=(27, 8),
    forehead=0.3,
)

FACE_REGIONS: Final[Mapping[int, FaceRegions]] = MappingProxyType(
    {MEDIAPIPE_POINTS: _MEDIAPIPE, IBUG_POINTS: _IBUG}
)
"""By number of landmarks."""
