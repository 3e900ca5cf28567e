"""The face swappers this project can serve, one row of data each.

A swapper network takes a face crop of the target and a source (an identity vector, or a crop of the
source's own face) and answers the crop with the source's face. Published swappers differ in crop
size, alignment template, normalisation and in what their source is; a row says all of it, and
`graphs.face_swapper` and `graphs.source_encoder` read nothing else. Adding a swapper whose contract
is one of these kinds needs no code.

Source of the published contracts: FaceFusion 3.8.1 and 3.9.0, processors/modules/face_swapper, and
insightface 2.1, model_zoo/inswapper.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from graphs.contract import MaskFlag
from networks.face_points import MEDIAPIPE_POINTS
from networks.landmarkers import Landmarker
from networks.recognizers import RECOGNIZERS, Recognizer

SourceKind = Literal["identity", "image"]
ProvenanceMark = Literal["composite", "compositeWithTrainedAlgorithmicMedia"]
"""IPTC digital source type that is true of a frame a swapper has changed: `composite` where the
pixels are mixed by a written formula, the other where a trained network has made them."""

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Swapper:
    """One swapper: network input `target` = (crop - mean) / std, crop being RGB in [0, 1].

    weight: key in `fetching.weights.WEIGHTS`; None where the project authors the network itself.
    crop_size: S, side of the network's crop, pixels.
    template: key in `graphs.alignment.TEMPLATES` that target crops are aligned to.
    mean, std: per RGB channel, in the crop's [0, 1] scale.
    gives_mask: the network's second output is a mask of what it made, [*, 1, S, S] in [0, 1].
    denormalize: the output is y * std + mean; otherwise y. Both are clipped to [0, 1].
    source_kind: `identity` (an embedding; may be averaged over photos) or `image`.
    source_length: D, length of one flat source vector; an image source has one number a pixel
        (`graphs.packed_images`), and behind them its landmarks where there are `points`.
    source_size, source_template: side and template of an image source (RGB in [0, 1]).
    points: P, where the network is told where the landmarks of target and source lie in their
        crops; 0 where it is not.
    recognizer: row of `networks.recognizers` that embeds an identity source; None for images.
    raw_identity: the embedding goes in with the length that the recogniser gives it; otherwise it
        is made unit length.
    converter: key in `WEIGHTS` of the network between that recogniser's embedding and the
        swapper's own identity space; None where there is none.
    normalize_converted: an identity that passed the converter is made unit length again.
    project_identity: the network's last initializer is the 512 x 512 matrix (emap) that an
        identity is multiplied with before it enters the network.
    channels_last: on a GPU, for ONNX Runtime, the network is rewritten channels-last
        (`networks.passes.CHANNELS_LAST_PASSES`) and its provider is told so (`prefer_nhwc`); set
        where that was measured to be faster.
    pixel_boosts: values of b for which crops of b * S may be swapped as b * b interleaved ones.
    masks: which ones bound a crop where a request names none.
    least_light: mean of a crop in [0, 1] below which it is brightened for the network, and its
        answer darkened as much (`graphs.exposure`); 0 never does, as published swappers have it.
    provenance: the mark that is true of the output.
    """

    name: str
    weight: str | None
    crop_size: int
    template: str
    mean: Triple
    std: Triple
    denormalize: bool
    gives_mask: bool = False
    source_kind: SourceKind
    source_length: int
    source_size: int | None = None
    source_template: str | None = None
    points: int = 0
    recognizer: str | None = None
    raw_identity: bool = False
    converter: str | None = None
    normalize_converted: bool = False
    project_identity: bool = False
    channels_last: bool = False
    pixel_boosts: tuple[int, ...]
    masks: MaskFlag
    least_light: float = 0.0
    provenance: ProvenanceMark


ZERO: Final[Triple] = (0.0, 0.0, 0.0)
HALF: Final[Triple] = (0.5, 0.5, 0.5)
ONE: Final[Triple] = (1.0, 1.0, 1.0)
IMAGENET_MEAN: Final[Triple] = (0.485, 0.456, 0.406)
IMAGENET_STD: Final[Triple] = (0.229, 0.224, 0.225)

_IDENTITY_LENGTH: Final = 512

_OWN_LEAST_LIGHT: Final = 0.3
"""The crops of two paintings in full light have 0.39 to 0.46. At half of that a swap of theirs is 8
to 11 levels from the dimmed swap in the mean, mostly too rich in contrast."""


def _identity_swapper(
    name: str,
    *,
    crop_size: int,
    template: str,
    mean: Triple,
    std: Triple,
    denormalize: bool,
    gives_mask: bool = False,
    raw_identity: bool = False,
    converter: str | None = None,
    normalize_converted: bool = False,
    project_identity: bool = False,
    channels_last: bool = False,
) -> Swapper:
    """A published swapper driven by a w600k_r50 embedding; the largest boost gives 1024 pixels."""
    boosts = (1, 2, 3, 4, 6, 8)
    return Swapper(
        name=name,
        weight=name,
        crop_size=crop_size,
        template=template,
        mean=mean,
        std=std,
        denormalize=denormalize,
        gives_mask=gives_mask,
        source_kind="identity",
        source_length=_IDENTITY_LENGTH,
        recognizer="w600k_r50",
        raw_identity=raw_identity,
        converter=converter,
        normalize_converted=normalize_converted,
        project_identity=project_identity,
        channels_last=channels_last,
        pixel_boosts=tuple(boost for boost in boosts if boost * crop_size <= 1024),
        masks=MaskFlag.BOX | MaskFlag.HULL,
        provenance="compositeWithTrainedAlgorithmicMedia",
    )


def _image_swapper(
    name: str,
    *,
    weight: str | None,
    template: str,
    mean: Triple,
    std: Triple,
    denormalize: bool,
    source_size: int,
    source_template: str,
    pixel_boosts: tuple[int, ...],
    provenance: ProvenanceMark,
    least_light: float = 0.0,
) -> Swapper:
    """A swapper of 256-pixel crops whose source is a crop of the source's face."""
    return Swapper(
        name=name,
        weight=weight,
        crop_size=256,
        template=template,
        mean=mean,
        std=std,
        denormalize=denormalize,
        source_kind="image",
        source_length=source_size * source_size,
        source_size=source_size,
        source_template=source_template,
        pixel_boosts=pixel_boosts,
        masks=MaskFlag.BOX | MaskFlag.HULL,
        least_light=least_light,
        provenance=provenance,
    )


