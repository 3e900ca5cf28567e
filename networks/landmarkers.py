"""The landmark networks this project can serve, one row of data each.

A landmarker takes a view (a square cut around one face, as the network wants to see it) and answers
points on the face. Those that deployments use answer MediaPipe's 478 points; FaceFusion's answer
the 68 of iBUG's 300-W. Rows say how a view is framed, what the outputs mean, which points are the
five that faces are aligned by, and which ones a pose is measured with; `graphs.face_views` and
`graphs.face_landmarker` read nothing else.

Sources: MediaPipe 0.10.21, its graphs FaceLandmarkFrontCpu and SingleFaceLandmarksDetectorGraph;
FaceFusion 3.8.1, face_landmarker.py (2dfan4, peppa_wutz, fan_68_5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from networks.detectors import ChannelOrder
from networks.face_points import (
    IBUG_POINTS,
    IBUG_POSE,
    LEFT_EYE,
    LEFT_EYE_AND_BROW,
    LEFT_IRIS,
    LIPS,
    MEDIAPIPE_POINTS,
    MEDIAPIPE_POSE,
    MESH_POINTS,
    RIGHT_EYE,
    RIGHT_EYE_AND_BROW,
    RIGHT_IRIS,
    PosePoint,
)

LandmarkerInput = Literal["view", "points"]
FlagKind = Literal["logit", "heatmaps", "columns", "none"]


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How a view lies around a detected face.

    scale: side of the view in longer sides of the detected box.
    shift: how far the view's centre lies below the box's, along the face, in sides of the view.
    turned: the view is turned so that the face stands upright in it, by all five landmarks.
    """

    scale: float
    shift: float = 0.0
    turned: bool


@dataclass(frozen=True, kw_only=True)
class PointOutput:
    """An output that answers points: x, y and, where `columns` is 3, a third number each.

    name: of the output; "" for the first one, of networks whose exports name it differently.
    points: which points of the face these are, in order.
    depth_from: points whose mean z is these points' z; empty: it stays what an earlier output said,
        or, where `columns` is 3, is the third number.
    """

    name: str
    columns: Literal[2, 3]
    points: tuple[int, ...]
    depth_from: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Flag:
    """How a network says whether it sees a face: a number above `threshold` says yes.

    logit: `output` [B, 1]; heatmaps: the mean over points of the maximum of each of their maps,
    `output` [B, n, h, w]; columns: the mean over points of the third number of the point output;
    none: it does not say.
    """

    kind: FlagKind
    output: str = ""
    threshold: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Landmarker:
    """One landmarker: network input = the view, RGB or BGR in [0, 1], [B, 3, V, V].

    weight: key in `fetching.weights.WEIGHTS`.
    input: `view`, or `points` for a network that sees no picture: its input is the five landmarks
        [B, 5, 2] on `point_template` (key in `graphs.alignment.TEMPLATES`), in sides of it, and so
        are the points that it answers.
    view_size: V, pixels; None for `points`.
    framing: how a view lies; None for `points`.
    channel_order: order of the three input channels.
    point_count: P, points answered.
    outputs: what makes the points; later ones replace earlier ones.
    unit: pixels of the view a unit of the outputs is long.
    has_depth: whether z means anything: along the viewing axis, away from the viewer, in the unit
        of x and y.
    flag: how it says whether there is a face.
    five: for left eye, right eye, nose, left and right mouth corner (as seen in the image), the
        points whose mean it is.
    pose_points: what a pose is measured with.
    recordable: its run in ONNX Runtime on CUDA was seen to be one CUDA graph without a part of the
        host's (`python -m bench.gpu_graphs`); one that is not must not be tried while serving.
    """

    name: str
    weight: str
    input: LandmarkerInput = "view"
    view_size: int | None
    framing: Framing | None
    channel_order: ChannelOrder = "rgb"
    point_count: int
    outputs: tuple[PointOutput, ...]
    unit: float = 1.0
    has_depth: bool
    flag: Flag
    five: tuple[tuple[int, ...], ...]
    pose_points: tuple[PosePoint, ...]
    point_template: str | None = None
    recordable: bool = False


_MEDIAPIPE_FRAMING: Final = Framing(scale=1.36, shift=0.043, turned=True)
"""MediaPipe makes the view 1.5 times the extent of the mesh it found before, or of its own
detector's box. The boxes of the detectors here hold more forehead: over 21 faces of the sample
photos, views of 1.36 boxes, 4.3 % further down, are those that MediaPipe's own loop from landmarks
to the next view settles on. They put points 1.4 % (SCRFD) and 1.9 % (YuNet) of the eye distance
from where that loop has them; views of 1.5 boxes put them 2.5 and 3.6 % off."""

