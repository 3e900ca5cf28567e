"""How routes describe their problems in OpenAPI."""

from __future__ import annotations

import http
from typing import Any, Final

from frameswap_gateway.job_requests import ProblemView
from frameswap_gateway.problems import MEDIA_TYPE, STATUSES
from frameswap_gateway.tokens import COOKIE

__all__ = ["BYTES", "FILES", "add_shared", "problems"]

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
BYTES: Final[dict[str, Any]] = {"application/octet-stream": _BINARY}
FILES: Final[dict[str, Any]] = {
    "image/*": _BINARY, "video/*": _BINARY, "application/x-ndjson": _BINARY, **BYTES,
}  # fmt: skip
"""What is given back: pictures, videos, reports, and what has no type of its own."""


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that cannot do what it was asked, by status.

    Every route may also refuse a host name or another site, or say a request is too long.
    """
    wanted = {*codes, "bad-host", "other-origin"}
    found: dict[int | str, dict[str, Any]] = {}
    for code, status in STATUSES.items():
        if code not in wanted:
            continue
        if status in found:
            found[status]["description"] += f", {code}"
            continue
        found[status] = {
            "description": f"{http.HTTPStatus(status).phrase}: {code}",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemView"}}},
        }
    return found


def add_shared(document: dict[str, Any]) -> None:
    """Put in what those answers refer to, and how a client says who it is."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["ProblemView"] = ProblemView.model_json_schema()
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    }
    document["security"] = [{}, {"token": []}, {"session": []}]
