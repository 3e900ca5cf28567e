"""NVIDIA's perf_analyzer without a container: the load generator that benches and tests drive.

The binary inside the `tritonclient` 2.51.0 wheel runs on glibc 2.34 and newer (later wheels need
2.38 or have none). It wants two libraries that lie in the server's wheel under other names.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fetching.cache_folder import cache_dir
from fetching.downloads import PackageArchive, WeightsError, exclusive, fetch_archive
from fetching.files import whole_folder
from server.distribution import prepare
from server.errors import DistributionError

CLIENT_WHEEL: Final = PackageArchive(
    package="tritonclient",
    version="2.51.0",
    filename="tritonclient-2.51.0-py3-none-manylinux1_x86_64.whl",
    sha256="c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52",
)
_MEMBER: Final = "tritonclient-2.51.0.data/data/bin/perf_analyzer"
_LIBRARIES: Final = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


@dataclass(frozen=True)
class PerfAnalyzer:
    """The binary, and the environment that it needs."""

    binary: Path
    environment: dict[str, str]


def prepare_perf_analyzer() -> PerfAnalyzer:
    """Bring and unpack what is missing.

    Raises:
        DistributionError: something cannot be fetched, or this machine cannot run it.
    """
    libraries = prepare().libraries[0]
    folder = cache_dir() / "triton"
    target = folder / f"perf_analyzer-{CLIENT_WHEEL.version}-{CLIENT_WHEEL.sha256[:12]}"
    try:
        with exclusive(target):
            if not target.is_dir():
                _unpack(fetch_archive(CLIENT_WHEEL, folder), libraries, target)
    except WeightsError as error:
        raise DistributionError(f"perf_analyzer cannot be fetched: {error}") from error
    return PerfAnalyzer(
        target / "perf_analyzer",
        {**os.environ, "LD_LIBRARY_PATH": f"{target}{os.pathsep}{libraries}"},
    )


def _unpack(wheel: Path, libraries: Path, target: Path) -> None:
    with whole_folder(target) as scratch:
        with zipfile.ZipFile(wheel) as archive:
            (scratch / "perf_analyzer").write_bytes(archive.read(_MEMBER))
        (scratch / "perf_analyzer").chmod(0o755)
        for name, pattern in _LIBRARIES.items():
            (found,) = libraries.glob(pattern)
            # A copy: it then depends on no other folder of the cache.
            (scratch / name).write_bytes(found.read_bytes())
    wheel.unlink(missing_ok=True)
