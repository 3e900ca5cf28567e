"""A whole ensemble in one process, as a Python-based Triton backend.

An ensemble of Python-based models costs a process a step, and each frame crosses from process to
process by handles that the driver opens and closes. Here one process runs every step on one CUDA
stream: a batch is read once, joined once and answered once. The config of such a model is made by
the launcher (`server.one_process`) from the ensemble's and its steps' own.

Each step is loaded by its own backend's module (`onnxruntime`, `tensorrt`), and keeps its own
settings.
"""

from __future__ import annotations

import gc
import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import triton_python_backend_utils as pb_utils

from server.backends.common import ModelSettings
from server.backends.device import DeviceMemory, padded_sizes, row_padding
from server.backends.failures import explain
from server.backends.pipelines import PipelineNetwork, StepText, WiredStep, read_steps
from server.backends.serving import RequestLoop
from server.backends.triton_arrays import HostMemory

STEP_BACKENDS: Final = ("onnxruntime", "tensorrt")


class TritonPythonModel:
    """The class that Triton's Python backend looks for."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load every step; an exception here is the model's load error.

        Args:
            args: `model_config` (JSON), `model_instance_kind`, `model_instance_device_id`.
        """
        config = json.loads(args["model_config"])
        on_gpu = args["model_instance_kind"] == "GPU"
        device_id = int(args["model_instance_device_id"]) if on_gpu else None
        try:
            settings = ModelSettings.from_config(config, default_filename="")
            memory: Any = HostMemory(pb_utils.Tensor)
            if device_id is not None:
                memory = DeviceMemory(pb_utils.Tensor, device_id)
            steps = [load_step(text, args, memory) for text in read_steps(settings.parameters)]
            more: dict[str, Any] = {}
            if on_gpu:
                more["padded_rows"] = row_padding(padded_sizes(settings))
            self._loop = RequestLoop(settings, PipelineNetwork(steps), memory, pb_utils, **more)
        except Exception as error:
            # What the steps' libraries throw has no common base; each becomes one sentence.
            told = explain(error, device_id)
            raise pb_utils.TritonModelException(f"{config['name']}: {told}") from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer one batch; one response a request."""
        return self._loop.execute(requests)

    def finalize(self) -> None:
        """Let the engines go while CUDA still answers; at interpreter exit it no longer does."""
        del self._loop
        gc.collect()


def load_step(text: StepText, args: Mapping[str, str], memory: Any) -> WiredStep:
    """Load one step by its backend, into the memory that all share.

    Raises:
        ValueError, RuntimeError: it cannot be loaded, or its backend runs no steps.
    """
    if text.backend not in STEP_BACKENDS:
        raise ValueError(
            f"{text.folder} is for the backend {text.backend!r}, and a pipeline runs steps of "
            f"{', '.join(STEP_BACKENDS)}"
        )
    # Only the one that is asked for: each brings its library into the process.
    module = importlib.import_module(f"server.backends.{text.backend}.model")
    told = {
        **args,
        "model_config": json.dumps(text.config),
        "model_repository": text.folder,
        "model_version": "1",
    }
    return WiredStep(module.open_loop(told, memory).step, text.inputs, text.outputs)
