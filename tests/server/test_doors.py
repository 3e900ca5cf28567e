"""Who reaches a server, and what of it: this user through its socket, others only what they may."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as triton_grpc
from frameswap import keys
from frameswap.connection import Connection
from frameswap.shared_memory import SystemRegion
from tritonclient.utils import InferenceServerException

from server import keeper, process
from server.doors import Doors
from server.errors import PortError
from server.keeper import HANGS
from server.launcher import EmbeddedServer
from server.perf_analyzer import prepare_perf_analyzer
from server.process import KEEPER
from tests.server.test_launcher import assert_serves, model_processes, shared_memory_of

pytestmark = pytest.mark.e2e

NOBODY = 65534


@pytest.fixture(scope="module")
def tcp_server(tiny_repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tiny_repository, models=["invert_frame"], grpc_port=0) as server:
        yield server


def run_as_nobody(code: str, *arguments: str) -> str:
    """What a program of another user of this machine prints."""
    if os.geteuid() != 0:
        pytest.skip("only root can start another user's program")
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("there is no Python that other users may run")
    done = subprocess.run(
        [python, "-c", code, *arguments],
        user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", env={"PATH": os.environ["PATH"]},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def listening_ports(server: EmbeddedServer) -> set[int]:
    connections = psutil.Process(server.pid).net_connections("tcp")
    return {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}


def test_a_server_listens_on_its_socket_alone(tiny_server: EmbeddedServer) -> None:
    assert listening_ports(tiny_server) == set()
    path = Path(tiny_server.grpc_url.removeprefix("unix:"))
    assert path.is_socket()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert tiny_server.doors.http_url is None
    assert tiny_server.doors.metrics_url is None
    assert_serves(tiny_server)


CONNECT = """
import socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print("connected")
except PermissionError:
    print("refused")
"""


def test_another_user_does_not_reach_the_socket(tiny_server: EmbeddedServer) -> None:
    path = tiny_server.grpc_url.removeprefix("unix:")
    assert run_as_nobody(CONNECT, path) == "refused\n"


def test_what_is_asked_for_is_opened_and_no_more(tcp_server: EmbeddedServer) -> None:
    port = int(tcp_server.grpc_url.rpartition(":")[2])
    assert tcp_server.grpc_url == f"127.0.0.1:{port}"
    assert listening_ports(tcp_server) == {port}
    assert_serves(tcp_server)


PROCESSES = """
import glob
for path in glob.glob("/proc/[0-9]*"):
    for name in ("cmdline", "environ"):
        try:
            print(open(f"{path}/{name}", "rb").read())
        except OSError:
            pass
