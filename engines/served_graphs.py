"""From a served model's name to its fp32 graph: the weights it needs, and how it is authored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import onnx

from engines.deployment import Deployment
from engines.targets import Target
from graphs import (
    face_aligner,
    face_blender,
    face_detector,
    face_enhancer,
    face_landmarker,
    face_masker,
    face_recognizer,
    face_swapper,
    image_swapper,
    source_encoder,
)
from graphs.contract import EVERY_MODEL, FRAME_FORMATS, NO_EXTRAS, FrameFormat, model_specs
from graphs.face_masker import MaskNetworks
from graphs.frames import Runtime
from networks.detectors import DETECTORS
from networks.enhancers import Enhancer
from networks.landmarkers import point_count
from networks.passes import (
    CHANNELS_LAST_PASSES,
    CPU_LANDMARKER_PASSES,
    GPU_LANDMARKER_PASSES,
    GPU_SAMPLING_PASSES,
    PORTABLE_PASSES,
)

LoadNetwork = Callable[[str], onnx.ModelProto]
"""A weight's name, as in `fetching.weights.WEIGHTS`, to its network."""


_LANDMARKER_PASSES: Final[Mapping[Runtime, tuple[str, ...]]] = {
    "onnxruntime": CPU_LANDMARKER_PASSES,
    "onnxruntime_gpu": GPU_LANDMARKER_PASSES,
    "tensorrt": (),
}


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
        return bool(self.weights) or EVERY_MODEL[self.model].network == "swapper"


def served_graphs(deployment: Deployment, target: Target) -> Mapping[str, ServedGraph]:
    """Every model that `deployment` has, as it wants it, in the form that `target` runs best.

    The form changes how fast a graph is, and not what it answers.
    """
    graphs = [
        _detector(deployment, "bgr", "locator", target),
        _source_encoder(deployment),
        _recognizer(deployment),
        _landmarker(deployment, target),
        _swapper(deployment, target),
        _masker(deployment),
    ]
    if deployment.enhancer is not None:
        graphs.append(_enhancer(deployment, deployment.enhancer, target))
    for pixel in FRAME_FORMATS:
        graphs += [
            _detector(deployment, pixel, "detector", target),
            _aligner(deployment, pixel, target),
            _blender(deployment, pixel, target),
        ]
    by_name = {graph.model: graph for graph in graphs}
    return {name: by_name[name] for name in model_specs(deployment.extras)}


def _detector(
    deployment: Deployment, frame_format: FrameFormat, role: face_detector.Role, target: Target
) -> ServedGraph:
    detector = DETECTORS[deployment.detector]
    return ServedGraph(
        model=f"face_{role}_{frame_format}",
        settings={
            "detector": detector.name,
            "landmarker": deployment.landmarker_name,
            "runtime": target.runtime,
            **_option_settings(deployment),
        },
        weights=(detector.weight,),
        author=lambda load: face_detector.build(
            frame_format,
            detector,
            load(detector.weight),
            landmarker=deployment.landmarker,
            role=role,
            runtime=target.runtime,
            extras=deployment.extras,
        ),
    )


def _landmarker(deployment: Deployment, target: Target) -> ServedGraph:
    landmarker = deployment.landmarker
    passes = _LANDMARKER_PASSES[target.runtime]
    settings = {
        "landmarker": deployment.landmarker_name,
        "skip empty": str(target.skip_empty),
        "passes": " ".join(passes),
    }
    if landmarker is None:
        return ServedGraph(
            model="face_landmarker",
            settings=settings,
            weights=(),
            author=lambda _: face_landmarker.build_without_network(),
        )
    return ServedGraph(
        model="face_landmarker",
        settings=settings,
        weights=(landmarker.weight,),
        author=lambda load: face_landmarker.build(
            landmarker,
            load(landmarker.weight),
            passes=passes,
            skip_empty=target.skip_empty,
        ),
    )


