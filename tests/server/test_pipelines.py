"""Steps wired in one process, with steps that are nothing but arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from server.backends.common import ModelSettings
from server.backends.pipelines import PipelineNetwork, WiredStep
from server.backends.serving import Step
from server.backends.triton_arrays import HostMemory


class Adder:
    """Every output is the sum of the inputs; keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> dict[str, Any]:
        self.asked.append(list(outputs))
        return {name: np.sum(list(inputs.values()), axis=0) for name in outputs}


def wired(
    inputs: dict[str, str], outputs: dict[str, str], *, passthrough: str = ""
) -> tuple[WiredStep, Adder]:
    tensor = {"data_type": "TYPE_FP32", "dims": [2]}
    config: dict[str, Any] = {
        "name": "step",
        "max_batch_size": 8,
        "input": [{"name": name, **tensor} for name in inputs],
        "output": [{"name": name, **tensor} for name in outputs],
        "parameters": {"passthrough": {"string_value": passthrough}},
    }
    settings = ModelSettings.from_config(config, default_filename="model.onnx")
    network = Adder()
    step = Step(settings, network, HostMemory(None), lambda rows: rows)
    return WiredStep(step, inputs, outputs), network


@pytest.fixture
def steps() -> tuple[list[WiredStep], list[Adder]]:
    """x -> found = x, kept = x; found + found -> made; made + kept -> done."""
    parts = [
        wired({"a": "x"}, {"b": "found", "c": "kept"}, passthrough="c=a"),
        wired({"a": "found", "b": "found"}, {"c": "made"}),
        wired({"a": "made", "b": "kept"}, {"c": "done"}),
    ]
    return [step for step, _ in parts], [network for _, network in parts]


def test_the_last_step_reads_what_the_others_made(
    steps: tuple[list[WiredStep], list[Adder]],
) -> None:
    x = np.ones((3, 2), np.float32)
    made = PipelineNetwork(steps[0]).run({"x": x}, ["done", "found"], 3)
    np.testing.assert_array_equal(made["done"], 3 * x)
    np.testing.assert_array_equal(made["found"], x)
    assert list(made) == ["done", "found"]


def test_only_the_steps_that_an_output_needs_are_run(
    steps: tuple[list[WiredStep], list[Adder]],
) -> None:
    pipeline, networks = steps
    x = np.ones((3, 2), np.float32)
    PipelineNetwork(pipeline).run({"x": x}, ["found"], 3)
    assert [network.asked for network in networks] == [[["b"]], [], []]


def test_an_input_that_is_handed_through_is_not_computed(
    steps: tuple[list[WiredStep], list[Adder]],
) -> None:
    pipeline, networks = steps
    x = np.ones((3, 2), np.float32)
    made = PipelineNetwork(pipeline).run({"x": x}, ["kept"], 3)
    assert made["kept"] is x
    assert [network.asked for network in networks] == [[], [], []]


def test_a_face_in_a_row_that_only_pads_the_batch_is_not_swapped() -> None:
    tensor = {"data_type": "TYPE_FP32"}
    config: dict[str, Any] = {
        "name": "swapper",
        "max_batch_size": 8,
        "input": [
            {"name": "crops", "dims": [-1, 2], **tensor},
            {"name": "faces", "dims": [1, 15], **tensor},
        ],
        "output": [{"name": "swapped", "dims": [-1, 2], **tensor}],
        "parameters": {
            key: {"string_value": value}
            for key, value in {
                "row_inputs": "crops", "row_mask": "faces", "row_outputs": "swapped",
                "max_rows": "8",
            }.items()
        },
    }  # fmt: skip

    class Counting:
        seen = 0

        def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> Any:
            self.seen += rows
            return {"swapped": inputs["crops"] + 1}

    network = Counting()
    settings = ModelSettings.from_config(config, default_filename="model.onnx")
    step = Step(settings, network, HostMemory(None), lambda rows: rows)
    wiring = WiredStep(step, {"crops": "crops", "faces": "faces"}, {"swapped": "swapped"})
    inputs = {"crops": np.ones((4, 1, 2), np.float32), "faces": np.ones((4, 1, 15), np.float32)}
    made = PipelineNetwork([wiring]).run(inputs, ["swapped"], 3)["swapped"]
    assert network.seen == 3
    np.testing.assert_array_equal(made[:3], 2.0)
    np.testing.assert_array_equal(made[3], 0.0)


def test_steps_that_agree_on_the_faces_ask_the_device_for_them_once() -> None:
    class Watched(HostMemory):
        asked = 0

        def to_host(self, arrays: Sequence[Any]) -> list[Any]:
            Watched.asked += 1
            return super().to_host(arrays)

    def row_step(given: str, made: str) -> WiredStep:
        tensor = {"data_type": "TYPE_FP32"}
        rule = {"row_inputs": "a", "row_mask": "faces", "row_outputs": "b", "max_rows": "8"}
        config: dict[str, Any] = {
            "name": made,
            "max_batch_size": 8,
            "input": [
                {"name": "a", "dims": [-1, 2], **tensor},
                {"name": "faces", "dims": [1, 15], **tensor},
            ],
            "output": [{"name": "b", "dims": [-1, 2], **tensor}],
            "parameters": {key: {"string_value": value} for key, value in rule.items()},
        }

        class Doubling:
            def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> Any:
                return {"b": 2 * inputs["a"]}

        settings = ModelSettings.from_config(config, default_filename="model.onnx")
        step = Step(settings, Doubling(), Watched(None), lambda rows: rows)
        return WiredStep(step, {"a": given, "faces": "faces"}, {"b": made})

    inputs = {"x": np.ones((3, 1, 2), np.float32), "faces": np.zeros((3, 1, 15), np.float32)}
    inputs["faces"][:2, 0, 4] = 1
    pipeline = PipelineNetwork([row_step("x", "twice"), row_step("twice", "four times")])
    made = pipeline.run(inputs, ["four times"], 3)["four times"]
    np.testing.assert_array_equal(made[:, 0, 0], [4, 4, 0])
    assert Watched.asked == 1
