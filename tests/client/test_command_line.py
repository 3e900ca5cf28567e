"""The command line: what it writes, what it says, and with which exit code it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path

import av
import cv2
import grpc
import numpy as np
import pytest
from clips import Clip, read_contents, write_clip
from fake_server import FakeServer, regions
from frameswap import __main__ as command_line
from frameswap import embedded
from frameswap.contract import Provenance
from frameswap.photo import write_photo
from frameswap.progress import Progress, format_duration
from frameswap.provenance import Edit
from frameswap.transport import TRANSPORT_NAMES


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), np.full((48, 64, 3), (10, 20, 30), np.uint8))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "in.mp4", Clip())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Run one command line in this process: exit code, standard output, standard error."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        try:
            code = command_line.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


def arguments(photo: Path, target: Path, output: Path, server: FakeServer) -> list[object]:
    return ["swap", "--source", photo, "--target", target, "--output", output,
            "--server", server.address]  # fmt: skip


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


def make_bad(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / f"bad_{kind}"
    if kind == "empty.png":
        path.touch()
    elif kind == "text.png":
        path.write_text("not a picture")
    elif kind == "cut.png":
        noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
        path.write_bytes(cv2.imencode(".png", noise)[1].tobytes()[:5000])
    elif kind == "folder.png":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing.png", "there is no file"),
        ("empty.png", "is empty"),
        ("text.png", "is damaged, cut off, or no picture"),
        ("cut.png", "is damaged, cut off, or no picture"),
        ("folder.png", "is a folder: give the photos in it one by one"),
    ],
)
def test_a_bad_source_is_one_sentence(
    run, server: FakeServer, clip: Path, tmp_path: Path, kind: str, text: str
) -> None:
    source = make_bad(kind, tmp_path)
    code, out, err = run(*arguments(source, clip, tmp_path / "out.mp4", server))
    assert (code, out) == (1, "")
    assert text in err
    assert source.name in err
    assert len(err.splitlines()) == 1
    assert server.requests == 0


@pytest.mark.parametrize("kind", ["missing.mp4", "empty.mp4", "text.mp4", "sound.mp4", "folder"])
def test_a_bad_target_is_one_sentence(
    run, server: FakeServer, photo: Path, tmp_path: Path, kind: str
) -> None:
    target = tmp_path / kind
    expected = {
        "missing.mp4": "there is no file",
        "empty.mp4": "is empty",
        "text.mp4": "is no video that FFmpeg reads",
        "sound.mp4": "has no video stream (it has audio)",
        "folder": "is a folder",
    }[kind]
    if kind == "empty.mp4":
        target.touch()
    elif kind == "text.mp4":
        target.write_text("not a video" * 100)
    elif kind == "folder":
        target.mkdir()
    elif kind == "sound.mp4":
        import av

        with av.open(str(target), "w") as container:
            stream = container.add_stream("aac", rate=48000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), "s16", "stereo")
            frame.sample_rate = 48000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    code, out, err = run(*arguments(photo, target, tmp_path / "out.mp4", server))
    assert (code, out) == (1, "")
    assert expected in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out.mp4").exists()


def test_a_cut_off_video_leaves_nothing_behind(
    run, server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    clip = write_clip(
        tmp_path / "in.mp4", Clip(frames=120, container_options={"movflags": "faststart"})
    )
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    code, _, err = run(*arguments(photo, clip, tmp_path / "out.mp4", server))
    assert code == 1
    assert "cut off" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.png", "in.mp4"]


def test_an_output_that_exists_is_kept_unless_forced(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    code, _, err = run(*arguments(photo, clip, output, server))
    assert code == 1
    assert "exists already: choose another name, or overwrite it with --force" in err
    assert output.read_bytes() == b"precious"
    assert run(*arguments(photo, clip, output, server), "--force")[0] == 0
    assert len(read_contents(output).frames) == 12


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("out.mpg", "to standard output (-), not '.mpg'"),
        ("out", "a video is written as .mp4, .m4v, .mov, .mkv, .ts, .avi, .webm, .gif,"),
        ("none/out.mp4", "does not exist: create it first"),
    ],
)
def test_an_output_that_cannot_be_is_said_before_any_work(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path, name: str, text: str
) -> None:
    code, _, err = run(*arguments(photo, clip, tmp_path / name, server))
    assert code == 1
    assert text in err
    assert server.requests == 0


def test_a_photo_for_a_video_name_is_said(
    run, server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    code, _, err = run(*arguments(photo, photo, tmp_path / "out.mp4", server))
    assert code == 1
    assert ".webp, .tif, .tiff, .bmp, .avif, not '.mp4'" in err


def test_a_source_without_a_face_names_the_file_and_what_helps(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    server.behavior.faces = 0
    code, _, err = run(*arguments(photo, clip, tmp_path / "out.mp4", server))
    assert code == 1
    assert "face.png: no face was found" in err
    assert "--score-threshold" in err


def test_a_source_with_two_faces_names_the_file_and_what_helps(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    server.behavior.faces = 2
    command = arguments(photo, clip, tmp_path / "out.mp4", server)
    code, _, err = run(*command)
    assert code == 1
    assert "face.png: 2 faces were found" in err
    assert "--source-face" in err
    assert run(*command, "--source-face", "left-to-right")[0] == 0


def test_a_fault_in_mid_job_leaves_nothing_behind(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    def fail(value: int, context: grpc.ServicerContext) -> None:
        if server.requests > 5:
            context.abort(grpc.StatusCode.INTERNAL, "CUDA error: out of memory")

    server.behavior.fail = fail
    code, _, err = run(*arguments(photo, clip, tmp_path / "out.mp4", server))
    assert code == 1
    assert "CUDA error: out of memory" in err
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.png", "in.mp4"]


def test_an_unreachable_server_is_one_sentence(
    run, photo: Path, clip: Path, tmp_path: Path
) -> None:
    code, _, err = run(
        "swap", "--source", photo, "--target", clip, "--output", tmp_path / "out.mp4",
        "--server", "127.0.0.1:1", "--timeout-s", 5,
    )  # fmt: skip
    assert code == 1
    assert "the server at 127.0.0.1:1 cannot be reached" in err
    assert len(err.splitlines()) == 1


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


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)])
def test_a_stopped_job_without_a_whole_segment_leaves_nothing_behind(
    server: FakeServer, photo: Path, tmp_path: Path, numbers: tuple[signal.Signals, ...]
) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(frames=200, audio=None))
    server.behavior.fail = lambda value, context: time.sleep(0.05)
    command = [sys.executable, "-m", "frameswap",
               *map(str, arguments(photo, clip, tmp_path / "out.mp4", server)),
               "--window", "2"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        try:
            deadline = time.monotonic() + 30
            while server.requests < 20 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert any(".part" in path.name for path in tmp_path.iterdir())
            if len(numbers) > 1:
                # So that the first Ctrl-C has frames to wait for when the second one comes.
                server.behavior.goes_on.clear()
                time.sleep(0.5)
            for number in numbers:
                job.send_signal(number)
                time.sleep(0.5)
            _, err = job.communicate(timeout=30)
        finally:
            job.kill()
    assert job.returncode == 128 + numbers[0]
    assert err == ("frameswap: stopped\n" if numbers[0] == signal.SIGINT else "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.png", "in.mp4"]


def test_a_job_can_be_stopped_while_its_server_hangs(
    server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(frames=200, audio=None))
    command = [sys.executable, "-m", "frameswap",
               *map(str, arguments(photo, clip, tmp_path / "out.mp4", server)),
               "--transport", "system", "--window", "8"]  # fmt: skip
    server.behavior.fail = lambda value, context: time.sleep(0.05)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        try:
            deadline = time.monotonic() + 30
            while server.requests < 20 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert regions(server.address)
            server.behavior.goes_on.clear()
            # Until what was under way is answered, and what came after it hangs.
            time.sleep(0.5)
            job.send_signal(signal.SIGINT)
            # Five seconds for what is under way, five for the first goodbye: not sixty, and not
            # eight times that.
            _, err = job.communicate(timeout=30)
        finally:
            job.kill()
    assert (job.returncode, err) == (130, "frameswap: stopped\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.png", "in.mp4"]
    assert not regions(server.address)


def test_commands_of_the_deployment_side_are_explained_without_it(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "entry_points", lambda group: ())
    code, _, err = run("gateway", "--port", "8080")
    assert code == 1
    assert "`frameswap gateway` is a package of its own" in err
    for name in ("serve", "models"):
        code, _, err = run(name, "--grpc-port", "8001")
        assert code == 1
        assert err == (
            f"frameswap: `frameswap {name}` belongs to the deployment side, which is not "
            f"installed: install the whole project from its checkout\n"
        )


def test_an_embedded_server_that_is_not_installed_is_explained(
    run, photo: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "entry_points", lambda group: ())
    code, _, err = run(
        "swap", "--source", photo, "--target", clip, "--output", tmp_path / "out.mp4"
    )
    assert code == 1
    assert err.startswith("frameswap: no embedded server is installed beside this client")
    assert len(err.splitlines()) == 1
    assert "--server HOST:PORT" in err


class FakeEmbedded:
    """Stands for the deployment side's EmbeddedServer."""

    running: list[FakeServer] = []  # noqa: RUF012 - a test's record
    made: list[tuple[Path, dict[str, object]]] = []  # noqa: RUF012
    error: Exception | None = None

    def __init__(self, repository: Path, **options: object) -> None:
        self.made.append((repository, options))
        self._server = FakeServer()

    @property
    def grpc_url(self) -> str:
        return self._server.address

    def start(self) -> None:
        if self.error is not None:
            raise self.error
        self.running.append(self._server.start())

    def stop(self) -> None:
        self._server.stop()
        self.running.remove(self._server)

    @contextmanager
    def kept_alive(self, report: Callable[[str], None]) -> Iterator[None]:
        report("something died, and is back")
        yield


