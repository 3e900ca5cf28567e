"""The table of uploads and jobs in SQLite: one file, written ahead, whole after a kill.

Calls block for the time of a disk write at most; the gateway makes them in a thread of its own.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from frameswap import BadOptions

from frameswap_gateway.problems import Problem
from frameswap_gateway.records import FINAL_STATES, Asset, Job, Lane, Usage
from frameswap_gateway.reserve import Reserve

__all__ = ["SqliteStore"]

VERSION: Final = 1
_FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
_JSON: Final = ("request", "files", "persons", "error", "notes", "outputs", "result")
_ASSET_COLUMNS: Final = tuple(field.name for field in fields(Asset))
_JOB_COLUMNS: Final = tuple(field.name for field in fields(Job))
_ACTIVE: Final = "state IN ('queued', 'processing')"

_SCHEMA: Final = """
CREATE TABLE assets (
    owner TEXT, id TEXT, key TEXT UNIQUE, name TEXT, size INTEGER, kind TEXT, media_type TEXT,
    width INTEGER, height INTEGER, frames INTEGER, rate REAL, duration_s REAL,
    created_s REAL, used_s REAL, PRIMARY KEY (owner, id)
) STRICT;
CREATE TABLE jobs (
    owner TEXT, id TEXT, key TEXT PRIMARY KEY, kind TEXT, lane TEXT, request TEXT, files TEXT,
    persons TEXT, state TEXT, revision INTEGER, frames INTEGER, total INTEGER, rate REAL,
    left_s REAL, attempts INTEGER, is_canceling INTEGER, error TEXT, notes TEXT, outputs TEXT,
    result TEXT, webhook TEXT, created_s REAL, started_s REAL, completed_s REAL,
    holder TEXT NOT NULL DEFAULT '', lease_s REAL NOT NULL DEFAULT 0, UNIQUE (owner, id)
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, lane);
CREATE INDEX jobs_by_time ON jobs (owner, created_s);
CREATE TABLE turns (owner TEXT PRIMARY KEY, last_s REAL) STRICT;
"""

_NEXT: Final = f"""
SELECT jobs.* FROM jobs LEFT JOIN turns ON turns.owner = jobs.owner
WHERE lane = :lane AND {_ACTIVE} AND lease_s < :now
ORDER BY
    (SELECT count(*) FROM jobs AS others WHERE others.owner = jobs.owner AND
        others.state = 'processing' AND others.lease_s >= :now AND others.lane = :lane),
    coalesce(last_s, 0), created_s, jobs.rowid
