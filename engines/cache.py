"""Plans kept by what they are made of, in a folder that many machines share.

An entry is one file, named by the digest of everything that decides the plan: a line with the
header's digest and length, the header (the plan's manifest, as it lies beside a published plan),
then the plan. It appears by one atomic rename and its checksums are compared
on every read, so a reader gets a whole plan or none. A damaged entry is reported and rebuilt in
place. A folder that cannot be written to is still read; what was built then is used, not kept.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engines.errors import CacheError
from engines.lease import Holder, LeaseFolder
from engines.manifest import FORMAT, Manifest, PlanKey
from fetching.files import TEMPORARY_PREFIX, data_sha256, publish_file

_MAGIC = f"frameswap-plan {FORMAT}"
_SUFFIX = ".plan"
_LEASES = "leases"

# A half-written file or a lease is older than this only if its writer is gone.
_ABANDONED_AFTER_S = 24 * 3600.0

Outcome = Literal["built", "cache hit", "waited"]
"""Where a plan came from; one that another builder made meanwhile was waited for."""


@dataclass(frozen=True)
class Built:
    """What a build gives: the plan and its manifest."""

    data: bytes
    manifest: Manifest


@dataclass(frozen=True)
class CacheResult:
    """A plan from the cache, with its builder's manifest.

    notes: sentences for a person: damage, a full disk, waiting.
    """

    data: bytes
    manifest: Manifest
    outcome: Outcome
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EntryInfo:
    """One entry's manifest and file, without its plan."""

    path: Path
    manifest: Manifest
    size_bytes: int
    used_at: float


@dataclass(frozen=True)
class Collected:
    """What a garbage collection removed and what is left."""

    removed: int
    removed_bytes: int
    kept: int
    kept_bytes: int


class _Damaged(Exception):
    """An entry is not what its checksums say; the message says how."""


