"""An ensemble as one model of the `pipeline` backend: the same contract, one process.

Triton runs each step of an ensemble in processes of its own, which is what lets NVIDIA's C++
backends and several machines' worth of tuning in. For Python-based backends on a GPU the way from
process to process costs more than the steps' overlap gives (docs/gpu.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelEnsembling

from engines.targets import TARGETS
from graphs.contract import (
    CHECKED_BY_TENSOR,
    CHECKED_INPUT_LISTS,
    ENSEMBLE_SPECS,
    PARAMETER_FACE_INPUTS,
    PARAMETER_MAX_FACES,
)
from server.backends.pipelines import STEP_PREFIX, StepText
from server.errors import RepositoryError
from server.repository import Repository, build_command, top_models, write_model

BACKEND: Final = "pipeline"


@dataclass(frozen=True)
class Layout:
    """Where the steps of ensembles run.

    instance_counts: by ensemble where each is one process, else by step.
    """

    one_process: bool
    instance_counts: Mapping[str, int]


def choose_layout(
    repository: Repository, one_process: bool | None, instance_counts: Mapping[str, int]
) -> Layout:
    """The layout that was asked for, or the one that the target is best served by.

    Args:
        one_process: None leaves it to the target's row. Counts that name a step ask for a process
            a step, and models that are in no ensemble always have their own.
    """
    if one_process is not None:
        return Layout(one_process, instance_counts)
    row = TARGETS.get(repository.target)
    ensembles = {name for name, c in repository.configs.items() if c.ensemble_scheduling.step}
    if row is None or not row.one_process or not ensembles or set(instance_counts) - ensembles:
        return Layout(False, instance_counts)
    if row.instances is None:
        return Layout(True, instance_counts)
    specs = (ENSEMBLE_SPECS[name] for name in ensembles & set(ENSEMBLE_SPECS))
    video = [spec.name for spec in specs if spec.sees == "frame"]
    return Layout(True, {**dict.fromkeys(video, row.instances), **instance_counts})


def write_pipelines(
    repository: Repository, folder: Path, instance_counts: Mapping[str, int]
) -> Repository:
    """Write a repository in which every ensemble is one model, and its steps are none.

    Models outside any ensemble stay as they are; network files are never copied.

    Args:
        repository: what was to be served.
        folder: where to write.
        instance_counts: ensemble name to number of instances; else it has its first step's.

    Raises:
        RepositoryError: there is no ensemble, or a count names none or is not positive.
    """
    ensembles = {
        name: config for name, config in repository.configs.items()
        if config.ensemble_scheduling.step
    }  # fmt: skip
    if not ensembles:
        raise RepositoryError(
            f"{repository.folder} serves no ensemble that could run in one process"
        )
    for name, count in instance_counts.items():
        if name not in ensembles or count < 1:
            raise RepositoryError(
                f"in one process an ensemble has instances, at least one, and {name}={count} was "
                f"given; the ensembles are: {', '.join(ensembles)}"
            )
    configs: dict[str, ModelConfig] = {}
    for name in top_models(repository.configs):
        config = repository.configs[name]
        if name in ensembles:
            config = pipeline_config(config, repository, instance_counts.get(name))
        write_model(repository, folder, config)
        configs[name] = config
    asked = tuple(name for name in repository.asked if name in configs)
    return Repository(folder, repository.target, configs, asked)


def pipeline_config(
    ensemble: ModelConfig, repository: Repository, count: int | None
) -> ModelConfig:
    """The config of the `pipeline` model that does what an ensemble does."""
    scheduling: ModelEnsembling = ensemble.ensemble_scheduling
    models = [repository.configs[step.model_name] for step in scheduling.step]
    config = ModelConfig()
    config.CopyFrom(ensemble)
    config.ClearField("ensemble_scheduling")
    config.ClearField("platform")
    config.backend = BACKEND
    if models[0].HasField("dynamic_batching"):
        config.dynamic_batching.CopyFrom(models[0].dynamic_batching)
    if not models[0].instance_group:
        raise RepositoryError(
            f"the config of {models[0].name} names no instance_group; build it with "
            f"{build_command(repository.target)}"
        )
    group = config.instance_group.add()
    group.CopyFrom(models[0].instance_group[0])
    group.count = count or group.count
    forced = "FORCE_CPU_ONLY_INPUT_TENSORS"
    if forced in models[0].parameters:
        config.parameters[forced].CopyFrom(models[0].parameters[forced])
    for key, text in joined_checks(ensemble, models).items():
        config.parameters[key].string_value = text
    for position, (step, model) in enumerate(zip(scheduling.step, models, strict=True)):
        described = StepText(
            folder=str((repository.folder / step.model_name).absolute()),
            backend=model.backend,
            config=json_format.MessageToDict(model, preserving_proto_field_name=True),
            inputs=dict(step.input_map),
            outputs=dict(step.output_map),
        )
        config.parameters[f"{STEP_PREFIX}{position:02}"].string_value = described.dump()
    return config


def joined_checks(ensemble: ModelConfig, models: Sequence[ModelConfig]) -> dict[str, str]:
    """The check parameters of an ensemble's own inputs: the union of what its steps check of them.

    A step's parameter counts where the step's input is one of the ensemble's, under the ensemble's
    name for it; of several bounds the tightest holds. What a step checks of another step's output
    is left to the graphs: no client has sent it.

    Args:
        models: configs of the steps, in order.

    Raises:
        RepositoryError: two steps disagree about the format of one input.
    """
    own = {tensor.name for tensor in ensemble.input}
    checks: dict[str, list[str]] = {}
    for step, model in zip(ensemble.ensemble_scheduling.step, models, strict=True):
        given = {name: value for name, value in step.input_map.items() if value in own}
        for key, text in _checks_of(model, given).items():
            checks.setdefault(key, []).append(text)
    return {key: _tightest(ensemble.name, key, texts) for key, texts in checks.items()}


def _checks_of(model: ModelConfig, given: Mapping[str, str]) -> dict[str, str]:
    """What one step checks. given: its inputs that are the ensemble's own, to their names there."""
    texts = {key: value.string_value for key, value in model.parameters.items()}
    found: dict[str, str] = {}
    for key in CHECKED_INPUT_LISTS:
        names = [given[name] for name in texts.get(key, "").split(",") if name in given]
        if names:
            found[key] = ",".join(names)
    for tensor, keys in CHECKED_BY_TENSOR.items():
        # The backends know these inputs by name, so that they must keep it.
        if given.get(tensor) == tensor:
            found |= {key: texts[key] for key in keys if key in texts}
    if PARAMETER_FACE_INPUTS in found and PARAMETER_MAX_FACES in texts:
        found[PARAMETER_MAX_FACES] = texts[PARAMETER_MAX_FACES]
    return found


def _tightest(ensemble: str, key: str, texts: Sequence[str]) -> str:
    """One value for what several steps say of one parameter."""
    if key in CHECKED_INPUT_LISTS:
        return ",".join(dict.fromkeys(name for text in texts for name in text.split(",")))
    if len(set(texts)) == 1:
        return texts[0]
    if key.startswith("min_"):
        return str(max(map(int, texts)))
    if key.startswith("max_"):
        return str(min(map(int, texts)))
    raise RepositoryError(
        f"the steps of {ensemble} disagree about {key} ({' or '.join(sorted(set(texts)))}); build "
        "them together with python build_engines.py"
    )
