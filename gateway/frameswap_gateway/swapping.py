"""Swapping: a photo, a video, one frame of it, a camera."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from frameswap import Journaling, NoFaceFound, Tally, VideoJob, average_sources
from frameswap.one_frame import swap_frame_at
from frameswap.persons import Casting, Role, Search, Steadiness, swap_one
from frameswap.photo import Photo, open_photo, read_photo, write_photo
from frameswap.picture_header import picture_size
from frameswap.provenance import Edit
from frameswap.report import describe_left
from frameswap.video import VideoReader

from frameswap_gateway.bench import Bench
from frameswap_gateway.pictures import picture_at, to_jpeg
from frameswap_gateway.wishes import Wishes, read_wishes

__all__ = ["show_frame", "swap_live", "swap_photo", "swap_video"]


def cast(bench: Bench, wishes: Wishes) -> Casting:
    """Who becomes whom; several photos of a person are averaged."""
    roles = []
    for each in wishes.sources:
        photos = []
        for path in each.paths:
            bench.check()
            photo = read_photo(Path(path))
            photos.append(bench.swapper.encode_source(
                photo, face=each.face, score_threshold=wishes.options.score_threshold
            ))  # fmt: skip
        roles.append(Role(average_sources(photos), each.reference))
    return Casting(tuple(roles), wishes.options.face_order)


def swap_photo(
    bench: Bench, *, target: str, folder: str, suffix: str, wishes: Mapping[str, Any]
) -> dict[str, Any]:
    """Swap a photo into `folder`."""
    wanted = read_wishes(wishes)
    photo = open_photo(Path(target))
    casting = cast(bench, wanted)
    bench.check()
    tally = _swap_photo(bench, photo, casting, wanted, Path(folder) / f"result{suffix}")
    return _result(tally, [f"result{suffix}"])


def _swap_photo(
    bench: Bench, photo: Photo, casting: Casting, wanted: Wishes, output: Path
) -> Tally:
    swapped = swap_one(
        bench.swapper, photo.image, casting, wanted.options, search=Search.TURNED
    )
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
        bench.swapper, target, output, cast(bench, wanted),
        steady=Steadiness() if wanted.steady else None, options=wanted.options,
        encoding=wanted.encoding, audio=wanted.audio, reading=wanted.reading, report=report,
        preview=Path(folder) / "newest.jpg",
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
        image = picture_at(path, at_s) if is_video else read_photo(path)
    else:
        wanted = read_wishes(wishes)
        casting = cast(bench, wanted)
        whole = written.with_name(f"{written.stem}.png")
        try:
            if not is_video:
                wanted = replace(wanted, require_face=False)
                tally = _swap_photo(bench, open_photo(path), casting, wanted, whole)
            else:
                with VideoReader(path, wanted.reading) as reader:
                    tally = swap_frame_at(
                        bench.swapper, reader, Fraction(at_s), casting, wanted.options, whole,
                        force=True,
                    )  # fmt: skip
            faces, image = tally.faces, read_photo(whole)
        finally:
            whole.unlink(missing_ok=True)
    written.write_bytes(to_jpeg(image, longest=longest))
    return {"faces": faces}


def swap_live(bench: Bench, *, wishes: Mapping[str, Any], most_pixels: int) -> dict[str, Any]:
    """Swap the newest picture that came, again and again, until it is cancelled.

    A message has "frame", its number, and "jpeg", base64; an event the same of the swapped one,
    and how many faces were found. One that is damaged or too large is left out.
    """
    wanted = read_wishes(wishes)
    casting = cast(bench, wanted)
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
        swapped = swap_one(bench.swapper, frame, casting, wanted.options)
        jpeg = base64.b64encode(to_jpeg(swapped.frame)).decode()
        bench.tell({"frame": message["frame"], "jpeg": jpeg, "faces": len(swapped.faces)})
