"""TLS and tokens on the client's side; tests/deploy/test_tls.py tries them at real servers."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest
from frameswap import BadOptions, FaceSwapper, ServerCredentials, ServerUnreachable, UnreadableFile
from frameswap.__main__ import main
from frameswap.credentials import add_credentials, read_credentials


def read(*words: str) -> ServerCredentials | None:
    parser = ArgumentParser()
    add_credentials(parser)
    return read_credentials(parser.parse_args(words))


def test_without_flags_everything_is_in_clear() -> None:
    assert read() is None


def test_every_flag_is_a_field() -> None:
    assert read("--tls") == ServerCredentials()
    words = [
        "--tls-authority", "a", "--tls-certificate", "c", "--tls-key", "k", "--tls-name", "n",
        "--token-file", "t",
    ]  # fmt: skip
    assert read(*words) == ServerCredentials(
        authority=Path("a"), certificate=Path("c"), key=Path("k"), name="n", token=Path("t")
    )


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(BadOptions, match="go together"):
        read("--tls-certificate", "c")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    credentials = ServerCredentials(authority=tmp_path / "ca.crt")
    with pytest.raises(UnreadableFile, match=r"ca\.crt cannot be read: No such file"):
        FaceSwapper("localhost:1", credentials=credentials)


def test_a_server_in_clear_is_no_server_with_tls(server: object) -> None:
    address = str(server.address)  # type: ignore[attr-defined]
    with pytest.raises(ServerUnreachable):
        FaceSwapper(address, credentials=ServerCredentials(), timeout_s=5)


def test_the_embedded_server_speaks_no_tls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes(_png())
    words = ["swap", "--source", photo, "--target", photo, "--output", tmp_path / "b.png", "--tls"]
    assert main([str(word) for word in words]) == 1
    assert "the embedded server speaks no TLS" in capsys.readouterr().err


def _png() -> bytes:
    import cv2
    import numpy as np

    return bytes(cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1])
