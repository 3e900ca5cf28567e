"""What is measured, in the order of what it says; neighbours share a server."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bench import random_inswapper
from bench.gpu.clients import ClientLoad, client_rate, peer_pipeline, peer_rate
from bench.gpu.correct import asker, compare_with_cpu, streams_apart
from bench.gpu.devices import bytes_a_face, copy_rate, engine_rate, matrix_rate
from bench.gpu.load import IN_FLIGHT, LoadTest, Request, scene_request
from bench.gpu.modes import MODES, added_environment
from bench.gpu.repositories import FORMS, OWN, OWN_REFERENCE, TENSORRT, Repositories
from bench.gpu.results import NotRun, Results
from bench.gpu.sampler import Sampler, find_probe, gpu_facts
from bench.gpu.serving import ServerKeeper, Setup, statistics, statistics_between
from bench.gpu.two_steps import FIND, SWAP_FOUND, TwoStepLoad, two_step_rate
from bench.gpu_models import blender_feeds, swapper_feeds
from bench.scenes import Scene

GFLOP_A_FACE: Final = 349.15
SCENES: Final = {
    scene.name: scene
    for scene in (
        Scene("one face"),
        Scene("no face", faces=0),
        Scene("one face of four slots", slots=4),
        Scene("four faces", faces=4, slots=4),
        Scene("4K, one face", width=3840, height=2160),
    )
}
CUDA: Final = "CUDA shared memory"
SWEEP: Final = (96, 64, 128, 32, 16, 4)
"""Requests in flight, the most telling first."""
SHARES: Final = (50, 75, 90, 25)
"""Of the best rate, percent."""
BYTES_IN_FLIGHT: Final = 8
BYTES_SECONDS: Final = 2.0
"""gRPC itself is the limit there, so that more only wait; and perf_analyzer keeps what it receives:
after five seconds of 16 in flight it did not end within 45."""
BATCHES: Final = (8, 16, 1, 2, 4)
THREADS: Final = (8, 16, 4, 1)
TABLE_BATCHES: Final = (8, 1, 2, 4)
PRICES: Final = {"128 pixels": "fp16"} | {
    form: form for form in ("256 pixels", "pixel boost 2", "pixel boost 4")
}
"""What more pixels cost, each with its repository."""
PRICE_MODE: Final = "one process, 2 instances, MPS"
"""All of them alike: four instances of the largest would not fit."""
ENDPOINT: Final = "one face, GPU use by the server's metrics"
ENDPOINT_SECONDS: Final = 24.0
"""The server renews what it says of the GPU every ten."""
TWO_STEPS: Final = ((6, 16), (6, 4))
"""Client processes, and frames in flight of each, found and swapped in two requests."""
TWO_STEP_INSTANCES: Final = ((FIND, 4), (SWAP_FOUND, 5))
FOLLOWED: Final = (("cuda", 4), ("system", 4))
"""Transports and client processes of our own client when it follows faces."""
STREAMS: Final = ((4, 16), (1, 64))
"""Client processes, and requests in flight of each: once as one stream, once as a stream each."""


def sweep_name(in_flight: int) -> str:
    return f"one face, {CUDA}, {in_flight} in flight"


def rate_name(share: int) -> str:
    return f"one face, {CUDA}, {share} % of the best rate"


def table_name(row: str, batch: int) -> str:
    return f"{row}, batch {batch}"


@dataclass
class Bench:
    """What a cell needs to be measured."""

    results: Results
    repositories: Repositories
    keeper: ServerKeeper
    load: LoadTest

    def serve(self, setup: Setup) -> None:
        """Have the server of this setup running."""
        peer_pipeline.cache_clear()
        self.keeper.use(setup)

    def scene(self, name: str, **options: Any) -> dict[str, Any]:
        return self.load.run(scene_request(SCENES[name]), **options)

    @property
    def url(self) -> str:
        return self.keeper.server.grpc_url


@dataclass(frozen=True)
class Cell:
    """One figure. setup: the server that it needs, None for none."""

    name: str
    work: Callable[[Bench], Any]
    setup: Setup | None = None


def run_cells(cells: Sequence[Cell], bench: Bench) -> None:
    """Measure what has no value yet, in order; the server is started when a cell needs it."""

    def work(cell: Cell) -> Any:
        if cell.setup is None:
            bench.keeper.close()
        else:
            bench.serve(cell.setup)
        return cell.work(bench)

    try:
        for cell in cells:
            bench.results.measure(cell.name, lambda cell=cell: work(cell))  # type: ignore[misc]
    finally:
        bench.keeper.close()
        peer_pipeline.cache_clear()
        bench.results.save()


def choose(cells: Sequence[Cell], patterns: Sequence[str] | None) -> list[Cell]:
    """The cells whose name holds, or matches, one of the patterns; all without any."""
    if not patterns:
        return list(cells)
    wanted = [pattern.lower() for pattern in patterns]
    return [
        cell
        for cell in cells
        if any(p in cell.name.lower() or fnmatch.fnmatch(cell.name.lower(), p) for p in wanted)
    ]


def all_cells(main: Setup, *, fp16_only: bool) -> list[Cell]:
    """Every cell of the bench but those of tuning. main: the headline's server."""
    cells = [
        Cell("matrix rate, TFLOP/s", lambda bench: matrix_rate()),
        *(_engine(batch) for batch in BATCHES[:2]),
        *_headline(main),
        *(_two_steps(*shape, main) for shape in TWO_STEPS),
        *(_followed(transport, processes, main) for transport, processes in FOLLOWED),
        *(_peers(threads, spared=False) for threads in THREADS),
        *(_peers(threads, spared=True) for threads in THREADS[:3]),
        *_modes(main),
        *_details(main),
        Cell("copy rate, GB/s", lambda bench: copy_rate()),
        Cell("bytes a face", lambda bench: bytes_a_face(random_inswapper.build())),
        *(_engine(batch) for batch in BATCHES[2:]),
        *(cell for name in PRICES for cell in _price(name)),
        *_own_network(main),
    ]
    rows = _table_rows(main)
    if fp16_only:
        return cells + rows["CUDA fp16"]
    cells += [_engine(batch, "fp32", ", float32 (TF32)") for batch in (8, 1)]
    return [*cells, *(cell for row in rows.values() for cell in row)]


