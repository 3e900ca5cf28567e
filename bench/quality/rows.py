"""The rows of the table: each makes a clip, gives it to both chains, and says how they did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from frameswap import Casting, FaceSwapper, FoundFrame, Placement, Source, SwapOptions, SwappedFrame
from frameswap.persons import Search, follow, swap_one
from frameswap.persons.looking import ServerLooker
from frameswap.persons.plan import SteadyPlan, finding_options
from numpy.typing import NDArray

from bench.quality import measures, scenes
from bench.quality.scenes import CROPS, Head, Image, Points, Pose, as_i420, cut_head, scene, truth

AHEAD: Final = 12
FPS: Final = 25
SIZES: Final = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
FRAMES: Final = 48
_RIGHT_SHARE: Final = 0.1
"""Mean error of the five points, of the eyes' distance, up to which a face is the right way up."""
_UPPER_LIP, _LOWER_LIP = 13, 14
_LIDS: Final = ((159, 145), (386, 374))
"""MediaPipe's numbers of the middle of each lid."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    off: str
    on: str
    bar: str
    holds: bool | None = None


@dataclass
class Bench:
    """What every row needs.

    pictures: a folder for clips to look at; None: none.
    """

    swapper: FaceSwapper
    pictures: Path | None = None
    heads: dict[str, Head] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in CROPS:
            image = cut_head(name)
            (face, *_) = self.swapper.find(image).faces
            self.heads[name] = Head(name, image, face[5:].reshape(5, 2).astype(np.float64))
        for name in ("gauss", "newton"):
            self.sources[name] = self.swapper.encode_source(self.heads[name].image)

    @property
    def everyone(self) -> Casting:
        return Casting.everyone(self.sources["newton"])

    def off(self, frames: Sequence[Image]) -> list[SwappedFrame]:
        return list(self.swapper.stream(frames, self.sources["newton"]))

    def on(self, frames: Sequence[Image]) -> list[SwappedFrame]:
        return list(
            follow(self.swapper, frames, self.everyone, pixel="i420", ahead=AHEAD, frame_rate=FPS)
        )

    def planned(
        self, frames: Sequence[Image], *, ahead: int = AHEAD
    ) -> tuple[list[FoundFrame], list[Placement]]:
        """What is found in frames, and where it is placed; nothing is swapped."""
        founds = list(self.swapper.find_stream(frames, finding_options(SwapOptions())))
        plan = SteadyPlan(
            self.everyone, ahead=ahead, options=SwapOptions(), looker=_Nobody(), mesh_rows=4,
            frame_rate=FPS,
        )  # fmt: skip
        return founds, list(plan(iter(founds)))

    def cast(
        self, frames: Sequence[Image], casting: Casting
    ) -> tuple[list[SwappedFrame], list[Placement]]:
        """Swap frames, and tell what was placed in each."""
        finding, placed = finding_options(SwapOptions()), []
        plan = SteadyPlan(
            casting, ahead=AHEAD, options=SwapOptions(), looker=ServerLooker(self.swapper, finding),
            mesh_rows=4, frame_rate=FPS,
        )  # fmt: skip

        def kept(founds: Iterator[FoundFrame]) -> Iterator[Placement]:
            for placement in plan(founds):
                placed.append(placement)
                yield placement

        swapped = self.swapper.stream_found(
            frames, kept, finding=finding, persons=len(casting.roles), ahead=AHEAD + 1
        )
        return list(swapped), placed

    def show(self, name: str, swapped: Sequence[SwappedFrame]) -> None:
        """Write frames as pictures that a person may look at."""
        if self.pictures is None:
            return
        folder = self.pictures / name
        folder.mkdir(parents=True, exist_ok=True)
        for index, each in enumerate(swapped):
            bgr = cv2.cvtColor(each.frame, cv2.COLOR_YUV2BGR_I420)
            cv2.imwrite(str(folder / f"{index:03d}.png"), bgr)


class _Nobody:
    """A looker where nobody is to be asked."""

    def embed(self, frame: object, face: NDArray[np.float32]) -> NDArray[np.float32]:
        raise AssertionError("an embedding was asked for")

    def find_turned(self, frame: object, warp: object, size: object) -> object:
        raise AssertionError("a part of a frame was asked for")


def jitter(bench: Bench) -> Iterator[Row]:
    """A still face with a camera's noise."""
    head = bench.heads["gauss"]
    for size, (width, height) in SIZES.items():
        count, pose = 36 if height < 2000 else 24, Pose(width / 2, height / 2, height * 0.6)
        frames = [as_i420(scene(width, height, [(head, pose)], noise=k)) for k in range(count)]
        true = np.stack([truth(head, pose)] * count)
        off, on = bench.off(frames), bench.on(frames)
        figures = [
            measures.tremble(measures.five_of([each.faces[0] for each in run]), true)
            for run in (off, on)
        ]
        yield _third(f"landmarks given, sd in % of eyes' distance, {size}", figures)
        side = int(0.25 * height)
        region = np.s_[height // 2 - side // 2 : height // 2 + side // 2,
                       width // 2 - side // 2 : width // 2 + side // 2]  # fmt: skip
        eyes = head.eyes_px * pose.side / head.image.shape[0]
        seen = [
            float(measures.shifts_px([_bgr(each) for each in run], region).std() / eyes * 100)
            for run in (off, on)
        ]
        yield _third(f"the picture's own shift, sd in % of eyes' distance, {size}", seen)
        if size == "360p":
            bench.show("jitter-off", off)
            bench.show("jitter-on", on)


def _third(what: str, figures: Sequence[float]) -> Row:
    off, on = figures
    return Row(what, f"{off:.3f}", f"{on:.3f}", "a third", on <= off / 3)


def lag(bench: Bench) -> Iterator[Row]:
    """A face that moves and stops, and one that speaks and blinks."""
    head, (width, height) = bench.heads["gauss"], SIZES["360p"]
    poses = [Pose(220 + 200 * scenes.move_and_stop(k), 180, 220) for k in range(FRAMES)]
    frames = [as_i420(scene(width, height, [(head, p)], noise=k)) for k, p in enumerate(poses)]
    true = np.array([truth(head, pose)[:, 0].mean() for pose in poses])
    off = np.array([each.faces[0, 5::2].mean() for each in bench.off(frames)])
    for name, ahead, bar in (("file", AHEAD, 0.5), ("live", 0, 2.0)):
        _, placed = bench.planned(frames, ahead=ahead)
        on = np.array([each.faces[0, 5::2].mean() for each in placed])
        behind = measures.lag_frames(on, true), measures.lag_frames(off, true)
        yield Row(f"moves and stops, {name}: frames late", f"{behind[1]:.2f}", f"{behind[0]:.2f}",
                  f"{bar:g}", behind[0] <= bar)  # fmt: skip
    yield from _expression_lag(bench, head, width, height)


def _expression_lag(bench: Bench, head: Head, width: int, height: int) -> Iterator[Row]:
    pose, frames = Pose(width / 2, height / 2, 300), []
    for index in range(FRAMES):
        opening = 0.12 * max(0.0, np.sin(2 * np.pi * index / 8)) ** 2
        # A blink a second: closing, closed, opening.
        lid = {10: 0.06, 11: 0.12, 12: 0.12, 13: 0.06}.get(index % 24, 0.0)
        image = scenes.speak_and_blink(head, opening, lid)
        face = Head(head.name, image, head.five)
        frames.append(as_i420(scene(width, height, [(face, pose)], noise=index)))
    for name, ahead, bar in (("file", AHEAD, 0.5), ("live", 0, 2.0)):
        founds, placed = bench.planned(frames, ahead=ahead)
        for what, points in (("mouth", ((_UPPER_LIP, _LOWER_LIP),)), ("lids", _LIDS)):
            off = _opening([each.found.landmarks[0] for each in founds], points)
            on = _opening([each.landmarks[0] for each in placed if each.landmarks is not None],
                          points)  # fmt: skip
            behind = measures.lag_frames(on, off)
            kept = float(np.ptp(on) / np.ptp(off))
            yield Row(f"{what}, {name}: frames behind what was found; range kept", "0; 1.00",
                      f"{behind:.2f}; {kept:.2f}", f"{bar:g}", behind <= bar)  # fmt: skip


def _opening(meshes: Sequence[NDArray[np.float32]], pairs: Sequence[tuple[int, int]]) -> Points:
    signal = [
        np.mean([np.linalg.norm(mesh[a, :2] - mesh[b, :2]) for a, b in pairs]) for mesh in meshes
    ]
    return np.array(signal) - np.mean(signal)


def flicker(bench: Bench) -> Iterator[Row]:
    """A face that moves, turns and grows, with a camera's noise."""
    head, (width, height) = bench.heads["gauss"], SIZES["360p"]
    phases = 2 * np.pi * np.arange(FRAMES) / FRAMES
    poses = [
        Pose(320 + 60 * np.sin(p), 180 + 15 * np.cos(2 * p), 230 + 30 * np.sin(2 * p),
             12 * np.sin(2 * p))
        for p in phases
    ]  # fmt: skip
    frames = [as_i420(scene(width, height, [(head, p)], noise=k)) for k, p in enumerate(poses)]
    true = np.stack([truth(head, pose) for pose in poses])
    masks = [_mask(width, height, pose) for pose in poses]
    # Of the noise that both chains see, the result keeps little: beside the noisy target it would
    # be less than nothing.
    targets = [scene(width, height, [(head, pose)]) for pose in poses]
    warped, bent = [], []
    for name, run in (("off", bench.off(frames)), ("on", bench.on(frames))):
        warped.append(measures.warp_error([_bgr(each) for each in run], targets, masks).mean())
        bent.append(measures.unrest(measures.five_of([each.faces[0] for each in run]), true))
        bench.show(f"flicker-{name}", run)
    yield Row("warping error, result less target, of 255 squared", f"{warped[0]:.3f}",
              f"{warped[1]:.3f}", "half", warped[1] <= warped[0] / 2)  # fmt: skip
    yield Row("second difference of landmarks, % of eyes' distance", f"{bent[0]:.2f}",
              f"{bent[1]:.2f}", "half", bent[1] <= bent[0] / 2)  # fmt: skip


def drop_outs(bench: Bench) -> Iterator[Row]:
    """Contrast that falls and comes back, and something in front of the face."""
    head, (width, height) = bench.heads["gauss"], SIZES["360p"]
    pose = Pose(width / 2, height / 2, 220)
    shares = np.abs(np.linspace(1, -1, 72)) * 0.97 + 0.03
    frames = [
        as_i420(_noisy(scenes.contrast(scene(width, height, [(head, pose)]), share), k))
        for k, share in enumerate(shares)
    ]
    runs = [bench.off(frames), bench.on(frames)]
    for least, most, bar in ((0.5, 1.1, 0), (0.25, 0.5, None), (0.1, 0.25, None), (0, 0.1, None)):
        among = [k for k, share in enumerate(shares) if least <= share < most]
        missing = [sum(not _is_swapped(run[k]) for k in among) for run in runs]
        yield Row(f"contrast {least:g} to {min(most, 1):g}: frames of {len(among)} not swapped",
                  str(missing[0]), str(missing[1]), "none" if bar == 0 else "-",
                  missing[1] == 0 if bar == 0 else None)  # fmt: skip
    frames = []
    for index in range(FRAMES):
        frame = scene(width, height, [(head, pose)], noise=index)
        if index % 16 in range(6, 11):
            frame[60:300, 230:410] = (60, 80, 70)
        frames.append(as_i420(frame))
    missing = [sum(not _is_swapped(each) for each in run)
               for run in (bench.off(frames), bench.on(frames))]  # fmt: skip
    yield Row("three times 200 ms behind a board: frames of 48 not swapped", str(missing[0]),
              str(missing[1]), "none", missing[1] == 0)  # fmt: skip


def persons(bench: Bench) -> Iterator[Row]:
    """Two who cross, leave and come back, and change places at a cut."""
    gauss, newton = bench.heads["gauss"], bench.heads["newton"]
    (width, height), side = SIZES["360p"], 190
    cross = [(Pose(100 + 440 * k / 71, 175, side), Pose(540 - 440 * k / 71, 190, side))
             for k in range(72)]  # fmt: skip
    leave = [(Pose(200, 180, side), Pose(430 + 300 * abs(np.sin(np.pi * k / 71)), 185, side))
             for k in range(72)]  # fmt: skip
    cut = [(Pose(190, 180, side), Pose(450, 180, side)) if k < 24
           else (Pose(450, 180, side), Pose(190, 180, side)) for k in range(48)]  # fmt: skip
    casting = Casting.by_reference([
        (bench.swapper.embed(gauss.image), bench.sources["newton"]),
        (bench.swapper.embed(newton.image), bench.sources["gauss"]),
    ])  # fmt: skip
    for name, places in (("cross", cross), ("leave and come back", leave), ("cut", cut)):
        frames = [
            as_i420(scene(width, height, [(newton, second), (gauss, first)], noise=k))
            for k, (first, second) in enumerate(places)
        ]
        run, placed = bench.cast(frames, casting)
        bench.show(f"persons-{name.split()[0]}", run)
        wrong, missing = _count_wrong(placed, places, side, width)
        yield Row(f"two {name}: wrong frames; whole faces not swapped, of {2 * len(places)}", "-",
                  f"{wrong}; {missing}", "0; 0", wrong == 0 and missing == 0)  # fmt: skip


def _count_wrong(
    placed: Sequence[Placement], places: Sequence[tuple[Pose, Pose]], side: float, width: int
) -> tuple[int, int]:
    """Frames in which somebody has another one's new face, and faces in full view without any."""
    wrong = missing = 0
    for each, (first, second) in zip(placed, places, strict=True):
        apart, is_wrong = np.hypot(first.x - second.x, first.y - second.y), False
        for row, own, other in zip(each.faces, (first, second), (second, first), strict=False):
            if row[4] <= 0:
                in_view = 0.4 * side < own.x < width - 0.4 * side
                # The first stands in front.
                missing += bool(in_view and (own is first or apart > 0.75 * side))
                continue
            x = row[5::2].mean()
            is_wrong |= bool(abs(x - own.x) > abs(x - other.x) and apart > 0.2 * side)
        wrong += is_wrong
    return wrong, missing


def turned(bench: Bench) -> Iterator[Row]:
    """Every roll of 15 degrees, of six faces."""
    width, height = SIZES["720p"]
    totals = [0, 0]
    for name, head in bench.heads.items():
        right = [0, 0]
        for roll in range(0, 360, 15):
            pose = Pose(width / 2, height / 2, 400, roll)
            frame, true = as_i420(scene(width, height, [(head, pose)])), truth(head, pose)
            for which, search in enumerate((Search.OFF, Search.TURNED)):
                swapped = swap_one(bench.swapper, frame, bench.everyone, search=search)
                right[which] += _is_right(swapped, true)
        totals = [total + each for total, each in zip(totals, right, strict=True)]
        yield Row(f"roll, {name}: right of 24", str(right[0]), str(right[1]), "24",
                  right[1] == 24)  # fmt: skip


def _is_right(swapped: SwappedFrame, true: Points) -> bool:
    if not _is_swapped(swapped):
        return False
    eyes = np.linalg.norm(true[1] - true[0])
    error = np.linalg.norm(swapped.faces[0, 5:].reshape(5, 2) - true, axis=1).mean()
    return bool(error / eyes < _RIGHT_SHARE)


def small(bench: Bench) -> Iterator[Row]:
    """Faces of few pixels in 4K."""
    width, height = SIZES["4K"]
    for pixels in (16, 20, 25):
        found = [0, 0]
        for name in ("gauss", "newton", "curie"):
            head = bench.heads[name]
            # A face's box is about 2.6 times as high as its eyes are apart.
            side = pixels / 2.6 / head.eyes_px * head.image.shape[0]
            for x, y in ((700, 500), (3000, 1700)):
                frame = as_i420(scene(width, height, [(head, Pose(x, y, side))]))
                for which, search in enumerate((Search.OFF, Search.SMALL)):
                    swapped = swap_one(bench.swapper, frame, bench.everyone, search=search)
                    found[which] += bool(
                        _is_swapped(swapped) and abs(swapped.faces[0, 5::2].mean() - x) < side / 4
                    )
        yield Row(f"a face of {pixels} px in 4K: found, of 6", str(found[0]), str(found[1]),
                  *(("6", found[1] == 6) if pixels == 20 else ("-", None)))  # fmt: skip


def cost(
    bench: Bench, *, sizes: Sequence[str] = ("720p", "1080p"), frames: int = 96, rounds: int = 3
) -> Iterator[Row]:
    """Frames a second of both chains, in turn."""
    head = bench.heads["gauss"]
    for size in sizes:
        width, height = SIZES[size]
        clip = [
            as_i420(scene(width, height, [(head, Pose(width / 2 + k, height / 2, height * 0.5))]))
            for k in range(24)
        ]
        rates: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for which, chain in enumerate((_chain_off(bench), _chain_on(bench))):
                shown = (clip[min(k % 48, 47 - k % 48)] for k in range(frames))
                start_s = time.perf_counter()
                for _each in chain(shown):
                    pass
                rates[which].append(frames / (time.perf_counter() - start_s))
        off, on = (float(np.median(each)) for each in rates)
        ratio = float(np.median(np.divide(rates[1], rates[0])))
        yield Row(f"{size}: frames/s; ratio, median of {rounds}", f"{off:.1f}",
                  f"{on:.1f}; {ratio:.2f}", "0.8", ratio >= 0.8)  # fmt: skip


Chain = Callable[[Iterator[Image]], Iterator[SwappedFrame]]


def _chain_off(bench: Bench) -> Chain:
    return lambda frames: bench.swapper.stream(
        frames, bench.sources["newton"], reuse_buffers=True
    )


def _chain_on(bench: Bench) -> Chain:
    return lambda frames: follow(
        bench.swapper, frames, bench.everyone, pixel="i420", ahead=AHEAD, frame_rate=FPS,
        reuse_buffers=True,
    )  # fmt: skip


def _bgr(swapped: SwappedFrame) -> Image:
    return np.asarray(cv2.cvtColor(swapped.frame, cv2.COLOR_YUV2BGR_I420), np.uint8)


def _mask(width: int, height: int, pose: Pose) -> Points:
    mask = np.zeros((height, width), np.float64)
    cv2.circle(mask, (round(pose.x), round(pose.y)), round(0.3 * pose.side), 1.0, -1)
    return mask


def _noisy(frame: Image, seed: int) -> Image:
    noise = np.random.default_rng(seed).normal(0, 2, frame.shape)
    return np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8)


def _is_swapped(swapped: SwappedFrame) -> bool:
    return any(verdict == 0 for verdict in swapped.verdicts)


ROWS: Final[dict[str, Callable[[Bench], Iterator[Row]]]] = {
    "jitter": jitter, "lag": lag, "flicker": flicker, "drop-outs": drop_outs, "persons": persons,
    "turned": turned, "small": small, "cost": cost,
}  # fmt: skip
