"""Several servers, and those that go away, come back, are overloaded or want to know who asks."""

from __future__ import annotations

import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from fake_server import Behavior, FakeServer, sleep_s
from frameswap import (
    BadOptions,
    ContractMismatch,
    FaceSwapper,
    RequestRejected,
    Security,
    ServerNotReady,
    ServerOverloaded,
    ServerUnreachable,
    Source,
)
from frameswap.errors import from_status
from frameswap.server_settings import add_security, read_named_server, read_server
from frameswap.servers import Servers
from test_swapper import PHOTO, make_frame

from tests.deploy.certificates import issue

SOURCE = Source(np.ones(4, np.float32), "identity", "fake_identity", np.zeros((0, 15), np.float32))


def swap_all(swapper: FaceSwapper, count: int) -> list[int]:
    """The value of each frame that came back, in the order in which they came."""
    stream = swapper.stream((make_frame(value) for value in range(count)), SOURCE)
    return [255 - int(swapped.frame[0, 0]) for swapped in stream]


def both(a: FakeServer, b: FakeServer) -> str:
    return f"{a.address},{b.address}"


@pytest.mark.parametrize("transport", ["grpc", "system"])
def test_frames_go_to_all_servers_and_come_back_in_order(transport: str) -> None:
    with FakeServer() as a, FakeServer() as b:
        a.behavior.fail = b.behavior.fail = sleep_s(0.01)
        with FaceSwapper(both(a, b), in_flight=2, transport=transport) as swapper:
            assert swap_all(swapper, 60) == list(range(60))
        assert min(a.requests, b.requests) > 15
        assert max(a.most_running, b.most_running) <= 2


def test_the_next_frame_goes_to_the_server_with_the_fewest_in_flight() -> None:
    with FakeServer() as slow, FakeServer() as fast:
        slow.behavior.fail, fast.behavior.fail = sleep_s(0.2), sleep_s(0.005)
        with FaceSwapper(both(slow, fast), in_flight=4) as swapper:
            assert swap_all(swapper, 60) == list(range(60))
        assert fast.requests > 1.2 * slow.requests


@pytest.mark.parametrize("transport", ["grpc", "system"])
def test_one_of_two_that_dies_costs_no_frame(transport: str) -> None:
    with FakeServer() as a, FakeServer() as b:
        a.behavior.fail = b.behavior.fail = sleep_s(0.01)
        with FaceSwapper(both(a, b), in_flight=4, transport=transport, reconnect_s=0) as swapper:
            threading.Timer(0.3, a.stop).start()
            assert swap_all(swapper, 100) == list(range(100))


def test_one_of_two_that_comes_back_gets_frames_again() -> None:
    with FakeServer() as a, FakeServer() as b:
        a.behavior.fail = b.behavior.fail = sleep_s(0.02)
        port = a.port
        with FaceSwapper(both(a, b), in_flight=4) as swapper:
            stream = swapper.stream((make_frame(value) for value in range(200)), SOURCE)
            done = [255 - int(next(stream).frame[0, 0]) for _ in range(20)]
            a.stop()
            done += [255 - int(next(stream).frame[0, 0]) for _ in range(20)]
            before = a.requests
            a.start(port)
            done += [255 - int(swapped.frame[0, 0]) for swapped in stream]
        assert done == list(range(200))
        assert a.requests > before


def test_one_of_two_that_is_not_there_at_the_start_is_not_missed() -> None:
    with FakeServer() as a, FaceSwapper(f"127.0.0.1:1,{a.address}", timeout_s=5) as swapper:
        assert swap_all(swapper, 20) == list(range(20))


def test_one_of_two_that_hangs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frameswap.stream._HEALTH_S", 0.3)
    monkeypatch.setattr("frameswap.one_server.HEALTH_TIMEOUT_S", 0.3)
    class HangingServer(FakeServer):
        def ServerReady(self, request: object, context: object) -> object:
            self.behavior.goes_on.wait()
            return super().ServerReady(request, context)

    with HangingServer() as a, FakeServer() as b:
        with FaceSwapper(both(a, b), in_flight=2, transport="grpc") as swapper:
            a.behavior.goes_on.clear()
            started_s = time.monotonic()
            assert swap_all(swapper, 30) == list(range(30))
            assert time.monotonic() - started_s < 15
        a.behavior.goes_on.set()


