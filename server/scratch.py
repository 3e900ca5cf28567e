"""A server's temporary folder, and links in it to whatever lies below an odd path.

Triton's Python backend starts its models through a shell, gRPC takes a socket's path for a URI, and
a model's process may know ASCII alone: a blank, a quote or an umlaut in a path stops one of them.
So the folder lies below a plain path, and what does not is reached through a link in it.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

from server.distribution import Distribution
from server.errors import StartError

PREFIX = "frameswap-server-"
_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")
LONGEST_FOLDER = 60
"""Of the temporary folder: a socket's path may have 107 characters."""


def make_scratch() -> Path:
    """Make a folder of this user alone, below a plain path.

    Raises:
        StartError: there is no such place.
    """
    candidates = (tempfile.gettempdir(), "/tmp", "/var/tmp")
    for folder in candidates:
        if is_plain(folder) and len(folder) <= LONGEST_FOLDER:
            try:
                return Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
            except OSError:
                continue
    raise StartError(
        f"the embedded server needs a temporary folder with a short path of letters and digits, "
        f"and {' and '.join(dict.fromkeys(candidates))} are none, or cannot be written; set TMPDIR"
    )


def is_plain(path: str | Path) -> bool:
    """Whether a path can be given to a shell, a URI and a model's process as it is."""
    return _PLAIN.fullmatch(str(path)) is not None


def plain_path(path: Path, scratch: Path, name: str) -> Path:
    """The path itself, or a link of that name to it."""
    if is_plain(path.resolve()):
        return path.resolve()
    link = scratch / name
    link.unlink(missing_ok=True)
    link.symlink_to(path.resolve(), target_is_directory=True)
    return link


def plain_distribution(distribution: Distribution, scratch: Path) -> Distribution:
    """The same files by plain paths."""
    # The whole environment, not its folder of programs: Python looks for what is beside that.
    home = distribution.python_home
    if not is_plain(home):
        home = plain_path(home.parent, scratch, "python") / home.name
    return replace(
        distribution,
        binary=plain_path(distribution.binary.parent, scratch, "bin") / distribution.binary.name,
        libraries=tuple(
            plain_path(folder, scratch, f"libraries-{position}")
            for position, folder in enumerate(distribution.libraries)
        ),
        python_home=home,
    )
