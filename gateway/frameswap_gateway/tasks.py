"""What a worker does with files: look, swap a photo, swap a video, show one frame."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import cv2
import numpy as np
from frameswap import (
    ContractMismatch,
    FaceSwapper,
    JobEvent,
    JobStopped,
    Journaling,
    NoFaceFound,
    ReadOptions,
    Security,
    ServerNotReady,
    ServerUnreachable,
    Source,
    Tally,
    UnreadableFile,
    VideoJob,
    average_sources,
)
from frameswap.codecs import try_encoders
from frameswap.one_frame import read_picture_at, swap_frame_at
from frameswap.photo import Photo, is_photo, open_photo, read_photo, write_photo
from frameswap.picture_header import picture_size
from frameswap.provenance import Edit
from frameswap.report import describe_left
from frameswap.video import VideoReader

from frameswap_gateway.wishes import Wishes, read_wishes

__all__ = ["TASKS", "Bench"]

_AGAIN_S: Final = 1.0
_TOLD_S: Final = 0.5
_HEADER_BYTES: Final = 1 << 20
_JPEG_QUALITY: Final = 85
_PICTURE_TYPES: Final = (
    (b"\xff\xd8", "image/jpeg"), (b"\x89PNG", "image/png"), (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"), (b"MM\0*", "image/tiff"), (b"RIFF", "image/webp"),
)  # fmt: skip
_VIDEO_TYPES: Final = {
    "mov": "video/mp4", "matroska": "video/x-matroska", "avi": "video/x-msvideo",
    "mpegts": "video/mp2t", "flv": "video/x-flv", "gif": "image/gif", "webp": "image/webp",
}  # fmt: skip

OnEvent = Callable[[Mapping[str, Any]], None]


class Bench:
    """What one worker keeps from task to task: its connection, and the word to stop."""

    def __init__(self, servers: Mapping[str, Any] | None) -> None:
        self._servers = servers
        self._swapper: FaceSwapper | None = None
        self._number = 0
        self._stops = threading.Event()
        self._job: VideoJob | None = None
        self._newest: dict[str, Any] | None = None
        self._came = threading.Condition()
        self.tell: OnEvent = lambda event: None

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._swapper is not None:
            self._swapper.close()

    def begin(self, number: int, tell: OnEvent) -> None:
        self._number, self.tell = number, tell
        self._stops.clear()
        self._newest = None

    def bring(self, number: int, message: dict[str, Any]) -> None:
        """Something for the task that runs; it takes the place of what was not taken yet."""
        if number == self._number:
            with self._came:
                self._newest = message
                self._came.notify()

    def newest(self) -> dict[str, Any]:
        """Wait for it. Raises JobStopped."""
        with self._came:
            while self._newest is None:
                self.check()
                self._came.wait(_TOLD_S)
            message, self._newest = self._newest, None
        self.check()
        return message

    def cancel(self, number: int) -> None:
        """Stop a task; a late word about another one is not meant for this."""
        if number == self._number:
            self._stops.set()
            if self._job is not None:
                self._job.cancel()

    def check(self) -> None:
        """Raise JobStopped if the task is to stop."""
        if self._stops.is_set():
            raise JobStopped

    @property
    def swapper(self) -> FaceSwapper:
        """The connection; at the first use, servers that do not answer yet are waited for."""
        if self._swapper is None:
            assert self._servers is not None  # tasks that look only do not ask
            settings = self._servers
            security = dict(settings["security"])
            paths = ("ca", "certificate", "key")
            security |= {name: Path(security[name]) for name in paths if security[name]}
            until = time.monotonic() + settings["reconnect_s"]
            while self._swapper is None:
                self.check()
                try:
                    self._swapper = FaceSwapper(
                        settings["address"],
                        timeout_s=settings["timeout_s"],
                        transport=settings["transport"],
                        in_flight=settings["in_flight"],
                        reconnect_s=settings["reconnect_s"],
                        security=Security(**security),
                    )
                except (ServerUnreachable, ServerNotReady):
                    if time.monotonic() > until:
                        raise
                    time.sleep(_AGAIN_S)
        return self._swapper

    def run(self, job: VideoJob) -> Tally:
        """A video job to its end, telling how far it is."""
        self._job = job
        try:
            self.check()
            job.start()
            for event in job.events():
                self.tell(_describe(event))
            return job.result()
        finally:
            self._job = None


def _describe(event: JobEvent) -> dict[str, Any]:
    rate = event.frames / event.elapsed_s if event.elapsed_s > 0 else 0.0
    left_s = max(0, event.total - event.frames) / rate if event.total and rate else None
    told: dict[str, Any] = {"frames": event.frames, "rate": round(rate, 2), "left_s": left_s}
    if event.total:
        told["total"] = event.total
    if event.note:
        told["note"] = event.note
    return told


def look(bench: Bench, *, path: str, photo_pixels: int, video_pixels: int) -> dict[str, Any]:
    """What a file is, from its first bytes and, of a video, its first frame.

    Raises:
        UnreadableFile: no photo and no video, or larger than is taken.
    """
    file = Path(path)
    with file.open("rb") as opened:
        head = opened.read(_HEADER_BYTES)
    # A GIF counts as video, and there is no suffix that says so.
    if is_photo(file) and not head.startswith(b"GIF8"):
        size = picture_size(head)
        if size is None:
            # A format whose header is not known here is decoded, with the memory that there is.
            height, width = read_photo(file).shape[:2]
            size = width, height
        _check_pixels(size, photo_pixels)
        kinds = [kind for start, kind in _PICTURE_TYPES if head.startswith(start)]
        return {
            "kind": "photo", "width": size[0], "height": size[1], "frames": 1,
            "media_type": kinds[0] if kinds else "application/octet-stream",
        }  # fmt: skip
    with VideoReader(file, ReadOptions(hdr="tonemap")) as reader:
        _check_pixels((reader.width, reader.height), video_pixels)
        formats = str(reader.container.format.name).split(",")
        frames = reader.frame_count or 0
        rate = float(reader.frame_rate)
        known = [_VIDEO_TYPES[name] for name in formats if name in _VIDEO_TYPES]
        return {
            "kind": "video", "width": reader.width, "height": reader.height, "frames": frames,
            "rate": rate, "duration_s": frames / rate if rate else 0.0,
            "media_type": known[0] if known else "application/octet-stream",
        }  # fmt: skip


def _check_pixels(size: tuple[int, int], most: int) -> None:
    if size[0] * size[1] > most:
        raise UnreadableFile(
            f"the picture has {size[0]} x {size[1]} pixels, and up to {most / 1e6:.1f} million "
            f"are taken: scale it down"
        )


def encode_sources(bench: Bench, wishes: Wishes) -> list[Source]:
    """One source a face slot; several photos of a person are averaged."""
    sources = []
    for each in wishes.sources:
        photos = []
        for path in each.paths:
            bench.check()
            photo = read_photo(Path(path))
            photos.append(bench.swapper.encode_source(
                photo, face=each.face, score_threshold=wishes.options.score_threshold
            ))  # fmt: skip
        sources.append(average_sources(photos))
    return sources


def swap_photo(
    bench: Bench, *, target: str, folder: str, suffix: str, wishes: Mapping[str, Any]
) -> dict[str, Any]:
    """Swap a photo into `folder`."""
    wanted = read_wishes(wishes)
    photo = open_photo(Path(target))
    sources = encode_sources(bench, wanted)
    bench.check()
    tally = _swap_photo(bench, photo, sources, wanted, Path(folder) / f"result{suffix}")
    return _result(tally, [f"result{suffix}"])


def _swap_photo(
    bench: Bench, photo: Photo, sources: Sequence[Source], wanted: Wishes, output: Path
) -> Tally:
    swapped = bench.swapper.swap(photo.image, sources, wanted.options)
    tally = Tally()
    tally.add(len(swapped.faces), swapped.verdicts)
    _require(tally, wanted)
    swapper = bench.swapper
    write_photo(
        output, swapped.frame, edit=Edit(swapper.swapper, swapper.provenance), force=True,
        alpha=photo.alpha, metadata=photo.metadata, quality=wanted.encoding.quality,
    )  # fmt: skip
    return tally


def swap_video(
    bench: Bench, *, target: str, folder: str, suffix: str, wishes: Mapping[str, Any],
    segment_frames: int,
) -> dict[str, Any]:  # fmt: skip
    """Swap a video into `folder`, or go on with what an earlier process has done of it."""
    wanted = read_wishes(wishes)
    output, report = Path(folder) / f"result{suffix}", Path(folder) / "report.jsonl"
    if output.exists() and report.exists():
        # Whole since the moment it had its name; only the word that it is done was lost.
        return _result(_read_tally(report), [output.name, report.name])
    job = VideoJob(
        bench.swapper, target, output, encode_sources(bench, wanted),
        options=wanted.options, encoding=wanted.encoding, audio=wanted.audio,
        reading=wanted.reading, report=report, preview=Path(folder) / "newest.jpg",
        journaling=Journaling(segment_frames=segment_frames),
    )  # fmt: skip
    tally = bench.run(job)
    _require(tally, wanted)
    return _result(tally, [output.name, report.name])


def _require(tally: Tally, wanted: Wishes) -> None:
    if wanted.require_face and tally.faces == 0:
        raise NoFaceFound(
            "no face was found in the target: use a picture with a larger, upright face, or "
            "a lower score threshold"
        )


def _read_tally(report: Path) -> Tally:
    last = report.read_text(encoding="utf-8").splitlines()[-1]
    summary = json.loads(last)["summary"]
    summary.pop("left")
    return Tally(**summary)


def _result(tally: Tally, outputs: list[str]) -> dict[str, Any]:
    summary = {key: value for key, value in asdict(tally).items() if not key.startswith("_")}
    del summary["left"]
    notes = [left] if (left := describe_left(tally)) else []
    if tally.faces == 0:
        notes.append("no face was found: the output shows what the input shows")
    return {"outputs": outputs, "summary": summary, "notes": notes}


def show_frame(
    bench: Bench, *, target: str, is_video: bool, at_s: float, longest: int,
    wishes: Mapping[str, Any] | None, output: str,
) -> dict[str, Any]:  # fmt: skip
    """Write one frame as a JPEG, as it is or, with wishes, swapped as a job would.

    Returns:
        "faces": how many were found; None where nothing was swapped.
    """
    path, written = Path(target), Path(output)
    faces = None
    if wishes is None:
        image = _picture_at(path, at_s) if is_video else read_photo(path)
    else:
        wanted = read_wishes(wishes)
        sources = encode_sources(bench, wanted)
        whole = written.with_name(f"{written.stem}.png")
        try:
            if not is_video:
                wanted = replace(wanted, require_face=False)
                tally = _swap_photo(bench, open_photo(path), sources, wanted, whole)
            else:
                with VideoReader(path, wanted.reading) as reader:
                    tally = swap_frame_at(
                        bench.swapper, reader, Fraction(at_s), sources, wanted.options, whole,
                        force=True,
                    )  # fmt: skip
            faces, image = tally.faces, read_photo(whole)
        finally:
            whole.unlink(missing_ok=True)
    _write_jpeg(written, image, longest)
    return {"faces": faces}


def _picture_at(path: Path, at_s: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with VideoReader(path, ReadOptions(hdr="tonemap")) as reader:
        return read_picture_at(reader, Fraction(at_s))


def _write_jpeg(path: Path, image: np.ndarray[Any, np.dtype[np.uint8]], longest: int) -> None:
    factor = longest / max(image.shape[:2])
    if factor < 1.0:
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        image = np.asarray(small, np.uint8)
    path.write_bytes(_jpeg(image))


def _jpeg(image: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done  # an array of such a shape can be encoded
    return bytes(data)


def describe(bench: Bench) -> dict[str, Any]:
    """What the servers and this machine can do, for /v1/capabilities."""
    swapper = bench.swapper
    try:
        swapper.check_model("i420", found=True)
        has_two_steps = True
    except (ContractMismatch, ServerNotReady):
        has_two_steps = False
    return {
        "swapper": swapper.swapper,
        "provenance": swapper.provenance,
        "source_kind": swapper.source_kind,
        "landmarker": swapper.landmarker,
        "gives_mask": swapper.gives_mask,
        "persons": has_two_steps,
        "codecs": [trial.name for trial in try_encoders() if trial.works],
    }


def swap_live(bench: Bench, *, wishes: Mapping[str, Any], most_pixels: int) -> dict[str, Any]:
    """Swap the newest picture that came, again and again, until it is cancelled.

    A message has "frame", its number, and "jpeg", base64; an event the same of the swapped one,
    and how many faces were found. One that is damaged or too large is left out.
    """
    wanted = read_wishes(wishes)
    sources = encode_sources(bench, wanted)
    bench.tell({"ready": True})
    while True:
        message = bench.newest()
        data = base64.b64decode(message["jpeg"])
        size = picture_size(data)
        if size is None or not 0 < size[0] * size[1] <= most_pixels:
            continue
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            continue
        frame = np.asarray(image, np.uint8)
        swapped = bench.swapper.swap(frame, sources, wanted.options)
        jpeg = base64.b64encode(_jpeg(swapped.frame)).decode()
        bench.tell({"frame": message["frame"], "jpeg": jpeg, "faces": len(swapped.faces)})


TASKS: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    "look": look,
    "photo": swap_photo,
    "video": swap_video,
    "frame": show_frame,
    "live": swap_live,
    "describe": describe,
}
