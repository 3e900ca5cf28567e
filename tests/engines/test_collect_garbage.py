"""The command that collects garbage in a shared cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.cache import PlanCache
from engines.collect_garbage import main
from tests.engines.test_cache import put


def test_it_removes_by_age_and_size_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = PlanCache(tmp_path)
    for age_days in (40, 20, 1):
        put(cache, str(age_days), 1_000_000, age_days * 24 * 3600.0)
    assert main(["--cache", str(tmp_path), "--max-age-days", "30"]) == 0
    assert capsys.readouterr().out == "1 plans removed (1.0 MB), 2 kept (2.0 MB)\n"
    assert main(["--cache", str(tmp_path), "--max-size-gib", "0.0015"]) == 0
    assert capsys.readouterr().out.startswith("1 plans removed")
    assert len(list(cache.entries())) == 1


def test_without_limits_nothing_in_use_is_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(PlanCache(tmp_path), "old", 1000, 1e8)
    assert main(["--cache", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("0 plans removed")


@pytest.mark.parametrize("limit", ["-1", "nan", "inf", "all"])
@pytest.mark.parametrize("option", ["--max-age-days", "--max-size-gib"])
def test_a_limit_that_is_none_is_refused_before_anything_is_removed(
    option: str, limit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = PlanCache(tmp_path)
    put(cache, "kept", 1000, 1e8)
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["--cache", str(tmp_path), option, limit])
    assert f"must be a number, 0 or more, not {limit!r}" in capsys.readouterr().err
    assert len(list(cache.entries())) == 1


def test_a_folder_that_is_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--cache", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.endswith("is not a folder: name the cache\n")