class PlanCache:
    """Plans in `folder`. Any number of processes and machines may use one folder at a time."""

    def __init__(self, folder: Path, *, lease_expiry_s: float = 30.0, poll_s: float = 0.5) -> None:
        self.folder = folder
        self._lease_expiry_s = lease_expiry_s
        self._poll_s = poll_s

    def entry_path(self, key: PlanKey) -> Path:
        digest = key.digest
        return self.folder / digest[:2] / f"{digest}{_SUFFIX}"

    def get(self, key: PlanKey) -> CacheResult | None:
        """The plan, verified; None when there is none or it is damaged."""
        return self._read(key, [])

    def get_or_build(
        self,
        key: PlanKey,
        build: Callable[[], Built],
        *,
        on_wait: Callable[[Holder, float], None] | None = None,
    ) -> CacheResult:
        """The plan from the cache; built by exactly one of those who ask at the same time.

        Args:
            on_wait: called about once a `poll_s` with who is building and the seconds waited.

        Raises:
            CacheError: the cache folder is not a folder.
            Exception: whatever `build` raises; the lease is given back.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise CacheError(f"the cache folder {self.folder} is a file: name a folder")
        notes: list[str] = []
        found = self._read(key, notes)
        if found is not None:
            return found
        leases = LeaseFolder(self.folder / _LEASES, expiry_s=self._lease_expiry_s)
        started = time.monotonic()
        waited = False
        while True:
            try:
                lease = leases.try_acquire(key.digest)
            except OSError as error:
                return self._build_unkept(build, notes, error)
            if lease is not None:
                break
            holder = leases.holder(key.digest)
            if holder is not None and on_wait is not None:
                on_wait(holder, time.monotonic() - started)
            waited = True
            time.sleep(self._poll_s)
            # Damage that was reported before waiting is being repaired: say it once only.
            found = self._read(key, notes if not notes else [])
            if found is not None:
                return CacheResult(found.data, found.manifest, "waited", tuple(notes))
        with lease:
            found = self._read(key, notes if not notes else [])
            if found is not None:
                outcome: Outcome = "waited" if waited else "cache hit"
                return CacheResult(found.data, found.manifest, outcome, tuple(notes))
            built = build()
            self._publish(key, built, notes)
            return CacheResult(built.data, built.manifest, "built", tuple(notes))

    def entries(self) -> Iterator[EntryInfo]:
        """Every readable entry's header; unreadable ones are left out."""
        for path in sorted(self.folder.glob(f"??/*{_SUFFIX}")):
            try:
                with open(path, "rb") as file:
                    manifest = _read_header(file.readline(), file.read)
                    status = os.fstat(file.fileno())
            except (OSError, _Damaged):
                continue
            yield EntryInfo(path, manifest, status.st_size, status.st_mtime)

    def nearest(self, model: str, key: PlanKey) -> str:
        """Whether the cache has this plan, or how its nearest one of `model` differs: a sentence.

        `model` is a label for people: the key decides.
        """
        notes: list[str] = []
        if self._read(key, notes) is not None:
            return f"{model}: the plan is in the cache ({self.entry_path(key)})"
        if notes:
            return f"{model}: {notes[0]}"
        wanted = key.components
        differences = [
            (_changes(entry.manifest.plan.components, wanted), entry)
            for entry in self.entries()
            if entry.manifest.model == model and entry.manifest.plan is not None
        ]
        if not differences:
            return f"{model}: no plan of it is in the cache {self.folder}"
        changes, _ = min(differences, key=lambda item: (len(item[0]), -item[1].used_at))
        return f"{model}: the nearest plan in the cache differs in {'; '.join(changes)}"

    def collect_garbage(
        self, *, max_age_s: float | None = None, max_bytes: int | None = None
    ) -> Collected:
        """Remove plans not used for `max_age_s`, then the longest unused ones above `max_bytes`.

        Half-written files and leases that their writers left behind go as well. A plan that is
        removed while another process reads it stays whole for that process.
        """
        found = []
        for path in self.folder.glob(f"??/*{_SUFFIX}"):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        found.sort()
        now = time.time()
        kept_bytes = sum(size for _, size, _ in found)
        kept = len(found)
        removed = removed_bytes = 0
        for used_at, size, path in found:
            too_old = max_age_s is not None and now - used_at > max_age_s
            too_much = max_bytes is not None and kept_bytes > max_bytes
            if not (too_old or too_much):
                continue
            with suppress(OSError):
                path.unlink()
                removed, removed_bytes = removed + 1, removed_bytes + size
                kept, kept_bytes = kept - 1, kept_bytes - size
        for path in (
            *self.folder.glob(f"*/{TEMPORARY_PREFIX}*"),
            *self.folder.glob(f"{_LEASES}/*"),
        ):
            with suppress(OSError):
                if now - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    path.unlink()
        return Collected(removed, removed_bytes, kept, kept_bytes)

    def _read(self, key: PlanKey, notes: list[str]) -> CacheResult | None:
        path = self.entry_path(key)
        try:
            with open(path, "rb") as file:
                manifest = _read_header(file.readline(), file.read)
                data = file.read()
            if manifest.plan is None or manifest.plan.components != key.components:
                raise _Damaged("its header is another plan's")
            if data_sha256(data) != manifest.sha256:
                raise _Damaged(f"its {len(data)} bytes do not match their checksum")
        except FileNotFoundError:
            return None
        except (_Damaged, OSError) as error:
            notes.append(f"the cache entry {path} is damaged ({error}); it is rebuilt")
            return None
        with suppress(OSError):
            os.utime(path)  # garbage collection goes by last use
        return CacheResult(data, manifest, "cache hit", tuple(notes))

    def _publish(self, key: PlanKey, built: Built, notes: list[str]) -> None:
        header = built.manifest.to_json().encode()
        first = f"{_MAGIC} {data_sha256(header)} {len(header)}\n".encode()
        try:
            publish_file(self.entry_path(key), first + header + built.data)
        except OSError as error:
            notes.append(_unkept(self.folder, error))

    def _build_unkept(
        self, build: Callable[[], Built], notes: list[str], error: OSError
    ) -> CacheResult:
        built = build()
        notes.append(_unkept(self.folder, error))
        return CacheResult(built.data, built.manifest, "built", tuple(notes))


def _unkept(folder: Path, error: OSError) -> str:
    return (
        f"the plan was built but could not be kept in the cache {folder} "
        f"({error.strerror or error}): it will be built again next time"
    )


def _read_header(first: bytes, read: Callable[[int], bytes]) -> Manifest:
    """The manifest that follows the first line, compared with its checksum."""
    words = first.decode("ascii", "replace").split()
    if " ".join(words[:2]) != _MAGIC or len(words) != 4 or not words[3].isdecimal():
        raise _Damaged("its first line is not a plan's")
    header = read(int(words[3]))
    if data_sha256(header) != words[2]:
        raise _Damaged("its header does not match its checksum")
    try:
        return Manifest.from_json(header)
    except ValueError as error:
        raise _Damaged(f"its header is no manifest: {error}") from error


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Each component that differs, with both values."""
    words = {"onnx_sha256": "the typed graph"}
    return [
        f"{words.get(name, name)} ({_short(old.get(name))} there, {_short(new[name])} wanted)"
        for name in new
        if old.get(name) != new[name]
    ]


def _short(value: object) -> str:
    """A value as a person can compare it: digests by their first digits."""
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) == 64 and " " not in text:
        return text[:12]
    return text if len(text) <= 200 else f"{text[:200]}..."
