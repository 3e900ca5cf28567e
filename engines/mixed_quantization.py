"""Which convolutions stay in float16, so that an 8-bit swapper holds its limit.

Each convolution is put into 8 bits alone and the swapped crops are compared with fp32: that is its
damage. Damages add up, nearly, because rounding errors of different layers have nothing to do with
each other. So the convolutions that save most work for their damage are taken while the sum stays
within the limit, and the choice is verified as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from engines.errors import PrecisionError
from engines.fidelity import measure
from engines.progress import Announce
from engines.quantization import EightBits, convolution_work, quantize
from engines.samples import Sample

_SHARE = 0.9
"""Of the allowed error that the added damages may take; the rest is for what adding leaves out."""


def quantize_within(
    typed: onnx.ModelProto,
    ranges: Mapping[str, float],
    precision: EightBits,
    samples: Sequence[Sample],
    *,
    lowest_db: float,
    announce: Announce,
) -> onnx.ModelProto:
    """`typed` with as much of its convolutions in 8 bits as `lowest_db` of crop PSNR leaves.

    Args:
        samples: of the `face_swapper` before it was typed.
        announce: told what the search does; it runs the network once a convolution.

    Raises:
        PrecisionError: not one convolution can be in 8 bits within the limit.
    """
    every = quantize(typed, ranges, precision)
    whole_db = _crop_psnr_db(every, precision, samples)
    if whole_db >= lowest_db:
        return every
    work = convolution_work(typed)
    announce(
        f"face_swapper: all {len(work)} convolutions in {precision} give {whole_db:.1f} dB, "
        f"{lowest_db:g} dB are wanted: looking for those that may be"
    )
    # One sample tells the layers apart; the choice is verified on all.
    damage = {
        name: _error(
            _crop_psnr_db(
                quantize(typed, ranges, precision, kept=work.keys() - {name}),
                precision,
                samples[:1],
            )
        )
        for name in work
    }
    chosen = _choose(work, damage, _SHARE * _error(lowest_db))
    while chosen:
        mixed = quantize(typed, ranges, precision, kept=work.keys() - set(chosen))
        found_db = _crop_psnr_db(mixed, precision, samples)
        if found_db >= lowest_db:
            share = sum(work[name] for name in chosen) / sum(work.values())
            announce(
                f"face_swapper: {len(chosen)} of {len(work)} convolutions, {share:.0%} of their "
                f"work, are in {precision}: {found_db:.1f} dB"
            )
            return mixed
        chosen.pop()
    raise PrecisionError(
        f"no convolution can be in {precision} within {lowest_db:g} dB: use --precision fp16, or "
        "take all of them with --allow-worse"
    )


def _choose(work: Mapping[str, int], damage: Mapping[str, float], allowed: float) -> list[str]:
    """The most work for its damage first, as long as the damages together are allowed."""
    chosen: list[str] = []
    total = 0.0
    for name in sorted(work, key=lambda name: damage[name] / work[name]):
        if total + damage[name] <= allowed:
            chosen.append(name)
            total += damage[name]
    return chosen


def _crop_psnr_db(model: onnx.ModelProto, precision: EightBits, samples: Sequence[Sample]) -> float:
    report = measure("face_swapper", precision, model, samples)
    if report.crop_psnr_db is None:
        raise PrecisionError(
            f"{precision} needs frames that show faces: none of those given with --frames does"
        )
    return report.crop_psnr_db


def _error(psnr_db: float) -> float:
    """Mean squared error of crops in [0, 1]."""
    return float(np.power(10.0, -psnr_db / 10))
