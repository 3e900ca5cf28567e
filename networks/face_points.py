"""Which point of a face lies where: index lists and the rigid face that poses are measured with.

Points are MediaPipe's: 468 of its face mesh, then five of each iris (468 to 472 of the eye on the
image's left, 473 to 477 of the other). Left and right are as seen in the image, where MediaPipe
says right and left. The 68 points of iBUG's 300-W count from the jaw.

Sources: MediaPipe 0.10.21 (Apache-2.0), the lists of `LandmarksRefinementCalculator` in its graph
FaceLandmarkFrontCpu, and geometry_pipeline_metadata_landmarks.binarypb in face_landmarker.task (the
canonical face model with the weights of its Procrustes basis); C. Sagonas et al., "300 Faces
In-The-Wild Challenge", 2016 (the 68 points).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MESH_POINTS: Final = 468
MEDIAPIPE_POINTS: Final = 478
IBUG_POINTS: Final = 68


@dataclass(frozen=True)
class PosePoint:
    """A point of a face that hardly moves with expression.

    index: in a network's landmarks. weight: how much it counts in the fit.
    place: x to the image's right, y up, z to the viewer, centimetres of a frontal mean face.
    """

    index: int
    weight: float
    place: tuple[float, float, float]


LIPS: Final = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
    76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306, 184, 74, 73, 72, 11, 302, 303, 304, 408,
    62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292, 183, 42, 41, 38, 12, 268, 271, 272, 407,
)
LEFT_EYE_AND_BROW: Final = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173, 130, 25, 110,
    24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190, 226, 31, 228, 229, 230, 231, 232,
    233, 244, 113, 225, 224, 223, 222, 221, 189, 35, 124, 46, 53, 52, 65, 143, 111, 117, 118,
    119, 120, 121, 128, 245, 156, 70, 63, 105, 66, 107, 55, 193,
)
RIGHT_EYE_AND_BROW: Final = (
    263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398, 359, 255,
    339, 254, 253, 252, 256, 341, 463, 467, 260, 259, 257, 258, 286, 414, 446, 261, 448, 449,
    450, 451, 452, 453, 464, 342, 445, 444, 443, 442, 441, 413, 265, 353, 276, 283, 282, 295,
    372, 340, 346, 347, 348, 349, 350, 357, 465, 383, 300, 293, 334, 296, 336, 285, 417,
)
"""Points of the mesh in the order in which the attention heads answer them."""

LEFT_IRIS: Final = (468, 469, 470, 471, 472)
RIGHT_IRIS: Final = (473, 474, 475, 476, 477)

LEFT_EYE: Final = LEFT_EYE_AND_BROW[:16]
RIGHT_EYE: Final = RIGHT_EYE_AND_BROW[:16]
"""The contour of each eye."""

# fmt: off
MEDIAPIPE_POSE: Final = (
    PosePoint(4, 0.070910, (0.000000, -0.463170, 7.586580)),
    PosePoint(6, 0.032100, (0.000000, 2.473255, 5.788627)),
    PosePoint(10, 0.008447, (0.000000, 8.261778, 4.481535)),
    PosePoint(33, 0.058724, (-4.445859, 2.663991, 3.173422)),
    PosePoint(54, 0.007667, (-6.279331, 6.615427, 1.425850)),
    PosePoint(67, 0.009078, (-3.523964, 8.005976, 3.729163)),
    PosePoint(117, 0.009792, (-5.258659, 0.945811, 2.974312)),
    PosePoint(119, 0.014565, (-3.300681, 0.861641, 3.872784)),
    PosePoint(121, 0.018591, (-1.820731, 1.467954, 4.224124)),
    PosePoint(127, 0.005198, (-7.743095, 2.364999, -2.005167)),
    PosePoint(129, 0.120625, (-1.785794, -0.978284, 4.850470)),
    PosePoint(132, 0.005560, (-7.270895, -2.890917, -2.252455)),
    PosePoint(133, 0.053286, (-1.856432, 2.585245, 3.757904)),
    PosePoint(136, 0.066890, (-5.085276, -7.178590, 0.714711)),
    PosePoint(143, 0.014817, (-6.407571, 2.236021, 1.560843)),
    PosePoint(147, 0.014263, (-6.234883, -1.944430, 1.663542)),
    PosePoint(198, 0.025462, (-1.246815, 0.230297, 5.681036)),
    PosePoint(205, 0.047252, (-3.832928, -1.537326, 4.137731)),
    PosePoint(263, 0.058724, (4.445859, 2.663991, 3.173422)),
    PosePoint(284, 0.007667, (6.279331, 6.615427, 1.425850)),
    PosePoint(297, 0.009078, (3.523964, 8.005976, 3.729163)),
    PosePoint(346, 0.009792, (5.258659, 0.945811, 2.974312)),
    PosePoint(348, 0.014565, (3.300681, 0.861641, 3.872784)),
    PosePoint(350, 0.018591, (1.820731, 1.467954, 4.224124)),
    PosePoint(356, 0.005198, (7.743095, 2.364999, -2.005167)),
    PosePoint(358, 0.120625, (1.785794, -0.978284, 4.850470)),
    PosePoint(361, 0.005560, (7.270895, -2.890917, -2.252455)),
    PosePoint(362, 0.053286, (1.856432, 2.585245, 3.757904)),
    PosePoint(365, 0.066890, (5.085276, -7.178590, 0.714711)),
    PosePoint(372, 0.014817, (6.407571, 2.236021, 1.560843)),
    PosePoint(376, 0.014263, (6.234883, -1.944430, 1.663542)),
    PosePoint(420, 0.025462, (1.246815, 0.230297, 5.681036)),
    PosePoint(425, 0.047252, (3.832928, -1.537326, 4.137731)),
)
IBUG_POSE: Final = (
    PosePoint(36, 1.0, (-4.445859, 2.663991, 3.173422)),  # at the mesh's 33
    PosePoint(39, 1.0, (-1.856432, 2.585245, 3.757904)),  # at the mesh's 133
    PosePoint(42, 1.0, (1.856432, 2.585245, 3.757904)),  # at the mesh's 362
    PosePoint(45, 1.0, (4.445859, 2.663991, 3.173422)),  # at the mesh's 263
    PosePoint(27, 1.0, (0.000000, 3.271027, 5.236015)),  # at the mesh's 168
    PosePoint(30, 1.0, (0.000000, -0.463170, 7.586580)),  # at the mesh's 4
    PosePoint(31, 1.0, (-1.405627, -1.714196, 5.241087)),  # at the mesh's 98
    PosePoint(33, 1.0, (0.000000, -2.089024, 6.058267)),  # at the mesh's 2
    PosePoint(35, 1.0, (1.405627, -1.714196, 5.241087)),  # at the mesh's 327
    PosePoint(48, 1.0, (-2.456206, -4.342621, 4.283884)),  # at the mesh's 61
    PosePoint(54, 1.0, (2.456206, -4.342621, 4.283884)),  # at the mesh's 291
)
# fmt: on
