"""Who is building what, in a folder that many machines share: leases without file locks.

NFS and the network folders of a cluster break `flock`, and their clients' clocks differ. Only two
things are relied on: creating a link or a file exclusively is atomic, and a file that is opened
afresh shows what was last written and closed elsewhere.

A lease on NAME is a file NAME.GENERATION; the highest generation is the current one. Its holder
writes a beat counter into it from a thread. A lease whose content has not changed for `expiry_s`,
measured by the observer's own monotonic clock, belongs to nobody: it is taken over by creating
the next generation exclusively, so exactly one observer succeeds and nothing is ever deleted from
under a living holder. (At first sight the file's age counts too, as the file server tells it, so
that a lease left long ago is taken over at once.)

Leases save work; they do not protect data. Should two builders run after all (one was paused past
its expiry and woke up), each publishes a whole plan by an atomic rename, and both are good.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fetching.files import temporary_path

_BEAT_DIGITS = 20

# What `link` answers on file systems without hard links (SMB, FUSE, some CSI drivers).
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, for people: shown while others wait."""

    host: str
    pid: int
    silent_s: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class _Sighting:
    """A lease file as last read; `since` is the monotonic time from which it has not changed."""

    generation: int
    content: bytes
    since: float


class Lease:
    """A held lease: beats until it is released. `lost` says that another took it over."""

    def __init__(self, path: Path, token: str, heartbeat_s: float) -> None:
        self.path = path
        self.lost = False
        self._token = token
        self._heartbeat_s = heartbeat_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        beat = 0
        while not self._stop.wait(self._heartbeat_s):
            beat += 1
            try:
                file = os.open(self.path, os.O_WRONLY)
            except FileNotFoundError:
                self.lost = True
                return
            except OSError:
                # The folder is away for a moment; if it stays away the lease expires by itself.
                continue
            # Closing is what makes the beat visible to other clients of a network folder.
            with contextlib.suppress(OSError):
                os.pwrite(file, b"%0*d" % (_BEAT_DIGITS, beat), 0)
            with contextlib.suppress(OSError):
                os.close(file)

    def release(self) -> None:
        """Stop beating and give the lease back, unless another has it by now."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if json.loads(self.path.read_bytes()[_BEAT_DIGITS:])["token"] == self._token:
                self.path.unlink()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class LeaseFolder:
    """Leases by name in one folder. One object serves one thread; processes share the folder."""

    def __init__(
        self, folder: Path, *, expiry_s: float = 30.0, heartbeat_s: float | None = None
    ) -> None:
        self.folder = folder
        self.expiry_s = expiry_s
        # Six beats an expiry: five may be lost or late before anyone takes over.
        self._heartbeat_s = expiry_s / 6 if heartbeat_s is None else heartbeat_s
        self._sightings: dict[str, _Sighting] = {}

    def holder(self, name: str) -> Holder | None:
        """Who holds `name` now; None when nobody does or the holder has been silent too long."""
        seen = self._observe(name)
        if seen is None or self._expired(seen):
            return None
        facts = _facts(seen.content)
        silent_s = time.monotonic() - seen.since
        return Holder(str(facts.get("host", "?")), int(facts.get("pid", 0)), silent_s)

    def try_acquire(self, name: str) -> Lease | None:
        """Take `name` if it is free or expired; None when another holds it.

        Raises:
            OSError: the folder cannot be written to (read-only, full, no permission).
        """
        seen = self._observe(name)
        if seen is not None and not self._expired(seen):
            return None
        generation = 1 if seen is None else seen.generation + 1
        path = self._path(name, generation)
        token = secrets.token_hex(16)
        facts = {"host": socket.gethostname(), "pid": os.getpid(), "token": token}
        content = b"%0*d" % (_BEAT_DIGITS, 0) + json.dumps(facts).encode()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not _create_exclusively(path, content):
            return None
        if max(self._generations(name), default=generation) > generation:
            # The listing that led here was an old one: someone is further on.
            path.unlink(missing_ok=True)
            return None
        for older in self._generations(name):
            if older < generation:
                self._path(name, older).unlink(missing_ok=True)
        self._sightings.pop(name, None)
        return Lease(path, token, self._heartbeat_s)

    def _path(self, name: str, generation: int) -> Path:
        return self.folder / f"{name}.{generation}"

    def _generations(self, name: str) -> list[int]:
        try:
            entries = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        tails = (entry.removeprefix(name + ".") for entry in entries if entry.startswith(name))
        return [int(tail) for tail in tails if tail.isdecimal()]

    def _observe(self, name: str) -> _Sighting | None:
        """The current lease file, with the time since which this observer saw it unchanged."""
        while generations := self._generations(name):
            generation = max(generations)
            try:
                with open(self._path(name, generation), "rb") as file:
                    content = file.read()
                    written = os.fstat(file.fileno()).st_mtime
            except FileNotFoundError:
                continue  # released between listing and opening
            known = self._sightings.get(name)
            if known is None:
                since = time.monotonic() - max(0.0, self._server_time() - written)
                self._sightings[name] = _Sighting(generation, content, since)
            elif (known.generation, known.content) != (generation, content):
                self._sightings[name] = _Sighting(generation, content, time.monotonic())
            return self._sightings[name]
        self._sightings.pop(name, None)
        return None

    def _expired(self, seen: _Sighting) -> bool:
        return time.monotonic() - seen.since > self.expiry_s

    def _server_time(self) -> float:
        """The time of the machine that stamps files here; 0 (nothing is old) if it cannot say."""
        probe = temporary_path(self.folder)
        try:
            with open(probe, "xb") as file:
                file.write(b"0")
            written = probe.stat().st_mtime
            probe.unlink()
        except OSError:
            return 0.0
        return written


def _facts(content: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(content[_BEAT_DIGITS:])
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _create_exclusively(path: Path, content: bytes) -> bool:
    """Make `path` with `content` unless it exists; False when it does.

    A link makes the whole content appear at once, and is atomic on every version of NFS.
    """
    temporary = temporary_path(path.parent)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            return _create_by_open(path, content)
        return True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _create_by_open(path: Path, content: bytes) -> bool:
    try:
        with open(path, "xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True
