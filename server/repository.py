"""Reading a model repository before a server does: which models, which target, which files.

Triton takes a model's base config without a word when the asked-for target is not there
(`configs/<target>.pbtxt` with `--model-config-name`), so that a misspelt target would run
something else. It is refused here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tritonclient.grpc as triton_grpc
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from engines.check_plans import refused_plans
from engines.configs import read_config
from engines.manifest import server_versions
from engines.repository import COMMITTED, OPTIONAL_MODELS
from engines.targets import TARGETS, UNTIL_PLAN
from graphs.contract import PARAMETER_ONNX_UNTIL_PLAN
from server.errors import RepositoryError, StartError

DEFAULT_REPOSITORY = COMMITTED
"""The one beside this code; `build_engines.py` builds into it."""
DEFAULT_FILENAMES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}


@dataclass(frozen=True)
class Repository:
    """The models that a server is to load.

    folder: the model repository.
    target: name of the configs, without `.pbtxt`.
    configs: model name to parsed config, for each model that is loaded.
    asked: names to give to Triton; it finds the steps of an ensemble itself.
    """

    folder: Path
    target: str
    configs: Mapping[str, ModelConfig]
    asked: tuple[str, ...]


def read_repository(folder: Path, target: str, models: Sequence[str] | None = None) -> Repository:
    """Read a target's configs of the models, and of the steps that their ensembles need.

    Raises:
        RepositoryError: names the model, target or file that is missing, and what to run.
    """
    if not folder.is_dir():
        raise RepositoryError(
            f"the model repository {folder} does not exist; build it with {build_command(target)}"
        )
    present = sorted(path.parent.name for path in folder.glob("*/config.pbtxt"))
    if not present:
        raise RepositoryError(
            f"{folder} holds no model (no folder with a config.pbtxt); give a model repository"
        )
    there = [
        name for name in present
        if name not in OPTIONAL_MODELS or _config_path(folder / name, target).is_file()
    ]  # fmt: skip
    asked = tuple(models) if models is not None else tuple(there)
    configs: dict[str, ModelConfig] = {}
    waiting = list(asked)
    while waiting:
        name = waiting.pop()
        if name in configs:
            continue
        if name not in present:
            raise RepositoryError(
                f"the model repository {folder} has no model {name!r}; it has {', '.join(present)}"
            )
        configs[name] = _read_config(folder / name, target, folder, there)
        waiting += [step.model_name for step in configs[name].ensemble_scheduling.step]
    _check_files(folder, configs, target)
    return Repository(folder, target, dict(sorted(configs.items())), asked)


def build_command(target: str) -> str:
    """What builds a target; where no such target is known, with the names that are."""
    name = target if target in TARGETS else f"NAME, which is one of {', '.join(TARGETS)}"
    return f"python build_engines.py --target {name}"


def _config_path(model: Path, target: str) -> Path:
    return model / "configs" / f"{target}.pbtxt"


def _read_config(model: Path, target: str, folder: Path, present: Sequence[str]) -> ModelConfig:
    path = _config_path(model, target)
    if not path.is_file():
        targets = [
            {file.stem for file in (folder / name).glob("configs/*.pbtxt")} for name in present
        ]
        usable = sorted(set.intersection(*targets))
        known = f"targets that all models have: {', '.join(usable)}" if usable else "it has none"
        raise RepositoryError(
            f"model {model.name} of {folder} has no target {target!r} ({known}); choose one, or "
            f"build it with {build_command(target)}"
        )
    try:
        return read_config(path)
    except ValueError as error:
        raise RepositoryError(str(error)) from error


def _check_files(folder: Path, configs: Mapping[str, ModelConfig], target: str) -> None:
    for name, config in configs.items():
        filename = config.default_model_filename or DEFAULT_FILENAMES.get(config.backend, "")
        if config.ensemble_scheduling.step or not filename:
            continue
        files = {filename, *config.cc_model_filenames.values()}
        told = config.parameters.get(PARAMETER_ONNX_UNTIL_PLAN)
        if told is not None and told.string_value == "1":
            files.add(UNTIL_PLAN.filename)
        if not any((folder / name / "1" / file).is_file() for file in files):
            raise RepositoryError(
                f"{folder / name / '1' / filename} is missing, so that the "
                f"{target} target cannot be served; build it with {build_command(target)}"
            )


def refuse_foreign_plans(repository: Repository) -> None:
    """Refuse TensorRT plans that were made for another GPU, library or release.

    Raises:
        RepositoryError: the first such plan, and the command that makes it anew.
    """
    if any(config.backend == "tensorrt" for config in repository.configs.values()):
        for reason in refused_plans(repository.folder, repository.configs, server_versions()):
            raise RepositoryError(reason)


def top_models(configs: Mapping[str, ModelConfig]) -> list[str]:
    """The models that no ensemble among them contains: asking those asks everything."""
    steps = {
        step.model_name for config in configs.values() for step in config.ensemble_scheduling.step
    }
    return [name for name in configs if name not in steps]


def with_queue_delay(repository: Repository, delay_us: int) -> Repository:
    """The repository with another queue delay, of the models that clients' requests meet.

    Those are the first step of each ensemble, and models that are asked for and are no step: what a
    first step joined comes to the later ones at once, and would only wait again there.

    Args:
        delay_us: how long a request may wait for others to share its batch, microseconds.

    Raises:
        RepositoryError: it is negative, or no such model joins requests.
    """
    if delay_us < 0:
        raise RepositoryError(f"a queue delay is 0 or more microseconds, and {delay_us} was given")
    configs = dict(repository.configs)
    steps_of = {name: config.ensemble_scheduling.step for name, config in configs.items()}
    met = {steps[0].model_name for steps in steps_of.values() if steps}
    met |= {name for name in top_models(configs) if not steps_of[name]}
    joining = {name for name in met if _joins_requests(configs[name])}
    if not joining:
        raise RepositoryError(
            f"a queue delay was given, and {', '.join(sorted(met))} of the {repository.target} "
            "target run each request by itself (no dynamic_batching, or preferred_batch_size 1, "
            "as on a CPU): it would have no effect, leave it out"
        )
    for name in joining:
        configs[name] = ModelConfig()
        configs[name].CopyFrom(repository.configs[name])
        configs[name].dynamic_batching.max_queue_delay_microseconds = delay_us
    return replace(repository, configs=configs)


def _joins_requests(config: ModelConfig) -> bool:
    """Whether requests ever wait for others; at a preferred size of 1 each is run at once."""
    preferred = config.dynamic_batching.preferred_batch_size
    return bool(config.HasField("dynamic_batching")) and 1 not in preferred


def write_overlay(
    repository: Repository, folder: Path, instance_counts: Mapping[str, int]
) -> Repository:
    """Write a copy of the repository whose configs have other instance counts.

    Version folders are links to the original's: a network file is never copied.

    Raises:
        RepositoryError: a count names no loaded model, or is not positive.
    """
    for name, count in instance_counts.items():
        if name not in repository.configs or repository.configs[name].ensemble_scheduling.step:
            steps = [n for n, c in repository.configs.items() if not c.ensemble_scheduling.step]
            raise RepositoryError(
                f"an instance count was given for {name!r}, which is no model that runs here; "
                f"these are: {', '.join(steps)}"
            )
        if count < 1:
            raise RepositoryError(f"{name} must have at least one instance, and {count} was given")
    configs: dict[str, ModelConfig] = {}
    for name, config in repository.configs.items():
        changed = ModelConfig()
        changed.CopyFrom(config)
        if name in instance_counts:
            for group in changed.instance_group or [changed.instance_group.add()]:
                group.count = instance_counts[name]
        write_model(repository, folder, changed)
        configs[name] = changed
    return Repository(folder, repository.target, configs, repository.asked)


def write_model(repository: Repository, folder: Path, config: ModelConfig) -> None:
    """Write a model's folder into `folder`, with another config of the repository's target."""
    model = folder / config.name
    (model / "configs").mkdir(parents=True)
    (model / "configs" / f"{repository.target}.pbtxt").write_text(
        str(text_format.MessageToString(config)), encoding="utf-8"
    )
    original = (repository.folder / config.name).resolve()
    shutil.copyfile(original / "config.pbtxt", model / "config.pbtxt")
    for version in _version_folders(original):
        (model / version.name).symlink_to(version, target_is_directory=True)


def _version_folders(model: Path) -> Iterator[Path]:
    return (path for path in model.iterdir() if path.is_dir() and path.name.isdigit())


def check_loaded(client: triton_grpc.InferenceServerClient, repository: Repository) -> None:
    """Compare what a server says that it loaded with the target's files.

    Raises:
        StartError: it loaded something else.
        tritonclient.utils.InferenceServerException: it does not answer.
    """
    for name, wanted in repository.configs.items():
        loaded = client.get_model_config(name).config
        same = (
            loaded.backend == wanted.backend
            and dict(loaded.parameters) == dict(wanted.parameters)
            and loaded.max_batch_size == wanted.max_batch_size
        )
        if not same:
            raise StartError(
                f"the server has not loaded the target {repository.target!r} of {name} that "
                f"{repository.folder} holds"
            )
