"""TLS, mutual TLS and tokens, at the server and at the edge: each key tried, and each wrong one."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from frameswap import Security
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.deploy.certificates import SERVER_NAME, Files, issue
from tests.deploy.proxy import Envoy
from tests.deploy.serving import ROOT, EntryPoint

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TOKEN = "a-token-of-the-tests"


class Keys:
    """Everybody's certificates of one authority, and a stranger's."""

    def __init__(self, folder: Path) -> None:
        own, other = trustme.CA(), trustme.CA()
        self.server = issue(own, folder / "server", SERVER_NAME)
        self.renewed = issue(own, folder / "renewed", SERVER_NAME)
        self.old_server = issue(own, folder / "old server", SERVER_NAME, expired=True)
        self.client = issue(own, folder / "client", "studio.example.org")
        self.colleague = issue(own, folder / "colleague", "office.example.org")
        self.old_client = issue(own, folder / "old client", "studio.example.org", expired=True)
        self.stranger = issue(other, folder / "stranger", "studio.example.org")
        self.tokens = folder / "tokens"
        self.tokens.mkdir()
        (self.tokens / "tokens").write_text(f"studio {TOKEN}\noffice another-token\n")

    def shown(self, files: Files | None = None, token: Path | None = None) -> Security:
        """Credentials of a client that trusts the servers' authority."""
        return Security(
            ca=self.server.authority,
            certificate=None if files is None else files.certificate,
            key=None if files is None else files.key,
            name=SERVER_NAME,
            token=None if token is None else token.read_text().strip(),
        )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def server(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory, keys: Keys
) -> Iterator[EntryPoint]:
    """Mutual TLS at Triton itself."""
    flags = (
        "--tls-certificate", str(keys.server.certificate), "--tls-key", str(keys.server.key),
        "--tls-authority", str(keys.server.authority), "--tls-name", SERVER_NAME, "--tls-mutual",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("server")
    with EntryPoint(tiny_repository, folder, *flags) as running:
        running.wait_ready()
        yield running


def invert(address: str, credentials: Security | None, *, wait_s: float = 10.0) -> bool:
    """Whether a frame is inverted.

    Raises:
        grpc.RpcError: it is not let in.
    """
    frame = np.full((1, 16, 24, 3), 7, np.uint8)
    request = service_pb2.ModelInferRequest(model_name="invert_frame")
    for name, array, kind in (
        ("frame", frame, "UINT8"),
        ("options", np.zeros((1, 4), np.float32), "FP32"),
    ):
        request.inputs.add(name=name, datatype=kind, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    with open_channel(address, credentials) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request, timeout=wait_s)
    return bytes(answer.raw_output_contents[0]) == (255 - frame).tobytes()


def open_channel(address: str, credentials: Security | None) -> grpc.Channel:
    # Channels with the same options share a connection: each try here is to be its own.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    channel = credentials.credentials()
    if credentials.token is not None:
        token = grpc.access_token_call_credentials(credentials.token)
        channel = grpc.composite_channel_credentials(channel, token)
    if credentials.name is not None:
        options.append(("grpc.ssl_target_name_override", credentials.name))
    return grpc.secure_channel(address, channel, options=options)


def refused(address: str, credentials: Security | None) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        invert(address, credentials)
    code = raised.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def test_a_server_lets_in_who_shows_a_certificate_of_its_authority(
    server: EntryPoint, keys: Keys
) -> None:
    assert invert(f"127.0.0.1:{server.grpc_port}", keys.shown(keys.client))


@pytest.mark.parametrize("who", ["nobody", "stranger", "old_client", "in clear"])
def test_a_server_lets_nobody_else_in(server: EntryPoint, keys: Keys, who: str) -> None:
    address = f"127.0.0.1:{server.grpc_port}"
    shown = None if who == "in clear" else keys.shown(getattr(keys, who, None))
    assert refused(address, shown) == grpc.StatusCode.UNAVAILABLE


def test_a_client_refuses_a_server_of_another_authority_or_name(
    server: EntryPoint, keys: Keys
) -> None:
    address = f"127.0.0.1:{server.grpc_port}"
    right = keys.shown(keys.client)
    for wrong in (
        replace(right, ca=keys.stranger.authority),
        replace(right, name="other.example.org"),
    ):
        assert refused(address, wrong) == grpc.StatusCode.UNAVAILABLE


def test_metrics_want_a_certificate_too_and_health_does_not(
    server: EntryPoint, keys: Keys
) -> None:
    def metrics(scheme: str, files: Files | None) -> int:
        context = ssl.create_default_context(cafile=str(keys.server.authority))
        context.check_hostname = False
        if files is not None:
            context.load_cert_chain(files.certificate, files.key)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        url = f"{scheme}://127.0.0.1:{server.metrics_port}/metrics"
        with opener.open(url, timeout=10) as page:
            assert "nv_inference_request_success" in page.read().decode()
            return int(page.status)

    assert metrics("https", keys.client) == 200
    for scheme, files in (
        ("https", None), ("https", keys.stranger), ("https", keys.old_client), ("http", None),
    ):  # fmt: skip
        with pytest.raises((OSError, urllib.error.URLError)):
            metrics(scheme, files)
    assert server.health() == 200, "one that went away, or was refused, holds nobody up"


def test_a_server_with_an_expired_certificate_says_so_and_ends(
    tiny_repository: Path, tmp_path: Path, keys: Keys
) -> None:
    old = keys.old_server
    flags = (
        "--tls-certificate", str(old.certificate), "--tls-key", str(old.key),
        "--tls-authority", str(old.authority), "--tls-name", SERVER_NAME,
        "--start-timeout-s", "15",
    )  # fmt: skip
    with EntryPoint(tiny_repository, tmp_path / "run", *flags) as server:
        told = server.wait_for("error: (.*)")[1]
        assert server.process.wait(60) == 1
    assert "expired" in told


@pytest.fixture(scope="module")
def edge(
    server: EntryPoint, tmp_path_factory: pytest.TempPathFactory, keys: Keys
) -> Iterator[Envoy]:
    """TLS and tokens outside, mutual TLS inside."""
    with Envoy(
        tmp_path_factory.mktemp("edge"),
        [(server.grpc_port, server.health_port)],
        "--set=edge.tls.secretName=edge", "--set=edge.tokensSecret=tokens",
        "--set=edge.maxRequestMiB=1", "--set=tls.secretName=servers", "--set=tls.mutual=true",
        f"--set=tls.serverName={SERVER_NAME}",
        files={
            "/etc/frameswap/edge": keys.server.folder,
            "/etc/frameswap/servers": keys.server.folder,
            "/etc/frameswap/tokens": keys.tokens,
        },
    ) as running:  # fmt: skip
        running.wait_healthy(1)
        yield running


def token_file(folder: Path, text: str) -> Path:
    path = folder / "token"
    path.write_text(text)
    return path


def test_the_edge_lets_in_who_has_a_token(edge: Envoy, keys: Keys, tmp_path: Path) -> None:
    assert invert(edge.address, keys.shown(token=token_file(tmp_path, f"{TOKEN}\n")))


@pytest.mark.parametrize("token", [None, "guessed", "studio", f"{TOKEN}x", "x" * 4000])
def test_the_edge_lets_nobody_else_in(
    edge: Envoy, keys: Keys, tmp_path: Path, token: str | None
) -> None:
    shown = keys.shown(token=None if token is None else token_file(tmp_path, token))
    assert refused(edge.address, shown) == grpc.StatusCode.UNAUTHENTICATED


def test_the_edge_speaks_nothing_in_clear(edge: Envoy) -> None:
    assert refused(edge.address, None) == grpc.StatusCode.UNAVAILABLE


def test_only_inference_health_and_metadata_pass_the_edge(
    edge: Envoy, keys: Keys, tmp_path: Path
) -> None:
    shown = keys.shown(token=token_file(tmp_path, TOKEN))
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    methods = {method.name for method in service.methods}
    open_ = {"ModelInfer", "ServerLive", "ServerReady", "ModelReady", "ServerMetadata",
             "ModelMetadata", "ModelConfig"}  # fmt: skip
    assert open_ < methods
    with open_channel(edge.address, shown) as channel:
        for name in sorted(methods - open_):
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
            with pytest.raises(grpc.RpcError) as raised:
                call(b"", timeout=10)
            assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED, name
        for path in ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/x/y",
                     "/inference.GRPCInferenceService/../inference.GRPCInferenceService/"
                     "RepositoryIndex"):  # fmt: skip
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary(path)(b"", timeout=10)
            assert raised.value.code() in (
                grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INTERNAL,
            )  # fmt: skip
        ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        assert service_pb2.ServerReadyResponse.FromString(ready(b"", timeout=10)).ready