# The contour's mean instead of the iris: a glance aside must not turn the face. The nose tip that
# detectors were trained with lies between the mesh's points 1 (below) and 4 (above).
_MEDIAPIPE_FIVE: Final = (LEFT_EYE, RIGHT_EYE, (1, 4), (61,), (291,))
# FaceFusion 3.8.1, convert_to_face_landmark_5.
_IBUG_FIVE: Final = (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,))

FACE_LANDMARKER_V2: Final = Landmarker(
    name="face_landmarker_v2",
    weight="face_landmarker_v2",
    view_size=256,
    framing=_MEDIAPIPE_FRAMING,
    point_count=MEDIAPIPE_POINTS,
    outputs=(
        PointOutput(name="Identity", columns=3, points=tuple(range(MEDIAPIPE_POINTS))),
    ),
    has_depth=True,
    # Sigmoid above 0.5, MediaPipe's min_face_presence_confidence.
    flag=Flag(kind="logit", output="Identity_1"),
    five=_MEDIAPIPE_FIVE,
    pose_points=MEDIAPIPE_POSE,
)

FACE_MESH_ATTENTION: Final = Landmarker(
    name="face_mesh_attention",
    weight="face_mesh_attention",
    view_size=192,
    framing=_MEDIAPIPE_FRAMING,
    point_count=MEDIAPIPE_POINTS,
    outputs=(
        PointOutput(name="output_mesh_identity", columns=3, points=tuple(range(MESH_POINTS))),
        PointOutput(name="output_lips", columns=2, points=LIPS),
        PointOutput(name="output_left_eye", columns=2, points=LEFT_EYE_AND_BROW),
        PointOutput(name="output_right_eye", columns=2, points=RIGHT_EYE_AND_BROW),
        PointOutput(name="output_left_iris", columns=2, points=LEFT_IRIS, depth_from=LEFT_EYE),
        PointOutput(name="output_right_iris", columns=2, points=RIGHT_IRIS, depth_from=RIGHT_EYE),
    ),
    has_depth=True,
    flag=Flag(kind="logit", output="conv_faceflag"),
    five=_MEDIAPIPE_FIVE,
    pose_points=MEDIAPIPE_POSE,
    recordable=True,
)


def _facefusion(name: str, columns: Literal[2, 3], flag: Flag) -> Landmarker:
    """A network of 68 points that sees a view of 256 pixels, the box's longer side on 195 of them.

    FaceFusion turns its crop by quarters only, and so do not these rows' views at all: they are its
    crops of a face that is more upright than not.
    """
    return Landmarker(
        name=name,
        weight=name,
        view_size=256,
        framing=Framing(scale=256.0 / 195.0, turned=False),
        channel_order="bgr",
        point_count=IBUG_POINTS,
        outputs=(PointOutput(name="", columns=columns, points=tuple(range(IBUG_POINTS))),),
        # Points are answered on the heat maps' grid.
        unit=256.0 / 64.0,
        has_depth=False,
        flag=flag,
        five=_IBUG_FIVE,
        pose_points=IBUG_POSE,
    )


# A score of 0.5, FaceFusion's default, is reached at half of what it calls full: 0.9 and 0.95.
FAN_2D_4: Final = _facefusion("2dfan4", 3, Flag(kind="heatmaps", threshold=0.45))
PEPPA_WUTZ: Final = _facefusion("peppa_wutz", 3, Flag(kind="columns", threshold=0.475))

FAN_68_5: Final = Landmarker(
    name="fan_68_5",
    weight="fan_68_5",
    input="points",
    view_size=None,
    framing=None,
    point_count=IBUG_POINTS,
    outputs=(PointOutput(name="", columns=2, points=tuple(range(IBUG_POINTS))),),
    has_depth=False,
    flag=Flag(kind="none"),
    five=_IBUG_FIVE,
    pose_points=IBUG_POSE,
    point_template="ffhq_512",
)

LANDMARKERS: Final[Mapping[str, Landmarker]] = MappingProxyType(
    {
        row.name: row
        for row in (FACE_LANDMARKER_V2, FACE_MESH_ATTENTION, FAN_2D_4, PEPPA_WUTZ, FAN_68_5)
    }
)
"""Every landmarker by name."""

DEFAULT_LANDMARKER: Final = FACE_MESH_ATTENTION.name
"""A quarter of the other mesh's time on a CPU, and it sees blinks and lips."""

NO_LANDMARKER: Final = "none"
"""Instead of a row's name: faces stay as the detector found them."""


def view_size(landmarker: Landmarker | None) -> int:
    """V, side of the views that a detector cuts for it; 1 where no network looks at them."""
    return 1 if landmarker is None or landmarker.view_size is None else landmarker.view_size


def point_count(landmarker: Landmarker | None) -> int:
    """P, points of a face; without a landmark network as many as the mesh has, all 0."""
    return MEDIAPIPE_POINTS if landmarker is None else landmarker.point_count
