"""The serving contract as the client sees it.

The client installs alone, so it cannot import the deployment side; a test compares this file with
`graphs/contract.py`, name by name. Axis letters: H W frame, K face slots of a request, M detector
rows, D length of a source vector. Coordinates are pixels, x then y; integers are pixel centres.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final, Literal

CONTRACT_VERSION: Final = 2
MAX_DETECTIONS: Final = 16
"""M: rows of `faces`, and the most face slots a request may ask for."""

FrameFormat = Literal["i420", "bgr"]
FRAME_FORMATS: Final[tuple[FrameFormat, ...]] = ("i420", "bgr")

SWAP_MODELS: Final[dict[FrameFormat, str]] = {"i420": "swap_faces_i420", "bgr": "swap_faces_bgr"}
FIND_MODELS: Final[dict[FrameFormat, str]] = {"i420": "find_faces_i420", "bgr": "find_faces_bgr"}
SWAP_FOUND_MODELS: Final[dict[FrameFormat, str]] = {
    "i420": "swap_found_faces_i420",
    "bgr": "swap_found_faces_bgr",
}
ENCODE_MODEL: Final = "encode_source_bgr"
EMBED_MODEL: Final = "embed_face_bgr"

Provenance = Literal["composite", "compositeWithTrainedAlgorithmicMedia"]
PROVENANCES: Final[tuple[Provenance, ...]] = (
    "composite",
    "compositeWithTrainedAlgorithmicMedia",
)
"""IPTC digital source types: `composite` where a written formula mixes the pixels, the other where
a trained network makes them."""

FRAME: Final = "frame"
SOURCE: Final = "source"
OPTIONS: Final = "options"
SWAPPED_FRAME: Final = "swapped_frame"
FACES: Final = "faces"
VERDICTS: Final = "verdicts"
LANDMARKS: Final = "landmarks"
POSE: Final = "pose"
EMBEDDING: Final = "embedding"

FACE_COLUMNS: Final = 15
"""x1 y1 x2 y2, score, then x y of the left eye, right eye, nose, left and right mouth corner."""
SCORE_COLUMN: Final = 4
LANDMARK_COLUMN: Final = 5
OPTION_COUNT: Final = 16

PARAMETER_CONTRACT_VERSION: Final = "contract_version"
PARAMETER_SWAPPER: Final = "swapper"
PARAMETER_SOURCE_KIND: Final = "source_kind"
PARAMETER_PROVENANCE: Final = "provenance"
PARAMETER_LANDMARKER: Final = "landmarker"
PARAMETER_GIVES_MASK: Final = "gives_mask"
PARAMETER_OCCLUDER: Final = "occluder"
PARAMETER_PARSER: Final = "parser"
PARAMETER_ENHANCER: Final = "enhancer"
PARAMETER_ENHANCER_WEIGHT: Final = "enhancer_weight"
"""Keys of the ensembles' config parameters."""


class Option(IntEnum):
    """Position of each option in the `options` tensor; a value of 0 is always the default."""

    FACE_ORDER = 0
    COLOR_MATRIX = 1
    COLOR_RANGE = 2
    CHROMA_LOCATION = 3
    SCORE_THRESHOLD = 4
    NMS_THRESHOLD = 5
    REFINEMENT = 6
    MASKS = 7
    KEEP = 8
    BOX_BLUR = 9
    BOX_PADDING = 10
    SWAPPER_WEIGHT = 11
    POSE_LIMIT = 12
    AREAS = 13
    ENHANCER = 14
    REGIONS = 15


class FaceOrder(IntEnum):
    """Which face is row 0 of `faces`, and so is given the first source."""

    LARGEST_FIRST = 0
    SMALLEST_FIRST = 1
    LEFT_TO_RIGHT = 2
    RIGHT_TO_LEFT = 3
    TOP_TO_BOTTOM = 4
    BOTTOM_TO_TOP = 5
    BEST_FIRST = 6
    WORST_FIRST = 7


class ColorMatrix(IntEnum):
    """Luma matrix of an I420 frame; AUTO is the server's rule by frame height."""

    AUTO = 0
    BT601 = 1
    BT709 = 2
    BT2020 = 3


class ColorRange(IntEnum):
    """LIMITED: Y in 16..235, chroma in 16..240. FULL: 0..255."""

    LIMITED = 0
    FULL = 1


class ChromaLocation(IntEnum):
    """Where a 4:2:0 chroma sample lies in its 2x2 luma block."""

    LEFT = 0
    CENTER = 1
    TOP_LEFT = 2


class Refinement(IntEnum):
    """Whose five landmarks align a face: the landmark network's where there is one, or, with NONE,
    the detector's."""

    DEFAULT = 0
    NONE = 1


class MaskFlag(IntFlag):
    """Which masks bound a swapped crop: a sum, combined by minimum.

    DEFAULT: what the deployment uses. NONE, alone: the whole crop is shown. OCCLUSION and REGIONS:
    only in a deployment with an occluder or a parser.
    """

    DEFAULT = 0
    BOX = 1
    HULL = 2
    SWAPPER = 4
    NONE = 8
    OCCLUSION = 32
    REGIONS = 64


class KeepFlag(IntFlag):
    """Which parts of the target's own face stay as they are: a sum.

    MOUTH is what lies between the lips, LIPS the lips with it.
    """

    NOTHING = 0
    MOUTH = 1
    EYES = 2
    BROWS = 4
    LIPS = 8


class AreaFlag(IntFlag):
    """Which areas of the face the swap is shown in: a sum, whose convex hull is a mask.

    EVERYWHERE: there is no such mask.
    """

    EVERYWHERE = 0
    UPPER_FACE = 1
    LOWER_FACE = 2
    MOUTH = 4


class RegionFlag(IntFlag):
    """Which parts of the swapped face a parser's mask shows: a sum.

    ALL: every one of them. Left and right are the person's.
    """

    ALL = 0
    SKIN = 1
    LEFT_BROW = 2
    RIGHT_BROW = 4
    LEFT_EYE = 8
    RIGHT_EYE = 16
    GLASSES = 32
    NOSE = 64
    MOUTH = 128
    UPPER_LIP = 256
    LOWER_LIP = 512


class Verdict(IntEnum):
    """Why a face was not swapped.

    SWAPPED: it was. LOOKS_AWAY: it is turned from the camera by more than the pose limit.
    MISSHAPEN: its points fit no face. NO_SLOT: the request has no source for it. BELOW_THRESHOLD:
    its score is below the threshold that the request names.
    """

    SWAPPED = 0
    LOOKS_AWAY = 1
    MISSHAPEN = 2
    NO_SLOT = 3
    BELOW_THRESHOLD = 4


PADDING_BASE: Final = 64
"""BOX_PADDING is top + 64 right + 4,096 bottom + 262,144 left, each 0 to 63 percent of the crop."""

ENHANCER_BASE: Final = 128
"""ENHANCER is blend + 128 weight, each 0 for the default or 1 + a whole percentage."""
