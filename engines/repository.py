"""The model repository as a build writes it: complete folders, files that appear whole.

Beside each built file lies its manifest. A build that would make the same again leaves the file
alone; one that would not can say why.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engines.base_configs import base_config, parsed_base
from engines.configs import HostOptions, Limits, config_text, make_config
from engines.deployment import Deployment
from engines.errors import ManifestError, RepositoryUnwritable
from engines.manifest import Manifest, manifest_path, read_manifest, write_manifest
from engines.targets import Target
from fetching.files import file_sha256, publish_file
from graphs.contract import EVERY_MODEL, MODEL_SPECS, NO_EXTRAS, Extras, served_specs

VERSION: Final = "1"
"""The only version folder of every model."""

COMMITTED: Final = Path(__file__).resolve().parent.parent / "model_repository"
"""The repository whose base configs are committed."""


OPTIONAL_MODELS: Final = frozenset(EVERY_MODEL) - frozenset(MODEL_SPECS)
"""Models that only some deployments have: a target without such a model's config has none."""


class RepositoryWriter:
    """A model repository at `root`: `<model>/config.pbtxt`, `<model>/1/`, `<model>/configs/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def file(self, model: str, filename: str) -> Path:
        """Where a built file of `model` lies."""
        return self.root / model / VERSION / filename

    def complete(self, extras: Extras = NO_EXTRAS) -> None:
        """Make sure that every model and ensemble has its folder, version and base config.

        Those that are committed hold for deployments without extras: one with extras has them in
        its targets' configs alone, but for a model that no other deployment has.

        Raises:
            RepositoryUnwritable: the folder cannot be written, or holds a model of another kind.
        """
        usual = served_specs(NO_EXTRAS)
        for model, spec in served_specs(extras).items():
            target = self.root / model / "config.pbtxt"
            committed = self.root.resolve() == COMMITTED and model in usual
            text = base_config(usual.get(model, spec)).encode()
            with _sentences(self.root):
                (self.root / model / VERSION).mkdir(parents=True, exist_ok=True)
                if not committed and _read(target) != text:
                    publish_file(target, text)

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
        """Write `configs/<target>.pbtxt` of every model and ensemble that the deployment has."""
        specs = served_specs(deployment.extras)
        for model, spec in specs.items():
            config = make_config(parsed_base(spec), target, deployment, limits=limits, host=host)
            path = self.root / model / "configs" / f"{target.name}.pbtxt"
            text = config_text(config).encode()
            if _read(path) != text:
                with _sentences(self.root):
                    publish_file(path, text)
        for model in OPTIONAL_MODELS - set(specs):
            self._leave_out(model, target)

    def _leave_out(self, model: str, target: Target) -> None:
        """Take a model of an earlier build out of a target; the last target takes its folder."""
        folder = self.root / model
        with _sentences(self.root):
            (folder / "configs" / f"{target.name}.pbtxt").unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.glob("configs/*.pbtxt")):
                shutil.rmtree(folder)


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
