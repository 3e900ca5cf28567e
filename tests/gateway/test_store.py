"""The table: who is next, and what a lease is good for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from frameswap import BadOptions
from frameswap_gateway.problems import Problem
from frameswap_gateway.records import Asset, Job
from frameswap_gateway.sqlite_store import SqliteStore

from tests.small_disk import small_disk


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "gateway.db")
    yield opened
    opened.close()


def job(owner: str, id: str, *, created_s: float = 0.0, lane: str = "short") -> Job:
    return Job(
        owner=owner, id=id, key=f"{owner}-{id}", kind="photo", lane=lane,  # type: ignore[arg-type]
        request={"target": "t"}, created_s=created_s,
    )  # fmt: skip


def claim(store: SqliteStore, now_s: float, holder: str = "h", lane: str = "short") -> str | None:
    claimed = store.claim(lane, holder=holder, now_s=now_s, lease_s=30.0)  # type: ignore[arg-type]
    return None if claimed is None else claimed.key


def test_users_take_turns_however_many_jobs_one_has(store: SqliteStore) -> None:
    for number in range(4):
        store.add_job(job("anna", str(number), created_s=number))
    store.add_job(job("bert", "0", created_s=10.0))
    store.add_job(job("cleo", "0", created_s=11.0))
    order = [claim(store, 100.0 + turn) for turn in range(6)]
    assert order == ["anna-0", "bert-0", "cleo-0", "anna-1", "anna-2", "anna-3"]
    assert claim(store, 107.0) is None


def test_who_had_the_last_turn_is_last_even_with_nothing_running(store: SqliteStore) -> None:
    for number in range(2):
        store.add_job(job("anna", str(number), created_s=number))
    first = claim(store, 100.0)
    assert first == "anna-0"
    store.update(first, {"state": "succeeded"})
    store.add_job(job("bert", "0", created_s=50.0))
    assert [claim(store, 101.0), claim(store, 102.0)] == ["bert-0", "anna-1"]


def test_a_lane_has_only_its_own(store: SqliteStore) -> None:
    store.add_job(job("anna", "0", lane="long"))
    assert claim(store, 1.0) is None
    assert claim(store, 1.0, lane="long") == "anna-0"


def test_a_lease_that_ran_out_is_anybodys(store: SqliteStore) -> None:
    store.add_job(job("anna", "0"))
    assert claim(store, 100.0, "one") == "anna-0"
    assert claim(store, 129.0, "two") is None
    store.renew("one", ["anna-0"], until_s=150.0)
    assert claim(store, 140.0, "two") is None
    claimed = store.claim("short", holder="two", now_s=151.0, lease_s=30.0)
    assert claimed is not None
    assert (claimed.key, claimed.attempts) == ("anna-0", 2)


def test_a_holder_that_is_gone_lets_go_at_once(store: SqliteStore) -> None:
    store.add_job(job("anna", "0"))
    claim(store, 100.0, "one")
    store.release("other")
    assert claim(store, 101.0, "two") is None
    store.release("*")
    assert claim(store, 101.0, "two") == "anna-0"


def test_a_job_at_its_end_stays_as_it_is(store: SqliteStore) -> None:
    store.add_job(job("anna", "0"))
    done = store.update("anna-0", {"state": "succeeded", "frames": 3})
    assert done is not None
    assert done.revision == 2
    assert store.update("anna-0", {"state": "failed"}) is None
    assert store.get_job("anna", "0") == done


def test_what_was_written_is_there_after_a_kill(store: SqliteStore, tmp_path: Path) -> None:
    kept = replace(job("anna", "0"), persons=[[0.5], None], notes=["a"])
    store.add_job(kept)
    # A second connection reads what a process that never closed its own has committed.
    again = SqliteStore(tmp_path / "gateway.db")
    assert again.get_job("anna", "0") == kept
    again.close()


def test_the_table_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as old:
        old.execute("PRAGMA user_version = 99")
    old.close()
    with pytest.raises(BadOptions, match="another version"):
        SqliteStore(path)


def test_a_full_disk_undoes_what_was_begun(store: SqliteStore) -> None:
    store.add_job(job("anna", "0"))
    (pages,) = store.database.execute("PRAGMA page_count").fetchone()
    store.database.execute(f"PRAGMA max_page_count = {pages}")
    large = replace(job("anna", "large"), notes=["x" * 100_000])
    with pytest.raises(Problem, match="disk is full"):
        store.add_job(large)
    kept = len(store.list_jobs("anna", before_s=1.0, most=5000))
    store.database.execute("PRAGMA max_page_count = 100000")
    store.add_job(job("anna", "more"))
    assert len(store.list_jobs("anna", before_s=1.0, most=5000)) == kept + 1


def test_what_may_not_be_forgotten_is_written_on_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", mebibytes=8) as disk:
        path = disk.folder / "gateway.db"
        store = SqliteStore(path)
        for number in range(20):
            store.add_job(job("anna", str(number)))
        disk.fill(leaving=0)
        with pytest.raises(Problem, match="disk is full"):
            store.update("anna-0", {"frames": 1})
        assert "gateway.reserve" in disk.names()
        assert store.update("anna-0", {"state": "canceled"}) is not None
        store.delete_job("anna-1")
        assert "gateway.reserve" not in disk.names()
        # As a process that was killed leaves it, and one that is started on the full disk.
        disk.fill(leaving=0)
        again = SqliteStore(path)
        assert [again.get_job("anna", str(number)) is None for number in range(3)] == [
            False, True, False,
        ]  # fmt: skip
        again.close()
        disk.empty()
        store.add_job(job("anna", "more"))
        assert "gateway.reserve" in disk.names()
        disk.fill(leaving=0)
        with pytest.raises(BadOptions, match=r"new\.db cannot be opened: .*full; make room"):
            SqliteStore(disk.folder / "new.db")
        store.close()


def test_files_of_jobs_that_wait_are_in_use(store: SqliteStore) -> None:
    store.put_asset(Asset(owner="anna", id="a", key="k1", name="", size=1))
    waiting = Job(owner="anna", id="0", key="j1", kind="photo", lane="short", request={},
                  files={"old": "k0"})  # fmt: skip
    store.add_job(waiting)
    assert store.keys_in_use() == {"k1", "j1", "k0"}
    store.update("j1", {"state": "canceled"})
    assert store.keys_in_use() == {"k1", "j1"}
