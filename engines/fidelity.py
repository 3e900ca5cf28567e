"""The fidelity gate: how far a typed graph strays from fp32 on real frames, and how far it may.

Measured per output: the worst and the mean absolute difference; and what a person would notice:
PSNR of crops and frames, shift of landmarks in pixels, cosine of embeddings. A build outside the
limits is refused unless it is told otherwise, and the report stays beside what was built.

int8 and fp8 round a thousand times coarser than fp16; their limit is where a swapped face still
looks the same at normal viewing, and the report shows what was lost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from engines.errors import FidelityError
from engines.precision import Precision
from engines.rounding import with_explicit_rounding
from engines.samples import Sample, Tensors, answer, open_session
from graphs.contract import EVERY_MODEL, FACES, LANDMARK_COLUMN, SCORE_COLUMN, Measure

Array = NDArray[Any]
Compare = Callable[[str, Sample, Tensors], float | None]
"""An output's name, what fp32 made of a sample, and what the typed graph made of it."""


@dataclass(frozen=True, kw_only=True)
class FidelityLimits:
    """crop_psnr_db: lowest PSNR of crops, peak 1. landmark_px: largest shift of a landmark.
    cosine: lowest cosine of an embedding or identity with its fp32 self.
    """

    crop_psnr_db: float
    landmark_px: float
    cosine: float


LIMITS: Final[Mapping[Precision, FidelityLimits]] = {
    "fp16": FidelityLimits(crop_psnr_db=50.0, landmark_px=0.1, cosine=0.9999),
    "int8": FidelityLimits(crop_psnr_db=35.0, landmark_px=0.1, cosine=0.9999),
    "fp8": FidelityLimits(crop_psnr_db=35.0, landmark_px=0.1, cosine=0.9999),
}
"""Only the swapper is quantised to 8 bits, so landmarks and embeddings keep fp16's limits."""


@dataclass(frozen=True, kw_only=True)
class OutputError:
    """Absolute difference of one output over all samples, in its own unit."""

    worst: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class FidelityReport:
    """One model. A figure is None where the model has no such output or no sample showed one.

    misses: one sentence a limit that is not held; empty when the graph passes.
    """

    model: str
    precision: str
    samples: int
    outputs: Mapping[str, OutputError]
    crop_psnr_db: float | None = None
    frame_psnr_db: float | None = None
    landmark_px: float | None = None
    cosine: float | None = None
    misses: Sequence[str] = ()

    def as_facts(self) -> dict[str, Any]:
        """As JSON keeps it; an endless PSNR (identical) becomes a string."""
        facts: dict[str, Any] = json.loads(json.dumps(asdict(self)), parse_constant=str)
        return facts

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> FidelityReport:
        """The report that `as_facts` gave."""
        outputs = {name: OutputError(**error) for name, error in facts["outputs"].items()}
        numbers = {
            name: float(facts[name])
            for name in ("crop_psnr_db", "frame_psnr_db", "landmark_px", "cosine")
            if facts[name] is not None
        }
        return cls(
            model=facts["model"],
            precision=facts["precision"],
            samples=facts["samples"],
            outputs=outputs,
            misses=tuple(facts["misses"]),
            **numbers,
        )

    def __str__(self) -> str:
        parts = [
            f"{label} {value:.{digits}f}{unit}"
            for label, value, digits, unit in (
                ("crop PSNR", self.crop_psnr_db, 1, " dB"),
                ("frame PSNR", self.frame_psnr_db, 1, " dB"),
                ("landmarks", self.landmark_px, 4, " px"),
                ("cosine", self.cosine, 6, ""),
            )
            if value is not None
        ]
        return f"{self.model}: {', '.join(parts) or 'nothing to compare'} against fp32"


def measure(
    model: str, precision: Precision, typed: onnx.ModelProto, samples: Sequence[Sample]
) -> FidelityReport:
    """Run the typed graph on every sample and compare with what fp32 answered.

    Args:
        typed: the graph to be built; float16 is rounded as a GPU rounds it
            (`engines.rounding`).
    """
    session = open_session(with_explicit_rounding(typed))
    pairs = [(sample, answer(session, sample.feeds)) for sample in samples]
    outputs = {
        name: _difference([(sample.expected[name], found[name]) for sample, found in pairs])
        for name in samples[0].expected
    }
    measures = {tensor.name: tensor.measure for tensor in EVERY_MODEL[model].outputs}

    def figures(measure: Measure, compare: Compare) -> list[float | None]:
        names = [name for name in outputs if measures[name] == measure]
        return [compare(name, sample, found) for name in names for sample, found in pairs]

    report = FidelityReport(
        model=model,
        precision=precision,
        samples=len(samples),
        outputs=outputs,
        crop_psnr_db=_lowest(figures("crop PSNR", _crop_psnr)),
        frame_psnr_db=_lowest(figures("frame PSNR", _frame_psnr)),
        landmark_px=_highest(
            [*figures("landmarks", _landmark_shift), *figures("points", _point_shift)]
        ),
        cosine=_lowest(figures("cosine", _cosine)),
    )
    misses = _misses(report, LIMITS[precision]) if precision in LIMITS else ()
    return replace(report, misses=misses)