def test_servers_of_different_swappers_are_refused() -> None:
    with (
        FakeServer() as a,
        FakeServer(Behavior(swapper="other")) as b,
        pytest.raises(ContractMismatch, match="has the swapper other and others have fake_id"),
    ):
        FaceSwapper(both(a, b))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams"),
        (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size"),
    ],
)
def test_an_overloaded_server_is_given_less_and_no_frame_is_lost(
    server: FakeServer, code: grpc.StatusCode, text: str
) -> None:
    def refuse_more_than_two(value: int, context: grpc.ServicerContext) -> None:
        if server.running > 2:
            context.abort(code, text)
        time.sleep(0.01)

    with FaceSwapper(server.address, in_flight=16, transport="grpc") as swapper:
        server.behavior.fail = refuse_more_than_two
        assert swap_all(swapper, 60) == list(range(60))
    # Not one refusal for each frame and more: it slowed down.
    assert server.requests < 60 * 4


def test_a_server_that_stays_overloaded_is_given_up_in_time(server: FakeServer) -> None:
    with FaceSwapper(server.address, reconnect_s=0.5) as swapper:
        server.behavior.fail = lambda value, context: context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "full"
        )
        with pytest.raises(ServerOverloaded, match=r"more to do than it takes .*--window"):
            swapper.swap(make_frame(1), SOURCE)
    assert server.requests < 20


def test_a_message_that_is_too_large_is_no_overload() -> None:
    error = from_status(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)",
        address="host:1", doing="while testing",
    )  # fmt: skip
    assert type(error) is RequestRejected


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.UNKNOWN, "Stream removed"),
    ],
)
def test_a_stream_that_was_cut_on_the_way_is_a_lost_connection(
    code: grpc.StatusCode, text: str
) -> None:
    error = from_status(code, text, address="host:1", doing="while testing")
    assert type(error) is ServerUnreachable


