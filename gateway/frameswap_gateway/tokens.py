"""Who is asking: bearer tokens, and the cookie that a page gets for one.

A browser sends no header of ours with a picture, a video or a WebSocket, so a page shows its token
once and is given a cookie: whose it is and until when, signed with a key of the gateway's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from frameswap import BadOptions

__all__ = [
    "ANYBODY",
    "COOKIE",
    "SESSION_S",
    "Tokens",
    "check_exposure",
    "is_loopback",
    "read_tokens",
]

ANYBODY: Final = "local"
"""Who asks where no tokens are wanted."""
COOKIE: Final = "frameswap_session"
SESSION_S: Final = 12 * 3600.0
_SHORTEST: Final = 16
_LONGEST_NAME: Final = 64


class Tokens:
    """Which tokens are known, and whose they are.

    Args:
        known: SHA-256 of each token, and a name.
        key: signs cookies.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        known: Sequence[tuple[bytes, str]],
        *,
        key: bytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._known = tuple(known)
        self._clock = clock
        self._key = key

    @property
    def wanted(self) -> bool:
        return bool(self._known)

    def owner_of(self, token: str) -> str | None:
        """Whose a token is; every one is compared, in a time that tells nothing of it."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        owner = None
        for known, name in self._known:
            if hmac.compare_digest(known, digest):
                owner = name
        return owner

    def cookie_for(self, owner: str) -> str:
        text = f"{int(self._clock() + SESSION_S)} {owner}".encode()
        return f"{_plain(text)}.{_plain(self._sign(text))}"

    def owner_of_cookie(self, cookie: str) -> str | None:
        """Whose session it is; None for one that is over, or that was not made here."""
        try:
            text, signature = (_bytes(part) for part in cookie.split("."))
        except ValueError:
            return None
        if not hmac.compare_digest(self._sign(text), signature):
            return None
        until, _, owner = text.decode().partition(" ")
        # A session does not outlive its user's token.
        lives = int(until) > self._clock() and any(owner == name for _, name in self._known)
        return owner if lives else None

    def _sign(self, text: bytes) -> bytes:
        return hmac.digest(self._key, text, "sha256")


def read_tokens(path: Path) -> tuple[tuple[bytes, str], ...]:
    """Read a file of lines `name token`; tokens do not stay in memory.

    Raises:
        BadOptions: it cannot be read, is empty, or a token is short.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadOptions(f"the tokens' file {path} cannot be read: {error}") from error
    known = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or len(words[0]) > _LONGEST_NAME:
            raise BadOptions(
                f"line {number} of {path}: a name of up to {_LONGEST_NAME} characters, a space "
                f"and that user's token"
            )
        name, token = words
        if len(token) < _SHORTEST:
            raise BadOptions(
                f"line {number} of {path}: a token has at least {_SHORTEST} characters; "
                f"`openssl rand -hex 32` makes one"
            )
        known.append((hashlib.sha256(token.encode()).digest(), name))
    if not known:
        raise BadOptions(f"{path} has no token: write a line `name token` for each user")
    return tuple(known)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address that is listened on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, tokens: Sequence[tuple[bytes, str]]) -> None:
    """Raise BadOptions for a gateway that everybody on a network could use."""
    if not tokens and not is_loopback(host):
        raise BadOptions(
            f"{host} can be reached from other machines, and no tokens are set: give --tokens FILE "
            f"(a line `name token` for each user), or listen on 127.0.0.1"
        )


def _plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
