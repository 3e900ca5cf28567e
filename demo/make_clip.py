"""A clip made from one still picture by pan, zoom and rotation, with an audio track.

The motion is known exactly, so that where each facial landmark lies in each frame is known as
well: `Clip.affine(i)` takes a point of the picture to frame i. It has no turn of the head and no
change of expression. The same arguments give the same bytes.

    python -m demo.make_clip --photo gauss --size 640x360 --frames 96 --output out/target.mp4
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.video.reformatter
import cv2
import numpy as np
import numpy.typing as npt
from frameswap.arguments import HelpFormatter, WholeNumber, frame_size

from demo import photos

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

AUDIO_RATE_HZ = 48_000
FACES: dict[str, tuple[float, float, float]] = {
    # Centre x, centre y and height of the face in the picture, in pixels (YuNet's box).
    "gauss": (520.0, 388.0, 366.0),
    "newton": (385.0, 163.0, 144.0),
    "collins": (224.0, 119.0, 110.0),
    "obama": (342.0, 332.0, 339.0),
    "ardern": (349.0, 332.0, 394.0),
}


@dataclass(frozen=True)
class Clip:
    """A picture in motion, as a camera would see it.

    photo: (h, w, 3) uint8 BGR. center, face_height: the face in the picture, in pixels.
    face_share: the face's height in a frame of zoom 1, as a share of the frame's height.
    degrees, zoom, pan: largest rotation, zoom factor and shift as a share of the frame's height.
    """

    photo: Image
    center: tuple[float, float]
    face_height: float
    width: int = 640
    height: int = 360
    frames: int = 96
    fps: int = 24
    face_share: float = 0.55
    degrees: float = 12.0
    zoom: float = 1.4
    pan: float = 0.1

    def affine(self, index: int) -> Points:
        """(2, 3) float64, picture to frame `index`: frame_xy = affine @ [x, y, 1].

        Coordinates are pixels with pixel centres at integers, in both.
        """
        phase = 2 * math.pi * index / max(self.frames, 1)
        zoom = self.zoom ** (0.5 + 0.5 * math.sin(phase))
        scale = zoom * self.face_share * self.height / self.face_height
        # Different whole numbers of turns, so that the clip loops and poses do not repeat.
        angle = math.radians(self.degrees) * math.sin(2 * phase)
        x = (self.width - 1) / 2 + self.pan * self.height * math.sin(3 * phase)
        y = (self.height - 1) / 2 + self.pan * self.height / 2 * math.cos(2 * phase)
        turn = scale * np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        shift = np.array([x, y]) - turn @ np.array(self.center)
        return np.column_stack([turn, shift])

    def landmarks(self, index: int, in_photo: Points) -> Points:
        """Where points of the picture, (..., 2) pixels, lie in frame `index`, (..., 2) pixels."""
        matrix = self.affine(index)
        return np.asarray(in_photo @ matrix[:, :2].T + matrix[:, 2], np.float64)

    def frame(self, index: int) -> Image:
        """Frame `index`: (height, width, 3) uint8 BGR; beyond the picture's edge it is mirrored."""
        matrix = self.affine(index)
        scale = math.hypot(matrix[0, 0], matrix[1, 0])
        photo = self.photo
        if scale < 1:
            # Shrink with an area filter first: a bilinear warp alone would alias.
            size = tuple(max(1, round(side * scale)) for side in photo.shape[1::-1])
            photo = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)
            # cv2.resize: shrunken = (x + 0.5) * ratio - 0.5, axis by axis.
            ratio = np.array(size) / np.array(self.photo.shape[1::-1])
            grow = np.diag([*(1 / ratio), 1.0])
            grow[:2, 2] = 0.5 / ratio - 0.5
            matrix = matrix @ grow
        warped = cv2.warpAffine(
            photo, matrix, (self.width, self.height), flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )  # fmt: skip
        return np.asarray(warped, np.uint8)

    def __iter__(self) -> Iterator[Image]:
        return (self.frame(index) for index in range(self.frames))


def clip_of(
    name: str = "gauss", *, width: int = 640, height: int = 360, frames: int = 96, fps: int = 24
) -> Clip:
    """The clip of the picture `name` (a key of FACES)."""
    x, y, face_height = FACES[name]
    return Clip(photos.read_photo(name), (x, y), face_height, width, height, frames, fps)


def tune(seconds: float) -> npt.NDArray[np.int16]:
    """(2, n) int16 stereo at AUDIO_RATE_HZ: quiet notes of a scale, two a second."""
    steps = [0, 4, 7, 12, 7, 4, 2, 5]
    time = np.arange(round(seconds * AUDIO_RATE_HZ)) / AUDIO_RATE_HZ
    note = (time * 2).astype(np.int64)
    pitch = 220.0 * 2.0 ** (np.take(steps, note % len(steps)) / 12)
    since = time * 2 - note
    wave = np.sin(2 * np.pi * pitch * time) * np.sin(np.pi * since) ** 2
    left = wave * 0.2 * 32767
    return np.stack([left, left * 0.7]).astype(np.int16)


def write_clip(output: Path, clip: Clip, *, audio: bool = True, crf: int = 18) -> None:
    """Write `clip` to `output`: H.264 4:2:0 limited range, BT.709 from 720 rows up, else BT.601."""
    spaces = av.video.reformatter.Colorspace
    space = spaces.ITU709 if clip.height >= 720 else spaces.ITU601
    output.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(output), "w", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=clip.fps)
        video.width, video.height, video.pix_fmt = clip.width, clip.height, "yuv420p"
        video.options = {"crf": str(crf), "preset": "veryfast"}
        context = video.codec_context
        context.thread_count = 1  # x264's bytes depend on the number of threads
        context.colorspace, context.color_range = int(space), 1
        sound = container.add_stream("aac", rate=AUDIO_RATE_HZ, layout="stereo") if audio else None
        for index, image in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=space)
            frame.pts, frame.time_base = index, Fraction(1, clip.fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            samples = tune(clip.frames / clip.fps)
            for start in range(0, samples.shape[1], 1024):
                piece = np.ascontiguousarray(samples[:, start : start + 1024].T).reshape(1, -1)
                block = av.AudioFrame.from_ndarray(piece, format="s16", layout="stereo")
                block.sample_rate, block.pts = AUDIO_RATE_HZ, start
                block.time_base = Fraction(1, AUDIO_RATE_HZ)
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))


def _size(text: str) -> tuple[int, int]:
    width, height = frame_size(text)
    if width % 2 or height % 2:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, both even, not {text!r}")
    return width, height


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's head."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.make_clip", description=__doc__, formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("--photo", choices=sorted(FACES), default="gauss", metavar="NAME",
        help=f"the still picture that moves, one of {', '.join(sorted(FACES))}")  # fmt: skip
    add("--size", type=_size, default="640x360", metavar="WIDTHxHEIGHT", help="size, both even")
    add("--frames", type=WholeNumber(1), default=96, metavar="N", help="number of frames")
    add("--fps", type=WholeNumber(1), default=24, metavar="N", help="frames per second")
    add("--no-audio", action="store_true", help="leave the tune out")
    add("--output", type=Path, required=True, metavar="FILE", help="the clip to write")
    args = parser.parse_args(arguments)
    width, height = args.size
    clip = clip_of(args.photo, width=width, height=height, frames=args.frames, fps=args.fps)
    write_clip(args.output, clip, audio=not args.no_audio)
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
