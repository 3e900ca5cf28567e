"""Write the hash-pinned lock files from the three pyproject.toml files; `make lock` runs this.

Pins that are there stay, so that a second run changes nothing; `--upgrade` takes the newest.
One lock serves Python 3.11 to 3.13. It names no index: pip's own settings say where to look.
Two packages are apart, installed with --no-deps: insightface would bring a second OpenCV, and
tensorrt-stubs all of TensorRT. MediaPipe, an oracle of the tests, has an environment of its own,
because it wants NumPy 1, and so have the tools that try the gateway's description from outside.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
WITHOUT_DEPENDENCIES = ("insightface", "tensorrt-stubs")
BUILD = ["setuptools>=77"]
"""What `pip install --no-build-isolation -e .` needs in the environment."""
IMPORTED_BY_INSIGHTFACE = ["requests", "tqdm"]


def _requirements() -> dict[str, list[str]]:
    """What each lock is made from, by its name."""
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())
    gateway = tomllib.loads((ROOT / "gateway" / "pyproject.toml").read_text())
    own = {document["project"]["name"] for document in (server, client, gateway)}
    declared = [*server["project"]["dependencies"], *client["project"]["dependencies"], *BUILD]
    runtime = _less(declared, own)
    groups = server["dependency-groups"]
    apart = [line for line in groups["test"] if line.startswith(WITHOUT_DEPENDENCIES)]
    test = [line for line in groups["test"] if line not in apart]
    return {
        "runtime": runtime,
        "test": [*runtime, *test, *IMPORTED_BY_INSIGHTFACE],
        "bench": groups["bench"],
        "without-dependencies": apart,
        "oracle-mediapipe": groups["oracle-mediapipe"],
        "deploy": groups["deploy"],
        "gateway": _less(gateway["project"]["dependencies"], own),
        "gateway-test": groups["gateway-test"],
        "gateway-tools": groups["gateway-tools"],
    }


def _less(requirements: list[str], names: set[str]) -> list[str]:
    return [line for line in requirements if re.split(r"[^\w.-]", line)[0] not in names]


def _compile(name: str, requirements: list[str], *options: str) -> None:
    output = LOCKS / f"{name}.lock"
    command = [
        "uv", "pip", "compile", "-", "--no-config", "--universal", "--python-version", "3.11",
        "--generate-hashes", "--no-header", "--no-annotate", "--quiet",
        "--fork-strategy", "fewest",  # the same versions for every Python
        "--output-file", str(output), *options,
    ]  # fmt: skip
    command += [option for option in sys.argv[1:] if option == "--upgrade"]
    text = "\n".join(sorted(requirements)) + "\n"
    subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.DEVNULL)
    head = f"# Written by `make lock` from the project's pyproject.toml files: {name}.\n"
    output.write_text(head + output.read_text())
    print(output.relative_to(ROOT))


def main() -> int:
    """Write every lock; 1 where uv is missing."""
    if shutil.which("uv") is None:
        print("error: uv is not installed; run `make lock`, which installs it", file=sys.stderr)
        return 1
    wanted = _requirements()
    # The widest set first: the others take its versions, so that one environment holds them all.
    _compile("test", wanted["test"])
    same = ("--constraint", str(LOCKS / "test.lock"))
    _compile("runtime", wanted["runtime"], *same)
    _compile("bench", wanted["bench"], *same)
    _compile("without-dependencies", wanted["without-dependencies"], "--no-deps")
    _compile("oracle-mediapipe", wanted["oracle-mediapipe"])
    _compile("deploy", wanted["deploy"])
    _compile("gateway", wanted["gateway"], *same)
    together = (*same, "--constraint", str(LOCKS / "gateway.lock"))
    _compile("gateway-test", wanted["gateway-test"], *together)
    _compile("gateway-tools", wanted["gateway-tools"])
    _compile("uv", ["uv"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