class OwnError(Exception):
    """An error of the same package as FakeEmbedded."""


@pytest.fixture
def fake_embedded(monkeypatch: pytest.MonkeyPatch) -> type[FakeEmbedded]:
    entry = EntryPoint("default", f"{__name__}:FakeEmbedded", embedded.EMBEDDED_GROUP)
    monkeypatch.setattr(embedded, "entry_points", lambda group: (entry,))
    monkeypatch.setattr(FakeEmbedded, "made", [])
    monkeypatch.setattr(FakeEmbedded, "error", None)
    return FakeEmbedded


def test_without_a_server_an_embedded_one_is_started_and_stopped(
    run, photo: Path, clip: Path, tmp_path: Path, fake_embedded: type[FakeEmbedded]
) -> None:
    code, out, err = run(
        "swap", "--source", photo, "--target", clip, "--output", tmp_path / "out.mp4"
    )
    assert code == 0
    assert "12 frames" in out
    assert "starting the embedded server" in err
    ((repository, options),) = fake_embedded.made
    assert repository is None, "the deployment side knows its own"
    assert options == {
        "target": "cpu",
        "models": ["find_faces_i420", "swap_found_faces_i420", "encode_source_bgr"],
        "frame_size": (64, 48),
        "requests_in_flight": 6,
    }
    assert fake_embedded.running == []


