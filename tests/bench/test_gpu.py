"""What the GPU bench promises without a GPU: cells that resume, and an honest report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import __main__ as command
from bench.gpu import extras, plots
from bench.gpu.cells import (
    PRICE_MODE,
    PRICES,
    Bench,
    Cell,
    all_cells,
    choose,
    peers_name,
    price_name,
    run_cells,
    sweep_name,
)
from bench.gpu.devices import bytes_a_face, check_provider, roofline
from bench.gpu.extras import extra_cells, extra_table, row_feed
from bench.gpu.modes import MODES
from bench.gpu.report import make_report
from bench.gpu.repositories import FORMS, OWN
from bench.gpu.results import NotRun, Results, load_results
from bench.gpu.serving import Setup
from bench.gpu.tuning import best_choices, choices, tune_cells, tuning_report
from bench.scenes import Scene
from networks.swappers import SWAPPERS
from tests.generated_networks import (
    swapper_network,
)

HOST = {"GPU": "H100", "driver": "580", "mode": "three processes", "instances": {}}
PLANNED = [cell.name for cell in all_cells(Setup(), fp16_only=False)]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results.json", time.monotonic() + 60, dict(HOST))


def load_value(rate: float, **more: Any) -> dict[str, Any]:
    parts = {"mean batch": 7.5, "queue ms": 1, "input ms": 2, "infer ms": 3, "output ms": 4}
    return {
        "per second": rate, "p50 ms": 10.0, "p90 ms": 12.0, "p95 ms": 15.0, "p99 ms": 20.0,
        "gpu busy %": 93.0, "gpu samples below 50 %": 1.5, "gpu series": [[0.1, 0], [0.2, 93]],
        "models": {"face_detector_i420": parts, "face_swapper": parts, "swap_faces_i420": parts},
        **more,
    }  # fmt: skip


def test_a_cell_is_measured_once_and_a_failed_one_again(results: Results) -> None:
    def fail() -> float:
        raise ZeroDivisionError("nothing to divide by")

    assert results.measure("good", lambda: 7.0) == 7.0
    assert results.measure("bad", fail) is None
    assert results.reason("bad") == "failed: ZeroDivisionError: nothing to divide by"
    again = load_results(results.path, time.monotonic() + 60, HOST)
    assert again.measure("good", lambda: pytest.fail("measured twice")) == 7.0
    assert again.measure("bad", lambda: 3.0) == 3.0
    assert load_results(results.path, 0.0).value("bad") == 3.0


def test_what_time_did_not_allow_is_listed_as_not_run(tmp_path: Path) -> None:
    late = Results(tmp_path / "results.json", time.monotonic() - 1)
    assert late.measure("late", lambda: pytest.fail("ran after the deadline")) is None
    text = make_report(late, PLANNED)
    assert "- late: out of time, or not asked for; run again to go on" in text
    assert "| frames a second, CUDA shared memory | 600 | 1000 |  | not run |" in text
    for name in PLANNED:
        assert f"- {name}: " in text


def test_what_cannot_be_done_here_says_why(results: Results) -> None:
    def refuse() -> float:
        raise NotRun("no MPS control daemon")

    results.measure("mode: three processes, MPS", refuse)
    text = make_report(results, PLANNED)
    assert "- mode: three processes, MPS: no MPS control daemon" in text
    assert "| three processes, MPS | not run: no MPS control daemon |  |  |" in text


@pytest.mark.parametrize(("key", "other"), [("GPU", "H200"), ("driver", "590"), ("mode", "one")])
def test_figures_of_another_machine_or_mode_are_put_aside(
    results: Results, capsys: pytest.CaptureFixture[str], key: str, other: str
) -> None:
    results.measure("rate", lambda: 7.0)
    fresh = load_results(results.path, 0.0, {**HOST, key: other})
    assert fresh.cells == {}
    assert f"{key} {HOST[key]}, now {other}" in capsys.readouterr().out
    kept = json.loads(results.path.with_suffix(".earlier.json").read_text())
    assert kept["cells"]["rate"]["value"] == 7.0


def test_the_report_relates_cells_of_one_run(results: Results) -> None:
    values: dict[str, Any] = {
        sweep_name(96): load_value(800.0),
        sweep_name(32): load_value(790.0, **{"gpu busy %": 99.0}),
        "engine alone, batch 16": 1000.0,
        "peers' way, 8 threads": 100.0,
        "peers' way spared, 8 threads": 200.0,
        "matrix rate, TFLOP/s": 700.0,
        "four faces, CUDA shared memory": load_value(160.0),
        "64 streams, 4 client processes": {"per second": 450.0},
        "one stream a process, 64 in flight, 4 client processes": {"per second": 500.0},
        "one face, CUDA shared memory, 50 % of the best rate": load_value(
            380.0, **{"asked per second": 400.0}
        ),
        "CPU, batch 1": load_value(2.0),
    }
    for name, value in values.items():
        results.measure(name, lambda value=value: value)
    text = make_report(results, PLANNED)
    for row in (
        "| frames a second, CUDA shared memory | 600 | 1000 | 800.0 | floor reached |",
        "| % of the engine alone | 70 | 90 | 80.0 | floor reached |",
        "| times the peers' way | 4 | 8 | 8.0 | aim reached |",
        "|   spared what its pictures do not need |  |  | 4.0 |  |",
        "| % of the matrix rate | 28 | 45 | 39.9 | floor reached |",  # 800 * 0.34915 / 700
        "| GPU busy, % (NVML) | 92 | 97 | 93.0 | floor reached |",  # of the best, not the busiest
        "| p99 at half of the best rate, ms | 60 | 30 | 20.0 | aim reached |",
        "| 4 faces a frame: faces a second, % of 1 face | 90 | 110 | 80.0 | MISSED |",
        "| 64 streams, % of one stream a process, 4 client processes | 95 | 100 | 90.0 | MISSED |",
        "| CPU | 1 | 7.5 | 0 | 500.00 | 2.0 | 15.000 |",  # 1,800 frames at 2 a second: 15 minutes
        "| TensorRT fp16 | 8 |  | not run: out of time, or not asked for; run again to go on |",
    ):
        assert row in text
    assert "gpu series" not in text


def test_more_pixels_are_priced_against_as_many_served_alike(results: Results) -> None:
    for name, value in {
        sweep_name(96): load_value(900.0),
        "engine alone, batch 8": 950.0,
        "engine alone, pixel boost 2, batch 8": 285.0,
        price_name("128 pixels"): load_value(700.0),
        price_name("pixel boost 2"): load_value(280.0),
    }.items():
        results.measure(name, lambda value=value: value)  # type: ignore[misc]
    text = make_report(results, PLANNED)
    assert "| 128 pixels | 950.0 | 700.0 | 100.0 | 100.0 |" in text
    assert "| pixel boost 2 | 285.0 | 280.0 | 30.0 | 40.0 |" in text
    setups = {cell.setup for cell in all_cells(Setup(mode="three processes"), fp16_only=True)
              if cell.name in map(price_name, PRICES)}  # fmt: skip
    assert {setup.mode for setup in setups if setup} == {PRICE_MODE}


def test_the_projects_own_network_is_named_beside_the_others(results: Results) -> None:
    names = [cell.name for cell in all_cells(Setup(), fp16_only=True) if OWN in cell.name]
    assert "engine alone, frameswap_256, batch 16" in names
    assert "one face, frameswap_256, CUDA shared memory" in names
    results.measure(names[0], lambda: 5000.0)
    results.measure(names[4], lambda: load_value(1200.0))
    text = make_report(results, PLANNED)
    assert "| engine alone, frameswap_256, batch 16 | 5000.0 |" in text
    assert "| one face, frameswap_256, CUDA shared memory | 1200.0 |" in text


def test_our_own_sources_are_as_long_as_the_network_wants() -> None:
    source = Scene("one face", slots=2, own=True).source()
    assert source.shape == (2, SWAPPERS[OWN].source_length)
    assert (source[0] == source[1]).all()
    assert 0 < source.max() < 2**24
    assert (source[:, 256**2 :] == 0).all(), "landmarks: the network falls back to five points"


def test_a_rate_that_was_not_sent_keeps_no_promise(results: Results) -> None:
    sent = load_value(206.0, **{"asked per second": 385.0})
    results.measure("one face, CUDA shared memory, 50 % of the best rate", lambda: sent)
    row = "| p99 at half of the best rate, ms | 60 | 30 |  | not run |"
    assert row in make_report(results, PLANNED)


def test_the_report_holds_what_each_graph_does_alone(results: Results) -> None:
    models = {
        "detector, batch 8": {
            "ms a run": 5.1, "ms to launch": 0.4, "ms of kernels": 4.9, "kernels and copies": 210.0,
        },
        "detector, on the CPU": {"nodes a run": 3.0, "us a run": 40, "kinds": {"Shape": [3.0, 40]}},
        "blender": {"error": "RuntimeError: no kernel"},
    }  # fmt: skip
    text = make_report(results, PLANNED, models=models)
    assert "| detector, batch 8 | 5.1 | 0.4 | 4.9 | 210.0 |" in text
    assert '| detector, on the CPU | 3.0 | 40 | {"Shape": [3.0, 40]} |' in text
    assert "| blender | RuntimeError: no kernel |" in text


class _Keeper:
    """Stands for the servers: notes what was started and stopped."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.setup: Setup | None = None

    def use(self, setup: Setup) -> None:
        if setup != self.setup:
            self.close()
            self.setup = setup
            self.log.append(setup.mode)

    def close(self) -> None:
        if self.setup is not None:
            self.setup = None
            self.log.append("stopped")


