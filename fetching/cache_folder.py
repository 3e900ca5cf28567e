"""The folder where this project keeps what it fetches and what several builds share."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Where this project keeps what it fetches: FRAMESWAP_CACHE, or the user's cache folder."""
    chosen = os.environ.get("FRAMESWAP_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    # The XDG base directory specification: a relative value is invalid and is ignored.
    root = Path(base) if base and os.path.isabs(base) else Path.home() / ".cache"
    return root / "frameswap"
