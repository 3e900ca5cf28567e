"""Damaged files, 500 of each kind from a seed: a result or a sentence, in bounded time and memory.

They are read in processes of their own: a decoder that crashes must not take the tests with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import Clip, write_clip

pytestmark = pytest.mark.e2e

COUNT = 500
MOST_MIB = 700
"""Of address-independent memory: the interpreter, FFmpeg and OpenCV take 150."""

WORKER = '''
import json, sys, time
from pathlib import Path
import cv2, numpy as np
sys.path.insert(0, sys.argv[3])
from frameswap import FrameswapError
from frameswap.photo import describe_losses, is_photo, open_photo, write_photo
from test_photo_formats import flip
from test_video import EDIT, copy_video
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
source, count = Path(sys.argv[1]), int(sys.argv[2])
content = source.read_bytes()
folder = source.parent / "fuzzed"
folder.mkdir()
results, slowest = {"result": 0, "sentence": 0}, 0.0
for seed in range(count):
    path = folder / f"in{source.suffix}"
    path.write_bytes(flip(content, seed, 1 + seed % 20))
    for left in folder.glob("out*"):
        left.unlink()
    began = time.monotonic()
    try:
        if is_photo(path):
            photo = open_photo(path)
            describe_losses(photo, folder / "out.png")
            write_photo(folder / "out.png", photo.image, edit=EDIT, force=True, alpha=photo.alpha,
                        metadata=photo.metadata)
        else:
            copy_video(path, folder / "out.mkv")
        results["result"] += 1
    except FrameswapError as error:
        assert str(error) and "\\n" not in str(error), error
        results["sentence"] += 1
        assert not list(folder.glob("out*"))
    slowest = max(slowest, time.monotonic() - began)
# Not getrusage's: that begins with what the process had that started this one.
status = Path("/proc/self/status").read_text()
peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps({**results, "slowest_s": slowest, "peak_mib": peak}))
'''


def make(path: Path) -> Path:
    if path.suffix in (".mp4", ".mkv"):
        return write_clip(path, Clip(frames=5, options={"preset": "ultrafast", "crf": "30"}))
    if path.suffix == ".webm":
        clip = Clip(frames=4, codec="libvpx-vp9", audio="libopus", rate=25,
                    time_base=Fraction(1, 25))  # fmt: skip
        return write_clip(path, clip)
    rows, columns = np.mgrid[0:60, 0:80]
    image = np.stack([rows * 3, columns * 2, rows + columns], axis=-1).astype(np.uint8)
    cv2.imwrite(str(path), image)
    return path


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "in.webm", "in.jpg", "in.png", "in.webp"])
def test_a_damaged_file_is_a_result_or_a_sentence(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(path), str(COUNT), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=560,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["result"] + found["sentence"] == COUNT
    # Each part of a PNG has a checksum, so none of them passes.
    assert found["result"] > 0 or path.suffix == ".png"
    assert found["slowest_s"] < 20
    assert found["peak_mib"] < MOST_MIB
