"""How steady a face is: still, moving, speaking, and where it can hardly be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.quality import measures, scenes
from bench.quality.chains import (
    AHEAD,
    FRAMES,
    SIZES,
    Bench,
    Row,
    is_swapped,
    move_points,
    to_bgr,
)
from bench.quality.scenes import Head, Image, Points, Pose, affine, as_i420, scene, truth

_UPPER_LIP, _LOWER_LIP = 13, 14
_LIDS: Final = ((159, 145), (386, 374))
"""MediaPipe's numbers of the middle of each lid."""


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
        tint = [
            float(np.std([to_bgr(each)[region].mean(axis=(0, 1)) for each in run], axis=0).mean())
            for run in (off, on)
        ]
        yield Row(f"mean colour of the face, sd of 255, {size}", f"{tint[0]:.3f}",
                  f"{tint[1]:.3f}", "-")  # fmt: skip
        least = bench.at_true_places(frames, head, [pose] * count)
        seen = [
            float(measures.shifts_px([to_bgr(each) for each in run], region).std() / eyes * 100)
            for run in (off, on, least)
        ]
        yield Row(f"the picture's own shift, sd in % of eyes' distance, {size}; "
                  f"{seen[2]:.3f} at the true place", f"{seen[0]:.3f}", f"{seen[1]:.3f}", "-",
                  )  # fmt: skip
        added = [float(np.sqrt(max(0.0, sd**2 - seen[2] ** 2))) for sd in seen[:2]]
        if added[0] > 0:
            yield _third(f"what placing adds to that, {size}", added)
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
                  f"{bar:g}", abs(behind[0]) <= bar)  # fmt: skip
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
                      f"{behind:.2f}; {kept:.2f}", f"{bar:g}", abs(behind) <= bar)  # fmt: skip


def _opening(meshes: Sequence[NDArray[np.float32]], pairs: Sequence[tuple[int, int]]) -> Points:
    signal = np.array([
        np.mean([np.linalg.norm(mesh[a, :2] - mesh[b, :2]) for a, b in pairs]) for mesh in meshes
    ])  # fmt: skip
    return np.asarray(signal - signal.mean(), np.float64)


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
    _, mesh = bench.rows[head.name]
    masks = [measures.hull_mask((height, width), move_points(mesh, affine(head, p))) for p in poses]
    # Of the noise that both chains see, the result keeps little: beside the noisy target it would
    # be less than nothing.
    targets = [scene(width, height, [(head, pose)]) for pose in poses]
    runs = {"off": bench.off(frames), "on": bench.on(frames),
            "true": bench.at_true_places(frames, head, poses)}  # fmt: skip
    warped, bent = [], []
    for name, run in runs.items():
        errors = measures.warp_error([to_bgr(each) for each in run], targets, masks)
        warped.append(float(errors.mean()))
        bent.append(measures.unrest(measures.five_of([each.faces[0] for each in run]), true))
        bench.show(f"flicker-{name}", run)
    off, on, least = warped
    yield Row(f"warping error, result less target, of 255 squared; {least:.3f} at the true places",
              f"{off:.3f}", f"{on:.3f}", "half", on <= off / 2)  # fmt: skip
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
        missing = [sum(not is_swapped(run[k]) for k in among) for run in runs]
        yield Row(f"contrast {least:g} to {min(most, 1):g}: frames of {len(among)} not swapped",
                  str(missing[0]), str(missing[1]), "none" if bar == 0 else "-",
                  missing[1] == 0 if bar == 0 else None)  # fmt: skip
    frames = []
    for index in range(FRAMES):
        frame = scene(width, height, [(head, pose)], noise=index)
        if index % 16 in range(6, 11):
            frame[60:300, 230:410] = (60, 80, 70)
        frames.append(as_i420(frame))
    missing = [sum(not is_swapped(each) for each in run)
               for run in (bench.off(frames), bench.on(frames))]  # fmt: skip
    yield Row("three times 200 ms behind a board: frames of 48 not swapped", str(missing[0]),
              str(missing[1]), "none", missing[1] == 0)  # fmt: skip


def _noisy(frame: Image, seed: int) -> Image:
    noise = np.random.default_rng(seed).normal(0, 2, frame.shape)
    return np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8)
