"""The CPU comparison, small: real jobs on both sides, and figures that mean what they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import pytest

from bench import cpu_compare
from bench.classic_pipeline import JobReport
from bench.cpu_compare import (
    Comparison,
    compare,
    describe_table,
    main,
    repeat_clip,
)
from bench.job_memory import MemorySample, describe_memory
from demo.make_clip import clip_of, write_clip


def report(seconds: float) -> JobReport:
    return JobReport(frames=100, faces=100, seconds=seconds, cpu_seconds=2.0, stages={})


def test_sides_alternate_and_the_first_run_of_each_does_not_count() -> None:
    ours, theirs, order = iter([9.0, 4.0, 2.0]), iter([9.0, 8.0, 6.0]), []

    def run(name, seconds):
        order.append(name)
        return report(next(seconds))

    row = compare("360p", 2, lambda: run("ours", ours), lambda: run("theirs", theirs))
    assert order == ["ours", "theirs"] * 3
    assert row.frameswap.seconds == 2.0
    assert row.classic.seconds == 6.0
    assert row.ratio == pytest.approx((8 / 4 + 6 / 2) / 2)


def test_the_table_has_a_line_a_size() -> None:
    row = Comparison("720p", report(4.0), report(5.0), [25.0], [20.0])
    assert describe_table([row]).splitlines()[2].split() == [
        "720p", "25.0", "20.0", "1.25", "20.0", "20.0",
    ]  # fmt: skip


def test_growth_is_read_from_the_second_half() -> None:
    samples = [MemorySample(t, 100 + max(0, t - 50), 300.0) for t in range(121)]
    last = describe_memory(samples).splitlines()[-1]
    assert "client +60.00, server -0.00" in last or "client +60.00, server +0.00" in last


def test_growth_is_not_told_from_a_handful_of_samples() -> None:
    samples = [MemorySample(t, 100.0 * t, 300.0) for t in range(5)]
    assert "too short to tell, 5 samples" in describe_memory(samples)


def test_a_repeated_clip_plays_in_one_go(tmp_path: Path) -> None:
    once, thrice = tmp_path / "once.mp4", tmp_path / "thrice.mp4"
    write_clip(once, clip_of("gauss", width=64, height=64, frames=10, fps=25), audio=False)
    repeat_clip(once, 3, thrice)
    with av.open(str(thrice)) as container:
        times = [round(f.pts * f.time_base * 25, 6) for f in container.decode(video=0)]
    assert [time - times[0] for time in times] == list(range(30))


@pytest.mark.e2e
def test_both_sides_do_whole_jobs_through_a_real_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    few = ["--sizes", "360p", "--frames", "6", "--rounds", "1", "--threads", "1"]
    assert main([*few, "--json", str(figures)]) == 0
    row = json.loads(figures.read_text())[0]
    assert row["frameswap"]["frames"] == row["classic"]["frames"] == 6
    assert row["frameswap"]["faces"] == row["classic"]["faces"] == 6
    stages = {name.split(",")[0] for name in row["frameswap"]["stages"]}
    assert stages == {"swap_faces_i420"}, "a CPU's server runs its steps in one process"
    # Six frames through a detector, a swapper and an encoder are not done in 60 ms of CPU time.
    assert min(row[side]["cpu_seconds"] for side in ("frameswap", "classic")) > 0.06
    assert "360p" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.e2e
def test_memory_is_sampled_over_a_real_job(
    real_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # The test before this one lets the bench build its own.
    monkeypatch.setattr(
        cpu_compare, "_build", lambda _, folder: shutil.copytree(real_repository, folder)
    )
    figures = tmp_path / "figures.json"
    few = ["--soak", "--soak-frames", "150", "--sizes", "360p", "--json", str(figures)]
    assert main(few) == 0
    samples = json.loads(figures.read_text())
    assert max(sample["client_mib"] for sample in samples) > 20  # a Python with NumPy
    assert max(sample["server_mib"] for sample in samples) > 100  # Triton and its models' processes
    assert "client MiB" in capsys.readouterr().out


def test_missing_weights_end_it_with_a_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMESWAP_CACHE", str(tmp_path))
    assert main(["--detector", "scrfd_2.5g"]) == 1
    told = capfd.readouterr().err
    assert "--accept-licence" in told  # build_engines.py's own sentence
    assert told.splitlines()[-1] == "bench: build_engines.py exited with 1"
