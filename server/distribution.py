"""tritonserver without Docker: taken from a wheel, unpacked into the cache, never installed.

`nvidia-pytriton` carries NVIDIA's tritonserver 2.51.0 (24.10) with the Python backend and its
stubs for Python 3.8 to 3.13. As a dependency it would pin NumPy 1, so the wheel is fetched by
hash, without its dependencies, and only unpacked. Everything lies in folders that are renamed
into place when they are whole: any number of processes may prepare them at once.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fetching.cache_folder import cache_dir
from fetching.downloads import PackageArchive, WeightsError, disk_errors, exclusive, fetch_archive
from fetching.files import whole_folder
from server.errors import DistributionError
from server.libpython import libpython_folder

SERVER_WHEEL: Final = PackageArchive(
    package="nvidia-pytriton",
    version="0.7.0",
    filename="nvidia_pytriton-0.7.0-py3-none-manylinux_2_35_x86_64.whl",
    sha256="21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df",
)
SERVER_VERSION: Final = "2.51.0"
MIN_GLIBC: Final = (2, 35)


@dataclass(frozen=True)
class Distribution:
    """Everything that starting the server takes.

    binary: the tritonserver executable.
    python_backend: folder of Triton's Python backend, with the stub of this Python.
    libraries: folders for LD_LIBRARY_PATH.
    python_home: folder that must come first on PATH: the stub finds its packages by `python3`.
    """

    binary: Path
    python_backend: Path
    libraries: tuple[Path, ...]
    python_home: Path


def prepare() -> Distribution:
    """Bring and unpack what is missing, and return where everything lies.

    Raises:
        DistributionError: this machine cannot run the server, or something cannot be fetched.
    """
    _check_machine()
    try:
        with disk_errors(cache_dir()):
            root = _unpack_server(cache_dir() / "triton")
            python_backend = assemble_python_backend(root, cache_dir() / "triton")
            brought = _stub_brings_libpython()
            shared = [] if brought else [libpython_folder(cache_dir() / "libpython")]
    except WeightsError as error:
        raise DistributionError(f"the Triton server cannot be fetched: {error}") from error
    libraries = root / "nvidia_pytriton.libs"
    return Distribution(
        binary=root / "pytriton" / "tritonserver" / "bin" / "tritonserver",
        python_backend=python_backend,
        libraries=(libraries, *shared),
        python_home=_python_home(),
    )


def _check_machine() -> None:
    machine = platform.machine()
    if sys.platform != "linux" or machine != "x86_64":
        raise DistributionError(
            f"the embedded Triton server runs on 64-bit x86 Linux, and this is {sys.platform} on "
            f"{machine}; use a server elsewhere with --server HOST:PORT"
        )
    name, version = platform.libc_ver()
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if name != "glibc" or found < MIN_GLIBC:
        raise DistributionError(
            f"the embedded Triton server needs glibc {MIN_GLIBC[0]}.{MIN_GLIBC[1]} or newer "
            f"(Debian 12, Ubuntu 22.04), and this system has {name or 'no glibc'} {version}; use "
            "a server elsewhere with --server HOST:PORT"
        )


def _unpack_server(folder: Path) -> Path:
    root = folder / f"{SERVER_WHEEL.package}-{SERVER_WHEEL.version}-{SERVER_WHEEL.sha256[:12]}"
    if root.is_dir():
        return root
    with exclusive(root):
        # Another process may have unpacked it while this one waited.
        if not root.is_dir():
            _unpack(fetch_archive(SERVER_WHEEL, folder), root)
    return root


def _unpack(wheel: Path, root: Path) -> None:
    with whole_folder(root) as scratch:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if _is_needed(member):
                    archive.extract(member, scratch)
        # A zip file read by zipfile loses the run bits.
        for path in [
            scratch / "pytriton" / "tritonserver" / "bin" / "tritonserver",
            *scratch.glob("pytriton/tritonserver/python_backend_stubs/*/triton_python_*_stub"),
        ]:
            path.chmod(0o755)
    # The unpacked copy is what is used from now on; 55 MB less in the cache.
    wheel.unlink(missing_ok=True)


def _is_needed(member: str) -> bool:
    """Leave out PyTriton's own Python code: only the server and its libraries are used."""
    wanted = ("pytriton/tritonserver/", "nvidia_pytriton.libs/", "nvidia_pytriton-")
    return member.startswith(wanted) and not member.endswith("/")


def assemble_python_backend(root: Path, folder: Path) -> Path:
    """Put Triton's Python backend and this Python's stub into one folder.

    Raises:
        DistributionError: the server brings no stub for this Python.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = folder / f"python-backend-{python}-{SERVER_WHEEL.sha256[:12]}"
    if target.is_dir():
        return target
    triton = root / "pytriton" / "tritonserver"
    stub = triton / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.is_file():
        versions = [path.name for path in (triton / "python_backend_stubs").iterdir()]
        known = sorted(versions, key=lambda version: int(version.partition(".")[2]))
        raise DistributionError(
            f"the embedded Triton server has no backend for Python {python} (it has "
            f"{', '.join(known)}); use one of those, best 3.11 to 3.13"
        )
    with whole_folder(target) as scratch:
        shutil.copytree(triton / "backends" / "python", scratch, dirs_exist_ok=True)
        shutil.copy2(stub, scratch / stub.name)
    return target


def _stub_brings_libpython() -> bool:
    """Tell whether this Python's stub is linked to a libpython inside the wheel (3.13's is)."""
    return sys.version_info >= (3, 13)


def _python_home() -> Path:
    """Return the folder of this interpreter; its `python3` must be this very interpreter."""
    folder = Path(sys.executable).parent
    python3 = folder / "python3"
    if not (python3.exists() and os.path.samefile(python3, sys.executable)):
        raise DistributionError(
            f"the embedded Triton server finds packages by {python3}, which is not the Python "
            f"that runs now ({sys.executable}); run from a virtual environment"
        )
    return folder
