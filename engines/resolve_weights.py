"""The weights that a deployment needs, present and checked, or a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engines.errors import EngineError
from fetching import weights
from fetching.downloads import Progress, WeightsError
from fetching.files import file_sha256

Announce = Callable[[str], None]


class WeightsUnavailable(EngineError):
    """A weight file is not here, and may or can not be fetched."""


def resolve_weights(
    names: Sequence[str],
    *,
    accept_licence: bool,
    announce: Announce,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Make sure that every named file is in the cache; returns each one's SHA-256.

    A file that is free to use is fetched; one whose licence asks for it only on `accept_licence`.

    Args:
        announce: told, in one line, before something is fetched.

    Raises:
        WeightsUnavailable: a licence that was not accepted, a file that cannot be fetched, or one
            that is damaged; one sentence.
    """
    return {
        name: _resolve(name, accept_licence, announce, progress) for name in dict.fromkeys(names)
    }


def _resolve(name: str, accept_licence: bool, announce: Announce, progress: Progress | None) -> str:
    row = weights.WEIGHTS[name]
    command = f"frameswap models fetch {name}"
    if not weights.is_present(name):
        if row.needs_acceptance and not accept_licence:
            raise WeightsUnavailable(
                f"the weights of {name} are not here, and their licence ({row.licence}: "
                f"{row.allows}) has not been accepted; if it fits your use, run: "
                f"{command} --accept-licence"
            )
        announce(f"fetching {name} ({row.licence}: {row.allows})")
        try:
            weights.fetch(name, accept_licence=accept_licence, progress=progress)
        except WeightsError as error:
            raise WeightsUnavailable(
                f"the weights of {name} are not here and could not be fetched: {error}; "
                f"with a local copy run: {command} --file PATH"
            ) from error
    return file_sha256(weights.path(name))
