"""The classic way to swap faces in a video: one frame at a time, OpenCV around ONNX Runtime.

    python -m bench.classic_pipeline --source face.png --target in.mp4 --output out.mp4

It is what this project is compared with, so it is written as well as that way can be: the same
networks, the same decoder and encoder as the client, the mask made once, warping and blending on
the face's own region only, and no work on a frame without a face. What it cannot do is overlap
its stages or batch frames. One face a frame is swapped, the largest, as `frameswap swap` does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from frameswap.encoders import Encoding
from frameswap.photo import read_photo
from frameswap.provenance import Edit
from frameswap.video import VideoReader
from frameswap.video_writer import VideoWriter

from bench.classic_landmarks import ClassicLandmarker, hull_mask
from bench.peer_way import make_box_mask
from fetching import weights
from graphs import image_swapper
from graphs.alignment import TEMPLATES
from graphs.contract import DEFAULT_NMS_THRESHOLD, DEFAULT_SCORE_THRESHOLD, DETECTOR_SIZE
from networks.detectors import DEFAULT_DETECTOR, DETECTORS, Detector
from networks.landmarkers import DEFAULT_LANDMARKER, LANDMARKERS, NO_LANDMARKER
from networks.swappers import SWAPPERS

Image = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

CLASSIC_DETECTORS: Final = ("yunet", "scrfd_2.5g")
CRF: Final = 18
PRESET: Final = "veryfast"
"""What `frameswap swap` encodes with when it is not told otherwise."""


@dataclass
class StageTimes:
    """Seconds spent in each stage of a job, in the order in which the stages first ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class JobReport:
    """What a job took, from opening the video to closing the result.

    cpu_seconds: of all processes that took part; on a busy machine it tells more than `seconds`.
    stages: seconds by stage.
    """

    frames: int
    faces: int
    seconds: float
    cpu_seconds: float
    stages: dict[str, float]

    @property
    def frame_rate(self) -> float:
        return self.frames / self.seconds

    @property
    def cpu_ms_per_frame(self) -> float:
        return self.cpu_seconds / max(self.frames, 1) * 1e3


def open_session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """`model` in ONNX Runtime on the CPU; 0 threads leaves the number to the runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class ClassicDetector:
    """Letterbox, network, decoding and suppression for one BGR frame."""

    def __init__(self, detector: Detector, threads: int) -> None:
        self._row = detector
        self._session = open_session(weights.load_network(detector.weight), threads)
        self._input = self._session.get_inputs()[0].name
        self._anchors = detector.anchor_points()
        self._strides = detector.anchor_strides()[:, None]
        self._canvas = np.zeros((DETECTOR_SIZE, DETECTOR_SIZE, 3), np.uint8)

    def detect(self, frame: Image, times: StageTimes) -> tuple[FloatArray, FloatArray]:
        """Boxes (F, 4) x1 y1 x2 y2 and landmarks (F, 5, 2) in pixels of `frame` (H, W, 3)."""
        with times.measure("letterbox"):
            height, width = frame.shape[:2]
            scale = min(DETECTOR_SIZE / height, DETECTOR_SIZE / width)
            size = (int(width * scale), int(height * scale))
            self._canvas[:] = 0
            self._canvas[: size[1], : size[0]] = cv2.resize(frame, size)
            blob = cv2.dnn.blobFromImage(
                self._canvas, 1.0 / self._row.std, mean=(self._row.mean,) * 3,
                swapRB=self._row.channel_order == "rgb",
            )  # fmt: skip
        with times.measure("detector network"):
            outputs = self._session.run(None, {self._input: blob})
        with times.measure("decode, suppress"):
            boxes, landmarks = self._decode(outputs)
        return boxes / scale, landmarks / scale

    def _decode(self, outputs: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Boxes (F, 4) and landmarks (F, 5, 2), letterbox pixels; only kept anchors are decoded."""
        levels = len(self._row.strides)
        heads = [
            np.concatenate(
                [np.reshape(o, (-1, o.shape[-1])) for o in outputs[start : start + levels]]
            )
            for start in range(0, len(outputs), levels)
        ]
        is_yunet = self._row.family == "yunet"
        scores = heads[0][:, 0]
        if is_yunet:
            scores = np.sqrt(np.clip(scores, 0, 1) * np.clip(heads[1][:, 0], 0, 1))
        kept = np.flatnonzero(scores >= DEFAULT_SCORE_THRESHOLD)
        anchors, strides = self._anchors[kept], self._strides[kept]
        first, second = np.split(heads[-2][kept], 2, axis=1)
        if is_yunet:
            center, half = anchors + first * strides, np.exp(second) * strides / 2
            boxes = np.concatenate([center - half, center + half], axis=1)
        else:
            boxes = np.concatenate([anchors - first * strides, anchors + second * strides], axis=1)
        sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        best = cv2.dnn.NMSBoxes(
            sizes.tolist(), scores[kept].tolist(), DEFAULT_SCORE_THRESHOLD, DEFAULT_NMS_THRESHOLD
        )
        rows = np.asarray(best, np.int64).reshape(-1)
        points = heads[-1][kept][rows].reshape(-1, 5, 2) * strides[rows][:, None]
        return boxes[rows], anchors[rows][:, None] + points


