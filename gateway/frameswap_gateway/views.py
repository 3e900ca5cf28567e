"""How uploads and jobs look to a client."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from frameswap_gateway.job_requests import AssetView, ErrorView, JobView, OutputView
from frameswap_gateway.records import Asset, Job

__all__ = ["show_asset", "show_job"]


def show_asset(asset: Asset, received: int) -> AssetView:
    base = f"/v1/assets/{asset.id}"
    return AssetView(
        id=asset.id, name=asset.name, state="ready" if asset.is_ready else "uploading",
        received=received, size=asset.size, kind=asset.kind,  # type: ignore[arg-type]
        media_type=asset.media_type, width=asset.width, height=asset.height, frames=asset.frames,
        rate=asset.rate, duration_s=asset.duration_s, created=_time(asset.created_s) or "",
        links={"self": base, "info": f"{base}/info", "frame": f"{base}/frame"},
    )  # fmt: skip


def show_job(job: Job) -> JobView:
    base = f"/v1/jobs/{job.id}"
    share = min(1.0, job.frames / job.total) if job.total else 0.0
    outputs = [
        OutputView(name=name, media_type=kind, href=f"{base}/outputs/{name}")
        for name, kind in job.outputs.items()
    ]
    return JobView(
        id=job.id, kind=job.kind, state=job.state, revision=job.revision,  # type: ignore[arg-type]
        canceling=job.is_canceling and not job.is_final,
        progress=1.0 if job.state == "succeeded" else round(share, 4),
        frames=job.frames, total=job.total or None, rate=job.rate, left_s=job.left_s,
        error=None if job.error is None else ErrorView(**job.error), notes=list(job.notes),
        outputs=outputs, result=_shown_result(job), request=dict(job.request),
        created=_time(job.created_s) or "", started=_time(job.started_s),
        completed=_time(job.completed_s),
        links={"self": base, "events": f"{base}/events", "cancel": f"{base}/cancel"},
    )  # fmt: skip


def _shown_result(job: Job) -> dict[str, Any]:
    """Without what only the gateway wants: the numbers that a face is known by."""
    result = dict(job.result)
    if "persons" in result:
        result["persons"] = [
            {key: value for key, value in person.items() if key != "embedding"}
            for person in result["persons"]
        ]
    return result


def _time(seconds: float) -> str | None:
    """RFC 3339; None of 0, which is never."""
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