def test_a_request_that_is_too_large_stops_at_the_edge(
    edge: Envoy, keys: Keys, tmp_path: Path
) -> None:
    shown = keys.shown(token=token_file(tmp_path, TOKEN))
    with open_channel(edge.address, shown) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as raised:
            call(bytes(2 << 20), timeout=10)
    assert raised.value.code() in (
        grpc.StatusCode.UNKNOWN, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE,
    )  # fmt: skip
    assert invert(edge.address, shown)


def test_a_rate_is_held(server: EntryPoint, keys: Keys, tmp_path: Path) -> None:
    files = {"/etc/frameswap/servers": keys.server.folder}
    options = ("--set=edge.requestsPerSecond=5", "--set=tls.secretName=servers",
               "--set=tls.mutual=true", f"--set=tls.serverName={SERVER_NAME}")  # fmt: skip
    ports = [(server.grpc_port, server.health_port)]
    with Envoy(tmp_path / "envoy", ports, *options, files=files) as proxy:
        proxy.wait_healthy(1)
        with open_channel(proxy.address, None) as channel:
            ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
            calls = [ready.future(b"", timeout=30) for _ in range(60)]
            codes = [call.code() for call in calls]
        assert codes.count(grpc.StatusCode.OK) >= 5
        assert grpc.StatusCode.UNAVAILABLE in codes
        time.sleep(1.5)
        assert invert(proxy.address, None), "it lets nobody in any more"