def check_report(report: FidelityReport, *, allow_worse: bool) -> None:
    """Refuse a graph outside its limits.

    Raises:
        FidelityError: it misses one and `allow_worse` is not set.
    """
    if report.misses and not allow_worse:
        raise FidelityError(
            f"{report.model} in {report.precision} strays too far from fp32: "
            f"{'; '.join(report.misses)}; choose a wider --precision, give better --frames, or "
            "take it as it is with --allow-worse"
        )


def _misses(report: FidelityReport, limits: FidelityLimits) -> tuple[str, ...]:
    misses = []
    if any(math.isnan(error.worst) for error in report.outputs.values()):
        misses.append("an output is not a number where fp32 gives one")
    if report.crop_psnr_db is not None and not report.crop_psnr_db >= limits.crop_psnr_db:
        misses.append(
            f"crop PSNR is {report.crop_psnr_db:.1f} dB, at least {limits.crop_psnr_db:g} dB wanted"
        )
    if report.landmark_px is not None and not report.landmark_px <= limits.landmark_px:
        misses.append(
            f"a landmark moved by {report.landmark_px:.3f} px, at most {limits.landmark_px:g} px "
            "wanted"
        )
    if report.cosine is not None and not report.cosine >= limits.cosine:
        misses.append(f"cosine is {report.cosine:.6f}, at least {limits.cosine:g} wanted")
    return tuple(misses)


def _difference(pairs: Sequence[tuple[Array, Array]]) -> OutputError:
    differences = [
        np.abs(expected.astype(np.float64) - found.astype(np.float64)).ravel()
        for expected, found in pairs
    ]
    every = np.concatenate(differences)
    return OutputError(worst=float(every.max()), mean=float(every.mean()))


def _crop_psnr(name: str, sample: Sample, found: Tensors) -> float | None:
    """PSNR over the slots that hold a face; peak 1."""
    faces = sample.feeds.get(FACES.name, sample.expected.get(FACES.name))
    assert faces is not None
    slots = faces[:, : sample.expected[name].shape[1], SCORE_COLUMN] > 0
    if not slots.any():
        return None
    return _psnr(sample.expected[name][slots], found[name][slots], peak=1.0)


def _frame_psnr(name: str, sample: Sample, found: Tensors) -> float:
    return _psnr(sample.expected[name], found[name], peak=255.0)


def _landmark_shift(name: str, sample: Sample, found: Tensors) -> float | None:
    """Farthest that a landmark of a face moved, pixels; endless where a face came or went."""
    wanted, got = sample.expected[name], found[name]
    occupied = wanted[..., SCORE_COLUMN] > 0
    if (occupied != (got[..., SCORE_COLUMN] > 0)).any():
        return math.inf
    if not occupied.any():
        return None
    shift = (wanted - got)[occupied][:, LANDMARK_COLUMN:].reshape(-1, 5, 2)
    return float(np.linalg.norm(shift, axis=2).max())


def _point_shift(name: str, sample: Sample, found: Tensors) -> float | None:
    """Farthest that a point of a mesh moved in the image, pixels; endless where one came or went.

    Depth is left out: it is the least certain of what such a network says.
    """
    wanted, got = sample.expected[name], found[name]
    there = wanted.any(axis=(2, 3))
    if (there != got.any(axis=(2, 3))).any():
        return math.inf
    if not there.any():
        return None
    return float(np.linalg.norm((wanted - got)[there][..., :2], axis=2).max())


def _cosine(name: str, sample: Sample, found: Tensors) -> float | None:
    """Cosine of an embedding, or of a source that is one, with its fp32 self."""
    wanted, got = (tensors[name].astype(np.float64).ravel() for tensors in (sample.expected, found))
    if not wanted.any():
        return None
    return float(wanted @ got / (np.linalg.norm(wanted) * np.linalg.norm(got)))


def _psnr(wanted: Array, got: Array, *, peak: float) -> float:
    error = float(np.mean((wanted.astype(np.float64) - got.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _lowest(figures: Iterable[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    # min() and max() may lose a NaN; it has to stay.
    return float(np.min(known)) if known else None


def _highest(figures: Iterable[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return float(np.max(known)) if known else None
