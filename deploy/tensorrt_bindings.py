"""TensorRT's Python bindings of exactly the library that is here: installed, and checked.

    python deploy/tensorrt_bindings.py install
    python deploy/tensorrt_bindings.py check

NVIDIA's Triton image has TensorRT's libraries and no Python package. The `tensorrt` package would
bring libraries of its own; its bindings alone use the image's. Needs nothing of the project, so
that an image's layer of it stays while the project changes. `check` fails where the version of the
package is not the library's: a plan would be built by one release and refused by the other.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

LIBRARY_MAJORS: Final = (11, 10)
CUDA: Final = "cu13"
SHIM: Final = (
    '"""NVIDIA\'s bindings under the name that its documentation uses."""\n'
    "from tensorrt_bindings import *\n"
    "from tensorrt_bindings import __version__\n"
)


class BindingsError(Exception):
    """No library, or no bindings of its release; one sentence."""


def library_version(majors: tuple[int, ...] = LIBRARY_MAJORS) -> str:
    """Version of the TensorRT library that the loader finds, as 11.4.0.

    Raises:
        BindingsError: there is none.
    """
    for major in majors:
        try:
            library = ctypes.CDLL(f"libnvinfer.so.{major}")
        except OSError:
            continue
        # Decimal digits since TensorRT 10: 110400 is 11.4.0.
        number = int(library.getInferLibVersion())
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    names = ", ".join(f"libnvinfer.so.{major}" for major in majors)
    raise BindingsError(f"no TensorRT library is here ({names}): build from NVIDIA's Triton image")


def matching(version: str, offered: list[str]) -> str:
    """The newest of the offered packages that is of the library's release.

    Args:
        version: of the library, three numbers. offered: versions of the package, four numbers.

    Raises:
        BindingsError: none is.
    """
    fitting = [one for one in offered if one.split(".")[:3] == version.split(".")[:3]]
    if not fitting:
        raise BindingsError(
            f"no bindings of TensorRT {version} are offered (there are {', '.join(offered[:5])}): "
            "take an image of one of those releases"
        )
    return max(fitting, key=lambda one: [int(part) for part in one.split(".")])


def install(version: str) -> None:
    """Install the bindings and the module `tensorrt` that names them."""
    package = f"tensorrt-{CUDA}-bindings"
    asked = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    listed = subprocess.run(
        [*asked, "index", "versions", package], check=True, capture_output=True, text=True
    )
    found = re.search(r"Available versions: (.*)", listed.stdout)
    chosen = matching(version, found[1].split(", ") if found else [])
    subprocess.run(
        [*asked, "install", "--no-cache-dir", "--no-deps", f"{package}=={chosen}"], check=True
    )
    module = Path(sysconfig.get_path("purelib")) / "tensorrt"
    module.mkdir(exist_ok=True)
    (module / "__init__.py").write_text(SHIM)


def check(version: str) -> None:
    """Import the bindings and compare.

    Raises:
        BindingsError: they are of another release than the library.
    """
    import tensorrt

    if tensorrt.__version__.split(".")[:3] != version.split(".")[:3]:
        raise BindingsError(
            f"the Python package is TensorRT {tensorrt.__version__} and the library is {version}: "
            "install the bindings of the library's release"
        )
    print(f"TensorRT {tensorrt.__version__}, library {version}")


def main(arguments: list[str]) -> int:
    """Do what is asked for; 1 with one sentence where it cannot be done."""
    if arguments not in (["install"], ["check"]):
        print("usage: tensorrt_bindings.py install|check", file=sys.stderr)
        return 2
    try:
        (install if arguments == ["install"] else check)(library_version())
    except BindingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
