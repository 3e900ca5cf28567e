"""Faces that lie, turn away, or are small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
import skimage.data
from frameswap import SwappedFrame, Verdict
from frameswap.persons import Search, swap_one

from bench.quality.chains import SIZES, Bench, Row, is_swapped
from bench.quality.scenes import Points, Pose, as_i420, scene, truth

_RIGHT_SHARE: Final = 0.1
"""Mean error of the five points, of the eyes' distance, up to which a face is placed rightly."""
_MOST_TURNED: Final = 40.0
"""Degrees by which a picture may be turned: beyond, too much of what is seen was never painted."""
_TURNING: Final = 60
"""Frames in which a head turns away and back."""
_NO_FACES: Final = ("coffee", "chelsea", "rocket", "grass", "gravel", "hubble_deep_field",
                    "immunohistochemistry", "text", "page", "moon", "cell")  # fmt: skip
_NO_FACES_WIDTH: Final = 1500


def turned(bench: Bench) -> Iterator[Row]:
    """Every roll of 15 degrees, of six faces."""
    width, height = SIZES["720p"]
    searches = (Search.OFF, Search.UPRIGHT, Search.TURNED)
    for name, head in bench.heads.items():
        right, wrong = [0, 0, 0], [0, 0, 0]
        for roll in range(0, 360, 15):
            pose = Pose(width / 2, height / 2, 400, roll)
            frame, true = as_i420(scene(width, height, [(head, pose)])), truth(head, pose)
            for which, search in enumerate(searches):
                swapped = swap_one(bench.swapper, frame, bench.everyone, search=search)
                is_right = _is_right(swapped, true)
                right[which] += is_right
                wrong[which] += is_swapped(swapped) and not is_right
        yield Row(f"roll, {name}: wrong of 24; `upright`", str(wrong[0]), str(wrong[1]), "0",
                  wrong[1] == 0)  # fmt: skip
        yield Row(f"roll, {name}: right of 24; `turned`", str(right[0]), str(right[2]), "24",
                  right[2] == 24)  # fmt: skip


def _is_right(swapped: SwappedFrame, true: Points) -> bool:
    return is_swapped(swapped) and error_of(swapped, true) < _RIGHT_SHARE


def error_of(swapped: SwappedFrame, true: Points) -> float:
    """Mean error of the five points of the first face, in distances of its true eyes."""
    return _error_px(swapped, true) / float(np.linalg.norm(true[1] - true[0]))


def _error_px(swapped: SwappedFrame, true: Points) -> float:
    return float(np.linalg.norm(swapped.faces[0, 5:].reshape(5, 2) - true, axis=1).mean())


def yaw(bench: Bench) -> Iterator[Row]:
    """Heads that look to 40 degrees on either side, turned by at most so much."""
    (width, height), side = SIZES["720p"], 400
    errors, apart, left = [], [], 0
    for name, relief in bench.reliefs.items():
        eyes = float(np.linalg.norm(relief.five[1] - relief.five[0])) * side / len(relief.image)
        for wanted in range(-40, 41, 10):
            if abs(wanted - relief.yaw_deg) > _MOST_TURNED:
                continue
            head, pose = relief.turned(wanted), Pose(width / 2, height / 2, side)
            frame, true = as_i420(scene(width, height, [(head, pose)])), truth(head, pose)
            found, swapped = bench.swapper.find(frame), bench.off([frame])[0]
            bench.show(f"yaw-{name}-{wanted}", [swapped])
            if not is_swapped(swapped):
                left += any(verdict is Verdict.LOOKS_AWAY for verdict in swapped.verdicts)
                errors.append(np.inf)
                continue
            errors.append(_error_px(swapped, true) / eyes)
            apart.append(abs(float(found.pose[0, 0]) - wanted))
    seen = [error for error in errors if np.isfinite(error)]
    right = sum(error < _RIGHT_SHARE for error in seen)
    yield Row(f"yaw to 40: right; left alone with a reason, of {len(errors)}", f"{right}; {left}",
              "-", str(len(errors)), right + left == len(errors))  # fmt: skip
    yield Row("yaw to 40: error of the five points, mean; worst, of the eyes' distance",
              f"{np.mean(seen):.3f}; {max(seen):.3f}", "-", "-")  # fmt: skip
    yield Row("yaw to 40: measured yaw less the true one, mean; worst, degrees",
              f"{np.mean(apart):.1f}; {np.max(apart):.1f}", "-", "-")  # fmt: skip


def turns_away(bench: Bench) -> Iterator[Row]:
    """A head that turns away to 75 degrees and back, with a camera's noise."""
    relief, (width, height) = bench.reliefs["curie"], SIZES["360p"]
    yaws = 75 * np.sin(np.pi * np.arange(_TURNING) / (_TURNING - 1))
    pose = Pose(width / 2, height / 2, 300)
    frames = [
        as_i420(scene(width, height, [(relief.turned(yaw_deg), pose)], noise=k))
        for k, yaw_deg in enumerate(yaws)
    ]
    runs = [bench.off(frames), bench.on(frames)]
    for which, run in zip(("off", "on"), runs, strict=True):
        bench.show(f"turns-away-{which}", run)
    for least, most in ((0, 40), (40, 60), (60, 76)):
        among = [k for k, yaw_deg in enumerate(yaws) if least <= yaw_deg < most]
        off, on = (sum(not is_swapped(run[k]) for k in among) for run in runs)
        yield Row(f"turns away, {least} to {min(most, 75)}: frames of {len(among)} not swapped",
                  str(off), str(on), "-")  # fmt: skip


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
                        is_swapped(swapped) and abs(swapped.faces[0, 5::2].mean() - x) < side / 4
                    )
        yield Row(f"a face of {pixels} px in 4K: found, of 6", str(found[0]), str(found[1]),
                  *(("6", found[1] == 6) if pixels == 20 else ("-", None)))  # fmt: skip


def nobody(bench: Bench) -> Iterator[Row]:
    """Pictures without a face, in which a detector glimpses hundreds."""
    found = [0, 0]
    for name in _NO_FACES:
        picture = np.asarray(getattr(skimage.data, name)(), np.uint8)
        if picture.ndim == 2:
            picture = np.repeat(picture[..., None], 3, axis=2)
        scale = _NO_FACES_WIDTH / picture.shape[1]
        size = _NO_FACES_WIDTH, round(picture.shape[0] * scale) // 2 * 2
        bgr = cv2.resize(np.ascontiguousarray(picture[..., 2::-1]), size)
        frame = as_i420(np.asarray(bgr, np.uint8))
        for which, search in enumerate((Search.OFF, Search.ALL)):
            swapped = swap_one(bench.swapper, frame, bench.everyone, search=search)
            found[which] += len(swapped.faces)
    yield Row(f"no face in {len(_NO_FACES)} pictures: found", str(found[0]), str(found[1]),
              "no more", found[1] <= found[0])  # fmt: skip
