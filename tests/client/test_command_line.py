"""The command line: what it writes, what it says, and with which exit code it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import Clip, read_contents, write_clip
from commands import arguments
from fake_server import FakeServer
from frameswap.contract import Provenance
from frameswap.photo import write_photo
from frameswap.provenance import Edit
from frameswap.transport import TRANSPORT_NAMES


def test_a_video_is_swapped_and_summed_up(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    code, out, err = run(*arguments(photo, clip, output, server), "--crf", 0)
    assert (code, err) == (0, "")
    assert out.startswith(f"{output}: 12 frames in ")
    assert out.endswith("12 faces found, 0 frames without a face\n")
    before, after = read_contents(clip), read_contents(output)
    # The fake server inverts every byte; CRF 0 is lossless.
    np.testing.assert_array_equal(after.frames, [255 - frame for frame in before.frames])
    assert after.times_s == before.times_s
    assert after.sounds == before.sounds
    assert "swapper fake_identity" in after.metadata["comment"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.png", "in.mp4", "out.mp4"]


def test_a_turned_video_is_sent_upright_and_kept_as_it_was(
    run, server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(rotation=90, audio=None, frames=3))
    output = tmp_path / "out.mp4"
    code, _, _ = run(*arguments(photo, clip, output, server), "--crf", 0)
    assert code == 0
    assert server.received[-1]["frame"].shape == (1, 96, 64)
    before, after = read_contents(clip), read_contents(output)
    assert after.rotation == 90
    np.testing.assert_array_equal(after.frames, [255 - frame for frame in before.frames])


def test_colours_and_flags_reach_the_server(
    run, server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(matrix=1, range=2, frames=2))
    code, _, _ = run(
        *arguments(photo, clip, tmp_path / "out.mp4", server),
        "--faces", 3, "--face-order", "left-to-right", "--score-threshold", 0.25,
        "--steady", "off",
    )  # fmt: skip
    assert code == 0
    # Order, matrix (BT.709), range (full), chroma (left), threshold.
    np.testing.assert_array_equal(
        server.received[-1]["options"], np.float32([[2, 2, 1, 0, 0.25, *[0] * 11]])
    )
    assert server.received[-1]["source"].shape == (1, 4, 4)  # three persons, rounded up


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp"])
def test_a_photo_is_swapped_in_every_format(
    run, server: FakeServer, photo: Path, tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / "group.png"
    image = np.random.default_rng(1).integers(0, 255, (41, 33, 3), np.uint8)
    cv2.imwrite(str(target), image)
    output = tmp_path / f"out{suffix}"
    code, out, _ = run(*arguments(photo, target, output, server))
    assert code == 0
    assert ": 1 frame in" in out
    assert out.endswith("1 face found, 0 frames without a face\n")
    written = cv2.imread(str(output))
    assert written.shape == image.shape
    if suffix in (".png", ".webp"):
        np.testing.assert_array_equal(written, 255 - image)
    content = output.read_bytes()
    assert b"Edited by AI" in content
    assert b"compositeWithTrainedAlgorithmicMedia" in content


SENTENCES = {
    "composite": "Edited: faces in this picture were replaced by frameswap (swapper a<b).",
    "compositeWithTrainedAlgorithmicMedia": (
        "Edited by AI: faces in this picture were replaced by frameswap (swapper a<b)."
    ),
}

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def xmp_of(path: Path) -> list[str]:
    """Every text of a photo's XMP; Pillow and xml.etree are the other readers."""
    from PIL import Image

    with Image.open(path) as opened:
        found = opened.info.get("xmp") or opened.info["XML:com.adobe.xmp"]
    text = found if isinstance(found, str) else found.decode()
    tree = xml.etree.ElementTree.fromstring(text.strip("\0"))
    return [element.text or "" for element in tree.iter()]


@pytest.mark.parametrize("provenance", SENTENCES)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_photos_metadata_is_valid_xmp_and_nothing_else(
    tmp_path: Path, suffix: str, provenance: Provenance
) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    for turn in range(3):
        path = tmp_path / f"{turn}{suffix}"
        write_photo(path, image, edit=Edit("a<b", provenance), force=False)
        spoken = [text for text in xmp_of(path) if text.strip()]
        assert sorted(spoken) == sorted([SENTENCES[provenance], IPTC + provenance])
    assert len({(tmp_path / f"{turn}{suffix}").read_bytes() for turn in range(3)}) == 1


def video_marks(path: Path) -> tuple[str, str]:
    """A video's comment and description, as FFmpeg reads them."""
    with av.open(str(path)) as container:
        said = {key.lower(): text for key, text in container.metadata.items()}
    return said["comment"], said["description"]


@pytest.mark.parametrize(
    ("stated", "provenance"),
    [
        ("composite", "composite"),
        ("compositeWithTrainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"),
        # A server built before it was said: the mark that warns.
        (None, "compositeWithTrainedAlgorithmicMedia"),
    ],
)
def test_outputs_say_of_themselves_what_the_server_says_of_its_swapper(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path, stated: str | None,
    provenance: str,
) -> None:  # fmt: skip
    server.behavior.swapper, server.behavior.provenance = "a<b", stated
    for suffix in (".mp4", ".mkv"):
        code, _, _ = run(*arguments(photo, clip, tmp_path / f"out{suffix}", server))
        assert code == 0
        assert video_marks(tmp_path / f"out{suffix}") == (
            SENTENCES[provenance],
            f"Digital source type: {IPTC}{provenance}",
        )
    code, _, _ = run(*arguments(photo, photo, tmp_path / "out.png", server))
    assert code == 0
    spoken = [text for text in xmp_of(tmp_path / "out.png") if text.strip()]
    assert sorted(spoken) == sorted([SENTENCES[provenance], IPTC + provenance])