def test_neighbouring_cells_share_a_server_and_measured_ones_start_none(results: Results) -> None:
    first, second = Setup(mode="one process"), Setup(mode="three processes")
    keeper = _Keeper()

    def note(name: str) -> Callable[[Any], str]:
        return lambda _: keeper.log.append(name) or name

    cells = [
        Cell("alone", note("alone")), Cell("a", note("a"), first), Cell("b", note("b"), first),
        Cell("known", lambda _: pytest.fail("measured twice"), second),
        Cell("c", note("c"), second), Cell("after", note("after")),
    ]  # fmt: skip
    results.cells["known"] = {"value": 1}
    run_cells(cells, Bench(results, None, keeper, None))  # type: ignore[arg-type]
    assert keeper.log == [
        "alone", "one process", "a", "b", "stopped", "three processes", "c", "stopped", "after",
    ]  # fmt: skip
    assert results.value("c") == "c"


def test_cells_are_named_once_and_the_promises_come_first() -> None:
    assert len(set(PLANNED)) == len(PLANNED)
    assert PLANNED.index(sweep_name(32)) < PLANNED.index("peers' way, 8 threads")
    assert PLANNED.index("GPU against CPU") < PLANNED.index("CUDA fp16, batch 1")
    fp16 = [cell.name for cell in all_cells(Setup(), fp16_only=True)]
    assert not [name for name in fp16 if "fp32" in name or "float32" in name or "CPU," in name]
    cells = all_cells(Setup(mode="one process"), fp16_only=False)
    assert [cell.name for cell in choose(cells, ["peers", "copy*"])] == [
        *(peers_name(threads, spared=False) for threads in (8, 16, 4, 1)),
        *(peers_name(threads, spared=True) for threads in (8, 16, 4)), "copy rate, GB/s",
    ]  # fmt: skip
    assert "mode: three processes" in [cell.name for cell in cells]


