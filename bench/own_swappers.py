"""The project's own swappers side by side on a CPU: how they look, and what they cost.

    python -m bench.own_swappers                      build each, serve them all, look and measure
    python -m bench.own_swappers --rounds 0           pictures alone

`sheet.jpg` in the output's folder: source, target, and what each swapper's server made of them, on
paintings and on a photo of 1927. The figures are those of a client that streams decoded frames of
one face through shared memory, six under way, no codec; the swappers' runs alternate, so that
whatever else a machine does hits all of them. A run's processor time is its client's and its
server's; a ratio is the median over neighbouring runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import psutil
from frameswap import FaceSwapper
from frameswap.arguments import HelpFormatter, WholeNumber

from bench.contract_compare import Run, Side, describe, measure, write_frames
from bench.cpu_compare import SERVED, SIZES
from bench.finer_faces import framed
from demo.photos import Image, read_photo
from demo.run import run_step
from server.launcher import EmbeddedServer

NAMES: Final = ("image_swapper_256", "frameswap_256_small", "frameswap_256")
"""Ratios are to the first one's."""
PAIRS: Final = (("gauss", "newton"), ("newton", "gauss"), ("gauss", "solvay"))
"""Source and target."""
SIDE: Final = 256
"""Of a face on the sheet, pixels."""
HEAD: Final = 28


def build(folder: Path, name: str) -> Path:
    """A repository for the CPU with one of the swappers; what it holds already stays."""
    repository = folder / name
    run_step(
        "build_engines.py", "--target", "cpu", "--swapper", name, "--repository", str(repository)
    )
    return repository


def face_of(client: FaceSwapper, frame: Image, shown: Image) -> Image:
    """The largest face of `frame` as it looks in `shown`: (256, 256, 3) uint8 BGR."""
    face = framed(shown, client.find(frame).faces[0])
    return np.asarray(cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def draw_sheet(servers: Mapping[str, EmbeddedServer]) -> Image:
    """A row a pair: source, target, and the swap of each server."""
    columns: list[list[Image]] = []
    for server in servers.values():
        with FaceSwapper(server.grpc_url) as client:
            if not columns:
                for kind in (0, 1):
                    photos = [read_photo(pair[kind]) for pair in PAIRS]
                    columns.append([face_of(client, photo, photo) for photo in photos])
            swapped = []
            for source, target in PAIRS:
                frame = read_photo(target)
                made = client.swap(frame, client.encode_source(read_photo(source))).frame
                swapped.append(face_of(client, frame, made))
            columns.append(swapped)
    names = ("source", "target", *servers)
    return np.hstack([_titled(name, faces) for name, faces in zip(names, columns, strict=True)])


def _titled(name: str, faces: Sequence[Image]) -> Image:
    head = np.full((HEAD, SIDE, 3), 255, np.uint8)
    cv2.putText(
        head, name, (6, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA
    )  # fmt: skip
    return np.vstack([head, *faces])


def compare(
    servers: Mapping[str, EmbeddedServer], folder: Path, size: str, *, rounds: int, frames: int
) -> dict[str, list[Run]]:
    """Runs of every server in turn, by its swapper."""
    path = folder / f"{size}.npy"
    write_frames(path, size)
    sides = [
        Side(name, Path(sys.executable), server.grpc_url, psutil.Process(server.pid), 1)
        for name, server in servers.items()
    ]
    runs: dict[str, list[Run]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            runs[side.name].append(measure(side, path, frames))
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's head."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.own_swappers",
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("out/own_swappers"), metavar="FOLDER",
        help="for repositories, the sheet and frames (default: out/own_swappers)")  # fmt: skip
    add("--sizes", nargs="+", choices=list(SIZES), default=["720p", "1080p"], help="of a frame")
    add("--frames", type=WholeNumber(1), default=60, help="of a run (default: 60)")
    add("--rounds", type=WholeNumber(0), default=5, help="of runs (default: 5)")
    given = parser.parse_args(arguments)
    folder: Path = given.output
    folder.mkdir(parents=True, exist_ok=True)
    built = {name: build(folder, name) for name in NAMES}
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(EmbeddedServer(repository, target="cpu", models=(
                *SERVED, "swap_faces_bgr", "find_faces_bgr"
            )))
            for name, repository in built.items()
        }  # fmt: skip
        sheet = folder / "sheet.jpg"
        if not cv2.imwrite(str(sheet), draw_sheet(servers), [cv2.IMWRITE_JPEG_QUALITY, 88]):
            raise OSError(f"{sheet} cannot be written")
        print(f"{sheet}\n  size swapper{'frames/s':>31s} CPU-ms a frame   ratio", flush=True)
        for size in given.sizes if given.rounds else ():
            runs = compare(servers, folder, size, rounds=given.rounds, frames=given.frames)
            print(describe(size, runs), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
