"""Finding, or bringing, this Python's shared library: the Python backend's stub needs one.

A Python may be built without it (pyenv's default), and Debian's python3.11 does not bring the
package `libpython3.11`. It is looked for first; on Debian and Ubuntu it is otherwise unpacked from
the distribution's package, without root; elsewhere one sentence says what to install.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

from server.errors import DistributionError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY = f"libpython{PYTHON}.so.1.0"


def libpython_folder(cache: Path) -> Path:
    """Return a folder that holds this Python's shared library and nothing else.

    Args:
        cache: folder of ours; the result is a folder in it.

    Raises:
        DistributionError: there is none, and none can be brought here.
    """
    found = find_libpython(candidate_folders())
    if found is None:
        return fetch_libpython(cache)
    # A folder of its own: putting /usr/lib or a prefix on LD_LIBRARY_PATH would bring more in.
    folder = cache / f"{PYTHON}-{hashlib.sha256(str(found).encode()).hexdigest()[:12]}"
    link = folder / LIBRARY
    if not link.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".{LIBRARY}-{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(found)
        fresh.replace(link)
    return folder


def candidate_folders() -> list[Path]:
    """Return where this Python's own shared library may lie, then where the system keeps it."""
    config = sysconfig.get_config_var
    own = [config("LIBDIR"), config("LIBPL"), str(Path(sys.base_prefix) / "lib")]
    folders = [Path(folder) for folder in own if folder]
    return [*folders, *_loader_folders()]


def _loader_folders() -> list[Path]:
    """Return the folders where the dynamic loader's cache knows the library."""
    ldconfig = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if ldconfig is None:
        return []
    listing = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False).stdout
    lines = [line.rpartition("=> ")[2] for line in listing.splitlines() if LIBRARY in line]
    return [Path(line).parent for line in lines if line.endswith(LIBRARY)]


def find_libpython(folders: Iterable[Path]) -> Path | None:
    """Return the first shared library of this Python in the folders, or None."""
    for folder in folders:
        if (folder / LIBRARY).is_file():
            return (folder / LIBRARY).resolve()
    return None


def fetch_libpython(cache: Path) -> Path:
    """Unpack the distribution's package into the cache, without root, and return its folder.

    Raises:
        DistributionError: says what to install instead.
    """
    target = cache / f"{PYTHON}-package"
    if (target / LIBRARY).is_file():
        return target
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise DistributionError(_advice("this system has no apt-get to bring it with"))
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        package = _download_package(Path(scratch))
        unpacked = Path(scratch) / "unpacked"
        subprocess.run(
            ["dpkg-deb", "-x", str(package), str(unpacked)], check=True, capture_output=True
        )
        libraries = [path for path in unpacked.rglob(LIBRARY) if path.is_file()]
        if not libraries:
            raise DistributionError(_advice(f"{package.name} does not hold {LIBRARY}"))
        target.mkdir(exist_ok=True)
        os.replace(libraries[0].resolve(), target / LIBRARY)
    return target


def _download_package(folder: Path) -> Path:
    """Download the package that holds the library; Ubuntu 24.04 renamed it with t64."""
    names = (f"libpython{PYTHON}", f"libpython{PYTHON}t64")
    # A fresh container has no package lists, and without root they cannot go where they belong.
    state = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True)
    private = [
        "-o", f"Dir::State::Lists={state / 'lists'}", "-o", f"Dir::Cache={state / 'cache'}",
        "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=",
    ]  # fmt: skip
    told = ""
    for options in ([], private):
        if options:
            told = _apt(["update", *options], folder) or told
        for name in names:
            told = _apt([*options, "download", name], folder) or told
            packages = sorted(folder.glob(f"{name}_*.deb"))
            if packages:
                return packages[0]
    raise DistributionError(_advice(f"apt-get says: {told}"))


def _apt(arguments: list[str], folder: Path) -> str:
    """Run apt-get in a folder; return its first error line, empty when all is well."""
    finished = subprocess.run(
        ["apt-get", "-q", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    errors = [line for line in finished.stderr.splitlines() if line.startswith("E:")]
    return "" if finished.returncode == 0 or not errors else errors[0].removeprefix("E: ")


def _advice(reason: str) -> str:
    return (
        f"the embedded Triton server needs {LIBRARY}, the shared library of Python {PYTHON}, and "
        f"{reason}; install it (Debian, Ubuntu: apt-get install libpython{PYTHON}; Fedora: "
        f"python{PYTHON}-libs; pyenv: build with --enable-shared), or use Python 3.13, "
        "which needs none"
    )
