"""HTTP, where it is asked for: what strangers send there is refused, and leaves no memory taken."""

from __future__ import annotations

import psutil
import pytest

from bench.http_crumbs import post_in_crumbs
from server.launcher import EmbeddedServer
from tests.server.http_abuse import FORMS, abuse
from tests.server.test_launcher import assert_serves, wait_for

pytestmark = pytest.mark.e2e

LEFT_MIB = 200
"""What may stay of a gibibyte: 16 do; with malloc's own settings, or its caches, 992 for good."""


@pytest.mark.parametrize("door", ["http", "metrics"])
def test_a_body_in_crumbs_leaves_no_memory_taken(web_server: EmbeddedServer, door: str) -> None:
    address = getattr(web_server.doors, f"{door}_url")
    triton = psutil.Process(web_server.pid)
    before = triton.memory_info().rss
    refused = {"http": b"403 Forbidden", "metrics": b"405 Not Allowed"}[door]
    assert post_in_crumbs(address, 1_000_000).endswith(refused)
    # It is given back a moment after the answer.
    wait_for(lambda: triton.memory_info().rss - before < LEFT_MIB << 20)
    assert_serves(web_server)


@pytest.mark.parametrize("door", ["http", "metrics"])
def test_what_is_no_request_harms_nobody(web_server: EmbeddedServer, door: str) -> None:
    pid, address = web_server.pid, getattr(web_server.doors, f"{door}_url")
    assert len(FORMS) < abuse(address, rounds=3) < 3 * len(FORMS)
    assert_serves(web_server)
    assert web_server.is_running
    assert web_server.pid == pid
