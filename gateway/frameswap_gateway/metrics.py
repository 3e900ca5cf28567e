"""What Prometheus is told."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from frameswap_gateway.records import FINAL_STATES

__all__ = ["Metrics"]

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """A registry of its own, so that two gateways in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "frameswap_gateway_requests", "Answers, by route and status",
            ("method", "route", "status"), registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "frameswap_gateway_request_seconds", "Time to the end of an answer, seconds",
            ("method", "route"), buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.ended = Counter(
            "frameswap_gateway_jobs_ended", "Jobs that came to an end", ("kind", "state"),
            registry=self.registry,
        )  # fmt: skip
        self.frames = Counter(
            "frameswap_gateway_frames", "Frames of jobs that were swapped", registry=self.registry
        )
        self.uploaded = Counter(
            "frameswap_gateway_uploaded_bytes", "Bytes that were taken in", registry=self.registry
        )
        self.deaths = Counter(
            "frameswap_gateway_worker_deaths", "Workers that died with a task",
            registry=self.registry,
        )  # fmt: skip
        self.jobs = Gauge(
            "frameswap_gateway_jobs", "Jobs in the table", ("state",), registry=self.registry
        )
        self.live = Gauge(
            "frameswap_gateway_live_sessions", "Cameras that are swapped", registry=self.registry
        )
        for state in ("queued", "processing", *FINAL_STATES):
            self.jobs.labels(state).set(0)
