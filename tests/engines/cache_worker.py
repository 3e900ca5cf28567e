"""One process that wants a plan: run by the cache tests, many at a time.

    python cache_worker.py FOLDER EXPIRY_S BUILD_S [--start-file PATH] [--die-at CALL]
                           [--file-limit BYTES] [--nobody]

The fake compiler writes a line to FOLDER/../builds, sleeps BUILD_S and returns 300 kB made from
the key. Prints one JSON line: outcome, the plan's digest, notes, who it waited for.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engines.cache import Built, PlanCache
from engines.manifest import PlanKey, describe

KEY = PlanKey(
    onnx_sha256="ab" * 32,
    flavour="tensorrt_rtx",
    tensorrt_version="1.7.1",
    compute_capabilities=("8.9",),
    profile={"crops": {"min": (1, 3), "opt": (4, 3), "max": (8, 3)}},
    options={"workspace_bytes": None},
)
MODEL = "face_swapper"
PLAN = hashlib.sha256(b"plan").digest() * 10_000


def made(data: bytes = PLAN, key: PlanKey = KEY, seconds: float = 0.0) -> Built:
    """What a compiler gave for `key`."""
    manifest = describe(
        data, model=MODEL, file="model.rtx.plan", recipe={}, plan=key, seconds=seconds
    )
    return Built(data, manifest)


def die_at(call: str) -> None:
    """Make the process kill itself when `os.CALL` is entered, or `CALL+` when it has returned."""
    name, after = call.rstrip("+"), call.endswith("+")
    original = getattr(os, name)

    def fatal(*args: object, **kwargs: object) -> object:
        if after:
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")

    setattr(os, name, fatal)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("expiry_s", type=float)
    parser.add_argument("build_s", type=float)
    parser.add_argument("--start-file", type=Path)
    parser.add_argument("--die-at")
    parser.add_argument("--file-limit", type=int)
    parser.add_argument("--nobody", action="store_true")
    arguments = parser.parse_args()
    if arguments.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.file_limit,) * 2)
    if arguments.nobody and os.getuid() == 0:
        os.setuid(65534)  # root may write to read-only folders; this process may not
    if arguments.die_at is not None:
        die_at(arguments.die_at)

    def build() -> Built:
        with open(arguments.folder.parent / "builds", "a") as log:
            log.write(f"{os.getpid()}\n")
        time.sleep(arguments.build_s)
        return made(seconds=arguments.build_s)

    waited_for: set[int] = set()
    cache = PlanCache(arguments.folder, lease_expiry_s=arguments.expiry_s, poll_s=0.05)
    print("ready", flush=True)
    while arguments.start_file is not None and not arguments.start_file.exists():
        time.sleep(0.01)
    result = cache.get_or_build(
        KEY, build, on_wait=lambda holder, seconds: waited_for.add(holder.pid)
    )
    answer = {
        "outcome": result.outcome,
        "sha256": hashlib.sha256(result.data).hexdigest(),
        "notes": result.notes,
        "waited_for": sorted(waited_for),
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