def test_tuning_starts_from_what_is_deployed_and_names_the_best(results: Results) -> None:
    every = choices()
    assert len(set(every)) == 5 * 2 * 3
    assert every[0].name == "tune: 5 instances, batch 16, delay 8000 us"
    assert [cell.name for cell in tune_cells("three processes")] == [each.name for each in every]
    setups = [cell.setup for cell in tune_cells("one process, 2 instances")]
    assert {setup.mode for setup in setups if setup} == {"one process"}
    assert {setup.instances for setup in setups if setup} == {
        (),
        *((("swap_faces_i420", count),) for count in (2, 3, 4, 5)),
    }
    assert {setup.max_batch_size for setup in setups if setup} == {None, 8}
    assert tuning_report(results) == []
    for choice, rate, p99 in ((every[0], 500.0, 9.0), (every[1], 700.0, 12.0)):
        results.cells[choice.name] = {
            "value": {"per second": rate, "p99 ms": 70.0, "at a rate: per second": 390.0,
                      "at a rate: p50 ms": 5.0, "at a rate: p99 ms": p99, "alone: p50 ms": 3.0}
        }  # fmt: skip
    assert best_choices(results) == {"throughput": every[1], "latency": every[0]}
    text = "\n".join(tuning_report(results))
    best = every[1]
    assert (
        "python build_engines.py --target cuda --swapper inswapper_128 && "
        "frameswap serve --target cuda --models swap_faces_i420 encode_source_bgr "
        "--one-process --mps --instances swap_faces_i420="
        f"{best.instances} --queue-delay-us {best.delay_us} --requests-in-flight 128"
    ) in text
    assert "| 3 instances, batch 16, delay 4000 us | not run |" in text


