"""What one build of the model repository is for: a swapper and the networks around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from engines.errors import DeploymentError
from engines.targets import Target
from graphs.contract import MAX_VIEWS, Extras
from networks.enhancers import ENHANCERS, Enhancer, check_enhanced_size
from networks.landmarkers import (
    DEFAULT_LANDMARKER,
    LANDMARKERS,
    NO_LANDMARKER,
    Landmarker,
    point_count,
    view_size,
)
from networks.maskers import OCCLUDERS, PARSERS, Occluder, Parser
from networks.recognizers import DEFAULT_RECOGNIZER, RECOGNIZERS, Recognizer
from networks.swappers import (
    SWAPPERS,
    ProvenanceMark,
    Swapper,
    check_landmarker,
    check_pairing,
    check_pixel_boost,
)

Row = TypeVar("Row")

NO_NETWORK: Final = NO_LANDMARKER
"""What a deployment without one of the networks that may be left out says of each."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The networks behind one repository.

    detector: row of `networks.detectors.DETECTORS`.
    landmarker: what refines faces and gives landmarks; None: nothing does.
    recognizer: behind `embed_face_bgr`; an identity swapper's sources come from this one too.
    occluder, parser: whose masks there are beside the others; None: there are none.
    enhancer: what makes the swapped face finer before it is laid back; None: nothing does.
    """

    swapper: Swapper
    detector: str
    recognizer: Recognizer
    landmarker: Landmarker | None
    pixel_boost: int = 1
    occluder: Occluder | None = None
    parser: Parser | None = None
    enhancer: Enhancer | None = None

    @property
    def extras(self) -> Extras:
        """What it has beside the six steps."""
        return Extras(
            occludes=self.occluder is not None,
            parses=self.parser is not None,
            enhances=None if self.enhancer is None else self.enhancer.enhances,
        )

    @property
    def crop_size(self) -> int:
        """S, side of the crops between detector, swapper and blender, in pixels."""
        return self.swapper.crop_size * self.pixel_boost

    @property
    def laid_size(self) -> int:
        """Side of the crops that the blender lays on, in pixels."""
        if self.enhancer is None:
            return self.crop_size
        return self.enhancer.made_size(self.crop_size)

    @property
    def provenance(self) -> ProvenanceMark:
        """The mark that is true of a frame that it has changed."""
        if self.enhancer is not None:
            return "compositeWithTrainedAlgorithmicMedia"
        return self.swapper.provenance

    @property
    def axis_sizes(self) -> dict[str, int]:
        """Sizes of the contract's axes that this deployment decides."""
        context = None if self.enhancer is None else self.enhancer.size
        return {
            "F": MAX_VIEWS,
            "V": view_size(self.landmarker),
            "P": point_count(self.landmarker),
            "S": self.crop_size,
            "X": context or self.crop_size,
            "T": self.laid_size,
            "D": self.swapper.source_length,
            "E": self.recognizer.embedding_length,
        }

    @property
    def landmarker_name(self) -> str:
        """Of the landmarker's row, or "none"."""
        return NO_LANDMARKER if self.landmarker is None else self.landmarker.name

    def is_channels_last(self, target: Target) -> bool:
        """Whether the swapper's network is rewritten for channels-last kernels on `target`."""
        return target.channels_last and self.swapper.channels_last


def resolve(
    *,
    swapper: str,
    detector: str,
    recognizer: str | None = None,
    landmarker: str = DEFAULT_LANDMARKER,
    pixel_boost: int = 1,
    occluder: str = NO_NETWORK,
    parser: str = NO_NETWORK,
    enhancer: str = NO_NETWORK,
    detectors: tuple[str, ...],
) -> Deployment:
    """Look the names up and refuse what does not fit together.

    Args:
        recognizer: None takes the one that the swapper needs, and the default where it needs none.
        landmarker, occluder, parser, enhancer: "none" for a deployment without one.
        detectors: the known detectors' names.

    Raises:
        DeploymentError: an unknown name, a recogniser whose embeddings the swapper was not made
            for, a pixel boost or landmarks that the swapper has no use for, or crops too large for
            an enhancer.
    """
    row = _known("swapper", swapper, SWAPPERS)
    if detector not in detectors:
        raise DeploymentError(_unknown("detector", detector, detectors))
    chosen = _known("recogniser", recognizer or row.recognizer or DEFAULT_RECOGNIZER, RECOGNIZERS)
    mesh = _optional("landmarker", landmarker, LANDMARKERS)
    try:
        # An image swapper takes no identity: any recogniser may stand beside it.
        if row.recognizer is not None:
            check_pairing(row, chosen)
        check_pixel_boost(row, pixel_boost)
        check_landmarker(row, mesh)
        finer = _optional("enhancer", enhancer, ENHANCERS)
        if finer is not None:
            check_enhanced_size(finer, row, pixel_boost)
    except ValueError as refusal:
        raise DeploymentError(str(refusal)) from refusal
    return Deployment(
        swapper=row,
        detector=detector,
        recognizer=chosen,
        landmarker=mesh,
        pixel_boost=pixel_boost,
        occluder=_optional("occluder", occluder, OCCLUDERS),
        parser=_optional("parser", parser, PARSERS),
        enhancer=finer,
    )


def _optional(kind: str, name: str, rows: Mapping[str, Row]) -> Row | None:
    return None if name == NO_NETWORK else _known(kind, name, rows)


def _known(kind: str, name: str, rows: Mapping[str, Row]) -> Row:
    if name not in rows:
        raise DeploymentError(_unknown(kind, name, tuple(rows)))
    return rows[name]


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> str:
    return f"no {kind} is called {name!r}; known: {', '.join(known)}"
