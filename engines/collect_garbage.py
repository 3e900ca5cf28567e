"""Remove plans that nobody uses any more from a shared cache folder.

    python -m engines.collect_garbage --max-age-days 30 --max-size-gib 20

Safe while others build and read: a plan goes by its last use, and one that is being read stays
whole for its reader. A server keeps its own copy of every plan in its model repository.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from frameswap.arguments import HelpFormatter, number_or_zero

from engines.cache import PlanCache
from fetching.cache_folder import cache_dir

DAY_S = 24 * 3600.0
GIB = 2**30


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect once and say what went; 1 when the folder is not there."""
    parser = argparse.ArgumentParser(
        prog="python -m engines.collect_garbage",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--cache", type=Path, metavar="PATH",
        help="folder of plans (default: plans/ in the user's cache)",
    )  # fmt: skip
    # A limit below 0 would remove every plan, one that is no number none.
    parser.add_argument(
        "--max-age-days", type=number_or_zero, metavar="DAYS",
        help="remove what was not used for longer",
    )  # fmt: skip
    parser.add_argument(
        "--max-size-gib", type=number_or_zero, metavar="GIB",
        help="then the longest unused above this",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    folder = options.cache or cache_dir() / "plans"
    if not folder.is_dir():
        print(f"{parser.prog}: {folder} is not a folder: name the cache", file=sys.stderr)
        return 1
    days, gib = options.max_age_days, options.max_size_gib
    collected = PlanCache(folder).collect_garbage(
        max_age_s=None if days is None else days * DAY_S,
        max_bytes=None if gib is None else int(gib * GIB),
    )
    print(
        f"{collected.removed} plans removed ({collected.removed_bytes / 1e6:,.1f} MB), "
        f"{collected.kept} kept ({collected.kept_bytes / 1e6:,.1f} MB)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
