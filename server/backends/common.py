"""What every Python-based backend shares: a model's settings and the checks of a request.

Nothing here knows Triton, ONNX Runtime or a device: arrays are anything with NumPy's indexing
(`shape`, `reshape`, slices), and a `Memory` says how to join them.

Axis letters: B batch, K face slots of a request, M rows of `faces`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from graphs.contract import (
    FRAME,
    OPTIONS,
    PARAMETER_FACE_INPUTS,
    PARAMETER_FINITE_INPUTS,
    PARAMETER_FRAME_FORMAT,
    PARAMETER_MAX_FACES,
    PARAMETER_MAX_HEIGHT,
    PARAMETER_MAX_ROWS,
    PARAMETER_MAX_WIDTH,
    PARAMETER_MIN_HEIGHT,
    PARAMETER_MIN_WIDTH,
    PARAMETER_OPTION_RANGES,
    PARAMETER_PASSTHROUGH,
    PARAMETER_ROW_INPUTS,
    PARAMETER_ROW_MASK,
    PARAMETER_ROW_OUTPUTS,
    PARAMETER_ROW_SHARED,
    PARAMETER_ROW_UPDATED,
)

BOUNDS = (
    PARAMETER_MIN_HEIGHT,
    PARAMETER_MIN_WIDTH,
    PARAMETER_MAX_HEIGHT,
    PARAMETER_MAX_WIDTH,
    PARAMETER_MAX_FACES,
)
"""Parameters that are whole numbers and bound a request."""


class RequestError(ValueError):
    """One sentence for the client whose request cannot be served; the others of its batch can."""


class Memory(Protocol):
    """Where a backend keeps its arrays: host (NumPy) or one device."""

    def join(self, parts: Sequence[Any], rows: int) -> Any:
        """Join arrays [b_i, ...] along axis 0, zero rows appended up to `rows`.

        A single contiguous part of that many rows is returned as it is, without a copy.
        """

    def zeros(self, shape: Sequence[int], like: Any) -> Any:
        """Return a new array of zeros in the dtype of `like`."""

    def put(self, target: Any, source: Any) -> None:
        """Copy an array over a view of the same shape and dtype; rows of both are contiguous."""

    def to_host(self, arrays: Sequence[Any]) -> list[Any]:
        """Return NumPy copies or views, with one wait for all of them."""


@dataclass(frozen=True)
class OptionRange:
    """Allowed values of one position of `options`: lowest..highest, whole numbers or any.

    more: further ranges of the same kind, above the first.
    """

    name: str
    lowest: float
    highest: float
    whole: bool
    more: tuple[tuple[float, float], ...] = ()

    def accepts(self, value: float) -> bool:
        ranges = ((self.lowest, self.highest), *self.more)
        in_range = any(lowest <= value <= highest for lowest, highest in ranges)
        return in_range and (not self.whole or value == math.floor(value))

    def __str__(self) -> str:
        if self.lowest == self.highest:
            return f"{self.lowest:g}"
        ranges = ((self.lowest, self.highest), *self.more)
        told = " or ".join(f"{lowest:g} to {highest:g}" for lowest, highest in ranges)
        return f"{'a whole number from ' if self.whole else ''}{told}"


@dataclass(frozen=True)
class RowRule:
    """How face rows of all requests are joined: see `join_rows`."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    mask: str
    max_rows: int
    shared: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSettings:
    """A model's configuration as a backend needs it; built by `from_config`."""

    name: str
    max_batch_size: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dims: Mapping[str, tuple[int, ...]]
    data_types: Mapping[str, str]
    parameters: Mapping[str, str]
    model_filename: str
    passthrough: Mapping[str, str]
    finite_inputs: tuple[str, ...]
    face_inputs: tuple[str, ...]
    option_ranges: tuple[OptionRange, ...]
    rows: RowRule | None
    optimization: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, default_filename: str) -> ModelSettings:
        """Read Triton's model configuration (the JSON that `initialize` gets, parsed).

        Raises:
            ValueError: a parameter has a form that no backend reads; the sentence names it.
        """
        parameters = {
            key: str(value.get("string_value", ""))
            for key, value in config.get("parameters", {}).items()
        }
        tensors = [*config["input"], *config["output"]]
        settings = cls(
            name=config["name"],
            max_batch_size=int(config.get("max_batch_size", 0)),
            inputs=tuple(tensor["name"] for tensor in config["input"]),
            outputs=tuple(tensor["name"] for tensor in config["output"]),
            dims={
                tensor["name"]: tuple(int(size) for size in tensor["dims"]) for tensor in tensors
            },
            data_types={tensor["name"]: tensor["data_type"] for tensor in tensors},
            parameters=parameters,
            model_filename=config.get("default_model_filename") or default_filename,
            passthrough=_read_pairs(parameters.get(PARAMETER_PASSTHROUGH, "")),
            finite_inputs=_read_names(parameters, PARAMETER_FINITE_INPUTS),
            face_inputs=_read_names(parameters, PARAMETER_FACE_INPUTS),
            option_ranges=_read_option_ranges(parameters.get(PARAMETER_OPTION_RANGES, "")),
            rows=_read_row_rule(parameters),
            optimization=config.get("optimization", {}),
        )
        for key in BOUNDS:
            settings.number(key)
        return settings

    @property
    def host_inputs(self) -> tuple[str, ...]:
        """Inputs whose values are looked at before anything runs, on the host."""
        names = [*self.finite_inputs, *([OPTIONS.name] if self.option_ranges else [])]
        return tuple(dict.fromkeys(names))

    @property
    def computed_outputs(self) -> tuple[str, ...]:
        """Outputs that the network computes, in config order (not those passed through)."""
        return tuple(name for name in self.outputs if name not in self.passthrough)

    @cached_property
    def limits(self) -> Mapping[str, int | None]:
        """The bounds of a request by parameter name; None where the config sets none."""
        return {key: self.number(key) for key in BOUNDS}

    @cached_property
    def zero_options_pass(self) -> bool:
        """Whether options that are all 0 need no closer look."""
        return all(allowed.accepts(0) for allowed in self.option_ranges)

    def number(self, key: str) -> int | None:
        """Return a whole-number parameter, or None where the config does not set it."""
        text = self.parameters.get(key, "")
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise ValueError(
                f"parameter {key} of model {self.name} must be a whole number, and is {text!r}"
            ) from None