"""


def test_no_key_stands_in_the_process_list(
    tiny_server: EmbeddedServer, tcp_server: EmbeddedServer
) -> None:
    assert tiny_server.keys_are_hidden
    assert tcp_server.keys_are_hidden
    seen = run_as_nobody(PROCESSES)
    assert f"--id={tcp_server._name}" in seen
    for server in (tiny_server, tcp_server):
        assert server._keys.admin not in seen
        assert server._keys.shared_memory not in seen


def test_where_ptrace_is_forbidden_the_keys_work_and_are_said_to_be_shown(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = KEEPER.read_text()
    changed = tmp_path / "keeper.py"
    changed.write_text(text.replace("PTRACE_TRACEME, PTRACE_GETREGS", "NOTHING, PTRACE_GETREGS", 1)
                      .replace("PTRACE_TRACEME, 0, None", "99, 0, None"))  # fmt: skip
    monkeypatch.setattr(process, "KEEPER", changed)
    with EmbeddedServer(tiny_repository, models=["invert_frame"]) as server:
        assert not server.keys_are_hidden
        server.reload("invert_frame")
        assert_serves(server)


def test_the_key_lets_a_model_be_loaded_again(tcp_server: EmbeddedServer) -> None:
    tcp_server.reload("invert_frame")
    assert_serves(tcp_server)


def register(server: EmbeddedServer, key: str) -> None:
    client = triton_grpc.InferenceServerClient(server.grpc_url)
    try:
        client.register_system_shared_memory("stranger", key, 4096)
    finally:
        client.close()


def test_shared_memory_over_tcp_takes_the_key_of_this_users_file(
    tcp_server: EmbeddedServer,
) -> None:
    own = shared_memory_of(os.getpid())
    with pytest.raises(InferenceServerException, match="protocol is restricted"):
        register(tcp_server, f"/{own[0]}")
    region = SystemRegion(4096, server=tcp_server.grpc_url)
    connection = Connection(tcp_server.grpc_url, timeout_s=20)
    try:
        region.register(connection)
        region.unregister(connection)
    finally:
        region.close()
        connection.close()


def test_another_user_cannot_read_the_key_of_shared_memory(tcp_server: EmbeddedServer) -> None:
    path = keys.key_path(int(tcp_server.grpc_url.rpartition(":")[2]))
    assert path.read_text() == tcp_server._keys.shared_memory
    read = "import os, sys; print(os.access(sys.argv[1], os.R_OK))"
    assert run_as_nobody(read, str(path)) == "False\n"


def test_the_key_goes_with_the_server(tiny_repository: Path) -> None:
    with EmbeddedServer(tiny_repository, models=["invert_frame"], grpc_port=0) as server:
        path = keys.key_path(int(server.grpc_url.rpartition(":")[2]))
        assert path.is_file()
    assert not path.exists()


def test_frames_in_flight_are_this_users_alone(
    tiny_server: EmbeddedServer, tcp_server: EmbeddedServer
) -> None:
    for name in shared_memory_of(os.getpid()):
        assert stat.S_IMODE((Path("/dev/shm") / name).stat().st_mode) == 0o600
    # Never for a moment otherwise: the call that would open them does nothing.
    for server in (tiny_server, tcp_server):
        for each in (psutil.Process(server.pid), *model_processes(server)):
            assert status_of(each.pid)["Seccomp"] == "2"


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}


RUN_FILTERED = """
import ctypes, sys, types
keeper = types.ModuleType("keeper")
exec(sys.argv[1], keeper.__dict__)
keeper._ignore_fchmod(ctypes.CDLL(None), waives_privileges=sys.argv[2] == "True")
import os
path = sys.argv[3]
descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
os.fchmod(descriptor, 0o644)
print(oct(os.fstat(descriptor).st_mode & 0o777))
print(open("/proc/self/status").read())
"""


@pytest.mark.parametrize("waives", [True, False])
def test_root_needs_to_waive_nothing_for_the_filter(tmp_path: Path, waives: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may be filtered without waiving privileges")
    told = run_filtered(tmp_path / "region", waives=waives)
    assert told[0] == "0o600"
    assert "NoNewPrivs:\t0" in told
    assert "Seccomp:\t2" in told


@pytest.mark.parametrize(("waives", "mode"), [(True, "0o600"), (False, "0o644")])
def test_others_are_filtered_where_set_user_id_programs_may_become_of_no_use(
    waives: bool, mode: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            Path(folder).chmod(0o777)
        told = run_filtered(Path(folder) / "region", waives=waives, drop=os.geteuid() == 0)
    assert told[0] == mode
    assert f"NoNewPrivs:\t{int(waives)}" in told
    assert f"Seccomp:\t{2 * waives}" in told


def run_filtered(region: Path, *, waives: bool, drop: bool = False) -> list[str]:
    """What a process says that was filtered: its file's mode, and its status."""
    # The text itself, because another user may not read the checkout.
    arguments = [RUN_FILTERED, KEEPER.read_text(), str(waives), str(region)]
    if drop:
        return run_as_nobody(*arguments).splitlines()
    command = [sys.executable, "-c", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize(
    ("files", "parts", "expected"),
    [(["ctl", "uvm"], [], True), (["ctl"], [], False), ([], [], False),
     (["ctl", "uvm"], ["gpu0/mig/gi1"], False)],
)  # fmt: skip
def test_a_driver_with_its_device_files_needs_no_set_user_id_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    files: list[str], parts: list[str], expected: bool,
) -> None:  # fmt: skip
    for name in files:
        (tmp_path / name).touch()
    for name in parts:
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(keeper, "DEVICE_FILES", [str(tmp_path / name) for name in ("ctl", "uvm")])
    monkeypatch.setattr(keeper, "MIG_INSTANCES", str(tmp_path / "gpu*/mig/gi*"))
    assert keeper.has_device_files() is expected


