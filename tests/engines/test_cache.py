"""The plan cache with many processes, killed builders, damage, read-only folders, full disks."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fetching.files
from engines.cache import Built, PlanCache
from engines.errors import CacheError
from engines.lease import LeaseFolder
from engines.manifest import PlanKey
from tests.engines.cache_worker import KEY, MODEL, PLAN, made

WORKER = Path(__file__).with_name("cache_worker.py")
GOOD = hashlib.sha256(PLAN).hexdigest()


def start(folder: Path, expiry_s: float, build_s: float, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), str(folder), str(expiry_s), str(build_s), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def builds(folder: Path) -> int:
    log = folder.parent / "builds"
    return len(log.read_text().splitlines()) if log.exists() else 0


def leftovers(folder: Path) -> list[str]:
    """Leases and half-written files under `folder`."""
    found = [*folder.glob("leases/*"), *folder.glob("*/.tmp-*")]
    return sorted(str(path.relative_to(folder)) for path in found)


def forbidden() -> Built:
    raise AssertionError("a plan that is in the cache was built again")


def test_twenty_processes_that_ask_for_one_plan_build_it_once(tmp_path: Path) -> None:
    folder, go = tmp_path / "cache", tmp_path / "go"
    processes = [start(folder, 5.0, 1.0, "--start-file", str(go)) for _ in range(20)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    go.touch()
    answers = [answer(process) for process in processes]
    assert builds(folder) == 1
    assert {found["sha256"] for found in answers} == {GOOD}
    outcomes = Counter(found["outcome"] for found in answers)
    assert outcomes["built"] == 1
    assert outcomes["built"] + outcomes["waited"] + outcomes["cache hit"] == 20
    pids = zip(processes, answers, strict=True)
    (builder,) = (process.pid for process, found in pids if found["outcome"] == "built")
    assert any(builder in found["waited_for"] for found in answers)
    assert leftovers(folder) == []


@pytest.mark.e2e
def test_a_builder_killed_at_ten_random_moments_never_blocks_or_poisons(tmp_path: Path) -> None:
    expiry_s, build_s = 1.5, 0.4
    moments = random.Random(20).choices(range(0, 600, 5), k=10)
    doomed = []
    for index, moment in enumerate(moments):
        folder = tmp_path / str(index) / "cache"
        folder.parent.mkdir()
        process = start(folder, expiry_s, build_s)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moment / 1000)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        doomed.append((folder, time.monotonic(), start(folder, expiry_s, build_s)))
    for folder, killed_at, process in doomed:
        found = answer(process)
        # The last beat is at most the kill; then expiry, one build, two polls, and a slow start.
        # The slack is for a busy machine, and well below the default expiry of 30 s.
        assert time.monotonic() - killed_at < expiry_s + build_s + 20.0
        assert found["sha256"] == GOOD
        cached = PlanCache(folder).get(KEY)
        assert cached is not None
        assert cached.data == PLAN
        # Killed between publishing and giving back, a lease may lie there: it holds nobody up.
        assert LeaseFolder(folder / "leases", expiry_s=expiry_s).holder(KEY.digest) is None


@pytest.mark.parametrize(
    "call", ["link", "link+", "fsync", "fsync+", "replace", "replace+", "unlink", "utime"]
)
def test_a_builder_killed_inside_a_file_operation_leaves_a_usable_cache(
    tmp_path: Path, call: str
) -> None:
    folder = tmp_path / "cache"
    if call == "utime":  # only a reader calls it
        PlanCache(folder).get_or_build(KEY, made)
    process = start(folder, 0.5, 0.0, "--die-at", call)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    result = PlanCache(folder, lease_expiry_s=0.5, poll_s=0.02).get_or_build(
        KEY, made
    )
    assert result.data == PLAN
    assert result.notes == ()
    time.sleep(0.5)
    assert LeaseFolder(folder / "leases", expiry_s=0.5).holder(KEY.digest) is None


def test_a_builder_paused_past_its_expiry_wakes_up_without_harm(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    paused = start(folder, 0.5, 1.0)
    assert paused.stdout is not None
    assert paused.stdout.readline() == "ready\n"
    while builds(folder) == 0:
        time.sleep(0.02)
    paused.send_signal(signal.SIGSTOP)
    try:
        other = answer(start(folder, 0.5, 1.0))
    finally:
        paused.send_signal(signal.SIGCONT)
    assert other["outcome"] == "built"
    assert answer(paused)["sha256"] == other["sha256"] == GOOD
    assert leftovers(folder) == []


@pytest.fixture
def filled(tmp_path: Path) -> tuple[PlanCache, Path]:
    cache = PlanCache(tmp_path / "cache", poll_s=0.02)
    cache.get_or_build(KEY, lambda: made(seconds=1.5))
    return cache, cache.entry_path(KEY)


def test_a_plan_comes_back_with_what_its_compiler_said(filled: tuple[PlanCache, Path]) -> None:
    cache, _ = filled
    result = cache.get_or_build(KEY, forbidden)
    assert (result.data, result.outcome) == (PLAN, "cache hit")
    assert result.manifest.to_json() == made(seconds=1.5).manifest.to_json()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_an_entry_with_one_flipped_bit_is_never_served(
    filled: tuple[PlanCache, Path], position: int, bit: int
) -> None:
    cache, path = filled
    good = path.read_bytes()
    bad = bytearray(good)
    # Half of the flips fall into the header: it is small, and no less able to mislead.
    bad[position % (1500 if position % 2 else len(bad))] ^= 1 << bit
    path.write_bytes(bad)
    assert cache.get(KEY) is None
    path.write_bytes(good)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(length=st.integers(0, 320_000 - 1))
def test_a_truncated_entry_is_never_served(filled: tuple[PlanCache, Path], length: int) -> None:
    cache, path = filled
    good = path.read_bytes()
    path.write_bytes(good[: min(length, len(good) - 1)])
    assert cache.get(KEY) is None
    path.write_bytes(good)


def test_a_damaged_entry_is_reported_and_rebuilt(filled: tuple[PlanCache, Path]) -> None:
    cache, path = filled
    path.write_bytes(path.read_bytes()[:-1])
    result = cache.get_or_build(KEY, made)
    assert result.outcome == "built"
    assert len(result.notes) == 1
    assert "is damaged" in result.notes[0]
    assert str(path) in result.notes[0]
    assert cache.get_or_build(KEY, forbidden).notes == ()


def test_an_entry_under_another_key_is_not_served(filled: tuple[PlanCache, Path]) -> None:
    cache, path = filled
    other = dataclasses.replace(KEY, flavour="tensorrt")
    cache.entry_path(other).parent.mkdir(exist_ok=True)
    path.rename(cache.entry_path(other))
    assert cache.get(other) is None


def test_a_read_only_cache_is_used_and_what_is_missing_is_built_but_not_kept() -> None:
    base = Path(tempfile.mkdtemp(prefix="frameswap-read-only-"))
    base.chmod(0o777)
    folder = base / "cache"
    folder.mkdir()
    try:
        folder.chmod(0o555)
        missing = answer(start(folder, 1.0, 0.0, "--nobody"))
        assert (missing["outcome"], missing["sha256"]) == ("built", GOOD)
        assert "could not be kept" in missing["notes"][0]
        folder.chmod(0o755)
        PlanCache(folder).get_or_build(KEY, made)
        for path in (*folder.glob("*"), folder):
            path.chmod(0o555)
        present = answer(start(folder, 1.0, 0.0, "--nobody"))
        assert present == {"outcome": "cache hit", "sha256": GOOD, "notes": [], "waited_for": []}
    finally:
        for path in (base, folder, *folder.glob("*")):
            path.chmod(0o755)
        subprocess.run(["rm", "-r", str(base)], check=True)


def test_a_full_disk_is_reported_and_leaves_the_cache_usable(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    # The largest file this process may write is smaller than the plan, as on a disk nearly full.
    found = answer(start(folder, 1.0, 0.0, "--file-limit", "65536"))
    assert (found["outcome"], found["sha256"]) == ("built", GOOD)
    assert "could not be kept" in found["notes"][0]
    assert leftovers(folder) == []
    assert PlanCache(folder).get_or_build(KEY, made).notes == ()
    assert PlanCache(folder).get_or_build(KEY, forbidden).outcome == "cache hit"


def test_a_disk_that_fills_up_while_writing_says_no_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fetching.files.os, "fsync", full)
    cache = PlanCache(tmp_path / "cache")
    result = cache.get_or_build(KEY, made)
    assert result.data == PLAN
    assert "No space left on device" in result.notes[0]
    assert leftovers(tmp_path / "cache") == []


def test_a_build_that_fails_gives_the_lease_back(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "cache")

    def failing() -> Built:
        raise ValueError("no such operator")

    with pytest.raises(ValueError, match="no such operator"):
        cache.get_or_build(KEY, failing)
    assert leftovers(cache.folder) == []
    assert cache.get_or_build(KEY, made).outcome == "built"


def test_a_cache_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(CacheError, match="is a file: name a folder"):
        PlanCache(tmp_path / "cache").get_or_build(KEY, forbidden)


CHANGED: dict[str, Any] = {
    "onnx_sha256": "cd" * 32,
    "flavour": "tensorrt",
    "tensorrt_version": "1.8.0",
    "compute_capabilities": ("8.6", "8.9"),
    "profile": {"crops": {"min": (1, 3), "opt": (4, 3), "max": (16, 3)}},
    "options": {"workspace_bytes": 1024},
}


@pytest.mark.parametrize("component", CHANGED)
def test_every_component_of_the_key_changes_the_digest_and_is_explained(
    filled: tuple[PlanCache, Path], component: str
) -> None:
    cache, _ = filled
    changed = dataclasses.replace(KEY, **{component: CHANGED[component]})
    assert changed.digest != KEY.digest
    explanation = cache.nearest(MODEL, changed)
    word = "the typed graph" if component == "onnx_sha256" else component
    assert explanation.startswith(f"face_swapper: the nearest plan in the cache differs in {word}")
    assert ";" not in explanation


def test_the_digest_ignores_the_order_of_devices() -> None:
    first = dataclasses.replace(KEY, compute_capabilities=("8.6", "8.9"))
    second = dataclasses.replace(first, compute_capabilities=("8.9", "8.6"))
    assert first.digest == second.digest


def test_it_tells_a_plan_that_is_there_missing_or_damaged(
    filled: tuple[PlanCache, Path],
) -> None:
    cache, path = filled
    assert "is in the cache" in cache.nearest(MODEL, KEY)
    assert "no plan of it" in cache.nearest("face_blender", CHANGED_KEY)
    path.write_bytes(b"")
    assert "is damaged" in cache.nearest(MODEL, KEY)


CHANGED_KEY = dataclasses.replace(KEY, onnx_sha256="cd" * 32)


def put(cache: PlanCache, label: str, size: int, age_s: float) -> PlanKey:
    key = dataclasses.replace(KEY, onnx_sha256=hashlib.sha256(label.encode()).hexdigest())
    cache.get_or_build(key, lambda: made(bytes(size), key))
    then = time.time() - age_s
    os.utime(cache.entry_path(key), (then, then))
    return key


def test_garbage_collection_goes_by_last_use_then_by_size(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "cache")
    keys = [put(cache, str(age), 10_000, age * 3600.0) for age in (100, 50, 20, 10)]
    collected = cache.collect_garbage(max_age_s=75 * 3600.0, max_bytes=25_000)
    present = [cache.entry_path(key).exists() for key in keys]
    # The first is too old; the second is the longest unused above 25 kB.
    assert present == [False, False, True, True]
    assert (collected.removed, collected.kept) == (2, 2)
    assert collected.kept_bytes == sum(e.size_bytes for e in cache.entries()) <= 25_000


def test_a_plan_in_use_is_the_last_to_be_collected(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "cache")
    old = put(cache, "old but used", 10_000, 1000.0)
    idle = put(cache, "newer, idle", 10_000, 500.0)
    assert cache.get(old) is not None
    cache.collect_garbage(max_bytes=15_000)
    assert cache.get(old) is not None
    assert cache.get(idle) is None


def test_garbage_collection_removes_only_files_whose_writer_is_long_gone(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "cache")
    long_ago = time.time() - 2 * 24 * 3600
    for name in ("ab/.tmp-fresh", "ab/.tmp-old", "leases/fresh.1", "leases/old.1"):
        path = cache.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
        if "old" in name:
            os.utime(path, (long_ago, long_ago))
    cache.collect_garbage()
    assert leftovers(cache.folder) == ["ab/.tmp-fresh", "leases/fresh.1"]


def test_an_entry_of_an_earlier_version_lies_elsewhere_and_is_collected(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "cache")
    components = json.dumps(KEY.components, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(components.encode()).hexdigest()
    old = cache.folder / digest[:2] / f"{digest}.plan"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"frameswap-plan 1 " + b"0" * 64 + b" 2\n{}plan")
    assert cache.entry_path(KEY) != old
    assert list(cache.entries()) == []
    assert cache.collect_garbage(max_bytes=0).removed == 1
