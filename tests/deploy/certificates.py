"""Certificates that a test makes for itself: right ones, of somebody else, out of date."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme

SERVER_NAME = "frameswap"
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Files:
    """A folder as a Kubernetes secret is mounted: ca.crt, tls.crt, tls.key."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.folder / "tls.crt"

    @property
    def key(self) -> Path:
        return self.folder / "tls.key"


def issue(
    authority: trustme.CA, folder: Path, *names: str, expired: bool = False
) -> Files:
    """Write a certificate for the names, for servers and clients alike."""
    folder.mkdir(parents=True)
    dates = (
        {"not_before": LONG_AGO, "not_after": LONG_AGO + datetime.timedelta(days=30)}
        if expired
        else {}
    )
    leaf = authority.issue_cert(*names, **dates)
    files = Files(folder)
    authority.cert_pem.write_to_path(str(files.authority))
    leaf.private_key_pem.write_to_path(str(files.key))
    for index, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(str(files.certificate), append=index > 0)
    return files