LIMIT 1
"""

P = ParamSpec("P")
R = TypeVar("R")


def _whole(
    method: Callable[Concatenate[SqliteStore, P], R],
) -> Callable[Concatenate[SqliteStore, P], R]:
    """Run as one transaction, which is on the disk when it returns; a full disk is a Problem."""

    @wraps(method)
    def run(self: SqliteStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            return self.transact(lambda: method(self, *args, **kwargs), is_durable=True)

    return run


def _soon(
    method: Callable[Concatenate[SqliteStore, P], R],
) -> Callable[Concatenate[SqliteStore, P], R]:
    """The same, but a machine that loses power may forget it: it is found out again anyway.

    A kill of the process forgets nothing.
    """

    @wraps(method)
    def run(self: SqliteStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            return self.transact(lambda: method(self, *args, **kwargs), is_durable=False)

    return run


def _look(
    method: Callable[Concatenate[SqliteStore, P], R],
) -> Callable[Concatenate[SqliteStore, P], R]:
    """Read what is committed, by a connection that waits for no writer: some microseconds."""

    @wraps(method)
    def run(self: SqliteStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.reading:
            return method(self, *args, **kwargs)

    run.is_quick = True  # type: ignore[attr-defined]
    return run


class SqliteStore:
    """See `records.Store`.

    Args:
        path: of the file; it and those beside it belong to this process alone.

    Raises:
        BadOptions: it cannot be read or written, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self.lock, self.reading = threading.Lock(), threading.Lock()
        self._reserve = Reserve(path.with_suffix(".reserve"))
        self._is_durable: bool | None = None
        self.database = _connect(path)
        try:
            self._begin(path)
        except sqlite3.Error as error:
            self.database.close()
            raise BadOptions(
                f"the table of jobs {path} cannot be opened: {error}; make room, or name another "
                f"folder"
            ) from error
        self.reader = _connect(path)
        self.reader.execute("PRAGMA query_only = ON")
        self._reserve.refill()

    def _begin(self, path: Path) -> None:
        try:
            self.database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if not self._reserve.spend():
                raise
            self.database.execute("PRAGMA journal_mode = WAL")
        (version,) = self.database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            script = f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
            self.database.executescript(script)
        elif version != VERSION:
            raise BadOptions(
                f"{path} was written by another version of the gateway ({version}, this one reads "
                f"{VERSION}): finish its jobs there, or name an empty folder"
            )

    def close(self) -> None:
        with self.lock, self.reading:
            self.reader.close()
            self.database.close()

    def transact(self, work: Callable[[], R], *, is_durable: bool) -> R:
        """See `_whole` and `_soon`."""
        try:
            answer = self._transact(work, is_durable=is_durable)
        except Problem as problem:
            is_full = problem.code == "storage-full"
            if not (is_full and is_durable and self._reserve.spend()):
                raise
            return self._transact(work, is_durable=True)
        self._reserve.refill()
        return answer

    def _transact(self, work: Callable[[], R], *, is_durable: bool) -> R:
        database = self.database
        if is_durable is not self._is_durable:
            database.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
            self._is_durable = is_durable
        try:
            database.execute("BEGIN IMMEDIATE")
            answer = work()
            database.commit()
            return answer
        except BaseException as error:
            if database.in_transaction:
                database.rollback()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _FULL:
                raise Problem(
                    "storage-full",
                    "the gateway's disk is full: what is running goes on when there is room",
                    retry_after_s=60,
                ) from error
            raise

    @_soon
    def put_asset(self, asset: Asset) -> None:
        marks = ", ".join(f":{name}" for name in _ASSET_COLUMNS)
        self.database.execute(
            f"INSERT OR REPLACE INTO assets ({', '.join(_ASSET_COLUMNS)}) VALUES ({marks})",
            {name: getattr(asset, name) for name in _ASSET_COLUMNS},
        )

    @_look
    def get_asset(self, owner: str, id: str) -> Asset | None:
        rows = self._assets("owner = ? AND id = ?", owner, id)
        return rows[0] if rows else None

    @_look
    def list_assets(self, owner: str) -> list[Asset]:
        return self._assets("owner = ? ORDER BY created_s DESC", owner)

    @_whole
    def delete_asset(self, owner: str, id: str) -> None:
        self.database.execute("DELETE FROM assets WHERE owner = ? AND id = ?", (owner, id))

    @_look
    def asset_bytes(self, owner: str) -> tuple[int, int]:
        mine, everybodys = self.reader.execute(
            "SELECT coalesce(sum(CASE WHEN owner = ? THEN size END), 0), coalesce(sum(size), 0) "
            "FROM assets", (owner,),
        ).fetchone()  # fmt: skip
        return int(mine), int(everybodys)

    @_whole
    def add_job(self, job: Job) -> Job:
        found = _read_jobs(self.database, "owner = ? AND id = ?", job.owner, job.id)
        if found:
            return found[0]
        values = {name: _to_column(name, getattr(job, name)) for name in _JOB_COLUMNS}
        marks = ", ".join(f":{name}" for name in _JOB_COLUMNS)
        self.database.execute(
            f"INSERT INTO jobs ({', '.join(_JOB_COLUMNS)}) VALUES ({marks})", values
        )
        self.database.executemany(
            "UPDATE assets SET used_s = ? WHERE key = ?",
            [(job.created_s, key) for key in job.files.values()],
        )
        return job

    @_look
    def get_job(self, owner: str, id: str) -> Job | None:
        rows = self._jobs("owner = ? AND id = ?", owner, id)
        return rows[0] if rows else None

    @_look
    def list_jobs(self, owner: str, *, before_s: float, most: int) -> list[Job]:
        return self._jobs(
            "owner = ? AND created_s < ? ORDER BY created_s DESC LIMIT ?", owner, before_s, most
        )

    @_whole
    def delete_job(self, key: str) -> None:
        self.database.execute("DELETE FROM jobs WHERE key = ?", (key,))

    @_soon
    def claim(self, lane: Lane, *, holder: str, now_s: float, lease_s: float) -> Job | None:
        row = self.database.execute(_NEXT, {"lane": lane, "now": now_s}).fetchone()
        if row is None:
            return None
        job = _job(row)
        self.database.execute(
            "INSERT OR REPLACE INTO turns (owner, last_s) VALUES (?, ?)", (job.owner, now_s)
        )
        self.database.execute(
            "UPDATE jobs SET holder = ?, lease_s = ? WHERE key = ?",
            (holder, now_s + lease_s, job.key),
        )
        return self._change(job, {
            "state": "processing", "attempts": job.attempts + 1,
            "started_s": job.started_s or now_s,
        })  # fmt: skip

    @_soon
    def renew(self, holder: str, keys: Collection[str], *, until_s: float) -> None:
        self.database.executemany(
            f"UPDATE jobs SET lease_s = ? WHERE holder = ? AND key = ? AND {_ACTIVE}",
            [(until_s, holder, key) for key in keys],
        )

    @_soon
    def release(self, holder: str) -> None:
        where = "" if holder == "*" else "AND holder = :holder"
        self.database.execute(
            f"UPDATE jobs SET lease_s = 0, holder = '' WHERE {_ACTIVE} {where}",
            {"holder": holder},
        )

    def update(self, key: str, changes: Mapping[str, Any]) -> Job | None:
        with self.lock:
            # How far a job is may be forgotten, and that it succeeded: it is claimed again then,
            # and its output found or made anew. That it failed, or was stopped, may not.
            progress = changes.get("state", "succeeded") == "succeeded"
            is_durable = not progress or "is_canceling" in changes
            return self.transact(lambda: self._update(key, changes), is_durable=is_durable)

    def _update(self, key: str, changes: Mapping[str, Any]) -> Job | None:
        found = _read_jobs(self.database, f"key = ? AND {_ACTIVE}", key)
        return self._change(found[0], changes) if found else None

    @_whole
    def finish_webhook(self, key: str, state: str) -> None:
        self.database.execute("UPDATE jobs SET webhook = ? WHERE key = ?", (state, key))

    @_look
    def waiting_webhooks(self) -> list[Job]:
        return self._jobs(f"webhook = 'waiting' AND NOT ({_ACTIVE})")

    @_look
    def usage(self, owner: str | None) -> Usage:
        mine = "" if owner is None else "AND owner = :owner"
        jobs, frames = self.reader.execute(
            f"SELECT count(*), coalesce(sum(total), 0) FROM jobs WHERE {_ACTIVE} {mine}",
            {"owner": owner},
        ).fetchone()
        return Usage(int(jobs), int(frames))

    @_look
    def count_states(self) -> dict[str, int]:
        rows = self.reader.execute("SELECT state, count(*) FROM jobs GROUP BY state")
        return {str(state): int(count) for state, count in rows}

    @_look
    def keys_in_use(self) -> set[str]:
        keys = {str(key) for (key,) in self.reader.execute("SELECT key FROM assets")}
        keys |= {str(key) for (key,) in self.reader.execute("SELECT key FROM jobs")}
        for (files,) in self.reader.execute(f"SELECT files FROM jobs WHERE {_ACTIVE}"):
            keys |= set(json.loads(files).values())
        return keys

    @_look
    def stale_assets(self, before_s: float) -> list[Asset]:
        return self._assets("used_s < ? ORDER BY used_s", before_s)

    @_look
    def stale_jobs(self, before_s: float) -> list[Job]:
        return self._jobs(f"completed_s < ? AND NOT ({_ACTIVE}) ORDER BY completed_s", before_s)

    def _change(self, job: Job, changes: Mapping[str, Any]) -> Job:
        changed = replace(job, **changes, revision=job.revision + 1)
        names = [*changes, "revision"]
        freed = ", lease_s = 0, holder = ''" if changed.state in (*FINAL_STATES, "queued") else ""
        self.database.execute(
            f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in names)}{freed} WHERE key = ?",
            (*(_to_column(name, getattr(changed, name)) for name in names), job.key),
        )
        return changed

    def _assets(self, where: str, *values: Any) -> list[Asset]:
        rows: Iterable[sqlite3.Row] = self.reader.execute(
            f"SELECT * FROM assets WHERE {where}", values
        )
        return [Asset(**dict(row)) for row in rows]

    def _jobs(self, where: str, *values: Any) -> list[Job]:
        return _read_jobs(self.reader, where, *values)


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA busy_timeout = 5000")
    return database


def _read_jobs(database: sqlite3.Connection, where: str, *values: Any) -> list[Job]:
    rows = database.execute(f"SELECT * FROM jobs WHERE {where}", values)
    return [_job(row) for row in rows]


def _job(row: sqlite3.Row) -> Job:
    values = {name: row[name] for name in _JOB_COLUMNS}
    for name in _JSON:
        values[name] = None if values[name] is None else json.loads(values[name])
    values["is_canceling"] = bool(values["is_canceling"])
    return Job(**values)


def _to_column(name: str, value: Any) -> Any:
    return json.dumps(value) if name in _JSON and value is not None else value
