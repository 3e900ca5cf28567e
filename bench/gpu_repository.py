"""A model repository for measuring speed on a GPU: inswapper_128's architecture, random weights.

Same graphs and configs as a real one; only the swapper's weights are random, and it is
named for what it is. The models that see photos are left out: their weights cannot be generated.

    python -m bench.gpu_repository --repository out/gpu_repository --precision fp16
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import onnx

from bench import random_extras, random_inswapper
from engines import configs, targets
from engines.configs import CudaOptions, HostOptions, Limits
from engines.deployment import Deployment
from engines.manifest import describe
from engines.precision import to_fp16
from engines.recipe import sources_digest
from engines.repository import RepositoryWriter
from engines.served_graphs import served_graphs
from engines.targets import TARGETS, TargetName
from fetching import weights
from fetching.files import data_sha256
from graphs.contract import models_of
from networks.enhancers import ENHANCERS, Enhancer
from networks.landmarkers import DEFAULT_LANDMARKER, LANDMARKERS
from networks.maskers import OCCLUDERS, PARSERS, Occluder, Parser
from networks.recognizers import DEFAULT_RECOGNIZER, RECOGNIZERS
from networks.swappers import SWAPPERS

Row = TypeVar("Row", Occluder, Parser, Enhancer)
PUBLISHED: Final = "inswapper_128"
NAME: Final = "random_inswapper_128"
MADE_OF: Final = ".made_of"
"""Holds `made_of` as it was; written last."""
MODELS: Final = models_of("swap_faces_i420")
TYPED: Final = ("face_swapper", "face_masker", "face_enhancer")
"""Models whose networks are float16."""
RANDOM: Final = "random_"
"""In front of the name of a network whose weights are."""


def deployment(
    *,
    detector: str = "yunet",
    pixel_boost: int = 1,
    crop_size: int = 128,
    swapper: str = PUBLISHED,
    extra: str = "",
) -> Deployment:
    """inswapper_128's contract under a name that says that its weights are random.

    Args:
        crop_size: side of the network's crop, pixels; its layers take any size.
        swapper: another one whose weights are here is deployed as it is.
        extra: an occluder, a parser or an enhancer that it has beside, with random weights where
            `random_extras` makes it; "" for none.
    """
    row = SWAPPERS[swapper]
    if swapper == PUBLISHED:
        row = replace(row, name=NAME, weight=NAME, crop_size=crop_size)
    name = RANDOM + extra if extra in random_extras.BYTES else extra
    return Deployment(
        swapper=row,
        detector=detector,
        recognizer=RECOGNIZERS[row.recognizer or DEFAULT_RECOGNIZER],
        landmarker=LANDMARKERS[DEFAULT_LANDMARKER],
        pixel_boost=pixel_boost,
        occluder=_renamed(OCCLUDERS, extra, name),
        parser=_renamed(PARSERS, extra, name),
        enhancer=_renamed(ENHANCERS, extra, name),
    )


def _renamed(rows: Mapping[str, Row], extra: str, name: str) -> Row | None:
    return replace(rows[extra], name=name, weight=name) if extra in rows else None


def load_network(name: str, crop_size: int = 128) -> onnx.ModelProto:
    """A published network, or the random one for crops of this size."""
    extra = name.removeprefix(RANDOM)
    if extra in random_extras.BYTES and name != extra:
        return random_extras.build(extra)
    if name != NAME:
        return weights.load_network(name)
    network = random_inswapper.build()
    for value in (network.graph.input[0], network.graph.output[0]):
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.dim_value = crop_size
    return network


def build(
    root: Path,
    *,
    precision: str = "fp16",
    target: TargetName = "cuda",
    pixel_boost: int = 1,
    crop_size: int = 128,
    swapper: str = PUBLISHED,
    extra: str = "",
    host: HostOptions | None = None,
    max_batch_size: int = 16,
) -> Deployment:
    """Write the repository; what lies there already is overwritten."""
    wanted = deployment(
        pixel_boost=pixel_boost, crop_size=crop_size, swapper=swapper, extra=extra
    )
    repository = RepositoryWriter(root)
    repository.complete(wanted.extras)
    row = TARGETS[target]
    graphs = served_graphs(wanted, row)
    for model in models_of("swap_faces_i420", extras=wanted.extras):
        graph = graphs[model].author(partial(load_network, crop_size=crop_size))
        if precision == "fp16" and model in TYPED and graphs[model].has_network:
            graph = to_fp16(graph)
        data = graph.SerializeToString(deterministic=True)
        manifest = describe(data, model=model, file=row.filename, recipe={"bench": precision})
        repository.publish(data, manifest)
    limits = Limits(max_batch_size=max_batch_size, max_faces=4)
    repository.write_configs(row, wanted, limits=limits, host=host or HostOptions())
    (root / MADE_OF).write_text(made_of())
    return wanted


def made_of() -> str:
    """Digest of the code that authors graphs and configs."""
    written_by = (Path(str(module.__file__)).read_bytes() for module in (configs, targets))
    return data_sha256(b"".join((sources_digest("fp16").encode(), *written_by)))


def is_current(root: Path) -> bool:
    """Whether a repository is complete, and its graphs and configs are made as they are now."""
    kept = root / MADE_OF
    return kept.exists() and kept.read_text() == made_of()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--repository", type=Path, default=Path("out/gpu_repository"))
    parser.add_argument("--precision", choices=["fp16", "fp32"], default="fp16")
    parser.add_argument("--target", "--variant", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--pixel-boost", type=int, default=1)
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    build(
        options.repository,
        precision=options.precision,
        target=options.target,
        pixel_boost=options.pixel_boost,
        host=HostOptions(cuda=CudaOptions()),
    )
    print(f"{options.repository}: {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
