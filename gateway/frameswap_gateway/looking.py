"""Looking without swapping: what a file is, who is in it, and what the servers can do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from frameswap import ContractMismatch, ReadOptions, ServerNotReady, UnreadableFile
from frameswap.codecs import try_encoders
from frameswap.contract import EMBED_MODEL, FIND_MODELS, SWAP_FOUND_MODELS
from frameswap.persons import Person, find_persons
from frameswap.photo import is_photo, read_photo
from frameswap.picture_header import picture_size
from frameswap.video import VideoReader

from frameswap_gateway.bench import Bench
from frameswap_gateway.pictures import to_jpeg

__all__ = ["describe", "look", "look_for_faces"]

_HEADER_BYTES: Final = 1 << 20
_TOLD_S: Final = 0.5
_PICTURE_TYPES: Final = (
    (b"\xff\xd8", "image/jpeg"), (b"\x89PNG", "image/png"), (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"), (b"MM\0*", "image/tiff"), (b"RIFF", "image/webp"),
)  # fmt: skip
_VIDEO_TYPES: Final = {
    "mov": "video/mp4", "matroska": "video/x-matroska", "avi": "video/x-msvideo",
    "mpegts": "video/mp2t", "flv": "video/x-flv", "gif": "image/gif", "webp": "image/webp",
}  # fmt: skip
_PERSON_MODELS: Final = (*FIND_MODELS.values(), *SWAP_FOUND_MODELS.values(), EMBED_MODEL)


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


def look_for_faces(bench: Bench, *, target: str, folder: str, every_s: float) -> dict[str, Any]:
    """Who is in a photo or a video, over its whole length; a picture of each into `folder`."""
    told_s = 0.0

    def on_frame(done: int, expected: int | None) -> None:
        nonlocal told_s
        bench.check()
        if time.monotonic() - told_s > _TOLD_S:
            told_s = time.monotonic()
            bench.tell({"frames": done, **({"total": expected} if expected else {})})

    reading = ReadOptions(hdr="tonemap")
    survey = find_persons(
        bench.swapper, Path(target), every_s=every_s, reading=reading, on_frame=on_frame
    )
    persons = []
    for person in survey.persons:
        name = f"person-{person.number}.jpg"
        (Path(folder) / name).write_bytes(to_jpeg(person.thumbnail))
        persons.append({**_describe_person(person), "thumbnail": name})
    return {
        "outputs": [person["thumbnail"] for person in persons],
        "persons": persons,
        "summary": {"frames": survey.frames},
    }


def _describe_person(person: Person) -> dict[str, Any]:
    """As JSON; times in seconds, sizes in pixels, angles in degrees."""
    return {
        "number": person.number,
        "first_s": person.first_s, "last_s": person.last_s, "best_s": person.best_s,
        "share": person.share, "size_px": person.size_px, "score": person.score,
        "box": list(person.box), "pose": list(person.pose),
        "embedding": [float(value) for value in person.embedding],
    }  # fmt: skip


def describe(bench: Bench) -> dict[str, Any]:
    """What the servers and this machine can do, for /v1/capabilities."""
    swapper = bench.swapper
    try:
        swapper.check_models(_PERSON_MODELS)
        knows_persons = True
    except (ContractMismatch, ServerNotReady):
        knows_persons = False
    return {
        "swapper": swapper.swapper,
        "provenance": swapper.provenance,
        "source_kind": swapper.source_kind,
        "landmarker": swapper.landmarker,
        "gives_mask": swapper.gives_mask,
        "persons": knows_persons,
        "codecs": [trial.name for trial in try_encoders() if trial.works],
    }