def test_where_filters_are_forbidden_the_keeper_makes_them_private(tmp_path: Path) -> None:
    prefix = f"frameswap_server_1_1_1_{secrets.token_hex(8)}_"
    region = Path("/dev/shm") / f"{prefix}region"
    code = "import os,sys,time; os.chmod(sys.argv[1], 0o644); print(1); time.sleep(60)"
    region.touch()
    running = subprocess.Popen(
        [
            sys.executable, "-I", "-S", "server/keeper.py", prefix, str(tmp_path), "", "5",
            str(tmp_path / "log"), "1", sys.executable, "-c", code, str(region),
        ],
        cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert running.stdin is not None
    assert running.stdout is not None
    with running, running.stdin, running.stdout:
        running.stdout.readline()
        for _ in range(100):
            if region.exists() and stat.S_IMODE(region.stat().st_mode) == 0o600:
                break
            time.sleep(0.05)
        assert stat.S_IMODE(region.stat().st_mode) == 0o600
        running.stdin.write(HANGS)
    assert not region.exists()


def test_proxies_of_the_environment_do_not_matter(
    tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with EmbeddedServer(tiny_repository, models=["invert_frame"], grpc_port=0) as server:
        connection = Connection(server.grpc_url, timeout_s=20)
        connection.check_ready()
        connection.close()


@pytest.mark.parametrize(
    ("doors", "url", "local"),
    [
        (Doors(grpc_port=1), "127.0.0.1:1", "127.0.0.1:1"),
        (Doors("0.0.0.0", 1), "0.0.0.0:1", "127.0.0.1:1"),
        (Doors("::", 1), "[::]:1", "[::1]:1"),
        (Doors(socket=Path("/x/s:1")), "unix:/x/s:1", "unix:/x/s:1"),
        (Doors("0.0.0.0", socket=Path("/x/s:1")), "unix:/x/s:1", "unix:/x/s:1"),
    ],
)
def test_addresses_as_clients_are_told_them(doors: Doors, url: str, local: str) -> None:
    assert (doors.grpc_url, doors.local_grpc_url) == (url, local)


def test_ports_that_are_the_same_are_refused(tmp_path: Path) -> None:
    free = Doors(grpc_port=0).chosen(tmp_path).grpc_port
    with pytest.raises(PortError, match=f"port {free} was asked for twice"):
        Doors(grpc_port=free, http_port=free).chosen(tmp_path)


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "server.md").read_text()
EXAMPLE = "unix:/tmp/frameswap-server-x/s:1"


def test_the_pages_line_for_a_plain_client_works(tiny_server: EmbeddedServer) -> None:
    (line,) = [each for each in PAGE.splitlines() if each.startswith("client = tritonclient.grpc")]
    names: dict[str, object] = {"tritonclient": __import__("tritonclient.grpc")}
    exec(line.replace(EXAMPLE, tiny_server.grpc_url), names)
    client = names["client"]
    assert isinstance(client, triton_grpc.InferenceServerClient)
    assert client.is_server_ready()
    client.close()


def test_the_pages_line_for_perf_analyzer_works(tiny_server: EmbeddedServer) -> None:
    (line,) = [each for each in PAGE.splitlines() if each.startswith("perf_analyzer ")]
    line = line.replace(EXAMPLE, tiny_server.grpc_url).replace("source_encoder", "invert_twice")
    analyzer = prepare_perf_analyzer()
    _, *arguments = shlex.split(line)
    quick = ["--shape=frame:16,24,3", "--shape=options:4", "--input-data=zero",
             "--concurrency-range=2", "--request-count=16"]  # fmt: skip
    done = subprocess.run(
        [analyzer.binary, *arguments, *quick],
        env=analyzer.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Throughput:" in done.stdout, done.stdout + done.stderr
