"""The compose files' Envoy configurations, rendered from the chart, which alone is written by hand.

    python -m tests.deploy.envoy_files
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.deploy.charts import of_kind, render
from tests.deploy.tools import ROOT

FOLDER: Final = ROOT / "deploy" / "envoy"
HEAD: Final = "# Rendered from deploy/helm/frameswap: python -m tests.deploy.envoy_files\n"
SETTINGS: Final[dict[str, tuple[str, ...]]] = {
    "plain": (),
    "tls": ("--set=edge.tls.secretName=edge", "--set=edge.tokensSecret=tokens"),
}


def rendered() -> dict[Path, str]:
    """Each file and its text."""
    files = {}
    for name, options in SETTINGS.items():
        manifests = render(None, "--set=edge.enabled=true", *options)
        config = of_kind(manifests, "ConfigMap")["frameswap-edge"]
        for file, text in config["data"].items():
            files[FOLDER / name / file] = HEAD + text.lstrip("\n")
    return files


if __name__ == "__main__":
    for path, text in rendered().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(ROOT))
