"""Who may read the frames on their way: TLS, certificates of both sides, and a token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from frameswap.errors import BadOptions, UnreadableFile

__all__ = ["Security"]


@dataclass(frozen=True, kw_only=True)
class Security:
    """How a connection is secured; without arguments it is not.

    tls: encrypt, and hold the server's certificate to its name. A file below implies it.
    ca: certificates in PEM that the server's must descend from; None takes gRPC's own list.
    certificate, key: the client's own, in PEM, for a server that asks (mutual TLS).
    token: sent with each call as `authorization: Bearer TOKEN`.
    """

    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise BadOptions("a client's certificate and its key go together: give both or neither")
        if self.token is not None and (not self.token.isascii() or not self.token.isprintable()):
            raise BadOptions("a token is printable ASCII text on one line")

    def __repr__(self) -> str:
        # A token must not come into a log with everything else.
        token = None if self.token is None else "..."
        return (
            f"Security(tls={self.tls}, ca={self.ca}, certificate={self.certificate}, "
            f"key={self.key}, token={token})"
        )

    @property
    def encrypts(self) -> bool:
        return self.tls or self.ca is not None or self.certificate is not None

    def credentials(self) -> Any:
        """gRPC's channel credentials; None for a channel in clear.

        Raises:
            UnreadableFile: one of the files.
        """
        if not self.encrypts:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca),
            private_key=_read(self.key),
            certificate_chain=_read(self.certificate),
        )

    def metadata(self, address: str, *, is_local: bool) -> tuple[tuple[str, str], ...]:
        """What goes with each call.

        Raises:
            BadOptions: a token would go to another machine in clear.
        """
        if self.token is None:
            return ()
        if not self.encrypts and not is_local:
            raise BadOptions(
                f"a token would go to {address} in clear, for everybody on the way to read: "
                f"encrypt with --tls or --tls-ca FILE"
            )
        return (("authorization", f"Bearer {self.token}"),)


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
