"""What is remembered of uploads and jobs, and the table that remembers it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

__all__ = ["FINAL_STATES", "LANES", "Asset", "Job", "JobState", "Lane", "Store", "Usage"]

JobState = Literal["queued", "processing", "succeeded", "failed", "canceled"]
FINAL_STATES: Final[tuple[JobState, ...]] = ("succeeded", "failed", "canceled")
Lane = Literal["short", "long"]
LANES: Final[tuple[Lane, ...]] = ("short", "long")
"""Photos, and looking for faces, have workers of their own: they do not wait behind a film."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file that somebody uploaded.

    id: the user's name for it. key: of this content, in the folder: a new upload has a new one.
    name: what the user calls the file; only ever shown. kind: "photo" or "video", "" while it is
    not all there. size: bytes. frames: as the container promises, 0 where it does not.
    created_s, used_s: seconds since 1970.
    """

    owner: str
    id: str
    key: str
    name: str
    size: int
    kind: str = ""
    media_type: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    rate: float = 0.0
    duration_s: float = 0.0
    created_s: float = 0.0
    used_s: float = 0.0

    @property
    def is_ready(self) -> bool:
        return self.kind != ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What somebody asked for, and how far it is.

    key: of its folder. id: the user's name for it. request: as it came. files: the key of each
    upload that it reads, by its id. persons: for each swap, the numbers of whom it replaces, or
    None. frames, total: done, and expected; 0 where that is not known.
    revision: grows with each change; the id of events.
    attempts: how many processes it was given to. is_canceling: somebody wants it to stop.
    error: code and sentence. outputs: name of each file in its folder, and its media type.
    webhook: "" none wanted, else "waiting", "sent" or "failed".
    """

    owner: str
    id: str
    key: str
    kind: str
    lane: Lane
    request: Mapping[str, Any]
    files: Mapping[str, str] = field(default_factory=dict)
    persons: Sequence[Sequence[float] | None] = ()
    state: JobState = "queued"
    revision: int = 1
    frames: int = 0
    total: int = 0
    rate: float = 0.0
    left_s: float | None = None
    attempts: int = 0
    is_canceling: bool = False
    error: Mapping[str, str] | None = None
    notes: Sequence[str] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    webhook: str = ""
    created_s: float = 0.0
    started_s: float = 0.0
    completed_s: float = 0.0

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True)
class Usage:
    """Of jobs that wait or run: how many, and the frames of their videos."""

    jobs: int
    frames: int


class Store(Protocol):
    """What a table has to do; of SQLite in a file here, of a database server elsewhere.

    A job is claimed with a lease and stays the claimer's as long as that is renewed; one whose
    lease ran out is anybody's again. Every method is whole or did nothing.
    """

    def put_asset(self, asset: Asset) -> None:
        """May be forgotten by a machine that loses power, until a job reads it: then neither is."""
        ...

    def get_asset(self, owner: str, id: str) -> Asset | None: ...
    def list_assets(self, owner: str) -> list[Asset]: ...
    def delete_asset(self, owner: str, id: str) -> None: ...
    def asset_bytes(self, owner: str) -> tuple[int, int]:
        """Of this user's uploads, and of everybody's."""
        ...

    def add_job(self, job: Job) -> Job:
        """Returns it, or the one that has its name. Its files were used now."""
        ...

    def get_job(self, owner: str, id: str) -> Job | None: ...
    def list_jobs(self, owner: str, *, before_s: float, most: int) -> list[Job]: ...
    def delete_job(self, key: str) -> None: ...
    def claim(self, lane: Lane, *, holder: str, now_s: float, lease_s: float) -> Job | None:
        """The next job of a lane: of the user who has the fewest running, the oldest."""
        ...

    def renew(self, holder: str, keys: Collection[str], *, until_s: float) -> None:
        """Of those jobs alone that the holder works at: what it lost is anybody's in time."""
        ...

    def release(self, holder: str) -> None:
        """Let others claim at once what a holder has, or with "*" everybody: they are gone."""
        ...

    def update(self, key: str, changes: Mapping[str, Any]) -> Job | None:
        """Change fields of a job that is not final; None where it is, or is gone."""
        ...

    def finish_webhook(self, key: str, state: str) -> None: ...
    def waiting_webhooks(self) -> list[Job]: ...
    def usage(self, owner: str | None) -> Usage: ...
    def count_states(self) -> dict[str, int]: ...
    def keys_in_use(self) -> set[str]:
        """Of every upload and every job that must stay on the disk."""
        ...

    def stale_assets(self, before_s: float) -> list[Asset]: ...
    def stale_jobs(self, before_s: float) -> list[Job]: ...
    def close(self) -> None: ...
