"""What goes wrong, as RFC 9457 problem details: one row a cause, one sentence an answer."""

from __future__ import annotations

import errno
import http
import re
from collections.abc import Mapping
from typing import Any, Final

from frameswap import FrameswapError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

__all__ = ["MEDIA_TYPE", "STATUSES", "Problem", "error_code", "is_full_disk", "problem_response"]

MEDIA_TYPE: Final = "application/problem+json"

STATUSES: Final[Mapping[str, int]] = {
    "bad-request": 400,
    "bad-token": 401,
    "other-origin": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "not-finished": 409,
    "upload-incomplete": 409,
    "upload-running": 409,
    "wrong-offset": 409,
    "job-differs": 409,
    "job-running": 409,
    "precondition-failed": 412,
    "too-large": 413,
    "not-a-picture": 415,
    "range-not-satisfiable": 416,
    "bad-host": 421,
    "not-possible": 422,
    "no-face-found": 422,
    "several-faces-found": 422,
    "too-many": 429,
    "stopping": 503,
    "server-unreachable": 503,
    "server-timeout": 504,
    "storage-full": 507,
}
"""Code of a problem, and the HTTP status that it comes with."""

_ALSO: Final = {
    "server-not-ready": "server-unreachable",
    "server-overloaded": "server-unreachable",
    "unreadable-file": "not-a-picture",
}
"""Codes of a job's error that answer a request as another one does; the rest are not-possible."""


class Problem(Exception):
    """An answer other than the one that was asked for.

    Args:
        code: a key of STATUSES.
        sentence: what was expected, what came, what to do.
        retry_after_s: when to ask again.
        more: further members of the answer.
    """

    def __init__(
        self,
        code: str,
        sentence: str,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(sentence)
        self.code, self.sentence, self.more = code, sentence, more
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, round(retry_after_s)))

    @property
    def status(self) -> int:
        return STATUSES[self.code]

    @classmethod
    def of_job(cls, code: str, sentence: str) -> Problem:
        """The answer to a request that failed as a job does."""
        known = _ALSO.get(code, code)
        return cls(known if known in STATUSES else "not-possible", sentence, cause=code)


def error_code(error: FrameswapError) -> str:
    """`no-face-found` of a NoFaceFound."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()


def is_full_disk(error: BaseException | None) -> bool:
    """Whether a full disk, or a quota that is used up, is behind it."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def problem_response(request: Request | None, problem: Problem) -> Response:
    """`type` is a tag URI: no page of the web need stand behind it."""
    body = {
        "type": f"tag:frameswap,2026:{problem.code}",
        "title": http.HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.sentence,
        "code": problem.code,
        **problem.more,
    }
    if request is not None:
        body["instance"] = request.url.path
    return JSONResponse(
        body, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE
    )
