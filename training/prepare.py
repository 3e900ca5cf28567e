"""Make a data directory from photos: `python -m training.prepare --manifest FILE --out DIR ...`."""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from training.face_mesh import ARCFACE_128, CROP, FIVE_POINTS, MARGIN, fit_similarity
from training.faces import LANDMARK_UNITS
from training.judges import Landmarker, Recogniser
from training.shapes import fit_shapes

SIDE: Final = CROP + 2 * MARGIN
MOST_ENLARGED: Final = 1.3
"""A face that must be enlarged by more to fill the crop has too little detail."""
MOST_ASTRAY_PX: Final = 14.0
"""Mean distance of the mesh's five points from the template; more is a wrong or turned face."""
LOOKALIKE: Final = 0.5
"""SFace cosine to a kept-out person from which a training photo is left out."""

Array = npt.NDArray[Any]


class Face(NamedTuple):
    """crop: (320, 320, 3) uint8 RGB. landmarks: (478, 3) px of the inner 256. embedding: (128,)."""

    crop: Array
    landmarks: Array
    embedding: Array
    person: str
    set_name: str


def find_five_points(photo: Array, detector: cv2.FaceDetectorYN) -> Array | None:
    """The largest face's eyes, nose and mouth corners, (5, 2) px of an (H, W, 3) BGR photo."""
    scale = min(1.0, 640 / max(photo.shape[:2]))
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    detector.setInputSize((small.shape[1], small.shape[0]))
    found = detector.detect(small)[1]
    if found is None:
        return None
    largest = found[found[:, 3].argmax()]
    return largest[4:14].reshape(5, 2).astype(np.float64) / scale


def crop_face(photo: Array, five_points: Array) -> Array | None:
    """The (320, 320, 3) RGB crop of an (H, W, 3) BGR photo; None where the face is too small."""
    warp = fit_similarity(five_points, ARCFACE_128 * CROP + MARGIN)
    scale = float(np.sqrt(np.linalg.det(warp[:, :2])))
    if scale > MOST_ENLARGED:
        return None
    if scale < 0.5:
        # Bilinear samples alone would skip pixels.
        photo = cv2.resize(photo, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA)
        warp[:, :2] /= 2 * scale
    size, border = (SIDE, SIDE), cv2.BORDER_REFLECT_101
    crop = cv2.warpAffine(photo, warp, size, flags=cv2.INTER_CUBIC, borderMode=border)
    return crop[:, :, ::-1]


@torch.inference_mode()
def describe(
    crop: Array, recogniser: Recogniser, landmarker: Landmarker
) -> tuple[Array, Array] | None:
    """Landmarks and embedding of a crop, or None where the mesh does not lie on the template."""
    inner = crop[MARGIN:-MARGIN, MARGIN:-MARGIN].transpose(2, 0, 1).copy()
    image = torch.from_numpy(inner)[None].float() / 255
    landmarks = landmarker(image)[0][0].numpy()
    astray = np.abs(landmarks[list(FIVE_POINTS), :2] - ARCFACE_128 * CROP).mean()
    if astray > MOST_ASTRAY_PX:
        return None
    return landmarks, recogniser(recogniser.align(image))[0][0].numpy()


def read_faces(options: argparse.Namespace) -> list[Face]:
    """Every usable face of the manifest; says what was left out."""
    detector = cv2.FaceDetectorYN.create(str(options.detector), "", (320, 320), 0.6)
    recogniser = Recogniser(options.recogniser).eval()
    landmarker = Landmarker(options.landmarker).eval()
    faces, skipped = [], 0
    with options.manifest.open(newline="") as file:
        for row in csv.DictReader(file):
            path = options.manifest.parent / row["path"]
            photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if photo is None:
                raise FileNotFoundError(f"{path} is named in {options.manifest}, but is no image")
            points = find_five_points(photo, detector)
            crop = None if points is None else crop_face(photo, points)
            described = None if crop is None else describe(crop, recogniser, landmarker)
            if crop is None or described is None:
                skipped += 1
                continue
            faces.append(Face(crop, *described, row["person"], row["set"]))
    print(f"{len(faces)} faces; left out, as none was found or too small or turned: {skipped}")
    return faces