def peers_name(threads: int, *, spared: bool) -> str:
    return f"peers' way{' spared' if spared else ''}, {threads} threads"


def _peers(threads: int, *, spared: bool) -> Cell:
    name = peers_name(threads, spared=spared)
    return Cell(name, lambda bench: peer_rate(threads, spared=spared))


def engine_name(batch: int, label: str = "") -> str:
    return f"engine alone{label}, batch {batch}"


def _engine(batch: int, form: str = "fp16", label: str = "") -> Cell:
    def work(bench: Bench) -> float:
        graph = bench.repositories.swapper(form)
        return engine_rate(graph, batch, side=FORMS[form].side, own=form == OWN)

    return Cell(engine_name(batch, label), work)


def _scene(name: str, setup: Setup, cell: str = "", **options: Any) -> Cell:
    def work(bench: Bench) -> Any:
        return bench.scene(name, **options)

    return Cell(cell or f"{name}, {CUDA}", work, setup)


def _headline(main: Setup) -> list[Cell]:
    """What the promises are about, correctness with it."""

    def correct(bench: Bench) -> Any:
        return compare_with_cpu(bench.url, bench.repositories("reference"))

    def apart(bench: Bench) -> Any:
        return streams_apart(asker(bench.url))

    return [
        *(_scene("one face", main, sweep_name(n), concurrency=n) for n in SWEEP[:4]),
        _rate(SHARES[0], main),
        Cell("GPU against CPU", correct, main),
        Cell("streams apart", apart, main),
        *(_scene(name, main) for name in SCENES if name not in ("one face", "4K, one face")),
        _scene("one face", main, "one face, system shared memory", memory="system"),
        _scene(
            "one face", main, "one face, gRPC bytes", memory="none", concurrency=BYTES_IN_FLIGHT,
            seconds=BYTES_SECONDS,
        ),
        *(_own(transport, processes, main) for transport, processes in
          (("system", 2), ("cuda", 2), ("system", 4), ("cuda", 4))),
        *(cell for shape in STREAMS for cell in _streams(*shape, main)),
        _scene("4K, one face", _for_4k(main)),
    ]  # fmt: skip


