"""docs/extending.md, followed: a copy of the checkout, changed by its blocks, built and served."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from demo.make_clip import clip_of
from demo.photos import read_photo
from fetching.cache_folder import cache_dir
from fetching.files import TEMPORARY_PREFIX
from tests.conftest import FOR_CPU
from tests.generated_networks import NetworkWriter

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text()
COPIED = (
    "client", "demo", "engines", "fetching", "graphs", "model_repository", "networks", "server",
    "tests", "build_engines.py", "pyproject.toml", "README.md",
)  # fmt: skip

SWAP_ONE = """
import sys
import numpy as np
from pathlib import Path
from frameswap import FaceSwapper
from server.launcher import EmbeddedServer

frame, photo = np.load(sys.argv[2]), np.load(sys.argv[3])
ensembles = ["swap_faces_bgr", "encode_source_bgr"]
with EmbeddedServer(Path(sys.argv[1]), models=ensembles) as server:
    with FaceSwapper(server.grpc_url) as swapper:
        swapped = swapper.swap(frame, swapper.encode_source(photo))
        print(swapper.swapper)
np.savez(sys.argv[4], frame=swapped.frame, faces=swapped.faces)
"""


def section(head: str) -> str:
    (body,) = re.findall(rf"^## {head}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return body


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Kind, file and content of every block that starts with a file's name, in order."""
    return re.findall(r"^```(diff|python) (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def apply_block(kind: str, path: Path, content: str) -> None:
    """Write a new file, or change one where the block's own lines say, which must be one place."""
    if kind == "python":
        assert not path.exists(), f"{path} is there already"
        path.write_text(content)
        return
    lines = content.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    text = path.read_text()
    assert text.count(before) == 1, f"these lines are not once in {path.name}:\n{before}"
    path.write_text(text.replace(before, after))


class Checkout:
    """A copy of the checkout that runs its own code, and keeps weights to itself."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root.parent / "cache"
        # Another test may be bringing one just now.
        unfinished = shutil.ignore_patterns(f"{TEMPORARY_PREFIX}*", "*.part")
        shutil.copytree(cache_dir() / "weights", self.cache / "weights", ignore=unfinished)
        for entry in cache_dir().iterdir():
            if entry.name != "weights":
                (self.cache / entry.name).symlink_to(entry)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                leave_out = shutil.ignore_patterns("__pycache__", "configs", "*.onnx", "*.json")
                shutil.copytree(source, root / name, ignore=leave_out)
            else:
                shutil.copyfile(source, root / name)

    def follow(self, text: str) -> None:
        found = blocks(text)
        assert found
        for kind, name, content in found:
            apply_block(kind, self.root / name, content)

    def run(self, *arguments: str | Path) -> str:
        path = os.pathsep.join([str(self.root), str(self.root / "client")])
        environment = {**os.environ, "PYTHONPATH": path, "FRAMESWAP_CACHE": str(self.cache)}
        finished = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr + finished.stdout
        return finished.stdout


@pytest.fixture
def checkout(tmp_path: Path, real_repository: Path) -> Checkout:
    """With the networks that any build has brought into the cache."""
    return Checkout(tmp_path / "checkout")


def swap_one(checkout: Checkout, tmp_path: Path) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """The deployed swapper's name, a frame of Gauss, the same with Newton's face, and `faces`."""
    frame = clip_of("gauss", frames=4).frame(1)
    np.save(tmp_path / "frame.npy", frame)
    np.save(tmp_path / "photo.npy", read_photo("newton"))
    script = tmp_path / "swap_one.py"
    script.write_text(SWAP_ONE)
    answer = tmp_path / "answer.npz"
    models = checkout.root / "model_repository"
    name = checkout.run(
        script, models, tmp_path / "frame.npy", tmp_path / "photo.npy", answer
    ).strip()
    with np.load(answer) as found:
        return name, frame, found["frame"], found["faces"]


@pytest.mark.e2e
def test_a_step_is_added_as_the_page_says(checkout: Checkout, tmp_path: Path) -> None:
    checkout.follow(section("Add a step"))
    checkout.run("-m", "engines.write_configs")
    checkout.run("build_engines.py", *FOR_CPU)
    tests = ["tests/graphs/test_face_grayer.py", "tests/test_model_repository.py"]
    checkout.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    _, frame, swapped, faces = swap_one(checkout, tmp_path)
    assert (faces[:, 4] > 0).sum() == 1
    x, y = faces[0, 5:15].reshape(5, 2).mean(0).round().astype(int)
    middle = swapped[y - 8 : y + 8, x - 8 : x + 8].astype(int)
    # The mask is 1 there, so a pixel is the gray crop's; 1: each channel is rounded by itself.
    assert (middle.max(-1) - middle.min(-1)).max() <= 1
    saturation = cv2.cvtColor(frame, cv2.COLOR_BGR2HSV)[y - 8 : y + 8, x - 8 : x + 8, 1]
    assert saturation.mean() > 40, "the painting has colour there"


@pytest.mark.e2e
def test_a_swapper_is_added_as_the_page_says(checkout: Checkout, tmp_path: Path) -> None:
    text = section(r"Add a swapper")
    checkout.follow(text)
    network = NetworkWriter(0)
    style = network.linear("source", 128, 3)
    style = network.node("Reshape", style, network.constant([1, 3, 1, 1]))
    mixed = network.node("Add", network.conv("target", 3, 3, 3, pads=[1] * 4), style)
    network.node("Tanh", mixed, output="output")
    image: list[int | str] = [1, 3, 256, 256]
    model = network.model({"target": image, "source": [1, 128]}, {"output": image})
    (checkout.root / "mine_256.onnx").write_bytes(model.SerializeToString())
    (commands,) = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for command in commands.splitlines():
        program, *arguments = command.split()
        checkout.run(*(["-m", "frameswap"] if program == "frameswap" else []), *arguments)
    name, frame, swapped, faces = swap_one(checkout, tmp_path)
    assert name == "mine_256"
    assert (faces[:, 4] > 0).sum() == 1
    assert (swapped != frame).any()
    assert (swapped[:20, :20] == frame[:20, :20]).all()


def test_a_block_that_fits_nowhere_or_twice_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text("a = 1\nb = 2\na = 1\n")
    for block in (" c = 3\n+d = 4\n", " a = 1\n+d = 4\n"):
        with pytest.raises(AssertionError, match="not once in file"):
            apply_block("diff", path, block)
    apply_block("diff", path, " a = 1\n-b = 2\n+b = 3\n")
    assert path.read_text() == "a = 1\nb = 3\na = 1\n"


def test_every_block_of_the_page_names_a_file_or_is_a_command() -> None:
    kinds = re.findall(r"^```(\S+)(?: \S+)?$", PAGE, re.MULTILINE)
    assert set(kinds) == {"diff", "python", "sh"}
    assert len(blocks(PAGE)) == sum(kind != "sh" for kind in kinds)
