"""What is measured of a swap, each a number for one image or one clip.

SFace and the landmarker are losses of the training, so their measures are optimistic. dlib's
network (CC0) is not; it is used where dlib and its weights are installed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from training import face_mesh
from training.losses import openings, slopes
from training.networks import Prepared, Swapped, reach
from training.warping import pixel_grid

Array = npt.NDArray[Any]
_FACE_CENTRE: Final = (128.0, 140.0)
_FACE_RADII: Final = (66.0, 88.0)


def inner_face() -> Tensor:
    """(1, 1, 256, 256): 1 in an ellipse that holds the face of an aligned crop."""
    pixels = pixel_grid()
    x = (pixels[:, :1] - _FACE_CENTRE[0]) / _FACE_RADII[0]
    y = (pixels[:, 1:] - _FACE_CENTRE[1]) / _FACE_RADII[1]
    return (x**2 + y**2 < 1).float()


def mouth_opening(landmarks: Tensor) -> Tensor:
    """(B, 478, 2) px to (B,): the middle gap in units of the distance between the outer eyes."""
    gap = openings(landmarks)[:, 0].norm(dim=1)
    return gap / _eye_span(landmarks)


def eye_opening(landmarks: Tensor) -> Tensor:
    """(B, 478, 2) px to (B,): the mean of both eyes' middle gaps, same units."""
    gaps = openings(landmarks)[:, [3, 6]].norm(dim=2).mean(1)
    return gaps / _eye_span(landmarks)


def _eye_span(landmarks: Tensor) -> Tensor:
    left, right = face_mesh.EYE_SPAN
    return (landmarks[:, left, :2] - landmarks[:, right, :2]).norm(dim=1)


def expression_error(landmarks: Tensor, target: Tensor) -> Tensor:
    """(B, 478, 2) px twice to (B,): mean absolute error of lips and eyes, px at 256."""
    points = list(face_mesh.EXPRESSION)
    return (landmarks[:, points, :2] - target[:, points, :2]).abs().mean((1, 2))


def colour_error(image: Tensor, target: Tensor) -> Tensor:
    """Mean difference of 32 px cells inside the face, 0 to 255: (B,)."""
    inside = inner_face()
    share = F.avg_pool2d(inside, 32)
    cells = [F.avg_pool2d(x * inside, 32) / share.clamp_min(0.2) for x in (image, target)]
    counted = (share > 0.5).float()
    difference = (cells[0] - cells[1]).abs() * counted
    return difference.sum((1, 2, 3)) / counted.sum() / 3 * 255


def rim_steps(swapped: Swapped, prepared: Prepared) -> Tensor:
    """Slopes where the mask rises, divided by the target's own there: (B,); 1 is invisible."""
    within = reach(prepared.labels)
    band = ((within > 0.02) & (within < 0.9)).float()[..., 1:, 1:]

    def steepness(image: Tensor) -> Tensor:
        first, second = slopes(image)
        return ((first.abs() + second.abs()) * band).sum((1, 2, 3))

    return steepness(swapped.image) / steepness(prepared.target).clamp_min(1e-6)


def flicker(frames: Tensor) -> float:
    """Mean second difference in time inside the face, 0 to 255; (T, 3, 256, 256)."""
    inside = inner_face()
    change = (frames[2:] - 2 * frames[1:-1] + frames[:-2]).abs() * inside
    return float(change.sum() / inside.sum() / 3 / len(change) * 255)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's."""
    return float(np.corrcoef(a.numpy(), b.numpy())[0, 1])


class Drawn(NamedTuple):
    """An occluder of the evaluation: alpha (1, 1, 256, 256) and colour (3,) RGB 0..1."""

    alpha: Tensor
    colour: tuple[float, float, float]

    def over(self, image: Tensor) -> Tensor:
        """(1, 3, 256, 256) with it in front."""
        colour = torch.tensor(self.colour).view(1, 3, 1, 1)
        return image * (1 - self.alpha) + colour * self.alpha


def _alpha(image: Array) -> Tensor:
    smooth = cv2.GaussianBlur(image, (0, 0), 0.8).astype(np.float32) / 255
    return torch.from_numpy(smooth)[None, None]


def draw_hand(landmarks: Array) -> Drawn:
    """A palm and five bent fingers over mouth and cheek, none of the training's shapes."""
    image = np.zeros((256, 256), np.uint8)
    x, y = (int(v) for v in landmarks[61, :2])
    cv2.ellipse(image, (x - 22, y + 48), (34, 26), 25, 0, 360, 255, -1, cv2.LINE_AA)
    for angle, length in ((-150, 44), (-112, 62), (-92, 68), (-72, 62), (-50, 50)):
        a, b = np.radians(angle), np.radians(angle + 14)
        knuckle = (int(x - 22 + 22 * np.cos(a)), int(y + 40 + 18 * np.sin(a)))
        middle = (
            int(knuckle[0] + length / 2 * np.cos(a)),
            int(knuckle[1] + length / 2 * np.sin(a)),
        )
        tip = (int(middle[0] + length / 2 * np.cos(b)), int(middle[1] + length / 2 * np.sin(b)))
        cv2.polylines(image, [np.array([knuckle, middle, tip])], False, 255, 13, cv2.LINE_AA)
    return Drawn(_alpha(image), (0.80, 0.60, 0.50))


