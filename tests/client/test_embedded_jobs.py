"""Jobs without a server: one is started for them, where the deployment side is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from fake_server import FakeServer
from frameswap import __main__ as command_line
from frameswap import embedded


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