_ROWS: Final[tuple[Swapper, ...]] = (
    # The boost is meant for networks that were trained at one size; this one is authored, and
    # interleaving would only alias its frequency bands.
    _image_swapper(
        "image_swapper_256",
        weight=None,
        template="ffhq_512",
        mean=ZERO,
        std=ONE,
        denormalize=False,
        source_size=256,
        source_template="ffhq_512",
        pixel_boosts=(1,),
        least_light=_OWN_LEAST_LIGHT,
        provenance="composite",
    ),
    # The project's own networks, a large one and one that imitates it (weights/README.md).
    *(
        Swapper(
            name=name,
            weight=name,
            crop_size=256,
            template="arcface_128",
            mean=ZERO,
            std=ONE,
            denormalize=False,
            gives_mask=True,
            source_kind="image",
            source_length=256 * 256 + 3 * MEDIAPIPE_POINTS,
            source_size=256,
            source_template="arcface_128",
            points=MEDIAPIPE_POINTS,
            pixel_boosts=(1,),
            masks=MaskFlag.BOX | MaskFlag.HULL | MaskFlag.SWAPPER,
            least_light=_OWN_LEAST_LIGHT,
            provenance="compositeWithTrainedAlgorithmicMedia",
        )
        for name in ("frameswap_256", "frameswap_256_small")
    ),
    *(
        _identity_swapper(
            name,
            crop_size=128,
            template="arcface_128",
            mean=ZERO,
            std=ONE,
            denormalize=False,
            project_identity=True,
            channels_last=True,
        )
        for name in ("inswapper_128", "inswapper_128_fp16")
    ),
    *(
        _identity_swapper(
            name,
            crop_size=256,
            template="arcface_128",
            mean=HALF,
            std=HALF,
            denormalize=True,
            gives_mask=True,
        )
        for name in ("hyperswap_1a_256", "hyperswap_1b_256", "hyperswap_1c_256")
    ),
    _identity_swapper(
        "simswap_256",
        crop_size=256,
        template="arcface_112_v1",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        denormalize=False,
        converter="crossface_simswap",
        normalize_converted=True,
    ),
    *(
        _identity_swapper(
            name,
            crop_size=256,
            template="arcface_112_v1",
            mean=HALF,
            std=HALF,
            denormalize=True,
            converter="crossface_ghost",
            channels_last=True,
        )
        for name in ("ghost_1_256", "ghost_2_256", "ghost_3_256")
    ),
    # FaceFusion 3.9.0.
    _identity_swapper(
        "alphaface_256",
        crop_size=256,
        template="arcface_128",
        mean=ZERO,
        std=ONE,
        denormalize=False,
        raw_identity=True,
    ),
    _image_swapper(
        "uniface_256",
        weight="uniface_256",
        template="ffhq_512",
        mean=HALF,
        std=HALF,
        denormalize=True,
        source_size=256,
        source_template="ffhq_512",
        pixel_boosts=(1, 2, 3, 4),
        provenance="compositeWithTrainedAlgorithmicMedia",
    ),
    _image_swapper(
        "blendswap_256",
        weight="blendswap_256",
        template="ffhq_512",
        mean=ZERO,
        std=ONE,
        denormalize=False,
        source_size=112,
        source_template="arcface_112_v2",
        pixel_boosts=(1, 2, 3, 4),
        provenance="compositeWithTrainedAlgorithmicMedia",
    ),
)