def test_an_edge_with_named_callers_knows_them_and_takes_a_renewed_certificate(
    server: EntryPoint, keys: Keys, tmp_path: Path
) -> None:
    mounted = tmp_path / "edge"
    mount(mounted, keys.server)
    files = {"/etc/frameswap/servers": keys.server.folder, "/etc/frameswap/edge": mounted}
    options = (
        "--set=edge.tls.secretName=edge", "--set=edge.tls.mutual=true",
        "--set=edge.tls.callers={studio.example.org}", "--set=tls.secretName=servers",
        "--set=tls.mutual=true", f"--set=tls.serverName={SERVER_NAME}",
    )  # fmt: skip
    ports = [(server.grpc_port, server.health_port)]
    with Envoy(tmp_path / "envoy", ports, *options, files=files) as proxy:
        proxy.wait_healthy(1)
        assert invert(proxy.address, keys.shown(keys.client))
        for files_ in (None, keys.colleague, keys.stranger, keys.old_client):
            assert refused(proxy.address, keys.shown(files_)) == grpc.StatusCode.UNAVAILABLE
        shown = serial_shown(proxy, keys)
        mount(mounted, keys.renewed)
        deadline = time.monotonic() + 30
        while serial_shown(proxy, keys) == shown:
            assert time.monotonic() < deadline, "the renewed certificate is not taken"
            time.sleep(0.2)
        assert invert(proxy.address, keys.shown(keys.client))


def mount(folder: Path, files: Files) -> None:
    """Put a secret's files where they are mounted, or exchange them, as the kubelet does it."""
    folder.mkdir(exist_ok=True)
    fresh = folder / "..data_tmp"
    fresh.symlink_to(files.folder)
    fresh.rename(folder / "..data")
    for name in ("ca.crt", "tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)


def serial_shown(proxy: Envoy, keys: Keys) -> str:
    """Serial number of the certificate that the edge shows."""
    context = ssl.create_default_context(cafile=str(keys.server.authority))
    context.load_cert_chain(keys.client.certificate, keys.client.key)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=SERVER_NAME) as secured,
    ):
        told = secured.getpeercert()
    assert told is not None
    return str(told["serialNumber"])


def test_a_whole_swap_goes_through_the_edge(
    real_repository: Path, tmp_path: Path, keys: Keys
) -> None:
    tls = (
        "--tls-certificate", str(keys.server.certificate), "--tls-key", str(keys.server.key),
        "--tls-authority", str(keys.server.authority), "--tls-name", SERVER_NAME, "--tls-mutual",
    )  # fmt: skip
    with ExitStack() as stack:
        server = stack.enter_context(EntryPoint(real_repository, tmp_path / "run", *tls))
        server.wait_ready()
        proxy = stack.enter_context(
            Envoy(
                tmp_path / "envoy", [(server.grpc_port, server.health_port)],
                "--set=edge.tls.secretName=edge", "--set=edge.tokensSecret=tokens",
                "--set=tls.secretName=servers", "--set=tls.mutual=true",
                f"--set=tls.serverName={SERVER_NAME}",
                files={
                    "/etc/frameswap/edge": keys.server.folder,
                    "/etc/frameswap/servers": keys.server.folder,
                    "/etc/frameswap/tokens": keys.tokens,
                },
            )
        )  # fmt: skip
        proxy.wait_healthy(1)
        done = subprocess.run(
            [
                sys.executable, "-m", "deploy.swap_check", "--server", proxy.address,
                "--tls-ca", keys.server.authority, "--tls-name", SERVER_NAME,
                "--token-file", token_file(tmp_path, TOKEN),
            ],
            cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pixels away from the face are equal" in done.stdout