def test_an_embedded_server_is_stopped_after_a_failed_job(
    run, photo: Path, clip: Path, tmp_path: Path, fake_embedded: type[FakeEmbedded]
) -> None:
    code, _, err = run(
        "swap", "--source", photo, "--source", photo, "--target", photo,
        "--output", tmp_path / "out.png", "--repository", tmp_path, "--faces", 9,
    )  # fmt: skip
    assert code == 1
    assert "1 to 4 sources on this server, one a face, not 9" in err
    assert fake_embedded.made[0][0] == tmp_path
    assert fake_embedded.made[0][1]["models"] == [
        "find_faces_bgr", "swap_found_faces_bgr", "encode_source_bgr",
    ]  # fmt: skip
    assert fake_embedded.running == []


def test_an_embedded_server_that_does_not_start_is_explained(
    run, photo: Path, clip: Path, tmp_path: Path, fake_embedded: type[FakeEmbedded]
) -> None:
    command = ["swap", "--source", photo, "--target", clip, "--output", tmp_path / "out.mp4"]
    fake_embedded.error = OwnError("the models are not built; run `make models`")
    code, _, err = run(*command)
    assert code == 1
    assert err.endswith("frameswap: the models are not built; run `make models`\n")
    # Anything else is a bug, and keeps its traceback.
    fake_embedded.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run(*command)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(300, stream, clock=clock)
    for done in range(1, 251):
        clock.now += 0.125
        progress.update(done)
    progress.clear()
    assert stream.getvalue().splitlines() == [
        "80 of 300 frames (27 %), 8.0 frames/s, 28 s left",
        "160 of 300 frames (53 %), 8.0 frames/s, 18 s left",
        "240 of 300 frames (80 %), 8.0 frames/s, 8 s left",
    ]


def test_a_terminal_gets_one_line_that_is_rewritten_and_taken_away() -> None:
    stream, clock = Terminal(), Clock()
    progress = Progress(None, stream, clock=clock)
    for done in (1, 2, 3):
        clock.now += 0.25
        progress.update(done)
    progress.clear()
    lines = stream.getvalue().split("\r")
    assert lines[1:] == [
        "1 frames, 4.0 frames/s\x1b[K", "2 frames, 4.0 frames/s\x1b[K",
        "3 frames, 4.0 frames/s\x1b[K", "\x1b[K",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (185, "3:05 min"), (3725, "1:02:05 h")],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_more_frames_than_were_promised_are_not_more_than_all() -> None:
    clock = Clock()
    progress = Progress(10, io.StringIO(), clock=clock)
    clock.now += 2
    assert progress.describe(12) == "12 of 10 frames (100 %), 6.0 frames/s, 0 s left"


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
