"""The Python API of TensorRT 10 and 11 as published, without TensorRT's 2 GB of libraries.

TensorRT 11: the real bindings module is imported in a process of its own, with stand-ins for the
three libraries that it is linked to. Importing registers every class, method and enumerator; it
calls nothing. TensorRT 10: the published type stubs are parsed.

Both give {class: {attribute: signature}}; the signature is None for what is not a method.
"""

from __future__ import annotations

import ast
import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# The functions that the bindings import from each library, by name.
_EXPORTS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
_LIBRARIES = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")

_DUMP = """
import json, sys
sys.path.insert(0, sys.argv[1])
import importlib
tensorrt = importlib.import_module(sys.argv[2])
print(json.dumps({
    name: {
        attribute: (getattr(getattr(value, attribute), "__doc__", None) or "").strip()
        if callable(getattr(value, attribute, None)) else None
        for attribute in dir(value)
    }
    for name, value in [*vars(tensorrt).items(), ("", tensorrt)]
    if isinstance(value, type) or name == ""
}))
"""


@dataclass(frozen=True)
class Signature:
    """Parameter names without self; the first `required` have no default."""

    parameters: tuple[str, ...]
    required: int


Api = dict[str, dict[str, list[Signature] | None]]


def tensorrt_11_api(folder: Path) -> Api:
    """The API that `tensorrt_bindings` 11 registers; `folder` is for the stand-in libraries."""
    for name in _LIBRARIES:
        (folder / name).write_bytes(_shared_library(_EXPORTS))
    spec = find_spec("tensorrt_bindings")
    assert spec is not None
    assert spec.origin is not None
    return _dump(Path(spec.origin).parent, "tensorrt", {"LD_LIBRARY_PATH": str(folder)})


def tensorrt_rtx_api() -> Api:
    """The API of the TensorRT-RTX that is installed."""
    return _dump(Path(), "tensorrt_rtx", {})


def _dump(folder: Path, module: str, environment: dict[str, str]) -> Api:
    dump = subprocess.run(
        [sys.executable, "-c", _DUMP, str(folder), module],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found: Api = {}
    for name, attributes in json.loads(dump.stdout).items():
        found[name] = {
            attribute: None if doc is None else _signatures(doc)
            for attribute, doc in attributes.items()
        }
    return found


def tensorrt_10_api() -> Api:
    """The API that the stubs of TensorRT 10 declare."""
    spec = find_spec("tensorrt_bindings")
    assert spec is not None
    assert spec.origin is not None
    tree = _parse_leniently((Path(spec.origin).parent / "tensorrt.pyi").read_text())
    found: Api = {"": {}}
    bases: dict[str, list[str]] = {}
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            found[statement.name] = _members(statement)
            found[""][statement.name] = None
            bases[statement.name] = [ast.unparse(base) for base in statement.bases]
    for name in found:
        for base in bases.get(name, []):
            found[name] = {**found.get(base, {}), **found[name]}
    return found


def _parse_leniently(stubs: str) -> ast.Module:
    """Parse generated stubs; the few signatures that Python refuses lose their parameters."""
    lines = stubs.splitlines()
    for _ in lines:
        try:
            return ast.parse("\n".join(lines))
        except SyntaxError as error:
            at = (error.lineno or 1) - 1
            lines[at] = re.sub(r"(def \w+)\(.*:(.*)$", r"\1(self, _):\2", lines[at])
    raise ValueError("the stubs of TensorRT 10 cannot be parsed")


def _members(statement: ast.ClassDef) -> dict[str, list[Signature] | None]:
    members: dict[str, list[Signature] | None] = {}
    for member in statement.body:
        if isinstance(member, ast.FunctionDef):
            names = [argument.arg for argument in member.args.args]
            required = len(names) - len(member.args.defaults)
            is_property = any("property" in ast.unparse(d) for d in member.decorator_list)
            is_property |= any(".setter" in ast.unparse(d) for d in member.decorator_list)
            if is_property:
                members[member.name] = None
                continue
            bound = 0 if any("static" in ast.unparse(d) for d in member.decorator_list) else 1
            signature = Signature(tuple(names[bound:]), required - bound)
            members[member.name] = [*(members.get(member.name) or []), signature]
        elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            members[member.target.id] = None
        elif isinstance(member, ast.ClassDef):
            members[member.name] = None
    return members


def _signatures(doc: str) -> list[Signature] | None:
    """What pybind11 writes first into a docstring: `name(self: A, b: B, c: C = 1) -> D`."""
    found = []
    for line in doc.splitlines():
        match = re.match(r"(?:\d+\. )?\w+\((.*)\) -> ", line.strip())
        if match is None or match[1].startswith("*args"):
            continue
        parameters = re.findall(r"(?:^|, )(\w+): ((?:(?!, \w+: ).)*)", match[1])
        names = [name for name, _ in parameters]
        required = sum(" = " not in kind for _, kind in parameters)
        bound = 1 if names[:1] == ["self"] else 0
        found.append(Signature(tuple(names[bound:]), required - bound))
    return found or None


def _shared_library(exports: tuple[str, ...]) -> bytes:
    """An x86-64 ELF shared library whose functions `exports` all return 0.

    Source: the ELF-64 object file format and its x86-64 supplement.
    """
    code = b"\x31\xc0\xc3"  # xor eax, eax; ret
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in exports)
    headers, symbols_at = 64 + 2 * 56, 0x200
    count = 1 + len(exports)
    strings_at = symbols_at + 24 * count
    hash_at = -(-(strings_at + len(strings)) // 8) * 8
    # One bucket: a chain through all symbols, in order.
    table = struct.pack(f"<{3 + count}I", 1, count, 1, 0, *range(2, count), 0)
    dynamic_at = -(-(hash_at + len(table)) // 8) * 8
    entries = [(4, hash_at), (5, strings_at), (6, symbols_at), (10, len(strings)), (11, 24), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    size = dynamic_at + len(dynamic)
    code_at = headers
    symbols = bytes(24)
    for name in exports:
        at = strings.index(b"\0" + name.encode() + b"\0") + 1
        symbols += struct.pack("<IBBHQQ", at, 0x12, 0, 1, code_at, len(code))
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, 0, 0, size, size, 0x1000)
    dyn = struct.pack(
        "<IIQQQQQQ", 2, 6, dynamic_at, dynamic_at, dynamic_at, len(dynamic), len(dynamic), 8
    )
    image = bytearray(size)
    for at, part in (
        (0, identity + header + load + dyn),
        (code_at, code),
        (symbols_at, symbols),
        (strings_at, strings),
        (hash_at, table),
        (dynamic_at, dynamic),
    ):
        image[at : at + len(part)] = part
    return bytes(image)
