"""An ensemble as one model of the `pipeline` backend: the same contract, one process.

Triton runs each step of an ensemble in processes of its own, which is what lets NVIDIA's C++
backends and several machines' worth of tuning in. For Python-based backends on a GPU the way from
process to process costs more than the steps' overlap gives (docs/gpu.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelEnsembling

from server.backends.pipelines import STEP_PREFIX, StepText
from server.errors import RepositoryError
from server.repository import BUILD_COMMAND, Repository, top_models, write_model

BACKEND: Final = "pipeline"

CHECKS: Final = (
    "face_inputs", "finite_inputs", "frame_format", "max_height", "max_width", "min_height",
    "min_width", "option_ranges",
)  # fmt: skip
"""What a backend checks of a request: the first step sees every input of an ensemble."""


def write_pipelines(
    repository: Repository, target: Path, instance_counts: Mapping[str, int]
) -> Repository:
    """Write a repository in which every ensemble is one model, and its steps are none.

    Models outside any ensemble stay as they are; network files are never copied.

    Args:
        repository: what was to be served.
        target: folder to write.
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
        write_model(repository, target, config)
        configs[name] = config
    asked = tuple(name for name in repository.asked if name in configs)
    return Repository(target, repository.variant, configs, asked)


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
            f"{BUILD_COMMAND}"
        )
    group = config.instance_group.add()
    group.CopyFrom(models[0].instance_group[0])
    group.count = count or group.count
    for key in (*CHECKS, "FORCE_CPU_ONLY_INPUT_TENSORS"):
        if key in models[0].parameters:
            config.parameters[key].CopyFrom(models[0].parameters[key])
    for position, (step, model) in enumerate(zip(scheduling.step, models, strict=True)):
        described = StepText(
            folder=str((repository.folder / step.model_name).resolve()),
            backend=model.backend,
            config=json_format.MessageToDict(model, preserving_proto_field_name=True),
            inputs=dict(step.input_map),
            outputs=dict(step.output_map),
        )
        config.parameters[f"{STEP_PREFIX}{position:02}"].string_value = described.dump()
    return config
