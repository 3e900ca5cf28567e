"""`frameswap codecs`: what this machine encodes and decodes, tried."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from frameswap.arguments import HelpFormatter
from frameswap.codecs import CodecTrial, try_decoders, try_encoders
from frameswap.encoders import ENCODERS, Encoder

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

    Subparsers = _SubParsersAction[ArgumentParser]

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the verb `codecs` to the command line."""
    parser = subparsers.add_parser(
        "codecs",
        help="list the video encoders and decoders that work here",
        description="Try each video encoder and decoder with a few frames, and list what works.",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print the list; returns the exit code."""
    # SVT-AV1 and x265 talk on standard error by themselves.
    os.environ.setdefault("SVT_LOG", "0")
    print("encoders (--codec, --quality, --preset)")
    for trial in try_encoders():
        print(f"  {trial.name:<12}{_describe(ENCODERS[trial.name], trial)}")
    print("decoders (--decoder)")
    for trial in try_decoders():
        print(f"  {trial.name:<28}{'works' if trial.works else f'no: {trial.reason}'}")
    return 0


def _describe(encoder: Encoder, trial: CodecTrial) -> str:
    if not trial.works:
        return f"no: {trial.reason}"
    parts = [f"works; {' '.join(encoder.suffixes)}"]
    if encoder.quality_option:
        best, worst = encoder.qualities
        parts.append(f"quality {best} (best) to {worst}, usually {encoder.quality}")
    if encoder.presets:
        first, last = encoder.presets[0], encoder.presets[-1]
        parts.append(f"preset {first} to {last}, usually {encoder.preset}")
    if encoder.alpha_format:
        parts.append("holds transparency")
    return "; ".join(parts)
