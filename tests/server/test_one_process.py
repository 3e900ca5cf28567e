"""Ensembles in one process: the tests of the ensembles once more, and what is particular to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from engines.targets import TARGETS
from graphs import contract
from server.backends.pipelines import read_steps
from server.errors import RepositoryError, StartError
from server.launcher import EmbeddedServer
from server.one_process import choose_layout, joined_checks, write_pipelines
from server.repository import read_repository, with_queue_delay
from tests.server.asking import Asker
from tests.server.test_ensembles import (  # noqa: F401
    sources,
    steps,
    test_a_frame_without_a_face_comes_back_bit_identical,
    test_a_hostile_request_fails_alone_with_a_sentence,
    test_an_ensemble_is_its_steps_composed,
    test_sizes_formats_faces_and_sources_in_flight_at_once_stay_apart,
    test_the_photo_ensembles_are_their_steps_composed,
    test_the_watchdogs_probe_passes_through_every_ensemble,
)
from tests.server.test_launcher import model_processes

pytestmark = pytest.mark.e2e

ENSEMBLES = ["embed_face_bgr", "encode_source_bgr", "swap_faces_bgr", "swap_faces_i420"]


@pytest.fixture(scope="session")
def real_server(real_repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(real_repository, one_process=True) as server:
        yield server


@pytest.fixture(scope="session")
def real_asker(real_server: EmbeddedServer) -> Iterator[Asker]:
    asker = Asker(real_server.grpc_url)
    yield asker
    asker.client.close()


def test_each_ensemble_is_one_process_and_its_steps_are_none(real_server: EmbeddedServer) -> None:
    assert sorted(real_server.repository.configs) == ENSEMBLES
    assert len(model_processes(real_server)) == len(ENSEMBLES)


def test_the_contract_of_an_ensemble_is_kept(real_repository: Path, tmp_path: Path) -> None:
    before = read_repository(real_repository, "cpu")
    after = write_pipelines(before, tmp_path / "one", {})
    assert sorted(after.configs) == ENSEMBLES
    for name in ENSEMBLES:
        old, new = before.configs[name], after.configs[name]
        assert list(new.input) == list(old.input)
        assert list(new.output) == list(old.output)
        assert new.max_batch_size == old.max_batch_size
        kept = {key: new.parameters[key] for key in old.parameters}
        assert kept == dict(old.parameters)
        texts = {key: value.string_value for key, value in new.parameters.items()}
        wired = [(s.folder.rsplit("/", 1)[-1], s.inputs, s.outputs) for s in read_steps(texts)]
        assert wired == [
            (step.model_name, dict(step.input_map), dict(step.output_map))
            for step in old.ensemble_scheduling.step
        ]


def test_an_instance_count_names_an_ensemble(real_repository: Path, tmp_path: Path) -> None:
    repository = read_repository(real_repository, "cpu", ["swap_faces_i420"])
    made = write_pipelines(repository, tmp_path / "two", {"swap_faces_i420": 2})
    assert made.configs["swap_faces_i420"].instance_group[0].count == 2
    with pytest.raises(RepositoryError, match=r"face_swapper=2 was given; the ensembles are: swap"):
        write_pipelines(repository, tmp_path / "wrong", {"face_swapper": 2})
    with pytest.raises(RepositoryError, match="at least one"):
        write_pipelines(repository, tmp_path / "none", {"swap_faces_i420": 0})


def test_a_repository_without_an_ensemble_is_refused(real_repository: Path) -> None:
    server = EmbeddedServer(real_repository, models=["face_swapper"], one_process=True)
    with pytest.raises(RepositoryError, match="serves no ensemble that could run in one process"):
        server.start()


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "step_00 does not describe a step"), ('{"folder": "x"}', "missing 4 required")],
)
def test_a_step_that_cannot_be_read_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_steps({"step_00": text})
    with pytest.raises(ValueError, match="a pipeline needs parameters step_00"):
        read_steps({"other": text})


def test_a_step_whose_network_is_broken_fails_the_load_with_its_name(
    real_repository: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    for folder in real_repository.iterdir():
        (broken / folder.name).mkdir(parents=True)
        for entry in folder.iterdir():
            (broken / folder.name / entry.name).symlink_to(entry)
    network = broken / "face_swapper" / "1"
    network.unlink()
    network.mkdir()
    (network / "model.onnx").write_bytes(b"no network")
    server = EmbeddedServer(broken, models=["swap_faces_i420"], one_process=True)
    with pytest.raises(StartError, match=r"swap_faces_i420.*model\.onnx"):
        server.start()


@pytest.mark.parametrize("models", [["swap_faces_i420"], None])
def test_a_queue_delay_is_that_of_the_first_steps_alone(
    real_repository: Path, models: list[str] | None
) -> None:
    loaded = read_repository(real_repository, "cpu", models)
    for config in loaded.configs.values():
        if config.HasField("dynamic_batching"):
            # As in a GPU's configs; a CPU runs frames one by one.
            config.dynamic_batching.ClearField("preferred_batch_size")
    delayed = with_queue_delay(loaded, 4000)
    assert {
        name for name, config in delayed.configs.items()
        if config.dynamic_batching.max_queue_delay_microseconds
    } == {
        config.ensemble_scheduling.step[0].model_name
        for config in loaded.configs.values() if config.ensemble_scheduling.step
    }  # fmt: skip
    assert all(
        config.dynamic_batching.max_queue_delay_microseconds == 0
        for config in loaded.configs.values()
    )


def test_a_queue_delay_on_a_cpu_would_do_nothing_and_is_refused(real_repository: Path) -> None:
    for models in (["swap_faces_i420"], None):
        loaded = read_repository(real_repository, "cpu", models)
        with pytest.raises(RepositoryError, match=r"face_detector_i420.* of the cpu target run"):
            with_queue_delay(loaded, 4000)


CHECKS = {
    contract.PARAMETER_MAX_FACES, *contract.CHECKED_INPUT_LISTS,
    *(key for keys in contract.CHECKED_BY_TENSOR.values() for key in keys),
}  # fmt: skip


@pytest.mark.parametrize("name", ENSEMBLES)
def test_one_process_checks_what_any_step_checks_of_the_ensembles_own_inputs(
    real_repository: Path, tmp_path: Path, name: str
) -> None:
    before = read_repository(real_repository, "cpu", [name])
    made = write_pipelines(before, tmp_path / "one", {}).configs[name].parameters
    own = {tensor.name for tensor in contract.ENSEMBLE_SPECS[name].inputs}
    for step in before.configs[name].ensemble_scheduling.step:
        for key in CHECKS & set(before.configs[step.model_name].parameters):
            text = before.configs[step.model_name].parameters[key].string_value
            if key in contract.CHECKED_INPUT_LISTS:
                wanted = {step.input_map[tensor] for tensor in text.split(",")} & own
                assert wanted <= set(made[key].string_value.split(",")), (step.model_name, key)
            elif key in made:
                assert made[key].string_value == text, (step.model_name, key)
    # Every input of an ensemble is checked: this is the whole of what a client can get wrong.
    wanted = {"frame_format", "min_height", "max_width", "option_ranges", "finite_inputs"}
    assert wanted | ({"face_inputs", "max_faces"} if "source" in own else set()) <= set(made)


WIRED = """
name: "pair" input { name: "frame" } input { name: "given" } input { name: "options" }
ensemble_scheduling {
  step { model_name: "first" input_map { key: "frame" value: "frame" }
         output_map { key: "crops" value: "crops" } }
  step { model_name: "second"
         input_map { key: "source" value: "given" } input_map { key: "crops" value: "crops" }
         input_map { key: "frame" value: "frame" } input_map { key: "options" value: "options" } }
}
"""


def step_config(**parameters: str) -> ModelConfig:
    config = ModelConfig()
    for key, text in parameters.items():
        config.parameters[key].string_value = text
    return config


def test_a_later_steps_checks_hold_under_the_ensembles_names_and_the_tightest_bound() -> None:
    ensemble = text_format.Parse(WIRED, ModelConfig())
    first = step_config(frame_format="bgr", min_height="64", max_height="720", face_inputs="crops")
    second = step_config(
        frame_format="bgr", min_height="96", max_height="1080", face_inputs="crops,source",
        finite_inputs="source,options", option_ranges="a=0..1", max_faces="4", row_mask="faces",
    )  # fmt: skip
    assert joined_checks(ensemble, [first, second]) == {
        "frame_format": "bgr",
        "min_height": "96",
        "max_height": "720",
        "face_inputs": "given",
        "finite_inputs": "given,options",
        "option_ranges": "a=0..1",
        "max_faces": "4",
    }


def test_steps_that_disagree_about_a_format_are_refused() -> None:
    ensemble = text_format.Parse(WIRED, ModelConfig())
    models = [step_config(frame_format="bgr"), step_config(frame_format="i420")]
    with pytest.raises(RepositoryError, match=r"pair disagree about frame_format \(bgr or i420\)"):
        joined_checks(ensemble, models)


def test_the_target_decides_the_layout_unless_one_is_asked_for(
    real_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = replace(read_repository(real_repository, "cpu"), target="cuda")
    assert choose_layout(loaded, None, {}).one_process
    assert not choose_layout(loaded, False, {}).one_process
    # A count of a step is for a process a step.
    counts = {"face_swapper": 2}
    assert choose_layout(loaded, None, counts) == choose_layout(loaded, False, counts)
    alone = replace(loaded, configs={"face_swapper": loaded.configs["face_swapper"]})
    assert not choose_layout(alone, None, {}).one_process
    assert not choose_layout(replace(loaded, target="mine"), None, {}).one_process
    twice = {"cuda": replace(TARGETS["cuda"], instances=2)}
    monkeypatch.setattr("server.one_process.TARGETS", MappingProxyType(twice))
    assert choose_layout(loaded, None, {"swap_faces_bgr": 3}).instance_counts == {
        "swap_faces_i420": 2,
        "swap_faces_bgr": 3,
    }