def _for_4k(main: Setup) -> Setup:
    """Steps in processes of their own need pools for the frames between them; one needs none."""
    if MODES[main.mode].arguments.get("one_process"):
        return main
    return replace(main, frame_size=(3840, 2160), in_flight=IN_FLIGHT)


def _rate(share: int, setup: Setup) -> Cell:
    def work(bench: Bench) -> Any:
        best = bench.results.best([sweep_name(n) for n in SWEEP])
        if best is None:
            raise NotRun("it needs a rate of the sweep over requests in flight")
        return bench.scene("one face", rate=best * share / 100)

    return Cell(rate_name(share), work, setup)


def _own(transport: str, processes: int, setup: Setup) -> Cell:
    load = ClientLoad(transport, processes, streams=1, in_flight=IN_FLIGHT // processes)
    return _client(f"own client, {transport}, {processes} processes", load, setup)


def _streams(processes: int, in_flight: int, setup: Setup) -> list[Cell]:
    """One stream a process with many requests in flight, and as many streams with one each."""
    one = ClientLoad("system", processes, streams=1, in_flight=in_flight)
    many = ClientLoad("system", processes, streams=in_flight, in_flight=1)
    return [
        _client(streams_name(processes, apart=False), one, setup),
        _client(streams_name(processes, apart=True), many, setup),
    ]


def streams_name(processes: int, *, apart: bool) -> str:
    kind = "64 streams" if apart else "one stream a process, 64 in flight"
    return f"{kind}, {processes} client processes"


def _client(name: str, load: ClientLoad, setup: Setup) -> Cell:
    def work(bench: Bench) -> Any:
        with added_environment(bench.keeper.environment):
            return client_rate(bench.url, load)

    return Cell(name, work, setup)


def two_steps_name(processes: int, in_flight: int) -> str:
    return f"find and swap_found, {CUDA}, {processes * in_flight} in flight"


def _two_steps(processes: int, in_flight: int, main: Setup) -> Cell:
    """The pair of ensembles, each of them one process an instance, as the headline's is."""
    setup = replace(main, models=(FIND, SWAP_FOUND), instances=TWO_STEP_INSTANCES)

    def work(bench: Bench) -> Any:
        load = TwoStepLoad(processes, in_flight, bench.load.seconds)
        before = statistics(bench.url)
        with added_environment(bench.keeper.environment), Sampler(find_probe()) as gpu:
            facts = two_step_rate(bench.url, load)
        models = statistics_between(before, statistics(bench.url))
        return {**facts, "models": models, **gpu_facts(gpu)}

    return Cell(two_steps_name(processes, in_flight), work, setup)


def followed_name(transport: str, processes: int) -> str:
    return f"own client, faces followed, {transport}, {processes} processes"


def _followed(transport: str, processes: int, main: Setup) -> Cell:
    """What `frameswap swap` asks for a video, less the decoding."""
    setup = replace(main, models=(FIND, SWAP_FOUND), instances=TWO_STEP_INSTANCES)
    load = ClientLoad(transport, processes, 1, IN_FLIGHT // processes, steady=True)
    return _client(followed_name(transport, processes), load, setup)


def _details(main: Setup) -> list[Cell]:
    """Where the time goes: sweeps, rates, each model alone, one client process."""
    return [
        *(_scene("one face", main, sweep_name(n), concurrency=n) for n in SWEEP[4:]),
        *(_rate(share, main) for share in SHARES[1:]),
        _scene("one face", main, ENDPOINT, seconds=ENDPOINT_SECONDS, endpoint=True),
        *(_alone(model, main) for model in
          ("face_detector_i420", "face_swapper", "face_blender_i420")),
        *(_own(transport, 1, main) for transport in ("system", "cuda")),
    ]  # fmt: skip


def model_request(model: str) -> Request:
    """What one model alone is sent: a frame, a crop, or a crop to be blended into a frame."""
    if model.startswith("face_detector"):
        sent = scene_request(SCENES["one face"], model)
        kept = {name: array for name, array in sent.arrays.items() if name != "source"}
        return replace(sent, arrays=kept)
    feeds = swapper_feeds(1) if model == "face_swapper" else blender_feeds(1)
    arrays = {name: array[0] for name, array in feeds.items()}
    largest = max(array.nbytes for array in arrays.values())
    return Request(model, arrays, largest, model)


def _alone(model: str, setup: Setup) -> Cell:
    """Of a server of Triton's own ensemble, whatever the headline's: its steps are models."""
    plain = replace(setup, mode="three processes", instances=(), delay_us=None)
    return Cell(f"{model} alone", lambda bench: bench.load.run(model_request(model)), plain)


def mode_name(mode: str) -> str:
    return f"mode: {mode}"


def _modes(main: Setup) -> list[Cell]:
    """Every other mode, with the headline's queue delay and requests in flight."""
    return [
        _scene("one face", replace(main, mode=name, instances=()), mode_name(name))
        for name in MODES
        if name != main.mode
    ]


def price_name(name: str) -> str:
    return f"one face, {name}, {CUDA}"


def price_engine_name(name: str) -> str:
    """Of the engine alone; that of the network as it is has its cell already."""
    return engine_name(8, "" if PRICES[name] == "fp16" else f", {name}")


def _price(name: str) -> list[Cell]:
    form = PRICES[name]
    engine = [] if form == "fp16" else [_engine(8, form, f", {name}")]
    return [*engine, _scene("one face", Setup(form, PRICE_MODE), price_name(name))]


OWN_SCENES: Final = ("one face", "four faces")


def own_name(scene: str, mode: str = "") -> str:
    return ", ".join(filter(None, (scene, OWN, mode, CUDA)))


def _own_network(main: Setup) -> list[Cell]:
    """The project's own network, served as the headline and as the prices are."""
    served = replace(main, repository=OWN)

    def correct(bench: Bench) -> Any:
        return compare_with_cpu(bench.url, bench.repositories(OWN_REFERENCE), own=True)

    return [
        *(_engine(batch, OWN, f", {OWN}") for batch in (16, 8, 1)),
        Cell(f"{OWN}: GPU against CPU", correct, served),
        *(_own_scene(name, served, own_name(name)) for name in OWN_SCENES),
        _own_scene("one face", Setup(OWN, PRICE_MODE), own_name("one face", PRICE_MODE)),
    ]


def _own_scene(name: str, setup: Setup, cell: str) -> Cell:
    scene = replace(SCENES[name], own=True)
    return Cell(cell, lambda bench: bench.load.run(scene_request(scene)), setup)


def _table_rows(main: Setup) -> dict[str, list[Cell]]:
    """Requests of 1, 2, 4, 8 frames, one for each instance: none is joined with another."""
    at_once = replace(main, delay_us=0)
    each = {"concurrency": MODES[main.mode].instances}
    slow: dict[str, Any] = {"memory": "system", "seconds": 4.0, "probe": 4, "concurrency": 1}
    rows: dict[str, tuple[Setup, dict[str, Any]]] = {
        "CUDA fp16": (at_once, each),
        "CUDA fp32": (replace(at_once, repository="fp32"), each),
        "CPU": (Setup(repository="reference", target="cpu", in_flight=8), slow),
        "TensorRT fp16": (replace(at_once, repository=TENSORRT, target="tensorrt"), each),
    }
    return {
        row: [
            _scene("one face", setup, table_name(row, batch), batch=batch, **options)
            for batch in TABLE_BATCHES
        ]
        for row, (setup, options) in rows.items()
    }