def test_every_plot_is_drawn_from_a_results_file(results: Results, tmp_path: Path) -> None:
    assert plots.draw_plots(results, tmp_path) == []
    for in_flight in (1, 8, 32, 64):
        results.measure(sweep_name(in_flight), lambda: load_value(500.0))
    for share in (25, 50, 75):
        name = f"one face, CUDA shared memory, {share} % of the best rate"
        results.measure(name, lambda share=share: load_value(5.0 * share))
    for batch in (1, 8, 16):
        results.measure(f"engine alone, batch {batch}", lambda: 900.0)
    code = command.main(["--output", str(tmp_path), "--report-only"])
    assert code == 0
    report = (tmp_path / "report.md").read_text()
    for name in ("concurrency", "request_rate", "engine", "time", "gpu_use"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"![{name}]({name}.png)" in report


def test_one_process_has_its_own_plot_of_a_requests_time(results: Results, tmp_path: Path) -> None:
    """A plot without any bar would warn, and every warning is an error here."""
    parts = {"queue ms": 1, "input ms": 2, "infer ms": 3, "output ms": 4}
    value = load_value(500.0) | {"models": {"swap_faces_i420": {"mean batch": 16, **parts}}}
    results.measure(sweep_name(64), lambda: value)
    assert "time" in [path.stem for path in map(Path, plots.draw_plots(results, tmp_path))]


def test_without_matplotlib_it_says_how_to_draw_the_plots(
    results: Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    assert plots.draw_plots(results, tmp_path) == []
    assert "python -m bench.gpu --report-only" in capsys.readouterr().out


def test_cells_are_listed_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--output", str(tmp_path), "--list", "--only", "64 streams"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "not run   64 streams, 4 client processes", "not run   64 streams, 1 client processes",
    ]  # fmt: skip
    assert command.main(["--output", str(tmp_path), "--list", "--tune"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 30


def test_without_a_gpu_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.gpu.host.visible_gpus", list)
    assert command.main(["--output", str(tmp_path)]) == 1
    assert "no NVIDIA GPU is visible here" in capsys.readouterr().err


def test_a_headline_that_needs_mps_is_refused_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "describe_host", dict)
    monkeypatch.setattr(command, "find_control", lambda: None)
    assert command.main(["--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "bench: mode 'one process, 5 instances, MPS' needs nvidia-cuda-mps-control, which is not "
        "on this machine: give --mode 'one process'\n"
    )
    assert not list(tmp_path.iterdir())
    for mode in MODES.values():
        if "mps" not in mode.arguments:
            command.check_mode(mode.name)


def test_a_session_that_fell_back_to_the_cpu_is_refused() -> None:
    check_provider(["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(RuntimeError, match="runs on CPUExecutionProvider instead of CUDA"):
        check_provider(["CPUExecutionProvider"])


def test_the_ceilings_follow_from_the_networks_own_shapes() -> None:
    moved = bytes_a_face(swapper_network("inswapper_128"))
    assert 0 < moved["least MB"] < moved["most MB"]
    facts = roofline(
        500.0, gflop=350.0, matrix=700.0, copy=2000.0, moved={"least MB": 500.0, "most MB": 1000.0}
    )
    assert facts["faces a second by products"] == 2000.0
    assert facts["faces a second by memory, all fused"] == 4000.0
    assert facts["faces a second by memory, nothing fused"] == 2000.0
    assert facts["% of the lower ceiling"] == 25.0


def test_extras_have_cells_of_their_own_and_a_table(results: Results) -> None:
    names = [cell.name for cell in extra_cells()]
    assert len(names) == 16
    assert not set(names) & set(PLANNED)
    for cell in extra_cells():
        if cell.setup is not None:
            assert cell.setup.repository in FORMS
    assert extra_table(results) == []
    results.cells |= {
        "engine alone, batch 8": {"value": 1000.0},
        "engine alone, occluder, batch 8": {"value": 4000.0},
        extras.served_name("occluder"): {"value": load_value(640.0)},
        extras.peers_name("occluder", spared=False): {"value": 16.0},
    }
    # 1,000 and 4,000 a second, one after the other, are 800
    assert extra_table(results) == [
        ("occluder", 4000.0, 800.0, 640.0, "80", 16.0, "40.0", None)
    ]
    text = make_report(results, names)
    assert "| occluder | 4000.0 | 800.0 | 640.0 | 80 | 16.0 | 40.0 |  |" in text


def test_a_row_feed_is_what_a_joined_run_brings() -> None:
    assert row_feed("faces", ["B", 16, 15], 8)[:, 0, 4].all()
    assert row_feed("context_warps", ["B", "K", 2, 3], 8).shape == (8, 1, 2, 3)
    assert not row_feed("options", ["B", 16], 8).any()
    assert row_feed("context", ["B", "K", 3, 512, 512], 2).max() <= 1