def draw_glasses(landmarks: Array) -> Drawn:
    """Dark lenses shaped like drops, with arms to the ears."""
    image = np.zeros((256, 256), np.uint8)
    eyes = [landmarks[list(eye), :2].mean(0) for eye in (face_mesh.RIGHT_EYE, face_mesh.LEFT_EYE)]
    span = float(np.linalg.norm(eyes[1] - eyes[0]))
    for eye, side in zip(eyes, (-1, 1), strict=True):
        centre = (round(eye[0]), round(eye[1] + span * 0.06))
        axes = (round(span * 0.38), round(span * 0.30))
        cv2.ellipse(image, centre, axes, side * -12, 0, 360, 255, -1, cv2.LINE_AA)
        ear = (round(eye[0] + side * span * 0.95), round(eye[1] - 4))
        cv2.line(image, (centre[0] + side * axes[0], centre[1] - 4), ear, 255, 4, cv2.LINE_AA)
    bridge = [(round(eye[0]), round(eye[1] + span * 0.02)) for eye in eyes]
    cv2.line(image, bridge[0], bridge[1], 255, 4, cv2.LINE_AA)
    return Drawn(_alpha(image), (0.06, 0.06, 0.08))


def draw_microphone(landmarks: Array) -> Drawn:
    """A hand microphone held to the chin from the side: head, collar, tapered handle."""
    image = np.zeros((256, 256), np.uint8)
    x, y = (int(v) for v in landmarks[17, :2])
    cv2.ellipse(image, (x + 12, y + 14), (21, 26), 30, 0, 360, 255, -1, cv2.LINE_AA)
    handle = np.array([(x + 10, y + 38), (x + 30, y + 24), (x + 92, y + 104), (x + 70, y + 120)])
    cv2.fillConvexPoly(image, handle, 255, cv2.LINE_AA)
    return Drawn(_alpha(image), (0.22, 0.22, 0.24))


OCCLUDERS: Final = {"hand": draw_hand, "glasses": draw_glasses, "microphone": draw_microphone}


def draw_fringe(landmarks: Array) -> Drawn:
    """Blunt strands of two lengths from the top down to the brows."""
    image = np.zeros((256, 256), np.uint8)
    brow = float(landmarks[list(face_mesh.LEFT_BROW + face_mesh.RIGHT_BROW), 1].mean())
    for k, x in enumerate(range(40, 220, 12)):
        tip = round(brow + (6 if k % 2 else -8))
        strand = np.array([(x - 12, 0), (x + 14, 0), (x + 8, tip), (x - 4, tip)])
        cv2.fillConvexPoly(image, strand, 255, cv2.LINE_AA)
    return Drawn(_alpha(image), (0.16, 0.11, 0.08))


def eroded(alpha: Tensor, size_px: int = 2) -> Tensor:
    """Where alpha is full, less a band."""
    full = (alpha > 0.98).float()
    return 1 - F.max_pool2d(1 - full, 2 * size_px + 1, 1, size_px)


class IndependentJudge:
    """dlib's recognition network and its five-point predictor."""

    def __init__(self, folder: Path) -> None:
        import dlib

        points, network = (
            str(folder / name)
            for name in ("shape_predictor_5_face_landmarks.dat",
                         "dlib_face_recognition_resnet_model_v1.dat")
        )  # fmt: skip
        self._points, self._network = (
            dlib.shape_predictor(points),
            dlib.face_recognition_model_v1(network),
        )
        self._box = dlib.rectangle(76, 98, 260, 282)

    @classmethod
    def find(cls) -> IndependentJudge | None:
        """It, where the packages dlib and face_recognition_models are installed; else None."""
        package = importlib.util.find_spec("face_recognition_models")
        if package is None or package.origin is None or importlib.util.find_spec("dlib") is None:
            return None
        return cls(Path(package.origin).parent / "models")

    def describe(self, image: Tensor) -> Array:
        """(3, 256, 256) RGB 0..1 to a vector of 128; below 0.6 apart is one person."""
        pixels = (image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        framed = cv2.copyMakeBorder(pixels, 40, 40, 40, 40, cv2.BORDER_REPLICATE)
        framed = np.ascontiguousarray(framed)
        shape = self._points(framed, self._box)
        return np.array(self._network.compute_face_descriptor(framed, shape))