def test_a_server_that_is_leaving_is_not_one_of_the_wrong_contract(server: FakeServer) -> None:
    with FaceSwapper(server.address, in_flight=2, reconnect_s=20) as swapper:
        stream = swapper.stream((make_frame(value) for value in range(20)), SOURCE)
        done = [255 - int(next(stream).frame[0, 0]) for _ in range(5)]
        models = server.behavior.models

        def leave(value: int, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'swap_faces_i420'")

        def return_() -> None:
            server.behavior.fail, server.behavior.models = None, models

        server.behavior.fail, server.behavior.models = leave, ()
        threading.Timer(1.0, return_).start()
        done += [255 - int(swapped.frame[0, 0]) for swapped in stream]
    assert done == list(range(20))


def test_a_server_that_left_for_good_says_so(server: FakeServer) -> None:
    with FaceSwapper(server.address, reconnect_s=0.3) as swapper:
        swapper.swap(make_frame(1), SOURCE)
        server.behavior.fail = lambda value, context: context.abort(
            grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'swap_faces_i420'"
        )
        with pytest.raises(ServerNotReady, match="had the model swap_faces_i420 and has not now"):
            swapper.swap(make_frame(1), SOURCE)


def test_a_photo_is_encoded_when_the_server_is_back(server: FakeServer) -> None:
    with FaceSwapper(server.address, reconnect_s=20) as swapper:
        port = server.port
        server.stop()
        threading.Timer(0.5, server.start, [port]).start()
        assert swapper.encode_source(PHOTO).kind == "identity"


def test_a_name_stands_for_all_addresses_behind_it(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer() as other:
        numbers = {"ours": [server.port]}
        monkeypatch.setattr(
            "frameswap.servers.socket.getaddrinfo",
            lambda host, port, type: [
                (2, 1, 6, "", ("127.0.0.1", number)) for number in numbers[host]
            ],
        )
        # The port is the name's: addresses differ in their hosts, so here both are one.
        servers = Servers(
            f"dns:///ours:{server.port}", timeout_s=5, transport="grpc", most=2, security=None
        )
        try:
            assert [each.address for each in servers.all] == [server.address]
        finally:
            servers.close()
        assert other.requests == 0


def test_a_name_that_nobody_knows_is_said() -> None:
    with pytest.raises(ServerUnreachable, match=r"name nobody\.invalid is not known"):
        FaceSwapper("dns:///nobody.invalid:8001")


def test_localhost_is_a_name(server: FakeServer) -> None:
    with FaceSwapper(f"dns:///localhost:{server.port}", timeout_s=5) as swapper:
        assert swap_all(swapper, 5) == list(range(5))


class Certificates:
    """A server's called localhost and a client's, of one authority."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.server = issue(authority, folder / "server", "localhost", "127.0.0.1")
        self.client = issue(authority, folder / "client", "client.example.org")

    def of_server(self, *, mutual: bool) -> object:
        return grpc.ssl_server_credentials(
            [(self.server.key.read_bytes(), self.server.certificate.read_bytes())],
            root_certificates=self.server.authority.read_bytes() if mutual else None,
            require_client_auth=mutual,
        )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_holds_the_server_to_its_certificate(certificates: Certificates) -> None:
    with FakeServer(credentials=certificates.of_server(mutual=False)) as server:
        security = Security(ca=certificates.client.authority, token="secret")
        with FaceSwapper(server.address, security=security, timeout_s=10) as swapper:
            assert swap_all(swapper, 5) == list(range(5))
        assert server.tokens == {"Bearer secret"}
        with FaceSwapper(
            f"dns:///localhost:{server.port}", security=security, timeout_s=10
        ) as swapper:
            assert swap_all(swapper, 5) == list(range(5))
        for wrong in (None, Security(tls=True)):
            with pytest.raises(ServerUnreachable):
                FaceSwapper(server.address, security=wrong, timeout_s=5)


def test_mutual_tls_wants_the_clients_certificate(certificates: Certificates) -> None:
    with FakeServer(credentials=certificates.of_server(mutual=True)) as server:
        known = Security(
            ca=certificates.client.authority,
            certificate=certificates.client.certificate,
            key=certificates.client.key,
        )
        with FaceSwapper(server.address, security=known, timeout_s=10) as swapper:
            assert swap_all(swapper, 5) == list(range(5))
        with pytest.raises(ServerUnreachable):
            FaceSwapper(
                server.address, security=Security(ca=certificates.client.authority), timeout_s=5
            )


def test_a_token_does_not_go_to_another_machine_in_clear(server: FakeServer) -> None:
    with pytest.raises(BadOptions, match="in clear, for everybody on the way to read"):
        FaceSwapper("192.0.2.1:8001", security=Security(token="secret"))
    with FaceSwapper(server.address, security=Security(token="secret")) as swapper:
        swap_all(swapper, 1)
    assert server.tokens == {"Bearer secret"}


def test_a_token_does_not_come_into_a_log() -> None:
    assert "secret" not in repr(Security(token="secret"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"certificate": Path("a")}, "go together"),
        ({"key": Path("a")}, "go together"),
        ({"token": "a\nb"}, "printable ASCII"),
    ],
)
def test_security_that_makes_no_sense_is_refused(arguments: dict, text: str) -> None:
    with pytest.raises(BadOptions, match=text):
        Security(**arguments)


def settings(
    words: list[str],
    environment: dict[str, str],
    home: Path,
    read: Callable[..., tuple[str | None, Security]] = read_server,
) -> tuple[str | None, Security]:
    parser = ArgumentParser()
    parser.add_argument("--server")
    add_security(parser)
    return read(parser.parse_args(words), environment, home=home)


def test_options_go_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "frameswap"
    folder.mkdir(parents=True)
    (folder / "token").write_text("of-file\n")
    (folder / "config.toml").write_text(
        '[server]\naddress = "a:1"\nca = "ca.pem"\ntoken_file = "token"\n'
    )
    assert settings([], {}, tmp_path) == (
        "a:1", Security(ca=folder / "ca.pem", token="of-file"),
    )  # fmt: skip
    environment = {"FRAMESWAP_SERVER": "b:2", "FRAMESWAP_TOKEN": "of-env", "FRAMESWAP_TLS": "1"}
    assert settings([], environment, tmp_path) == (
        "b:2", Security(tls=True, ca=folder / "ca.pem", token="of-env"),
    )  # fmt: skip
    own = tmp_path / "own"
    own.write_text("of-option")
    words = ["--server", "c:3", "--token-file", str(own), "--tls-ca", "other.pem"]
    assert settings(words, environment, tmp_path) == (
        "c:3", Security(tls=True, ca=Path("other.pem"), token="of-option"),
    )  # fmt: skip
    assert settings([], {}, tmp_path / "nobody") == (None, Security())


def test_a_program_without_a_server_of_its_own_wants_one_named(tmp_path: Path) -> None:
    words = ["--server", ""]
    with pytest.raises(BadOptions, match="none was named; give --server"):
        settings(words, {}, tmp_path, read=read_named_server)
    assert settings(["--server", "a:1"], {}, tmp_path, read=read_named_server)[0] == "a:1"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[server", "is no TOML"),
        ('[server]\nadress = "a:1"\n', "says 'adress' of the server; known is address"),
        ('[server]\ntls = "yes"\n', "tls is true or false"),
    ],
)
def test_a_config_file_that_is_wrong_is_said(tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "c.toml").write_text(content)
    with pytest.raises(BadOptions, match=text):
        settings(["--config", str(tmp_path / "c.toml")], {}, tmp_path)
    with pytest.raises(BadOptions, match="FRAMESWAP_TLS is 1 or 0, not 'maybe'"):
        settings([], {"FRAMESWAP_TLS": "maybe"}, tmp_path)
