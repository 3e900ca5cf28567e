"""What a gateway may be asked to do, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from frameswap import Security

__all__ = ["Limits", "Servers", "Settings"]

GIB: Final = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is taken in before somebody is asked to wait or sent away.

    asset_bytes: of one upload. user_bytes, all_bytes: of everything that is kept, uploads and
    results. photo_pixels, video_pixels: of one picture. video_frames: of one video.
    user_uploads: at a time. user_jobs, all_jobs: waiting or running. user_frames: of all videos of
    a user that wait or run.
    short_workers, long_workers: processes for photos and looking, and for videos. live_sessions:
    cameras, each a thread.
    attempts: how often a job may take its process down with it.
    kept_s: how long uploads and results stay after their last use.
    """

    asset_bytes: int = 4 * GIB
    user_bytes: int = 20 * GIB
    all_bytes: int = 100 * GIB
    photo_pixels: int = 50_000_000
    video_pixels: int = 4096 * 2304
    video_frames: int = 500_000
    user_uploads: int = 4
    user_jobs: int = 100
    all_jobs: int = 1000
    user_frames: int = 1_000_000
    short_workers: int = 2
    long_workers: int = 2
    live_sessions: int = 2
    attempts: int = 3
    kept_s: float = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Which servers swap, and how they are reached; what `FaceSwapper` takes."""

    address: str
    security: Security = field(default_factory=Security)
    timeout_s: float = 60.0
    reconnect_s: float = 60.0
    in_flight: int = 16
    transport: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One gateway.

    folder: where uploads, results and the table of jobs are.
    host, port: where it listens.
    tokens: SHA-256 of each token, and whose it is; none on loopback only.
    names: host names that it may be called by besides its address; for a page behind a proxy.
    secure_cookies: whether browsers reach it over HTTPS only.
    webhook_hosts: which hosts may be called back; none is none.
    webhook_secret: signs what is sent to them.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    tokens: tuple[tuple[bytes, str], ...] = ()
    names: tuple[str, ...] = ()
    secure_cookies: bool = False
    webhook_hosts: tuple[str, ...] = ()
    webhook_secret: bytes = b""
    limits: Limits = field(default_factory=Limits)
