"""Getting the server and a libpython: from the cache, in parallel, with the library hidden."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fetching.downloads import DownloadError
from server import distribution, libpython
from server.errors import DistributionError
from server.launcher import EmbeddedServer
from server.libpython import LIBRARY, PYTHON
from tests.server.test_launcher import assert_serves, model_processes


def test_the_prepared_server_runs_and_says_its_version() -> None:
    prepared = distribution.prepare()
    finished = subprocess.run(
        [prepared.binary, "--help"], capture_output=True, text=True, check=False
    )
    assert "--model-repository" in finished.stdout + finished.stderr
    stub = prepared.python_backend / "triton_python_backend_stub"
    assert stub.stat().st_mode & 0o111


def test_a_second_preparation_reuses_the_first() -> None:
    assert distribution.prepare() == distribution.prepare()


def test_many_processes_may_prepare_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(_: object, folder: Path) -> Path:
        # Not the real wheel (55 MB): one of the same form.
        path = folder / f"{len(fetched)}.whl"
        fetched.append(path)
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("pytriton/triton.py", "not needed")
            wheel.writestr("pytriton/tritonserver/bin/tritonserver", "binary")
            wheel.writestr("pytriton/tritonserver/backends/python/libtriton_python.so", "library")
            for version in ("3.9", PYTHON):
                folder_of = f"pytriton/tritonserver/python_backend_stubs/{version}"
                wheel.writestr(f"{folder_of}/triton_python_backend_stub", "stub")
        return path

    monkeypatch.setattr(distribution, "fetch_archive", fetch)
    with ThreadPoolExecutor(8) as pool:
        built = list(pool.map(lambda _: distribution._unpack_server(tmp_path), range(8)))
        assembled = list(
            pool.map(
                lambda root: distribution.assemble_python_backend(root, tmp_path / "python"), built
            )
        )
    assert len(set(assembled)) == 1
    assert sorted(path.name for path in assembled[0].iterdir()) == [
        "libtriton_python.so", "triton_python_backend_stub",
    ]  # fmt: skip
    assert list((tmp_path / "python").iterdir()) == [assembled[0]]
    assert len(set(built)) == len(fetched) == 1
    files = [path for path in built[0].rglob("*") if path.is_file()]
    assert len(files) == 4
    assert all(path.stat().st_mode & 0o111 for path in files if path.suffix != ".so")
    left = [path.name for path in tmp_path.iterdir()]
    assert sorted(left) == [built[0].name, f"{built[0].name}.lock", "python"]


def test_a_python_that_has_no_stub_is_one_sentence(tmp_path: Path) -> None:
    for version in ("3.10", "3.8"):
        (tmp_path / "pytriton/tritonserver/python_backend_stubs" / version).mkdir(parents=True)
    with pytest.raises(DistributionError, match=r"no backend for Python .* \(it has 3.8, 3.10\)"):
        distribution.assemble_python_backend(tmp_path, tmp_path)


def fail_to_fetch(*_: object) -> Path:
    raise DownloadError("the network is away")


def test_a_failed_download_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMESWAP_CACHE", str(tmp_path))
    monkeypatch.setattr(distribution, "fetch_archive", fail_to_fetch)
    with pytest.raises(DistributionError, match="cannot be fetched: the network is away"):
        distribution.prepare()
    assert list(tmp_path.rglob("*.whl")) == []


def test_a_cache_of_somebody_else_that_lacks_something_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(cache: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(cache))

    monkeypatch.setattr(distribution, "_stub_brings_libpython", lambda: False)
    monkeypatch.setattr(distribution, "libpython_folder", refuse)
    with pytest.raises(DistributionError, match=r"cannot write to .* FRAMESWAP_CACHE to a folder"):
        distribution.prepare()


def test_another_machine_or_an_old_glibc_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "aarch64")
        with pytest.raises(DistributionError, match=r"runs on 64-bit x86 Linux, .* aarch64"):
            distribution.prepare()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    with pytest.raises(DistributionError, match=r"needs glibc 2.35 or newer .* glibc 2.31"):
        distribution.prepare()


def test_an_interpreter_that_is_not_python3_of_its_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(DistributionError, match="run from a virtual environment"):
        distribution.prepare()


def test_the_interpreters_own_library_comes_before_the_systems(tmp_path: Path) -> None:
    own, system = tmp_path / "own", tmp_path / "system"
    for folder in (own, system):
        folder.mkdir()
        (folder / LIBRARY).write_bytes(b"x")
    assert libpython.find_libpython([tmp_path / "none", own, system]) == own / LIBRARY


def test_a_found_library_is_offered_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowded = tmp_path / "lib"
    crowded.mkdir()
    (crowded / LIBRARY).write_bytes(b"x")
    (crowded / "libssl.so.3").write_bytes(b"x")
    monkeypatch.setattr(libpython, "candidate_folders", lambda: [crowded])
    folder = libpython.libpython_folder(tmp_path / "cache")
    assert [path.name for path in folder.iterdir()] == [LIBRARY]
    assert (folder / LIBRARY).resolve() == crowded / LIBRARY


@pytest.mark.e2e
def test_a_hidden_library_is_brought_from_the_distribution_or_named(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the library hidden: Debian's or Ubuntu's package of the same Python, or a sentence."""
    monkeypatch.setattr(libpython, "candidate_folders", lambda: [tmp_path / "nowhere"])
    packages = subprocess.run(
        ["apt-cache", "show", f"libpython{PYTHON}"], capture_output=True, check=False
    ) if shutil.which("apt-cache") else None  # fmt: skip
    if packages is not None and packages.returncode == 0:
        folder = libpython.libpython_folder(tmp_path)
        listing = subprocess.run(
            ["ldd", folder / LIBRARY], capture_output=True, text=True, check=True
        )
        assert "not found" not in listing.stdout
        assert libpython.libpython_folder(tmp_path) == folder
        monkeypatch.setattr(distribution, "libpython_folder", lambda _: folder)
        with EmbeddedServer(tiny_repository, models=["invert_frame"]) as server:
            assert_serves(server)
            (model,) = model_processes(server)
            loaded = {mapped.path for mapped in model.memory_maps()}
        if sys.version_info < (3, 13):  # whose backend has its own library inside
            assert str(folder / LIBRARY) in loaded
    else:
        with pytest.raises(DistributionError, match=f"needs {LIBRARY}.*install it"):
            libpython.libpython_folder(tmp_path)


