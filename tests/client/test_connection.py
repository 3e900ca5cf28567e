"""Which way a connection takes: around proxies, and with the key of a server of this user."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from fake_server import FakeServer
from frameswap import FaceSwapper, ServerUnreachable, keys
from frameswap.connection import Connection

PROXIES = ("http_proxy", "https_proxy", "grpc_proxy")


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("no_proxy", "no_grpc_proxy", *PROXIES):
        monkeypatch.delenv(name, raising=False)
    return "http://somebody:secret@127.0.0.1:9"


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("scheme", ["", "dns:///", "ipv4:"])
def test_this_machine_is_never_reached_through_a_proxy(
    server: FakeServer, name: str, scheme: str, dead_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, dead_proxy)
    with FaceSwapper(scheme + server.address) as swapper:
        assert swapper.swapper == "fake_identity"


@pytest.mark.parametrize("name", PROXIES)
def test_another_machine_is_and_the_error_names_the_proxy_without_its_password(
    name: str, dead_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, dead_proxy)
    connection = Connection("192.0.2.1:8001", timeout_s=20)
    try:
        with pytest.raises(ServerUnreachable, match=rf"127.0.0.1:9 that {name} names") as told:
            connection.check_ready()
    finally:
        connection.close()
    assert "secret" not in str(told.value)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_a_key_is_its_users_alone(runtime: Path) -> None:
    path = keys.write_key(8001, "one")
    assert keys.write_key(8001, "two") == path
    assert keys.read_key(8001) == "two"
    assert keys.read_key(8002) == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o755])
def test_a_folder_that_others_can_read_or_write_holds_no_key(runtime: Path, mode: int) -> None:
    path = keys.write_key(8001, "key")
    path.parent.chmod(mode)
    assert keys.read_key(8001) == ""
    with pytest.raises(PermissionError, match="is not this user's alone"):
        keys.write_key(8001, "key")


def test_a_link_or_a_file_that_others_can_read_is_no_key(runtime: Path) -> None:
    path = keys.write_key(8001, "key")
    path.chmod(0o644)
    assert keys.read_key(8001) == ""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    assert keys.read_key(8001) == ""


def test_without_a_runtime_folder_keys_lie_in_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert keys.key_path(8001).parent.parent == tmp_path
    keys.write_key(8001, "key")
    assert keys.read_key(8001) == "key"