SWAPPERS: Final[Mapping[str, Swapper]] = MappingProxyType({row.name: row for row in _ROWS})
"""Every swapper by name."""


def check_pairing(swapper: Swapper, recognizer: Recognizer) -> None:
    """Refuse a recogniser whose embedding the swapper was not made for.

    Embeddings of different recognisers have nothing in common but, sometimes, their length.

    Raises:
        ValueError: the swapper wants another recogniser, or none.
    """
    if swapper.recognizer == recognizer.name:
        return
    if swapper.recognizer is None:
        raise ValueError(
            f"{swapper.name} takes a photo of the source and no recogniser, "
            f"but {recognizer.name} was given; leave the recogniser out"
        )
    raise ValueError(
        f"{swapper.name} needs embeddings of {swapper.recognizer} "
        f"({RECOGNIZERS[swapper.recognizer].embedding_length} values), but {recognizer.name} "
        f"({recognizer.embedding_length} values) was given; use {swapper.recognizer}"
    )


def check_landmarker(swapper: Swapper, landmarker: Landmarker | None) -> None:
    """Refuse a deployment whose landmarks the swapper cannot use.

    Raises:
        ValueError: the swapper goes by landmarks, and there are none or others.
    """
    found = 0 if landmarker is None else landmarker.point_count
    if swapper.points not in (0, found):
        given = "none" if landmarker is None else f"{landmarker.name} with {found}"
        raise ValueError(
            f"{swapper.name} goes by {swapper.points} landmarks of every face, but the landmarker "
            f"is {given}; use face_mesh_attention or face_landmarker_v2"
        )


def check_pixel_boost(swapper: Swapper, pixel_boost: int) -> None:
    """Refuse a pixel boost that the swapper has no sense for.

    Raises:
        ValueError: `pixel_boost` is not one of the swapper's.
    """
    if pixel_boost not in swapper.pixel_boosts:
        allowed = ", ".join(str(boost) for boost in swapper.pixel_boosts)
        raise ValueError(
            f"{swapper.name} takes a pixel boost of {allowed}, but {pixel_boost} was asked for"
        )
