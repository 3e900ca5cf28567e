"""The model repository as a build writes it: complete folders, files that appear whole.

Beside each built file lies its manifest. A build that would make the same again leaves the file
alone; one that would not can say why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engines.configs import HostOptions, Limits, config_text, make_config, read_config
from engines.deployment import Deployment
from engines.errors import ManifestError, RepositoryUnwritable
from engines.manifest import Manifest, manifest_path, read_manifest, write_manifest
from engines.targets import Target
from fetching.files import file_sha256, publish_file
from graphs.contract import ENSEMBLE_SPECS, MODEL_SPECS

VERSION: Final = "1"
"""The only version folder of every model."""

COMMITTED: Final = Path(__file__).resolve().parent.parent / "model_repository"
"""The repository whose base configs are committed."""


class RepositoryWriter:
    """A model repository at `root`: `<model>/config.pbtxt`, `<model>/1/`, `<model>/configs/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def file(self, model: str, filename: str) -> Path:
        """Where a built file of `model` lies."""
        return self.root / model / VERSION / filename

    def complete(self) -> None:
        """Make sure that every model and ensemble has its folder, version and committed config.

        Raises:
            RepositoryUnwritable: the folder cannot be written, or holds a model of another kind.
        """
        for model in (*MODEL_SPECS, *ENSEMBLE_SPECS):
            committed = (COMMITTED / model / "config.pbtxt").read_bytes()
            target = self.root / model / "config.pbtxt"
            with _sentences(self.root):
                (self.root / model / VERSION).mkdir(parents=True, exist_ok=True)
                if self.root.resolve() != COMMITTED and _read(target) != committed:
                    publish_file(target, committed)

    def manifest(self, model: str, filename: str) -> Manifest | None:
        """What lies beside a built file; None when there is none that can be read."""
        try:
            return read_manifest(self.file(model, filename))
        except ManifestError:
            return None

    def is_current(self, model: str, filename: str, recipe: Mapping[str, str]) -> bool:
        """Whether the file is there, whole, and made from `recipe`."""
        manifest = self.manifest(model, filename)
        if manifest is None or dict(manifest.recipe) != dict(recipe):
            return False
        try:
            return file_sha256(self.file(model, filename)) == manifest.sha256
        except OSError:
            return False

    def publish(self, data: bytes, manifest: Manifest) -> None:
        """Put a built file and its manifest in place, each whole or not at all.

        Raises:
            RepositoryUnwritable: the disk is full or the folder cannot be written.
        """
        path = self.file(manifest.model, manifest.file)
        with _sentences(self.root):
            # The old manifest goes first: a kill in between leaves a file that is rebuilt.
            manifest_path(path).unlink(missing_ok=True)
            publish_file(path, data)
            write_manifest(path, manifest)

    def write_configs(
        self,
        target: Target,
        deployment: Deployment,
        *,
        limits: Limits,
        host: HostOptions | None = None,
    ) -> None:
        """Write `configs/<target>.pbtxt` of every model and ensemble."""
        for model in (*MODEL_SPECS, *ENSEMBLE_SPECS):
            base = read_config(self.root / model / "config.pbtxt")
            config = make_config(base, target, deployment, limits=limits, host=host)
            path = self.root / model / "configs" / f"{target.name}.pbtxt"
            text = config_text(config).encode()
            if _read(path) != text:
                with _sentences(self.root):
                    publish_file(path, text)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@contextmanager
def _sentences(root: Path) -> Iterator[None]:
    """What the operating system says about a folder, as one sentence."""
    try:
        yield
    except OSError as error:
        raise RepositoryUnwritable(
            f"the model repository {root} cannot be written: {error.strerror or error}"
        ) from error
