"""Which server and how it is reached: from options, else the environment, else a config file.

    [server]                          # ~/.config/frameswap/config.toml
    address = "a:8001,b:8001"         # FRAMESWAP_SERVER          --server
    tls = true                        # FRAMESWAP_TLS=1           --tls
    ca = "ca.pem"                     # FRAMESWAP_TLS_CA          --tls-ca
    certificate = "client.pem"        # FRAMESWAP_TLS_CERT        --tls-cert
    key = "client.key"                # FRAMESWAP_TLS_KEY         --tls-key
    name = "swap.example"             # FRAMESWAP_TLS_NAME        --tls-name
    token_file = "token"              # FRAMESWAP_TOKEN_FILE      --token-file

FRAMESWAP_TOKEN is the token itself. There is no option for that, because every user of a machine
sees the command lines of all. Paths in the file are relative to it.
"""

from __future__ import annotations

import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from frameswap.errors import BadOptions, UnreadableFile
from frameswap.security import Security

__all__ = ["add_security", "read_named_server", "read_server"]

_KEYS: Final = ("address", "tls", "ca", "certificate", "key", "name", "token_file")
_VARIABLES: Final = {
    "address": "FRAMESWAP_SERVER",
    "tls": "FRAMESWAP_TLS",
    "ca": "FRAMESWAP_TLS_CA",
    "certificate": "FRAMESWAP_TLS_CERT",
    "key": "FRAMESWAP_TLS_KEY",
    "name": "FRAMESWAP_TLS_NAME",
    "token_file": "FRAMESWAP_TOKEN_FILE",
}
_TOKEN_VARIABLE: Final = "FRAMESWAP_TOKEN"
_CONFIG_VARIABLE: Final = "FRAMESWAP_CONFIG"
_YES: Final = ("1", "true", "yes", "on")
_NO: Final = ("", "0", "false", "no", "off")


def add_security(parser: ArgumentParser) -> None:
    """Add the options of a secured server."""
    group = parser.add_argument_group("security")
    group.add_argument(
        "--tls", action="store_true", default=None, help="encrypt, and check the server's name"
    )
    group.add_argument(
        "--tls-ca", type=Path, metavar="FILE",
        help="certificates that the server's descends from, PEM (default: the public ones)",
    )  # fmt: skip
    group.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="the client's own certificate, PEM"
    )
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="the key of --tls-cert, PEM")
    group.add_argument(
        "--tls-name", metavar="NAME",
        help="one that the server's certificate is for, where that is not the address's",
    )  # fmt: skip
    group.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help="sent with each call as `authorization: Bearer ...`",
    )  # fmt: skip
    group.add_argument(
        "--config", type=Path, metavar="FILE",
        help="what stands for options that are not given "
        "(default: ~/.config/frameswap/config.toml)",
    )  # fmt: skip


def read_server(
    arguments: Namespace, environment: Mapping[str, str], *, home: Path
) -> tuple[str | None, Security]:
    """The server's address, None for an embedded one, and how it is secured.

    Raises:
        BadOptions: what was set makes no sense.
        UnreadableFile: a file that was named.
    """
    found = _read_config(arguments, environment, home)
    for key, variable in _VARIABLES.items():
        if variable in environment:
            text = environment[variable]
            found[key] = _truth(variable, text) if key == "tls" else text or None
    given = {
        "address": arguments.server, "tls": arguments.tls, "ca": arguments.tls_ca,
        "certificate": arguments.tls_cert, "key": arguments.tls_key, "name": arguments.tls_name,
        "token_file": arguments.token_file,
    }  # fmt: skip
    found.update({key: value for key, value in given.items() if value is not None})
    token = environment.get(_TOKEN_VARIABLE)
    if found.get("token_file") and (token is None or arguments.token_file is not None):
        token = _read_text(Path(found["token_file"])).strip()
    paths = {
        key: Path(found[key]) if found.get(key) else None for key in ("ca", "certificate", "key")
    }
    security = Security(
        tls=bool(found.get("tls")), name=found.get("name"), token=token or None, **paths
    )
    return found.get("address"), security


def read_named_server(
    arguments: Namespace, environment: Mapping[str, str], *, home: Path
) -> tuple[str, Security]:
    """As `read_server`, for a program that has no server of its own.

    Raises:
        BadOptions: no server was named, or what was set makes no sense.
        UnreadableFile: a file that was named.
    """
    address, security = read_server(arguments, environment, home=home)
    if not address:
        raise BadOptions("a server is needed and none was named; give --server HOST:PORT")
    return address, security


def _read_config(
    arguments: Namespace, environment: Mapping[str, str], home: Path
) -> dict[str, Any]:
    named = arguments.config or environment.get(_CONFIG_VARIABLE)
    path = Path(named) if named else home / ".config" / "frameswap" / "config.toml"
    if not named and not path.is_file():
        return {}
    try:
        table = tomllib.loads(_read_text(path)).get("server", {})
    except tomllib.TOMLDecodeError as error:
        raise BadOptions(f"{path} is no TOML: {error}") from error
    for key, value in table.items():
        if key not in _KEYS:
            raise BadOptions(f"{path} says {key!r} of the server; known is {', '.join(_KEYS)}")
        if not isinstance(value, bool if key == "tls" else str):
            raise BadOptions(f"{path}: {key} is {'true or false' if key == 'tls' else 'a text'}")
    return {
        key: value if key in ("address", "tls", "name") else path.parent / value
        for key, value in table.items()
    }


def _truth(variable: str, text: str) -> bool:
    if text.lower() in _YES + _NO:
        return text.lower() in _YES
    raise BadOptions(f"{variable} is 1 or 0, not {text!r}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path} cannot be read: {error}") from error
