"""Build a repository in a container: what `build_engines.py` does, with the image's own downloads.

    python -m deploy.build_plans --target tensorrt --repository /models --cache /cache/plans

The weights and pictures that the default networks need are in the image, read-only. They are put
into the cache (`FRAMESWAP_CACHE`) before the build, so that it asks no network for them; what was
built is then checked as a server would.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from engines import check_plans
from fetching.cache_folder import cache_dir
from fetching.files import publish_file

ROOT: Final = Path(__file__).resolve().parent.parent
DOWNLOADS: Final = "FRAMESWAP_DOWNLOADS"
"""Variable that names the folder of the image's downloads, laid out as a cache is."""


def seed_cache(downloads: Path, cache: Path) -> list[Path]:
    """Put files that are not in the cache yet there, each whole; return them."""
    made = []
    for source in sorted(path for path in downloads.rglob("*") if path.is_file()):
        target = cache / source.relative_to(downloads)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            publish_file(target, source.read_bytes())
            made.append(target)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and check; the build's exit status, or 1 where a plan would be refused."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--target", required=True)
    parser.add_argument("--repository", type=Path, required=True)
    known, _ = parser.parse_known_args(given)
    downloads = os.environ.get(DOWNLOADS)
    if downloads:
        for path in seed_cache(Path(downloads), cache_dir()):
            print(f"frameswap: {path} from the image", flush=True)
    status = subprocess.run([sys.executable, "build_engines.py", *given], cwd=ROOT).returncode
    if status:
        return status
    return check_plans.main(["--repository", str(known.repository), "--target", known.target])


if __name__ == "__main__":
    sys.exit(main())
