"""The whole way, with the real server: a clip with known motion in, a swapped video out.

The clip has no turn of the head and no change of expression, so these figures say that nothing is
lost or displaced on the way; they say nothing about how convincing a swap is in the wild.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import onnxruntime as ort
import pytest
from frameswap import FaceSwapper
from insightface.utils.face_align import norm_crop

from demo.make_clip import Clip, clip_of, write_clip
from demo.photos import photo_path, read_photo
from fetching import weights
from server.launcher import EmbeddedServer
from tests.conftest import build_beside, made_once

FRAMES = 36


@pytest.fixture(scope="module")
def yunet_server(real_server: EmbeddedServer) -> str:
    return real_server.grpc_url


@pytest.fixture(scope="module")
def scrfd_server(real_repository: Path, run_folder: Path) -> Iterator[str]:
    repository = made_once(
        run_folder / "scrfd",
        lambda folder: build_beside(
            real_repository, folder, "--detector", "scrfd_2.5g", "--accept-licence"
        ),
    )
    models = ["swap_faces_i420", "encode_source_bgr"]
    with EmbeddedServer(repository, models=models) as server:
        yield server.grpc_url


@pytest.fixture(scope="module")
def clip() -> Clip:
    return clip_of("gauss", frames=FRAMES)


@pytest.fixture(scope="module")
def clip_file(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "gauss.mp4"
    write_clip(path, clip)
    return path


def read_i420(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]


def landmark_errors(url: str, clip: Clip, clip_file: Path) -> np.ndarray:
    """Mean distance of a frame's five landmarks from the truth, in eye distances, per frame.

    The truth is what the same detector finds in the still picture, carried by the known motion:
    what is measured is how steadily the landmarks follow, not where the detector puts an eye.
    """
    with FaceSwapper(url) as swapper:
        source = swapper.encode_source(clip.photo)
        still = source.faces[0, 5:].reshape(5, 2).astype(np.float64)
        results = list(swapper.stream(read_i420(clip_file), source))
    errors = []
    for index, result in enumerate(results):
        assert len(result.faces) == 1, f"frame {index}: {len(result.faces)} faces"
        truth = clip.landmarks(index, still)
        found = result.faces[0, 5:].reshape(5, 2)
        eyes = np.linalg.norm(truth[1] - truth[0])
        errors.append(np.linalg.norm(found - truth, axis=1).mean() / eyes)
    return np.array(errors)


@pytest.mark.e2e
def test_landmarks_follow_the_known_motion_with_scrfd(scrfd_server: str, tmp_path: Path) -> None:
    clip = clip_of("collins", frames=FRAMES)
    write_clip(tmp_path / "collins.mp4", clip)
    errors = landmark_errors(scrfd_server, clip, tmp_path / "collins.mp4")
    print(f"\nSCRFD, share of eye distance: mean {errors.mean():.3f}, worst {errors.max():.3f}")
    assert len(errors) == FRAMES
    # insightface's own code with the same weights on the same frames: mean 0.023, worst 0.038
    # (0.037 and 0.059 on the Gauss painting): the network's own unrest under rotation and zoom.
    assert errors.mean() < 0.04
    assert errors.max() < 0.06


def test_landmarks_follow_the_known_motion_with_yunet(
    yunet_server: str, clip: Clip, clip_file: Path
) -> None:
    errors = landmark_errors(yunet_server, clip, clip_file)
    print(f"\nYuNet, share of eye distance: mean {errors.mean():.3f}, worst {errors.max():.3f}")
    assert len(errors) == FRAMES
    # Seen: mean 0.067, worst 0.122. A network of 53,000 weights, int8, coarsest stride 32; a
    # wrong stride, axis or letterbox offset costs several tenths. A third is left above the mean.
    assert errors.mean() < 0.09
    assert errors.max() < 0.16


class Recognizer:
    """SFace through ONNX Runtime, on crops made by insightface's code: none of it is ours."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        weights.fetch("sface")
        network = weights.load_network("sface").SerializeToString()
        self.session = ort.InferenceSession(network, options)

    def embed(self, frame_bgr: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        crop = norm_crop(frame_bgr, landmarks, image_size=112)
        rgb = crop[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        (embedding,) = self.session.run(None, {"data": rgb})
        return embedding[0] / np.linalg.norm(embedding)


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("source_name", "target_name"),
    [("newton", "gauss"), ("gauss", "newton"), ("newton", "collins")],
)
def test_the_result_is_nearer_to_the_source_than_to_the_target(
    yunet_server: str, source_name: str, target_name: str
) -> None:
    recognizer = Recognizer()
    photo = read_photo(source_name)
    frames = list(clip_of(target_name, frames=12))
    with FaceSwapper(yunet_server) as swapper:
        source = swapper.encode_source(photo)
        person = recognizer.embed(photo, source.faces[0, 5:].reshape(5, 2))
        gains = []
        for before, result in zip(frames, swapper.stream(frames, source), strict=True):
            landmarks = result.faces[0, 5:].reshape(5, 2)
            after = recognizer.embed(result.frame, landmarks)
            gains.append(after @ person - after @ recognizer.embed(before, landmarks))
    gain = float(np.median(gains))
    print(f"\n{source_name} onto {target_name}: median cos(source) - cos(target) = {gain:.3f}")
    assert gain >= 0.1


def test_the_command_makes_a_video_with_every_frame_its_sound_and_its_face_swapped(
    yunet_server: str, clip: Clip, clip_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    finished = subprocess.run(
        [
            sys.executable, "-m", "frameswap", "swap", "--server", yunet_server,
            "--source", str(photo_path("newton")), "--target", str(clip_file),
            "--output", str(output),
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    with av.open(str(clip_file)) as before, av.open(str(output)) as after:
        assert [stream.type for stream in after.streams] == ["video", "audio"]
        packets = [
            [bytes(packet) for packet in container.demux(audio=0) if packet.size]
            for container in (before, after)
        ]
        assert packets[0] == packets[1], "the sound is copied packet for packet"
        # The default swapper on a CPU is a formula; no claim of AI.
        assert after.metadata["comment"] == (
            "Edited: faces in this picture were replaced by frameswap (swapper image_swapper_256)."
        )
        assert after.metadata["description"] == (
            "Digital source type: http://cv.iptc.org/newscodes/digitalsourcetype/composite"
        )
    for index, (old, new) in enumerate(zip(read_i420(clip_file), read_i420(output), strict=True)):
        # The face changes; a corner far from it only by x264's second encoding, at CRF 18.
        # Seen, over all frames: at least 11 grey levels in the face, at most 1.3 in the corner.
        center = clip.landmarks(index, np.array(clip.center))
        mask = np.zeros((clip.height, clip.width), np.uint8)
        cv2.circle(mask, (round(center[0]), round(center[1])), 50, 1, -1)
        change = np.abs(old[: clip.height].astype(int) - new[: clip.height])
        assert change[mask == 1].mean() > 6, f"frame {index}: the face is as it was"
        assert change[:40, -40:].mean() < 2, f"frame {index}: a far corner has changed"


def test_a_photo_is_a_target_too(yunet_server: str, tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    finished = subprocess.run(
        [
            sys.executable, "-m", "frameswap", "swap", "--server", yunet_server,
            "--source", str(photo_path("newton")), "--target", str(photo_path("gauss")),
            "--output", str(output),
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    before, after = read_photo("gauss"), cv2.imread(str(output))
    assert after.shape == before.shape
    changed = np.argwhere((before != after).any(axis=2))
    assert len(changed) > 10_000
    # Pixels that the blend does not touch are the photo's own, bit for bit (PNG keeps them).
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
    assert top > 100
    assert left > 150
    assert bottom < 800
    assert right < 900
