"""The server's ensembles, checked against the contract before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from frameswap.connection import Connection, ModelDescription
from frameswap.contract import (
    CONTRACT_VERSION,
    EMBED_MODEL,
    EMBEDDING,
    ENCODE_MODEL,
    FACES,
    FIND_MODELS,
    FRAME,
    LANDMARKS,
    MAX_DETECTIONS,
    OPTIONS,
    PARAMETER_CONTRACT_VERSION,
    PARAMETER_ENHANCER,
    PARAMETER_ENHANCER_WEIGHT,
    PARAMETER_GIVES_MASK,
    PARAMETER_LANDMARKER,
    PARAMETER_OCCLUDER,
    PARAMETER_PARSER,
    PARAMETER_PROVENANCE,
    PARAMETER_SOURCE_KIND,
    PARAMETER_SWAPPER,
    POSE,
    PROVENANCES,
    SOURCE,
    SWAP_FOUND_MODELS,
    SWAP_MODELS,
    SWAPPED_FRAME,
    VERDICTS,
    Provenance,
)
from frameswap.errors import BadFrame, ContractMismatch
from frameswap.frames import Frame, frame_size

__all__ = ["Ensemble", "Ensembles", "SourceKind", "check_size", "fit_photo"]

SourceKind = Literal["identity", "image"]

_SIGNATURES: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    ENCODE_MODEL: (frozenset({FRAME, OPTIONS}), frozenset({SOURCE, FACES})),
    EMBED_MODEL: (frozenset({FRAME, OPTIONS}), frozenset({EMBEDDING, FACES})),
    **{
        model: (frozenset({FRAME, SOURCE, OPTIONS}), frozenset({SWAPPED_FRAME, FACES, VERDICTS}))
        for model in SWAP_MODELS.values()
    },
    **{
        model: (frozenset({FRAME, OPTIONS}), frozenset({FACES, LANDMARKS, POSE}))
        for model in FIND_MODELS.values()
    },
    **{
        model: (
            frozenset({FRAME, FACES, LANDMARKS, SOURCE, OPTIONS}),
            frozenset({SWAPPED_FRAME, VERDICTS}),
        )
        for model in SWAP_FOUND_MODELS.values()
    },
}
_NO_LANDMARKER: Final = "none"


@dataclass(frozen=True)
class Ensemble:
    """One of our ensembles as deployed.

    provenance: the digital source type that is true of what its swapper makes.
    source_length: D; -1 when the server leaves it open, or has no sources in this ensemble.
    max_faces: the largest K. max_height, max_width: of a frame, pixels; None when not said.
    gives_mask: whether the swapper's network says which part of its crop is the face.
    landmarker, occluder, parser, enhancer: the networks' names; None where there is none.
    enhancer_weight: whether the enhancer takes a weight.
    landmark_shape: F faces and P points of `landmarks`; -1 where open or not in this ensemble.
    """

    name: str
    batched: bool
    swapper: str
    provenance: Provenance
    source_kind: SourceKind
    source_length: int
    max_faces: int
    max_height: int | None
    max_width: int | None
    gives_mask: bool = True
    landmarker: str | None = None
    landmark_shape: tuple[int, int] = (-1, -1)
    occluder: str | None = None
    parser: str | None = None
    enhancer: str | None = None
    enhancer_weight: bool = False


class Ensembles:
    """The ensembles of one server, looked up when first needed and then remembered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, Ensemble] = {}

    def get(self, name: str) -> Ensemble:
        """Return a checked ensemble.

        Raises:
            ContractMismatch: the server has no such model, or speaks another contract version.
            ServerNotReady: the model is there but not ready.
        """
        if name not in self._known:
            description = self._connection.describe(name)
            if description is None:
                raise ContractMismatch(
                    f"the server at {self._connection.address} has no model {name}: load it there, "
                    f"or use a server that was started for this client (`frameswap serve`)"
                )
            self._known[name] = check_ensemble(description, self._connection.address)
        return self._known[name]

    def any(self) -> Ensemble:
        """Return one of our ensembles, whichever the server has.

        Raises:
            ContractMismatch: it has none of them.
        """
        for name in _SIGNATURES:
            if name in self._known or self._connection.describe(name) is not None:
                return self.get(name)
        raise ContractMismatch(
            f"the server at {self._connection.address} has none of the models "
            f"{', '.join(_SIGNATURES)}: it is a Triton server, but not one that swaps faces"
        )

    def forget(self) -> None:
        """Look everything up again: the server may have been restarted with other models."""
        self._known.clear()


