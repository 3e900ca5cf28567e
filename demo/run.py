"""What `make demo` does once everything is installed: build, serve, swap, and show.

Newton's face goes onto a clip of the Gauss painting: two people long dead, two paintings in the
public domain. Every step reuses what an earlier run left.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
from frameswap import FaceSwapper, FrameswapError
from frameswap.arguments import HelpFormatter

from demo.make_clip import clip_of, write_clip
from demo.photos import PHOTOS, photo_path, read_photo
from engines.targets import DEFAULT_TARGET
from fetching.weights import WeightsError
from server.errors import ServerError
from server.launcher import EmbeddedServer

Image = npt.NDArray[np.uint8]

ROOT = Path(__file__).resolve().parent.parent
SWAPPERS_OF_OUR_OWN = ("frameswap_256_small", "frameswap_256", "image_swapper_256")
SOURCE, TARGET = "newton", "gauss"
PANEL_HEIGHT = 360
BACKGROUND, INK, FACE_BOX, LANDMARK = (32, 32, 32), (235, 235, 235), (80, 220, 80), (0, 200, 255)


class StepFailedError(Exception):
    """A program that the demo ran failed; it has said why."""


def run_step(*command: str) -> None:
    """Run one of the project's own programs; its output goes to the terminal."""
    finished = subprocess.run([sys.executable, *command], cwd=ROOT, check=False)
    if finished.returncode != 0:
        program = " ".join(word for word in command[:3] if not word.startswith("-"))
        raise StepFailedError(f"the demo stopped: {program} exited with {finished.returncode}")


def read_frames(path: Path, indices: list[int]) -> list[Image]:
    """The frames at `indices` of a video, as (H, W, 3) uint8 BGR."""
    with av.open(str(path)) as container:
        frames = [
            np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
            for index, frame in enumerate(container.decode(video=0))
            if index in indices
        ]
    return frames


def draw_faces(frame: Image, faces: npt.NDArray[np.float32]) -> Image:
    """A copy of `frame` with every face's box, score and five landmarks.

    faces: (F, 15) float32, pixels: x1 y1 x2 y2, score, five times x y.
    """
    drawn = frame.copy()
    for face in faces:
        x1, y1, x2, y2 = (round(float(value)) for value in face[:4])
        cv2.rectangle(drawn, (x1, y1), (x2, y2), FACE_BOX, 2, cv2.LINE_AA)
        for x, y in face[5:].reshape(5, 2):
            cv2.circle(drawn, (round(float(x)), round(float(y))), 4, LANDMARK, -1, cv2.LINE_AA)
        place = (x1, max(y1 - 6, 14))
        for color, thickness in (((0, 0, 0), 3), (FACE_BOX, 1)):  # an outline, then the digits
            cv2.putText(
                drawn, f"{face[4]:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, thickness,
                cv2.LINE_AA,
            )  # fmt: skip
    return drawn


def panel(image: Image, title: str, height: int = PANEL_HEIGHT) -> Image:
    """`image` at `height` pixels with a title strip above it."""
    width = round(image.shape[1] * height / image.shape[0])
    shrunk = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    strip = np.full((34, width, 3), BACKGROUND, np.uint8)
    cv2.putText(strip, title, (8, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.55, INK, 1, cv2.LINE_AA)
    return np.vstack([strip, np.asarray(shrunk, np.uint8)])


def compose(rows: list[list[Image]]) -> Image:
    """Panels in rows, with a gap between them, on one background."""
    gap = 8
    spaced = []
    for row in rows:
        height = row[0].shape[0]
        between = np.full((height, gap, 3), BACKGROUND, np.uint8)
        spaced.append(np.hstack([part for image in row for part in (between, image)] + [between]))
    width = max(row.shape[1] for row in spaced)
    filled = [
        cv2.copyMakeBorder(
            row, 0, gap, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=BACKGROUND
        )
        for row in spaced
    ]
    return np.asarray(np.vstack(filled), np.uint8)


def make_picture(clip: Path, result: Path, server: str) -> Image:
    """Source, a target frame with the faces found, its result; below, more of the result."""
    with av.open(str(result)) as container:
        count = container.streams.video[0].frames
    shown = [round(share * (count - 1)) for share in (0.15, 0.4, 0.6, 0.75, 0.95)]
    before, after = read_frames(clip, shown), read_frames(result, shown)
    with FaceSwapper(server) as swapper:
        name = swapper.swapper
        source = swapper.encode_source(read_photo(SOURCE))
        faces = [swapper.swap(frame, source).faces for frame in before]
    return compose(
        [
            [
                panel(draw_faces(read_photo(SOURCE), source.faces), f"source: {SOURCE}"),
                panel(draw_faces(before[0], faces[0]), f"target frame {shown[0]}, faces found"),
                panel(after[0], f"result, {name}"),
            ],
            [
                panel(image, f"result, frame {index}", 269)
                for image, index in zip(after[1:], shown[1:], strict=True)
            ],
        ]
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line: where things go."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.run", description=__doc__, formatter_class=HelpFormatter
    )
    parser.add_argument(
        "--repository", type=Path, default=ROOT / "model_repository", metavar="FOLDER",
        help="model repository to build and serve (default: the one in this checkout)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out", metavar="FOLDER",
        help="where the video and the picture go (default: out/ in this checkout)",
    )  # fmt: skip
    parser.add_argument(
        "--swapper", choices=SWAPPERS_OF_OUR_OWN, default=DEFAULT_TARGET.swapper, metavar="NAME",
        help=f"which of our own swappers, {', '.join(SWAPPERS_OF_OUR_OWN)} "
        f"(default: {DEFAULT_TARGET.swapper})",
    )  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0, or 1 after one sentence."""
    given = parse(arguments)
    out, repository = given.out.resolve(), given.repository.resolve()
    out.mkdir(parents=True, exist_ok=True)
    clip, result, picture = out / "target.mp4", out / "demo.mp4", out / "demo.png"
    try:
        print("1/4 building the model repository for the CPU", flush=True)
        run_step(
            "build_engines.py", "--target", "cpu", "--swapper", given.swapper,
            "--repository", str(repository),
        )  # fmt: skip
        print(f"2/4 making a clip of {PHOTOS[TARGET].person} (pan, zoom, rotation)", flush=True)
        if not clip.is_file():
            whole = clip.with_suffix(".part.mp4")
            write_clip(whole, clip_of(TARGET))
            whole.replace(clip)
        print("3/4 starting Triton and swapping", flush=True)
        result.unlink(missing_ok=True)
        with EmbeddedServer(repository, target="cpu") as server:
            run_step(
                "-m", "frameswap", "swap", "--server", server.grpc_url,
                "--source", str(photo_path(SOURCE)), "--target", str(clip),
                "--output", str(result),
            )  # fmt: skip
            print("4/4 drawing the picture, stopping Triton", flush=True)
            if not cv2.imwrite(str(picture), make_picture(clip, result, server.grpc_url)):
                raise StepFailedError(f"the demo stopped: {picture} cannot be written")
    except (StepFailedError, WeightsError, ServerError, FrameswapError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(f"\nthe video:   {result}\nthe picture: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