def _aligner(deployment: Deployment, frame_format: FrameFormat, target: Target) -> ServedGraph:
    seeing = deployment.extras.enhances == "context"
    enhancer = deployment.enhancer if seeing else None
    return ServedGraph(
        model=f"face_aligner_{frame_format}",
        settings={
            "landmarker": deployment.landmarker_name,
            "runtime": target.runtime,
            **_swapper_settings(deployment),
            **_option_settings(deployment),
            **({} if enhancer is None else {"enhancer": enhancer.name}),
        },
        weights=(),
        author=lambda _: face_aligner.build(
            frame_format,
            deployment.swapper,
            landmarker=deployment.landmarker,
            pixel_boost=deployment.pixel_boost,
            runtime=target.runtime,
            extras=deployment.extras,
            enhancer=enhancer,
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
    settings = {"swapper": swapper.name, "landmarker": deployment.landmarker_name}
    points = point_count(deployment.landmarker)
    if swapper.recognizer is None:
        return ServedGraph(
            model="source_encoder",
            settings=settings,
            weights=(),
            author=lambda _: source_encoder.build(swapper, point_count=points),
        )
    recognizer, converter = deployment.recognizer.weight, swapper.converter

    def author(load: LoadNetwork) -> onnx.ModelProto:
        return source_encoder.build(
            swapper,
            recognizer_network=load(recognizer),
            converter_network=None if converter is None else load(converter),
            point_count=points,
        )

    weights = (recognizer,) if converter is None else (recognizer, converter)
    return ServedGraph(model="source_encoder", settings=settings, weights=weights, author=author)


def _swapper(deployment: Deployment, target: Target) -> ServedGraph:
    swapper, boost = deployment.swapper, deployment.pixel_boost
    passes = CHANNELS_LAST_PASSES if deployment.is_channels_last(target) else PORTABLE_PASSES
    if swapper.points and target.runtime == "onnxruntime_gpu":
        passes = (*passes, *GPU_SAMPLING_PASSES)

    def author(load: LoadNetwork) -> onnx.ModelProto:
        if swapper.weight is None:
            network = image_swapper.build_network(swapper.crop_size)
        else:
            network = load(swapper.weight)
        return face_swapper.build(
            swapper,
            network,
            point_count=point_count(deployment.landmarker),
            pixel_boost=boost,
            skip_empty=target.skip_empty,
            passes=passes,
            extras=deployment.extras,
        )

    weights = () if swapper.weight is None else (swapper.weight,)
    return ServedGraph(
        model="face_swapper",
        settings={
            **_swapper_settings(deployment),
            "landmarker": deployment.landmarker_name,
            "skip empty": str(target.skip_empty),
            "passes": " ".join(passes),
            **_option_settings(deployment),
        },
        weights=weights,
        author=author,
    )


def _masker(deployment: Deployment) -> ServedGraph:
    points = point_count(deployment.landmarker)
    rows = {"occluder": deployment.occluder, "parser": deployment.parser}
    there = {kind: row for kind, row in rows.items() if row is not None}

    def author(load: LoadNetwork) -> onnx.ModelProto:
        occluder, parser = deployment.occluder, deployment.parser
        networks = MaskNetworks(
            extras=deployment.extras,
            occluder=None if occluder is None else (occluder, load(occluder.weight)),
            parser=None if parser is None else (parser, load(parser.weight)),
        )
        return face_masker.build(
            deployment.swapper,
            crop_size=deployment.crop_size,
            point_count=points,
            networks=networks,
        )

    return ServedGraph(
        model="face_masker",
        settings={
            **_swapper_settings(deployment),
            "crop size": str(deployment.crop_size),
            "landmarker": deployment.landmarker_name,
            **{kind: row.name for kind, row in there.items()},
            **_option_settings(deployment),
        },
        weights=tuple(row.weight for row in there.values()),
        author=author,
    )


def _enhancer(deployment: Deployment, enhancer: Enhancer, target: Target) -> ServedGraph:
    return ServedGraph(
        model="face_enhancer",
        settings={
            "enhancer": enhancer.name,
            "runtime": target.runtime,
            "crop size": str(deployment.crop_size),
            **_option_settings(deployment),
        },
        weights=(enhancer.weight,),
        author=lambda load: face_enhancer.build(
            enhancer,
            load(enhancer.weight),
            crop_size=deployment.crop_size,
            extras=deployment.extras,
            runtime=target.runtime,
        ),
    )


def _blender(deployment: Deployment, frame_format: FrameFormat, target: Target) -> ServedGraph:
    method = target.blending
    size = deployment.laid_size
    return ServedGraph(
        model=f"face_blender_{frame_format}",
        settings={"crop size": str(size), "method": method, **_option_settings(deployment)},
        weights=(),
        author=lambda _: face_blender.build(
            frame_format, size, method=method, extras=deployment.extras
        ),
    )


def _swapper_settings(deployment: Deployment) -> dict[str, str]:
    return {"swapper": deployment.swapper.name, "pixel boost": str(deployment.pixel_boost)}


def _option_settings(deployment: Deployment) -> dict[str, str]:
    """What decides which options are valid, and the tensors with it; nothing without extras."""
    return {} if deployment.extras == NO_EXTRAS else {"extras": str(deployment.extras)}
