"""The model repository on disk: complete folders, files that appear whole, a record beside each.

A record, `<version>/<file>.build.json`, says what the file beside it was made from. A build that
would make the same again leaves the file alone; one that would not can say why.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from engines.configs import HostOptions, Limits, config_text, make_config, read_config
from engines.deployment import Deployment
from engines.errors import EngineError
from engines.targets import Target
from fetching.files import file_sha256, publish_file
from graphs.contract import ENSEMBLE_SPECS, MODEL_SPECS

VERSION: Final = "1"
"""The only version folder of every model."""

COMMITTED: Final = Path(__file__).resolve().parent.parent / "model_repository"
"""The repository whose base configs are committed."""


class RepositoryError(EngineError):
    """The model repository cannot be read, written, or completed."""


@dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """What one built file was made from and what was measured on it.

    recipe: everything that decides the file, by name.
    sha256, size: of the file.
    facts: what a build found out and a reader may want: versions, memory, fidelity.
    """

    model: str
    recipe: Mapping[str, str]
    sha256: str
    size: int
    facts: Mapping[str, Any] = field(default_factory=dict)


class Repository:
    """A model repository at `root`: `<model>/config.pbtxt`, `<model>/1/`, `<model>/configs/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def file(self, model: str, filename: str) -> Path:
        """Where a built file of `model` lies."""
        return self.root / model / VERSION / filename

    def complete(self) -> None:
        """Make sure that every model and ensemble has its folder, version and committed config.

        Raises:
            RepositoryError: the folder cannot be written, or holds a model of another kind.
        """
        for model in (*MODEL_SPECS, *ENSEMBLE_SPECS):
            committed = (COMMITTED / model / "config.pbtxt").read_bytes()
            target = self.root / model / "config.pbtxt"
            with _sentences(self.root):
                (self.root / model / VERSION).mkdir(parents=True, exist_ok=True)
                if self.root.resolve() != COMMITTED and _read(target) != committed:
                    publish_file(target, committed)

    def record(self, model: str, filename: str) -> BuildRecord | None:
        """The record of a built file; None when there is none that can be read."""
        path = self._record_path(model, filename)
        try:
            return BuildRecord(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def is_current(self, model: str, filename: str, recipe: Mapping[str, str]) -> bool:
        """Whether the file is there, whole, and made from `recipe`."""
        record = self.record(model, filename)
        if record is None or dict(record.recipe) != dict(recipe):
            return False
        try:
            return file_sha256(self.file(model, filename)) == record.sha256
        except OSError:
            return False

    def publish(
        self,
        model: str,
        filename: str,
        data: bytes,
        *,
        recipe: Mapping[str, str],
        facts: Mapping[str, Any] | None = None,
    ) -> BuildRecord:
        """Put a built file and its record in place, each whole or not at all.

        Raises:
            RepositoryError: the disk is full or the folder cannot be written.
        """
        record = BuildRecord(
            model=model,
            recipe=dict(recipe),
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            facts=dict(facts or {}),
        )
        text = json.dumps(asdict(record), indent=2, sort_keys=True) + "\n"
        with _sentences(self.root):
            # The old record goes first: a kill in between leaves a file that is rebuilt.
            self._record_path(model, filename).unlink(missing_ok=True)
            publish_file(self.file(model, filename), data)
            publish_file(self._record_path(model, filename), text.encode())
        return record

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

    def _record_path(self, model: str, filename: str) -> Path:
        return self.file(model, f"{filename}.build.json")


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
        raise RepositoryError(
            f"the model repository {root} cannot be written: {error.strerror or error}"
        ) from error