APT = """#!/bin/sh
for argument in "$@"; do last=$argument; done
case "$*" in
  *update*) exit 0 ;;
  *Dir::State*download*) {found} ;;
esac
echo "E: Unable to locate package $last" >&2
exit 100
"""


@pytest.fixture
def fake_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing but a shell, and a libpython that is nowhere."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "touch", "mkdir"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(libpython, "candidate_folders", list)
    return tools


def write_tool(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(0o755)


def test_without_package_lists_they_are_fetched_into_a_private_folder(
    fake_tools: Path, tmp_path: Path
) -> None:
    found = f"touch libpython{PYTHON}t64_1_amd64.deb; exit 0"
    write_tool(fake_tools / "apt-get", APT.format(found=found))
    unpack = f'#!/bin/sh\nmkdir -p "$3/usr/lib"\ntouch "$3/usr/lib/{LIBRARY}"\n'
    write_tool(fake_tools / "dpkg-deb", unpack)
    folder = libpython.libpython_folder(tmp_path / "cache")
    assert [path.name for path in folder.iterdir()] == [LIBRARY]


def test_a_package_that_the_distribution_lacks_is_one_sentence(
    fake_tools: Path, tmp_path: Path
) -> None:
    write_tool(fake_tools / "apt-get", APT.format(found=":"))
    write_tool(fake_tools / "dpkg-deb", "#!/bin/sh\n")
    with pytest.raises(DistributionError, match=r"apt-get says: Unable to locate.*install it"):
        libpython.libpython_folder(tmp_path / "cache")


def test_a_system_without_apt_is_told_what_to_install(fake_tools: Path, tmp_path: Path) -> None:
    assert fake_tools.is_dir()
    with pytest.raises(DistributionError, match=r"no apt-get .* Fedora: .* Python 3.13"):
        libpython.libpython_folder(tmp_path / "cache")
