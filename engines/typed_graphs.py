"""From a fp32 graph to the graph that is built: typed, calibrated if need be, and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Final

import onnx

from engines.deployment import Deployment
from engines.errors import PrecisionError
from engines.fidelity import LIMITS, FidelityReport, measure
from engines.mixed_quantization import quantize_within
from engines.precision import Precision, to_fp16
from engines.quantization import calibrate, quantize
from engines.samples import Samples, painted_frames, read_frames
from engines.served_graphs import ServedGraph, served_graphs
from engines.targets import DEFAULT_TARGET
from fetching import weights
from graphs.contract import EVERY_MODEL, FACES

FLOAT32_NETWORKS: Final[Mapping[str, str]] = MappingProxyType(
    {"yunet": "in float16 a landmark of the sample frames moves by 0.11 px; it has 53,121 weights"}
)
"""Weights of networks that stay float32 whatever is asked, and why."""

YARDSTICK: Final = replace(DEFAULT_TARGET, runtime="tensorrt")
"""The form of the fp32 graphs that typed ones are compared with and calibrated on: fast here in
ONNX Runtime, and with nothing in a branch or in the detector's loops."""


def model_precision(served: ServedGraph, asked: Precision) -> Precision:
    """What one model is built in when the whole repository is built in `asked`.

    Models without a network have only geometry and pixels, which stay fp32. Eight bits are for
    the swapper, which is nine tenths of the arithmetic; the others are fp16 then.
    """
    if asked == "fp32" or not served.has_network:
        return "fp32"
    if any(name in FLOAT32_NETWORKS for name in served.weights):
        return "fp32"
    if EVERY_MODEL[served.model].network == "swapper":
        return asked
    return "fp16"


class Typist:
    """Types the graphs of one deployment and measures what that costs.

    Args:
        frames: pictures and folders to calibrate and check with; none takes two paintings.
        allow_worse: put all that can be into 8 bits, whatever it costs.
        announce: told what takes long.
    """

    def __init__(
        self,
        deployment: Deployment,
        asked: Precision,
        frames: Sequence[Path],
        *,
        allow_worse: bool,
        announce: Callable[[str], None],
    ) -> None:
        self._deployment = deployment
        self._asked = asked
        self._frames = frames
        self._allow_worse = allow_worse
        self._announce = announce

    def type_graph(self, served: ServedGraph) -> onnx.ModelProto:
        """The graph of one model in the precision it is built in.

        Raises:
            PrecisionError: it cannot be typed so; FramesError: no frames to calibrate with.
        """
        graph = served.author(weights.load_network)
        precision = model_precision(served, self._asked)
        if precision == "fp32":
            return graph
        typed = to_fp16(graph)
        if precision == "fp16":
            return typed
        if not self._frames:
            raise PrecisionError(
                f"{precision} is calibrated on frames like those to be swapped: give some with "
                "--frames"
            )
        samples = self._samples.of(served.model)
        ranges = calibrate(self._author(served.model), [sample.feeds for sample in samples])
        if self._allow_worse:
            return quantize(typed, ranges, precision)
        # A frame without a face says nothing about the swapper.
        shown = [sample for sample in samples if sample.feeds[FACES.name].any()]
        return quantize_within(
            typed,
            ranges,
            precision,
            shown,
            lowest_db=LIMITS[precision].crop_psnr_db,
            announce=self._announce,
        )

    def check(self, served: ServedGraph, typed: onnx.ModelProto) -> FidelityReport | None:
        """How far `typed` strays from fp32 on the frames; None where it is fp32 itself."""
        precision = model_precision(served, self._asked)
        if precision == "fp32":
            return None
        return measure(served.model, precision, typed, self._samples.of(served.model))

    @cached_property
    def _samples(self) -> Samples:
        frames = read_frames(self._frames) if self._frames else painted_frames()
        return Samples(self._author, frames, self._deployment.extras)

    def _author(self, model: str) -> onnx.ModelProto:
        return self._plain[model].author(weights.load_network)

    @cached_property
    def _plain(self) -> Mapping[str, ServedGraph]:
        return served_graphs(self._deployment, YARDSTICK)