def test_a_kind_of_output_that_the_client_does_not_know_is_refused(
    run, server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    server.behavior.provenance = "digitalCapture"
    code, _, error = run(*arguments(photo, photo, tmp_path / "out.png", server))
    assert code == 1
    assert "says that its outputs are 'digitalCapture'" in error
    assert "update the client" in error
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.full((9, 9, 4), 99, np.uint8), "group.png has transparency: .jpg cannot hold it"),
        (np.full((9, 9, 3), 999, np.uint16), "group.png has more than 8 bits a channel"),
    ],
)
def test_what_a_photo_loses_is_said(
    run, server: FakeServer, photo: Path, tmp_path: Path, image: np.ndarray, text: str
) -> None:
    target = tmp_path / "group.png"
    cv2.imwrite(str(target), image)
    code, _, err = run(*arguments(photo, target, tmp_path / "out.jpg", server))
    assert code == 0
    assert text in err


def test_a_photo_is_read_upright(run, server: FakeServer, photo: Path, tmp_path: Path) -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, :20] = 255
    target = tmp_path / "turned.jpg"
    # EXIF orientation 6: the camera was turned, the top is on the right.
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    _, encoded = cv2.imencodeWithMetadata(
        ".jpg", image, [cv2.IMAGE_METADATA_EXIF], [np.frombuffer(exif, np.uint8)]
    )
    encoded.tofile(target)
    output = tmp_path / "out.png"
    assert run(*arguments(photo, target, output, server))[0] == 0
    written = cv2.imread(str(output))
    assert written.shape == (40, 20, 3)
    # JPEG's noise at the edge stays below 10 grey levels of 255 in the halves' middles.
    assert written[10].mean() < 10
    assert written[30].mean() > 245


def test_photos_of_one_person_are_averaged(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    code, _, _ = run(*arguments(photo, clip, tmp_path / "out.mp4", server), "--source", photo)
    assert code == 0


def test_several_photos_for_an_image_swapper_are_refused(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    server.behavior.source_kind, server.behavior.swapper = "image", "image_swapper_256"
    code, _, err = run(*arguments(photo, clip, tmp_path / "out.mp4", server), "--source", photo)
    assert code == 1
    assert "image_swapper_256 takes one photo, not 2" in err
    assert not (tmp_path / "out.mp4").exists()


def test_frames_without_a_face_are_counted_and_said(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    def lose_faces(value: int, context: object) -> None:
        server.behavior.faces = 0 if server.requests > 1 else 1

    server.behavior.fail = lose_faces
    code, out, err = run(*arguments(photo, clip, tmp_path / "out.mp4", server))
    assert code == 0
    assert "0 faces found, 12 frames without a face" in out
    assert "no face was found: the output shows what the input shows" in err


@pytest.mark.parametrize(
    ("flag", "value", "text"),
    [
        ("--faces", "0", "a whole number from 1 to 16, not '0'"),
        ("--faces", "many", "a whole number from 1 to 16, not 'many'"),
        ("--crf", "52", "quality of x264 is 0 (best) to 51, not 52"),
        ("--window", "0", "a whole number from 1 to 1024"),
        ("--score-threshold", "0", "greater than 0 and at most 1, not '0'"),
        ("--score-threshold", "nan", "greater than 0 and at most 1, not 'nan'"),
        ("--timeout-s", "-1", "a number of seconds above 0"),
        ("--reconnect-s", "-1", "a number of seconds, 0 or more"),
        ("--face-order", "biggest", "invalid choice: 'biggest'"),
        ("--transport", "pigeon", "invalid choice: 'pigeon'"),
    ],
)
def test_wrong_usage_ends_with_2(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path,
    flag: str, value: str, text: str,
) -> None:  # fmt: skip
    code, _, err = run(*arguments(photo, clip, tmp_path / "out.mp4", server), flag, value)
    assert code == 2
    assert text in err


def test_no_command_and_no_source_are_wrong_usage(run) -> None:
    assert run()[0] == 2
    code, _, err = run("swap", "--target", "a.mp4", "--output", "b.mp4")
    assert code == 2
    assert "one of --source, --swap and --assign says whose faces are put in" in err


def test_the_version_is_told(run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("frameswap 0.")


def test_the_document_names_every_transport() -> None:
    document = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
    for name in TRANSPORT_NAMES:
        assert f"`{name}`" in document


def test_the_installed_command_is_this_one() -> None:
    command = Path(sys.executable).with_name("frameswap")
    assert os.access(command, os.X_OK)
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("frameswap 0.")


def test_a_reader_that_has_enough_is_no_error() -> None:
    # a pipe whose reader has gone before anything was written
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "frameswap", "models"],
            stdout=closed, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == b""
