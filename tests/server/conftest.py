"""One server of tiny models for all tests of this folder, and what they ask it with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.launcher import EmbeddedServer
from tests.server.asking import Asker
from tests.server.tiny_models import TINY_MODELS, parameter, write_model, write_tiny_repository


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_repository(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_server(tiny_repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tiny_repository, one_process=False) as server:
        yield server


@pytest.fixture(scope="session")
def web_server(tiny_repository: Path) -> Iterator[EmbeddedServer]:
    """One whose HTTP ports are open, too."""
    with EmbeddedServer(
        tiny_repository, models=["invert_frame"], http_port=0, metrics_port=0
    ) as server:
        yield server


@pytest.fixture(scope="session")
def asker(tiny_server: EmbeddedServer) -> Iterator[Asker]:
    asker = Asker(tiny_server.grpc_url)
    yield asker
    asker.client.close()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def real_asker(real_server: EmbeddedServer) -> Iterator[Asker]:
    asker = Asker(real_server.grpc_url)
    yield asker
    asker.client.close()


@pytest.fixture(scope="session")
def cuda_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The tiny models on the GPU, every tensor of them on the device."""
    folder = tmp_path_factory.mktemp("tiny-cuda")
    for name, (config, network) in TINY_MODELS.items():
        on_device = config.replace("KIND_CPU", "KIND_GPU")
        if network is not None:
            on_device += parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "no")
        write_model(folder, name, on_device, network, target="cuda")
    with EmbeddedServer(folder, target="cuda", one_process=False) as server:
        yield server
