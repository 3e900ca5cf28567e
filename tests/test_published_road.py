"""The README's road to a published swapper, walked with stand-ins under the published names.

The real files may not be had here. These have exactly their tensor contracts, lie on a local HTTP
server, and are fetched, checked, built and served as the real ones would be.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frameswap import FaceSwapper, average_sources

import build_engines
from demo.make_clip import clip_of
from demo.photos import read_photo
from fetching import weights
from server.launcher import EmbeddedServer
from tests.generated_networks import recognizer_network, swapper_network

pytestmark = pytest.mark.e2e


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and stand-ins for inswapper_128 and w600k_r50 at their rows' addresses."""
    monkeypatch.setenv("FRAMESWAP_CACHE", str(tmp_path / "cache"))
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    handler = functools.partial(QuietHandler, directory=str(shelf))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    made = {
        "inswapper_128": swapper_network("inswapper_128"),
        "w600k_r50": recognizer_network("w600k_r50"),
    }
    for name, network in made.items():
        row = weights.WEIGHTS[name]
        content = network.SerializeToString()
        (shelf / row.filename).write_bytes(content)
        stand_in = replace(
            row,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            url=f"http://127.0.0.1:{server.server_port}/{row.filename}",
        )
        monkeypatch.setitem(weights.WEIGHTS, name, stand_in)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield tmp_path
    server.shutdown()
    server.server_close()
    thread.join()


def build(repository: Path, *options: str) -> int:
    command = ["--target", "cpu", "--swapper", "inswapper_128", "--detector", "scrfd_2.5g"]
    return build_engines.main([*command, "--repository", str(repository), *options])


def test_one_command_fetches_and_builds_and_the_swap_uses_it(
    published: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert build(published / "models", "--accept-licence") == 0
    assert weights.is_present("inswapper_128")
    frame = clip_of("gauss", frames=4).frame(1)
    with (
        EmbeddedServer(published / "models", target="cpu") as server,
        FaceSwapper(server.grpc_url) as swapper,
    ):
        assert (swapper.swapper, swapper.source_kind) == ("inswapper_128", "identity")
        sources = [swapper.encode_source(read_photo(name)) for name in ("newton", "gauss")]
        one, both = (
            swapper.swap(frame, source) for source in (sources[0], average_sources(sources))
        )
    assert sources[0].vector.shape == (512,)
    # An identity is unit length; float32 rounding over 512 terms.
    assert np.linalg.norm(sources[0].vector) == pytest.approx(1, abs=1e-5)
    assert (one.frame != frame).any()
    assert (one.frame[:20, :20] == frame[:20, :20]).all()
    assert (one.frame != both.frame).any(), "another identity must give another face"


def test_without_the_user_s_word_nothing_is_fetched(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(published / "models") == 1
    error = capsys.readouterr().err
    assert "has not been accepted" in error
    assert "--accept-licence" in error
    assert not weights.is_present("inswapper_128")


def test_a_published_file_that_was_exchanged_is_refused(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = weights.WEIGHTS["inswapper_128"].filename
    content = bytearray((published / "shelf" / name).read_bytes())
    content[-1] ^= 1
    (published / "shelf" / name).write_bytes(content)
    assert build(published / "models", "--accept-licence") == 1
    assert "expected SHA-256" in capsys.readouterr().err
    assert not weights.is_present("inswapper_128")