def _read_names(parameters: Mapping[str, str], key: str) -> tuple[str, ...]:
    return tuple(name for name in parameters.get(key, "").split(",") if name)


def _read_pairs(text: str) -> dict[str, str]:
    pairs = {}
    for entry in text.split(","):
        if entry:
            output, equals, source = entry.partition("=")
            if not (output and equals and source):
                raise ValueError(f"passthrough entry {entry!r} must read output=input")
            pairs[output] = source
    return pairs


def _read_option_ranges(text: str) -> tuple[OptionRange, ...]:
    ranges = []
    for entry in text.split(","):
        if not entry:
            continue
        name, _, limits = entry.partition("=")
        try:
            parts = [_read_range(part) for part in limits.split("|")]
        except ValueError:
            raise ValueError(
                f"option_ranges entry {entry!r} must read name=lowest..highest"
            ) from None
        (lowest, highest), *more = parts
        whole = "." not in limits.replace("..", "")
        ranges.append(OptionRange(name, lowest, highest, whole, tuple(more)))
    return tuple(ranges)


def _read_range(text: str) -> tuple[float, float]:
    lowest, dots, highest = text.partition("..")
    if not dots:
        raise ValueError(text)
    return float(lowest), float(highest)


def _read_row_rule(parameters: Mapping[str, str]) -> RowRule | None:
    inputs = _read_names(parameters, PARAMETER_ROW_INPUTS)
    if not inputs:
        return None
    missing = [
        key
        for key in (PARAMETER_ROW_OUTPUTS, PARAMETER_ROW_MASK, PARAMETER_MAX_ROWS)
        if not parameters.get(key, "")
    ]
    if missing:
        raise ValueError(f"row_inputs is set and {', '.join(missing)} is not; set all four")
    most = parameters[PARAMETER_MAX_ROWS]
    if not most.isdigit() or int(most) < 1:
        raise ValueError(f"parameter max_rows must be a whole number from 1, and is {most!r}")
    outputs = _read_names(parameters, PARAMETER_ROW_OUTPUTS)
    return RowRule(
        inputs,
        outputs,
        parameters[PARAMETER_ROW_MASK],
        int(most),
        shared=_read_names(parameters, PARAMETER_ROW_SHARED),
        updated=_read_names(parameters, PARAMETER_ROW_UPDATED),
    )


