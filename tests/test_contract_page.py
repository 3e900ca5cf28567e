"""docs/contract.md against the contract, and its script against the real server."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from demo.photos import read_photo
from graphs.contract import (
    CONTRACT_VERSION,
    ENSEMBLE_SPECS,
    MAX_DETECTIONS,
    MAX_VIEWS,
    OPTION_COUNT,
    FaceOrder,
    Option,
    Verdict,
)
from server.launcher import EmbeddedServer
from tests.server.asking import Asker
from tests.server.test_ensembles import assert_same_frame, options, two_faces

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "contract.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|")
]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_every_ensemble_stands_there_with_its_tensors() -> None:
    said = {
        name: (names(row[1]), names(row[2]))
        for row in ROWS
        for name in names(row[0])
        if name in ENSEMBLE_SPECS
    }
    assert said == {
        spec.name: ([t.name for t in spec.inputs], [t.name for t in spec.outputs])
        for spec in ENSEMBLE_SPECS.values()
    }


def test_every_option_and_verdict_stands_there_with_its_number() -> None:
    numbered = {row[1].strip("`"): int(row[0]) for row in ROWS if row[0].isdecimal()}
    assert numbered == {entry.name: int(entry) for entry in (*Option, *Verdict)}
    assert f"Version {CONTRACT_VERSION}." in PAGE
    assert f"`[{OPTION_COUNT}]`" in PAGE
    assert f"**M** = {MAX_DETECTIONS}" in PAGE
    assert f"**F** = {MAX_VIEWS}" in PAGE


@pytest.mark.e2e
def test_a_strangers_script_finds_chooses_and_swaps(real_server: EmbeddedServer) -> None:
    (script,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    scope: dict[str, object] = {}
    exec(compile(script, "docs/contract.md", "exec"), scope)
    assert real_server.grpc_url.startswith("unix:")  # server.md says so of it
    asker = Asker(real_server.grpc_url)
    frame = two_faces()
    swapped, verdict = scope["swap_leftmost"](asker.client, frame, read_photo("collins"))  # type: ignore[operator]
    assert verdict == Verdict.SWAPPED
    half = frame.shape[1] // 2
    assert (swapped[:, :half] != frame[:, :half]).any()
    np.testing.assert_array_equal(swapped[:, half + 20 :], frame[:, half + 20 :])
    source = asker.ask(
        "encode_source_bgr", frame=read_photo("collins")[None], options=options()
    )["source"]
    together = asker.ask(
        "swap_faces_bgr", frame=frame[None], source=source[:, None],
        options=options(FaceOrder.LEFT_TO_RIGHT),
    )  # fmt: skip
    asker.client.close()
    assert_same_frame(swapped, together["swapped_frame"][0])
