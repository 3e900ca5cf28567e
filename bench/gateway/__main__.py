"""Measure a gateway on this machine, in front of a server that runs.

    python -m bench.gateway --server localhost:8001 [added] [photos] [videos] [upload]

added: a photo of 1920 x 1080 by REST and by the library, the same JPEG in and out, in turns.
photos: so many jobs from so many clients at once, and that too many are told so.
videos: so many jobs at once. upload: a large file, and the gateway's memory meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import cv2
import httpx2
import numpy as np
import psutil
from frameswap import FaceSwapper
from frameswap.arguments import HelpFormatter, WholeNumber
from frameswap.photo import open_photo, read_photo, write_photo
from frameswap.provenance import Edit

from bench.gateway.running import RunningGateway
from demo.make_clip import clip_of, write_clip
from demo.photos import photo_path
from demo.photos import read_photo as read_painting

PARTS: Final = ("added", "photos", "videos", "upload")
WAIT: Final = {"Prefer": "wait=60"}
SIZE: Final = (1920, 1080)


def write_target(path: Path) -> Path:
    """Gauss in a picture of 1920 x 1080, as a camera would write it."""
    painting = read_painting("gauss")
    scale = SIZE[1] / painting.shape[0]
    small = cv2.resize(painting, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    left = (SIZE[0] - small.shape[1]) // 2
    whole = cv2.copyMakeBorder(
        small, 0, SIZE[1] - small.shape[0], left, SIZE[0] - small.shape[1] - left,
        cv2.BORDER_REFLECT_101,
    )  # fmt: skip
    cv2.imwrite(str(path), whole, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return path


def percentiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    at = [1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99)]
    return f"p50 {at[0]:.1f} ms, p99 {at[1]:.1f} ms"


def timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def measure_added(gateway: RunningGateway, server: str, folder: Path, count: int) -> None:
    """Both ways in turns, so that both see the same machine."""
    target = write_target(folder / "target.jpg")
    content = target.read_bytes()
    source_path = photo_path("newton")
    output = folder / "out.jpg"
    with FaceSwapper(server) as swapper, gateway.client() as client:
        edit = Edit(swapper.swapper, swapper.provenance)

        def by_library() -> None:
            source = swapper.encode_source(read_photo(source_path))
            photo = open_photo(target)
            swapped = swapper.swap(photo.image, source)
            write_photo(output, swapped.frame, edit=edit, force=True, metadata=photo.metadata)
            output.read_bytes()

        def by_rest() -> None:
            client.put("/v1/assets/target", content=content).raise_for_status()
            wanted = {"target": "target", "swaps": [{"source": ["face"]}]}
            answer = client.post("/v1/jobs", json=wanted, headers=WAIT)
            answer.raise_for_status()
            client.get(answer.json()["outputs"][0]["href"]).raise_for_status()

        client.put("/v1/assets/face", content=source_path.read_bytes()).raise_for_status()
        for way in (by_rest, by_library) * 3:
            way()
        both = [(timed(by_library), timed(by_rest)) for _ in range(count)]
    library, rest = ([pair[index] for pair in both] for index in (0, 1))
    print(f"library: {percentiles(library)}; REST: {percentiles(rest)}; {count} pairs")
    added = statistics.median(rest) - statistics.median(library)
    paired = statistics.median(late - early for early, late in both)
    print(f"REST adds {1e3 * added:.1f} ms to the median, {1e3 * paired:.1f} ms in the median pair")


async def ask(client: httpx2.AsyncClient, refused: list[int]) -> float:
    """One photo job to its end; a 429 is tried again after the time that it names."""
    began_s = time.perf_counter()
    while True:
        wanted = {"target": "target", "swaps": [{"source": ["face"]}]}
        answer = await client.post("/v1/jobs", json=wanted, headers=WAIT)
        if answer.status_code == 429:
            refused.append(answer.status_code)
            await asyncio.sleep(float(answer.headers["retry-after"]))
            continue
        answer.raise_for_status()
        job = answer.json()
        while job["completed"] is None:
            await asyncio.sleep(0.5)
            job = (await client.get(job["links"]["self"])).raise_for_status().json()
        assert job["state"] == "succeeded", job["error"]
        return time.perf_counter() - began_s


async def photo_storm(url: str, target: bytes, *, jobs: int, clients: int) -> None:
    refused: list[int] = []
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx2.AsyncClient(
        base_url=url, timeout=120, trust_env=False, limits=limits
    ) as client:
        face = photo_path("newton").read_bytes()
        (await client.put("/v1/assets/face", content=face)).raise_for_status()
        (await client.put("/v1/assets/target", content=target)).raise_for_status()
        left = list(range(jobs))
        took: list[float] = []

        async def work() -> None:
            while left:
                left.pop()
                took.append(await ask(client, refused))

        began_s = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(clients)))
        elapsed_s = time.perf_counter() - began_s
    print(
        f"{jobs} photo jobs from {clients} clients: {elapsed_s:.1f} s, {jobs / elapsed_s:.1f} a "
        f"second, {percentiles(took)}, told to wait {len(refused)} times, none failed"
    )


def measure_videos(gateway: RunningGateway, folder: Path, count: int) -> None:
    clip = folder / "clip.mp4"
    write_clip(clip, clip_of("gauss", width=640, height=360, frames=48))
    with gateway.client() as client:
        client.put("/v1/assets/face", content=photo_path("newton").read_bytes())
        client.put("/v1/assets/clip", content=clip.read_bytes())
        wanted = {"target": "clip", "swaps": [{"source": ["face"]}]}
        began_s = time.perf_counter()
        begun = [client.post("/v1/jobs", json=wanted).raise_for_status() for _ in range(count)]
        waiting = [answer.json()["links"]["self"] for answer in begun]
        while waiting:
            time.sleep(0.5)
            jobs = {link: client.get(link).json() for link in waiting}
            failed = [job["error"] for job in jobs.values() if job["state"] == "failed"]
            assert not failed, failed
            waiting = [link for link, job in jobs.items() if job["completed"] is None]
        elapsed_s = time.perf_counter() - began_s
    print(f"{count} video jobs of 48 frames at once: {elapsed_s:.1f} s, none failed")


def measure_upload(gateway: RunningGateway, size: int) -> None:
    """Most resident memory of the gateway's own process, before and while a file comes."""
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    curve: list[int] = []
    # A photo as long as its header says, and zeros behind it, which every reader leaves alone.
    head = photo_path("newton").read_bytes()
    block = bytes(1 << 20)

    def body() -> Iterator[bytes]:
        yield head
        for number in range((size - len(head)) // len(block)):
            if number % 64 == 0:
                curve.append(process.memory_info().rss)
            yield block

    with gateway.client() as client:
        began_s = time.perf_counter()
        answer = client.put("/v1/assets/large", content=body())
        elapsed_s = time.perf_counter() - began_s
    print(f"upload of {size >> 20} MiB: {answer.status_code}, {size / elapsed_s / 1e6:.0f} MB/s")
    shown = ", ".join(f"{each >> 20}" for each in np.array(curve)[:: max(1, len(curve) // 8)])
    print(f"resident memory, MiB: {before >> 20} before; while it came {shown}")


@contextmanager
def running(server: str, *flags: str) -> Iterator[tuple[RunningGateway, Path]]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with RunningGateway(server, folder / "gateway", *flags) as gateway:
            yield gateway, folder


def main(words: list[str] | None = None) -> int:
    """Measure what is named; everything by default."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gateway", description=__doc__, formatter_class=HelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="one that runs")
    for flag, usual, part in (
        ("--pairs", 100, "added"), ("--jobs", 1000, "photos"), ("--clients", 50, "photos"),
        ("--videos", 20, "videos"), ("--mib", 1024, "upload"),
    ):  # fmt: skip
        parser.add_argument(
            flag, type=WholeNumber(1), default=usual, metavar="N", help=f"of `{part}`"
        )
    arguments = parser.parse_args(words)
    parts: list[Any] = arguments.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}: {', '.join(PARTS)}")
    # Fewer than the clients may wait, so that some are told to come again.
    with running(arguments.server, "--most-user-jobs", "40") as (gateway, folder):
        if "added" in parts:
            measure_added(gateway, arguments.server, folder, arguments.pairs)
        if "photos" in parts:
            target = write_target(folder / "target.jpg").read_bytes()
            storm = photo_storm(
                gateway.url, target, jobs=arguments.jobs, clients=arguments.clients
            )
            asyncio.run(storm)
        if "videos" in parts:
            measure_videos(gateway, folder, arguments.videos)
        if "upload" in parts:
            measure_upload(gateway, arguments.mib << 20)
    return 0


if __name__ == "__main__":
    sys.exit(main())
