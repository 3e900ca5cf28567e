"""What is to be served: waited for while it is missing, refused when it is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from deploy.settings import Settings
from server.errors import RepositoryError
from server.repository import (
    Repository,
    read_repository,
    refuse_foreign_plans,
    top_models,
    write_model,
)

LOOK_EVERY_S: Final = 1.0
SAY_EVERY_S: Final = 30.0
CERTAIN_AFTER_S: Final = 3.0
"""A plan and its manifest are two files: between them a plan looks wrong for a moment."""


def await_plans(
    settings: Settings, say: Callable[[str], None], is_stopped: Callable[[float], bool]
) -> Repository | None:
    """Wait until the repository can be served; None when told to stop meanwhile.

    Args:
        is_stopped: waits so many seconds, and says whether the server is to stop.

    Raises:
        RepositoryError: files are still missing after `wait_s`, or a plan is wrong; with the
            command to run.
    """
    started = time.monotonic()
    said = -SAY_EVERY_S
    wrong_since: float | None = None
    while True:
        now = time.monotonic() - started
        try:
            repository = read_repository(settings.repository, settings.target)
        except RepositoryError as error:
            wrong_since = None
            if now >= settings.wait_s:
                raise RepositoryError(f"{error} (waited {now:.0f} s)") from error
            if now - said >= SAY_EVERY_S:
                say(f"waiting for plans ({now:.0f} s): {error}")
                said = now
        else:
            try:
                refuse_foreign_plans(repository)
                return repository
            except RepositoryError:
                wrong_since = now if wrong_since is None else wrong_since
                if now - wrong_since >= CERTAIN_AFTER_S:
                    raise
        if is_stopped(LOOK_EVERY_S):
            return None


def write_bounded(repository: Repository, settings: Settings, target: Path) -> Repository:
    """Write a repository with the asked-for instances, and queues that refuse what is too much.

    The bound is on the models that clients' requests meet, the first step of each ensemble. A
    request that finds its queue full is answered UNAVAILABLE at once, which clients and proxies
    send elsewhere. `target` gets configs, and links to the plans.
    """
    steps = {name: config.ensemble_scheduling.step for name, config in repository.configs.items()}
    met = {wired[0].model_name for wired in steps.values() if wired}
    met |= {name for name in top_models(repository.configs) if not steps[name]}
    configs: dict[str, ModelConfig] = {}
    for name, config in repository.configs.items():
        changed = ModelConfig()
        changed.CopyFrom(config)
        if not steps[name]:
            for group in changed.instance_group or [changed.instance_group.add()]:
                group.count = max(group.count, settings.instances)
        if name in met and settings.max_queue_size:
            policy = changed.dynamic_batching.default_queue_policy
            policy.max_queue_size = settings.max_queue_size
        write_model(repository, target, changed)
        configs[name] = changed
    return replace(repository, folder=target, configs=configs)
