"""From a served model's name to its fp32 graph: the weights it needs, and how it is authored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from engines.deployment import Deployment
from graphs import (
    face_blender,
    face_detector,
    face_recognizer,
    face_swapper,
    image_swapper,
    source_encoder,
)
from graphs.contract import FRAME_FORMATS, MODEL_SPECS, FrameFormat
from graphs.face_blender import Method
from graphs.face_detector import Runtime
from networks.detectors import DETECTORS
from networks.passes import PORTABLE_PASSES

LoadNetwork = Callable[[str], onnx.ModelProto]
"""A weight's name, as in `fetching.weights.WEIGHTS`, to its network."""


@dataclass(frozen=True, kw_only=True)
class ServedGraph:
    """One served model of a deployment, not authored yet.

    settings: what the graph was made for, by name; two graphs of one model with the same settings
        and weights are the same graph.
    weights: keys of `fetching.weights.WEIGHTS`; empty where the project authors every number.
    """

    model: str
    settings: Mapping[str, str]
    weights: tuple[str, ...]
    author: Callable[[LoadNetwork], onnx.ModelProto]

    @property
    def has_network(self) -> bool:
        """Whether there is a network in it, and not geometry and pixels alone."""
        return bool(self.weights) or self.model == "face_swapper"


def served_graphs(
    deployment: Deployment,
    *,
    skip_empty: bool,
    passes: Sequence[str] = PORTABLE_PASSES,
    runtime: Runtime = "tensorrt",
    blending: Method = "whole",
) -> Mapping[str, ServedGraph]:
    """Every model of `MODEL_SPECS` as `deployment` wants it.

    Args:
        skip_empty: leave the swapper's network out of a batch without faces, inside the graph; a
            backend that drops empty slots before it calls the graph has no use for it.
        passes: rewrites of the swapper's network (`networks.passes`).
        runtime: what the detector is written for; its answers are the same.
        blending: the blender's method, see `graphs.face_blender`; the picture is the same.
    """
    graphs = [_locator(deployment, runtime), _source_encoder(deployment), _recognizer(deployment)]
    graphs.append(_swapper(deployment, skip_empty=skip_empty, passes=passes))
    for pixel in FRAME_FORMATS:
        graphs.append(_detector(deployment, pixel, runtime))
        graphs.append(_blender(deployment, pixel, blending))
    by_name = {graph.model: graph for graph in graphs}
    return {name: by_name[name] for name in MODEL_SPECS}


def _locator(deployment: Deployment, runtime: Runtime) -> ServedGraph:
    detector = DETECTORS[deployment.detector]
    return ServedGraph(
        model="face_locator_bgr",
        settings={"detector": detector.name, "runtime": runtime},
        weights=(detector.weight,),
        author=lambda load: face_detector.build(
            "bgr", detector, load(detector.weight), runtime=runtime
        ),
    )


def _detector(deployment: Deployment, frame_format: FrameFormat, runtime: Runtime) -> ServedGraph:
    detector = DETECTORS[deployment.detector]
    return ServedGraph(
        model=f"face_detector_{frame_format}",
        settings={"detector": detector.name, "runtime": runtime, **_swapper_settings(deployment)},
        weights=(detector.weight,),
        author=lambda load: face_detector.build(
            frame_format,
            detector,
            load(detector.weight),
            swapper=deployment.swapper,
            pixel_boost=deployment.pixel_boost,
            runtime=runtime,
        ),
    )


def _recognizer(deployment: Deployment) -> ServedGraph:
    recognizer = deployment.recognizer
    return ServedGraph(
        model="face_recognizer",
        settings={"recognizer": recognizer.name},
        weights=(recognizer.weight,),
        author=lambda load: face_recognizer.build(recognizer, load(recognizer.weight)),
    )


def _source_encoder(deployment: Deployment) -> ServedGraph:
    swapper = deployment.swapper
    settings = {"swapper": swapper.name}
    if swapper.recognizer is None:
        return ServedGraph(
            model="source_encoder",
            settings=settings,
            weights=(),
            author=lambda _: source_encoder.build(swapper),
        )
    recognizer, converter = deployment.recognizer.weight, swapper.converter

    def author(load: LoadNetwork) -> onnx.ModelProto:
        return source_encoder.build(
            swapper,
            recognizer_network=load(recognizer),
            converter_network=None if converter is None else load(converter),
        )

    weights = (recognizer,) if converter is None else (recognizer, converter)
    return ServedGraph(model="source_encoder", settings=settings, weights=weights, author=author)


def _swapper(deployment: Deployment, *, skip_empty: bool, passes: Sequence[str]) -> ServedGraph:
    swapper, boost = deployment.swapper, deployment.pixel_boost

    def author(load: LoadNetwork) -> onnx.ModelProto:
        if swapper.weight is None:
            network = image_swapper.build_network(swapper.crop_size)
        else:
            network = load(swapper.weight)
        return face_swapper.build(
            swapper, network, pixel_boost=boost, skip_empty=skip_empty, passes=passes
        )

    weights = () if swapper.weight is None else (swapper.weight,)
    return ServedGraph(
        model="face_swapper",
        settings={
            **_swapper_settings(deployment),
            "skip empty": str(skip_empty),
            "passes": " ".join(passes),
        },
        weights=weights,
        author=author,
    )


def _blender(deployment: Deployment, frame_format: FrameFormat, method: Method) -> ServedGraph:
    return ServedGraph(
        model=f"face_blender_{frame_format}",
        settings={"crop size": str(deployment.crop_size), "method": method},
        weights=(),
        author=lambda _: face_blender.build(frame_format, deployment.crop_size, method=method),
    )


def _swapper_settings(deployment: Deployment) -> dict[str, str]:
    return {"swapper": deployment.swapper.name, "pixel boost": str(deployment.pixel_boost)}