def check_ensemble(description: ModelDescription, address: str) -> Ensemble:
    """Read an ensemble's parameters, and refuse one that does not keep to the contract.

    Raises:
        ContractMismatch: another version (the text says which side is older), no version, or
            other tensors.
    """
    parameters = description.parameters
    version = parameters.get(PARAMETER_CONTRACT_VERSION, "")
    if not version.isdigit():
        raise ContractMismatch(
            f"the model {description.name} at {address} states no contract version: its "
            f"repository was not built by this project; build it again"
        )
    if int(version) != CONTRACT_VERSION:
        older, newer = (
            ("server", "client") if int(version) < CONTRACT_VERSION else ("client", "server")
        )
        raise ContractMismatch(
            f"the server at {address} speaks version {version} of the contract and this client "
            f"version {CONTRACT_VERSION}: the {older} is older than the {newer}; update the {older}"
        )
    inputs, outputs = _SIGNATURES[description.name]
    if inputs != description.inputs.keys() or outputs != description.outputs.keys():
        raise ContractMismatch(
            f"the model {description.name} at {address} has other tensors than version "
            f"{CONTRACT_VERSION} of the contract says: build its repository again"
        )
    kind = parameters.get(PARAMETER_SOURCE_KIND)
    if kind not in ("identity", "image") or PARAMETER_SWAPPER not in parameters:
        raise ContractMismatch(
            f"the model {description.name} at {address} does not say its swapper and source kind: "
            f"start the server for a target that was built (for example `--model-config-name=cpu`)"
        )
    tensors = {**description.outputs, **description.inputs}
    landmarker = parameters.get(PARAMETER_LANDMARKER, _NO_LANDMARKER)
    return Ensemble(
        name=description.name,
        batched=description.max_batch_size > 0,
        swapper=parameters[PARAMETER_SWAPPER],
        provenance=_provenance(description, address),
        source_kind="image" if kind == "image" else "identity",
        source_length=tensors[SOURCE][1][-1] if SOURCE in tensors else -1,
        max_faces=_number(parameters, "max_faces") or MAX_DETECTIONS,
        max_height=_number(parameters, "max_height"),
        max_width=_number(parameters, "max_width"),
        gives_mask=parameters.get(PARAMETER_GIVES_MASK) != "0",
        landmarker=None if landmarker == _NO_LANDMARKER else landmarker,
        landmark_shape=_landmark_shape(tensors),
        occluder=parameters.get(PARAMETER_OCCLUDER),
        parser=parameters.get(PARAMETER_PARSER),
        enhancer=parameters.get(PARAMETER_ENHANCER),
        enhancer_weight=parameters.get(PARAMETER_ENHANCER_WEIGHT) == "1",
    )


def _provenance(description: ModelDescription, address: str) -> Provenance:
    # Servers built before they said it speak the same version of the contract. What made their
    # pixels is not known here, so their outputs get the stronger mark: one that warns of AI where
    # there was none misleads nobody about the picture, the other way round it would.
    mark = description.parameters.get(PARAMETER_PROVENANCE, "compositeWithTrainedAlgorithmicMedia")
    for known in PROVENANCES:
        if mark == known:
            return known
    raise ContractMismatch(
        f"the model {description.name} at {address} says that its outputs are {mark!r}, and this "
        f"client knows {' and '.join(PROVENANCES)}: update the client"
    )


def _landmark_shape(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> tuple[int, int]:
    if LANDMARKS not in tensors:
        return -1, -1
    faces, points, _ = tensors[LANDMARKS][1]
    return faces, points


def _number(parameters: dict[str, str], key: str) -> int | None:
    text = parameters.get(key, "")
    return int(text) if text.isdigit() else None


def fit_photo(image: NDArray[np.uint8], ensemble: Ensemble) -> tuple[NDArray[np.uint8], float]:
    """Scale a photo down to the server's limits.

    Args:
        image: (H, W, 3) uint8 BGR.

    Returns:
        The photo, and the factor that leads from its pixels back to those of `image`.
    """
    height, width = image.shape[:2]
    factor = max(
        height / (ensemble.max_height or height), width / (ensemble.max_width or width), 1.0
    )
    if factor == 1.0:
        return image, 1.0
    size = (max(1, int(width / factor)), max(1, int(height / factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), factor


def check_size(frame: Frame, ensemble: Ensemble) -> None:
    """Raise BadFrame for a frame that is larger than the server takes."""
    size = frame_size(frame)
    max_height, max_width = ensemble.max_height, ensemble.max_width
    if (max_height and size.height > max_height) or (max_width and size.width > max_width):
        raise BadFrame(
            f"a frame may be at most {max_width} x {max_height} pixels on this server, not "
            f"{size.width} x {size.height}: scale it down, or build the models for larger frames"
        )
