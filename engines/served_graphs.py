"""From a served model's name to its fp32 graph: the weights it needs, and how it is authored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from engines.deployment import Deployment
from engines.targets import Target
from graphs import (
    face_blender,
    face_detector,
    face_recognizer,
    face_swapper,
    image_swapper,
    source_encoder,
)
from graphs.contract import FRAME_FORMATS, MODEL_SPECS, FrameFormat
from networks.detectors import DETECTORS
from networks.passes import CHANNELS_LAST_PASSES, PORTABLE_PASSES

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
        return bool(self.weights) or MODEL_SPECS[self.model].network == "swapper"


def served_graphs(deployment: Deployment, target: Target) -> Mapping[str, ServedGraph]:
    """Every model of `MODEL_SPECS` as `deployment` wants it, in the form that `target` runs best.

    The form changes how fast a graph is, and not what it answers.
    """
    graphs = [
        _locator(deployment, target),
        _source_encoder(deployment),
        _recognizer(deployment),
        _swapper(deployment, target),
    ]
    for pixel in FRAME_FORMATS:
        graphs += [_detector(deployment, pixel, target), _blender(deployment, pixel, target)]
    by_name = {graph.model: graph for graph in graphs}
    return {name: by_name[name] for name in MODEL_SPECS}


def _locator(deployment: Deployment, target: Target) -> ServedGraph:
    detector = DETECTORS[deployment.detector]
    return ServedGraph(
        model="face_locator_bgr",
        settings={"detector": detector.name, "runtime": target.runtime},
        weights=(detector.weight,),
        author=lambda load: face_detector.build(
            "bgr", detector, load(detector.weight), runtime=target.runtime
        ),
    )


def _detector(deployment: Deployment, frame_format: FrameFormat, target: Target) -> ServedGraph:
    detector = DETECTORS[deployment.detector]
    return ServedGraph(
        model=f"face_detector_{frame_format}",
        settings={
            "detector": detector.name,
            "runtime": target.runtime,
            **_swapper_settings(deployment),
        },
        weights=(detector.weight,),
        author=lambda load: face_detector.build(
            frame_format,
            detector,
            load(detector.weight),
            swapper=deployment.swapper,
            pixel_boost=deployment.pixel_boost,
            runtime=target.runtime,
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


def _swapper(deployment: Deployment, target: Target) -> ServedGraph:
    swapper, boost = deployment.swapper, deployment.pixel_boost
    passes = CHANNELS_LAST_PASSES if deployment.is_channels_last(target) else PORTABLE_PASSES

    def author(load: LoadNetwork) -> onnx.ModelProto:
        if swapper.weight is None:
            network = image_swapper.build_network(swapper.crop_size)
        else:
            network = load(swapper.weight)
        return face_swapper.build(
            swapper, network, pixel_boost=boost, skip_empty=target.skip_empty, passes=passes
        )

    weights = () if swapper.weight is None else (swapper.weight,)
    return ServedGraph(
        model="face_swapper",
        settings={
            **_swapper_settings(deployment),
            "skip empty": str(target.skip_empty),
            "passes": " ".join(passes),
        },
        weights=weights,
        author=author,
    )


def _blender(deployment: Deployment, frame_format: FrameFormat, target: Target) -> ServedGraph:
    method = target.blending
    return ServedGraph(
        model=f"face_blender_{frame_format}",
        settings={"crop size": str(deployment.crop_size), "method": method},
        weights=(),
        author=lambda _: face_blender.build(frame_format, deployment.crop_size, method=method),
    )


def _swapper_settings(deployment: Deployment) -> dict[str, str]:
    return {"swapper": deployment.swapper.name, "pixel boost": str(deployment.pixel_boost)}