def check_request(settings: ModelSettings, arrays: Mapping[str, Any]) -> None:
    """Check one request against the bounds that the config's parameters set.

    Args:
        settings: the model's.
        arrays: input name to array [B, ...]; those of `settings.host_inputs` are NumPy's.

    Raises:
        RequestError: the first bound that is broken, in one sentence.
    """
    if PARAMETER_FRAME_FORMAT in settings.parameters and FRAME in arrays:
        _check_frame(settings, tuple(arrays[FRAME].shape))
    _check_face_count(settings, arrays)
    for name in settings.finite_inputs:
        if name in arrays and not np.isfinite(arrays[name]).all():
            raise RequestError(
                f"input {name!r} of {settings.name} holds a NaN or an infinity; "
                "send finite numbers only"
            )
    if settings.option_ranges and OPTIONS.name in arrays:
        _check_options(settings, arrays[OPTIONS.name])


def _check_frame(settings: ModelSettings, shape: tuple[int, ...]) -> None:
    frame_format = settings.parameters[PARAMETER_FRAME_FORMAT]
    if frame_format == "i420":
        if shape[1] % 3:
            raise RequestError(
                f"an i420 frame has height * 3 / 2 rows, and {shape[1]} is not a multiple of 3; "
                "send all of Y, then U, then V"
            )
        height, width = shape[1] // 3 * 2, shape[2]
        if width % 2:
            raise RequestError(
                f"an i420 frame has an even width, and this one is {width} wide; "
                "crop or pad it by one column"
            )
    else:
        height, width = shape[1], shape[2]
    for key, word, breaks in (("max", "most", operator.gt), ("min", "least", operator.lt)):
        limits = [settings.limits[f"{key}_{axis}"] for axis in ("height", "width")]
        sizes = zip((height, width), limits, strict=True)
        if any(limit is not None and breaks(size, limit) for size, limit in sizes):
            bound = "x".join("any" if limit is None else str(limit) for limit in limits[::-1])
            raise RequestError(
                f"the frame is {width}x{height} (width x height) and {settings.name} takes at "
                f"{word} {bound}; scale the frame"
            )


def _check_face_count(settings: ModelSettings, arrays: Mapping[str, Any]) -> None:
    counts = {name: int(arrays[name].shape[1]) for name in settings.face_inputs if name in arrays}
    if not counts:
        return
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise RequestError(f"all inputs must hold the same number of faces, and hold {told}")
    count = next(iter(counts.values()))
    most = settings.limits[PARAMETER_MAX_FACES]
    if count < 1 or (most is not None and count > most):
        bound = f"1 to {most}" if most is not None else "at least 1"
        raise RequestError(
            f"{count} faces were asked for and {settings.name} takes {bound}; "
            f"send that many rows of {settings.face_inputs[0]!r}"
        )


def _check_options(settings: ModelSettings, options: Any) -> None:
    if options.shape[-1] != len(settings.option_ranges):
        raise RequestError(
            f"'options' has {len(settings.option_ranges)} values, and {options.shape[-1]} came"
        )
    if settings.zero_options_pass and not options.any():
        return
    for row in options.reshape(-1, options.shape[-1]).tolist():
        for position, (value, allowed) in enumerate(zip(row, settings.option_ranges, strict=True)):
            if not allowed.accepts(value):
                raise RequestError(
                    f"option {position} ({allowed.name}) must be {allowed}, and is {value:g}; "
                    "0 is the default"
                )