def split(faces: Sequence[Face], held_out: int, seed: int) -> tuple[list[int], list[int]]:
    """Row numbers for training and for evaluation; lookalikes of the latter are in neither."""
    people = sorted({face.person for face in faces})
    chosen = set(np.random.default_rng(seed).choice(people, held_out, replace=False).tolist())
    kept_out = [k for k, face in enumerate(faces) if face.person in chosen]
    embeddings = np.stack([face.embedding for face in faces])
    alike = (embeddings @ embeddings[kept_out].T).max(1) > LOOKALIKE
    train = [k for k, face in enumerate(faces) if face.person not in chosen and not alike[k]]
    return train, kept_out


def pack_crops(directory: Path, stem: str, crops: Sequence[Array], each: int = 1500) -> None:
    """Write DIR/<stem>0.npz and so on: JPEG files one behind the other, and where each begins."""
    for part, start in enumerate(range(0, len(crops), each)):
        quality = [cv2.IMWRITE_JPEG_QUALITY, 91]
        jpegs = [
            cv2.imencode(".jpg", crop[:, :, ::-1], quality)[1].ravel()
            for crop in crops[start : start + each]
        ]
        offsets = np.cumsum([0, *(len(jpeg) for jpeg in jpegs)])
        np.savez(directory / f"{stem}{part}.npz", bytes=np.concatenate(jpegs), off=offsets)


def write_training(directory: Path, faces: Sequence[Face]) -> None:
    """train*.npz, train_meta.npz and geometry.npz."""
    names = sorted({face.person for face in faces})
    person = np.array([names.index(face.person) for face in faces])
    landmarks = np.stack([face.landmarks for face in faces]).astype(np.float64)
    shapes = fit_shapes(landmarks, person)
    pack_crops(directory, "train", [face.crop for face in faces])
    np.savez_compressed(
        directory / "train_meta.npz",
        L=np.round(landmarks * LANDMARK_UNITS).astype(np.int16),
        E=np.stack([face.embedding for face in faces]).astype(np.float16),
        ec=shapes.expressions.astype(np.float16),
        qc=shapes.identities.astype(np.float16),
        R=np.stack([pose.rotation for pose in shapes.poses]).astype(np.float32),
        s=np.array([pose.scale for pose in shapes.poses], np.float32),
        t=np.stack([pose.shift for pose in shapes.poses]).astype(np.float32),
        pid=person,
        sets=np.array([face.set_name for face in faces]),
    )
    bases = {"M": shapes.mean, "EB": shapes.expression, "QB": shapes.identity}
    np.savez(directory / "geometry.npz", **{k: v.astype(np.float32) for k, v in bases.items()})


def write_evaluation(directory: Path, faces: Sequence[Face]) -> None:
    """eval0.npz and eval_meta.npz: every face is a source once, of another person's face."""
    count = len(faces)
    pairs = []
    for source in range(count):
        others = (source + step for step in range(count // 3 + 1, count // 3 + count))
        target = next(k % count for k in others if faces[k % count].person != faces[source].person)
        pairs.append((source, target))
    pack_crops(directory, "eval", [face.crop for face in faces], each=count)
    np.savez(
        directory / "eval_meta.npz",
        L=np.stack([face.landmarks for face in faces]).astype(np.float32),
        E=np.stack([face.embedding for face in faces]).astype(np.float32),
        pairs=np.array(pairs),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the directory; 1 and one line where the input is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m training.prepare",
        description="Make a data directory from photos. Nothing is fetched: photos and networks "
        "are files that you name; training/README.md says where they may come from.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--manifest", type=Path, required=True, help="CSV with the columns path, set, person")
    add("--out", type=Path, required=True, metavar="DIR")
    add("--detector", type=Path, required=True, help="YuNet, ONNX")
    add("--recogniser", type=Path, required=True, help="SFace, ONNX, also block-quantised")
    add("--landmarker", type=Path, required=True, help="MediaPipe Face Landmarker v2, ONNX")
    add("--held-out", type=int, default=26, help="people kept out for the evaluation")
    add("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        faces = read_faces(options)
        train, kept_out = split(faces, options.held_out, options.seed)
        options.out.mkdir(parents=True, exist_ok=True)
        write_training(options.out, [faces[k] for k in train])
        write_evaluation(options.out, [faces[k] for k in kept_out])
        shutil.copy(options.recogniser, options.out / "sface.onnx")
        shutil.copy(options.landmarker, options.out / "landmarker.onnx")
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(train)} training crops, {len(kept_out)} kept out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