class ClassicSwapper:
    """Everything that happens to one BGR frame between the decoder and the encoder."""

    def __init__(
        self,
        source: Image,
        *,
        detector: str = DEFAULT_DETECTOR,
        landmarker: str = NO_LANDMARKER,
        threads: int = 0,
    ):
        """Args:
        source: (H, W, 3) uint8 BGR, a photo with a face; the largest one is taken.
        detector: one of CLASSIC_DETECTORS.
        landmarker: a network that refines the five points and bounds the mask, or "none".
        threads: of each ONNX Runtime session; 0: one for every core.

        Raises:
            ValueError: no face in `source`.
        """
        row = SWAPPERS["image_swapper_256"]
        self._size = row.crop_size
        self._template = TEMPLATES[row.template] * row.crop_size
        self._mask = make_box_mask(row.crop_size)
        self._detector = ClassicDetector(DETECTORS[detector], threads)
        self._landmarker: ClassicLandmarker | None = None
        if landmarker != NO_LANDMARKER:
            mesh = LANDMARKERS[landmarker]
            session = open_session(weights.load_network(mesh.weight), threads)
            self._landmarker = ClassicLandmarker(mesh, session)
        self._session = open_session(image_swapper.build_network(row.crop_size), threads)
        self.times = StageTimes()
        found = self._largest_face(source)
        if found is None:
            raise ValueError("the source photo shows no face: give one that does")
        self._source = self._crop(source, self._fit(self._refine(source, *found)[0]))
        self.times = StageTimes()

    def swap(self, frame: Image) -> bool:
        """Swap the largest face of `frame`, (H, W, 3) uint8 BGR, in place; was there one?"""
        found = self._largest_face(frame)
        if found is None:
            return False
        with self.times.measure("landmarks"):
            landmarks, points = self._refine(frame, *found)
        with self.times.measure("warp"):
            warp = self._fit(landmarks)
            crop = self._crop(frame, warp)
        with self.times.measure("swapper network"):
            swapped = self._session.run(None, {"target": crop, "source": self._source})[0]
        with self.times.measure("paste"):
            mask = self._mask
            if points is not None:
                mask = np.minimum(mask, hull_mask(points, warp, self._size))
            self._paste(frame, swapped, warp, mask)
        return True

    def _refine(
        self, frame: Image, box: FloatArray, five: FloatArray
    ) -> tuple[FloatArray, FloatArray | None]:
        """The five landmarks to align by, and all points (P, 2) where there is a network."""
        if self._landmarker is None:
            return five, None
        points = self._landmarker.find(frame, box, five)
        return self._landmarker.five(points), points

    def _largest_face(self, frame: Image) -> tuple[FloatArray, FloatArray] | None:
        """Box (4,) and five landmarks (5, 2)."""
        boxes, landmarks = self._detector.detect(frame, self.times)
        if len(boxes) == 0:
            return None
        extent = boxes[:, 2:] - boxes[:, :2]
        largest = int(np.argmax(extent[:, 0] * extent[:, 1]))
        return (
            np.asarray(boxes[largest], np.float32), np.asarray(landmarks[largest], np.float32)
        )  # fmt: skip

    def _fit(self, landmarks: FloatArray) -> npt.NDArray[np.float64]:
        """(2, 3) frame to crop; the method and threshold that FaceFusion uses."""
        matrix, _ = cv2.estimateAffinePartial2D(
            landmarks, self._template, method=cv2.RANSAC, ransacReprojThreshold=100.0
        )
        return np.asarray(matrix, np.float64)

    def _crop(self, frame: Image, warp: npt.NDArray[np.float64]) -> FloatArray:
        """(1, 3, S, S) float32 RGB in [0, 1]."""
        crop = cv2.warpAffine(
            frame, warp, (self._size, self._size), borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(cv2.dnn.blobFromImage(crop, 1.0 / 255.0, swapRB=True), np.float32)

    def _paste(
        self, frame: Image, swapped: FloatArray, warp: npt.NDArray[np.float64], shown: FloatArray
    ) -> None:
        """Blend `swapped` (1, 3, S, S) into the region of `frame` that it covers."""
        inverse = np.asarray(cv2.invertAffineTransform(warp), np.float64)
        side = float(self._size)
        corners = np.array([[0.0, 0.0], [side, 0.0], [side, side], [0.0, side]])
        points = corners @ inverse[:, :2].T + inverse[:, 2]
        low = np.maximum(np.floor(points.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(points.max(axis=0)), frame.shape[1::-1]).astype(int)
        if (high <= low).any():
            return
        inverse[:, 2] -= low
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        face = swapped[0, ::-1].transpose(1, 2, 0) * np.float32(255.0)
        color = cv2.warpAffine(
            np.rint(face).astype(np.uint8), inverse, size, borderMode=cv2.BORDER_REPLICATE
        )
        mask = cv2.warpAffine(shown, inverse, size)
        region = frame[low[1] : high[1], low[0] : high[0]]
        region[:] = cv2.blendLinear(region, color, 1.0 - mask, mask)


def swap_video(
    source: Image,
    target: Path,
    output: Path,
    *,
    detector: str = DEFAULT_DETECTOR,
    landmarker: str = DEFAULT_LANDMARKER,
    threads: int = 0,
) -> JobReport:
    """Swap the largest face of every frame of a video; audio and timestamps are kept.

    Args:
        source: (H, W, 3) uint8 BGR. target, output: video files. detector, landmarker, threads:
            see ClassicSwapper. Loading the networks is not part of the reported time.
    """
    swapper = ClassicSwapper(source, detector=detector, landmarker=landmarker, threads=threads)
    times, faces, done = swapper.times, 0, 0
    start, cpu_start = time.perf_counter(), time.process_time()
    with VideoReader(target) as reader:
        writer = VideoWriter(
            output, reader, shown=output, edit=Edit("classic", "composite"),
            encoding=Encoding("x264", CRF, PRESET),
        )  # fmt: skip
        planes: Image | None = None
        frames = _timed(reader.frames(), times, "decode")
        for frame in frames:
            with times.measure("to BGR"):
                if planes is None:
                    planes = np.empty(frame.shape, np.uint8)
                frame.copy_to(planes)
                image = np.asarray(cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420), np.uint8)
            swapped = swapper.swap(image)
            faces += swapped
            done += 1
            with times.measure("to I420"):
                if swapped:
                    cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420, dst=planes)
            with times.measure("encode"):
                writer.write_frame(
                    frame.restore(planes), frame.pts, duration=frame.duration
                )
        with times.measure("encode"):
            writer.finish()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return JobReport(done, faces, seconds, cpu_seconds, dict(times.seconds))


def _timed(frames: Iterator[Any], times: StageTimes, stage: str) -> Iterator[Any]:
    """The items of `frames`; what getting each takes is added to `stage`."""
    while True:
        with times.measure(stage):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def describe_report(report: JobReport) -> str:
    """The job's rate and a line of milliseconds a frame for each stage."""
    lines = [
        f"{report.frames} frames, {report.faces} faces in {report.seconds:.2f} s: "
        f"{report.frame_rate:.1f} frames/s, {report.cpu_ms_per_frame:.1f} CPU-ms a frame"
    ]
    for stage, seconds in report.stages.items():
        lines.append(f"  {stage:18s} {seconds / max(report.frames, 1) * 1e3:7.2f} ms a frame")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's head."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", type=Path, required=True, help="photo with the face to put in")
    parser.add_argument("--target", type=Path, required=True, help="video to swap")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--detector", choices=CLASSIC_DETECTORS, default=DEFAULT_DETECTOR)
    parser.add_argument("--threads", type=int, default=0, help="of each session; 0: one a core")
    args = parser.parse_args(arguments)
    source = read_photo(args.source)
    report = swap_video(
        source, args.target, args.output, detector=args.detector, threads=args.threads
    )
    print(describe_report(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
