"""A checkout, a Python, a cache and a repository below paths that a shell would take apart."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fetching.cache_folder import cache_dir
from server.distribution import prepare
from server.scratch import is_plain, plain_path
from tests.server.tiny_models import write_tiny_repository

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("client", "engines", "fetching", "graphs", "networks", "server")

NAMES = ["blank dir", "umläut", "quote'd \"twice\"", "semi;colon & $HOME (x) *", "colon:percent%41"]

SERVED = ["umläut, quote'd \"twice\"", "semi;colon & $HOME (x) *", "colon:percent%41"]
"""All of their characters in fewer paths: each is copied to, and a server is started below it."""

SERVE_ONE = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/client"]
from server import launcher
from tests.server.test_launcher import assert_serves
assert launcher.__file__.startswith(sys.argv[1]), launcher.__file__
with launcher.EmbeddedServer(
    Path(sys.argv[2]), models=["invert_twice"], one_process=sys.argv[3] == "one",
    log_file=Path(sys.argv[4]),
) as server:
    from tests.server.asking import Asker
    import numpy as np
    frame = np.full((1, 8, 8, 3), 5, np.uint8)
    asker = Asker(server.grpc_url)
    answer = asker.ask("invert_twice", frame=frame, options=np.zeros((1, 4), np.float32))
    asker.client.close()
    assert (answer["twice"] == frame).all()
    print("served")
"""


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder by hard links where that is possible."""
    try:
        shutil.copytree(source, target, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)


def make_environment(folder: Path) -> Path:
    """A virtual environment with this one's packages; its Python."""
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(packages, "all.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "layout"),
    # Those that a URI would take apart need no second layout.
    [(name, how) for name in SERVED for how in ("one", "each") if how == "each" or ":" not in name],
)
def test_everything_below_an_odd_path_is_served(tmp_path: Path, name: str, layout: str) -> None:
    odd = tmp_path / name
    for room in (*ROOMS, "tests"):
        link_tree(ROOT / room, odd / "checkout" / room)
    prepare()
    for folder in cache_dir().glob("triton/*"):
        if folder.is_dir() and not folder.name.startswith(("perf", "backends")):
            link_tree(folder, odd / "cache" / "triton" / folder.name)
    repository = odd / "repository"
    repository.mkdir()
    write_tiny_repository(repository)
    # A colon parts the folders of PATH: no Python finds its packages below one.
    python = make_environment((tmp_path if ":" in name else odd) / "environment")
    done = subprocess.run(
        [
            python, "-c", SERVE_ONE, str(odd / "checkout"), str(repository), layout,
            str(odd / "server.log"),
        ],
        env={
            "PATH": os.environ["PATH"], "FRAMESWAP_CACHE": str(odd / "cache"), "LC_ALL": "C",
            "HOME": str(odd), "TMPDIR": str(odd),
        },
        cwd=odd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "served\n", done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_path_is_reached_through_a_link(tmp_path: Path, name: str) -> None:
    odd = tmp_path / name
    odd.mkdir()
    assert not is_plain(odd)
    link = plain_path(odd, tmp_path, "link")
    assert is_plain(link)
    assert link.resolve() == odd
    assert plain_path(odd, tmp_path, "link") == link


def test_a_plain_path_stays_as_it_is(tmp_path: Path) -> None:
    assert plain_path(tmp_path, tmp_path / "scratch", "link") == tmp_path.resolve()
