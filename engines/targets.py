"""The targets: where and how the models of one repository run, one row each.

A target is what `build_engines.py --target` builds for and what a server serves: its configs are
`configs/<target>.pbtxt`, its networks lie under a file name of their own, so that all targets can
share a version folder. Whatever differs between targets is a field of the row.

    cpu       ONNX Runtime on the CPU
    cuda      ONNX Runtime on an NVIDIA GPU, by our Python-based backend
    tensorrt  TensorRT plans, by NVIDIA's C++ backend (ours serves them, too)
    rtx       TensorRT-RTX plans, by our Python-based backend
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    # A server reads this file, and has no use for what authors and compiles graphs.
    from engines.compilers import Flavour
    from engines.precision import Precision
    from graphs.face_blender import Method
    from graphs.frames import Runtime

TargetName = Literal["cpu", "cuda", "tensorrt", "rtx"]
Backend = Literal["onnxruntime", "tensorrt"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One target. What graphs are authored for, how they are compiled, how a server runs them.

    backend: Triton's backend, or ours of the same name.
    filename: of a built network in its version folder.
    on_gpu: KIND_GPU, and inputs stay where they are.

    swapper: where none is asked for.
    precision: of the networks, where none is asked for.
    channels_last: rewrite the swapper's network for channels-last kernels where its row in
        `networks.swappers` says so, and have the provider use them; else the portable passes.
    runtime: the form of the detector, see `graphs.frames` and `graphs.face_detector`.
    blending: the form of the blender, see `graphs.face_blender`.
    skip_empty: leave the swapper's network out of a batch without faces inside the graph; our
        backends drop empty slots before they call it.

    flavour: the library that compiles and loads plans; None where ONNX files are served.
    name_by_gpu: plans for several types of GPU may lie side by side, named by compute capability.
    cuda_graphs: the backend captures and replays runs.

    max_batch_size: B, where none is asked for.
    joins_rows: the backend joins rows with a face, of all requests, into one batch.
    ragged: only our backends serve it, so that requests of any K may form one batch, which the
        backend joins; NVIDIA's C++ backends would flatten a ragged input.
    joins_frames: whether requests that bring frames wait for others to share a run.
    smallest_preferred_batch: of the sizes that rows are padded to, the ones from here on are taken
        without waiting for more; None leaves it to Triton.
    session_per_size: a network with convolutions has a session for each batch size.

    one_process: an embedded server runs all steps of an ensemble in one process, unless it is told
        otherwise. instances: of an ensemble of video frames then; None for as many as its first
        step has.
    """

    name: TargetName
    backend: Backend
    filename: str
    on_gpu: bool
    swapper: str = "frameswap_256"
    precision: Precision = "fp16"
    channels_last: bool = False
    runtime: Runtime
    blending: Method
    skip_empty: bool = False
    flavour: Flavour | None = None
    name_by_gpu: bool = False
    cuda_graphs: bool = False
    max_batch_size: int = 8
    joins_rows: bool = True
    ragged: bool = False
    joins_frames: bool = True
    smallest_preferred_batch: int | None = None
    session_per_size: bool = False
    one_process: bool = False
    instances: int | None = None

    @property
    def uses_cuda_provider(self) -> bool:
        """Whether ONNX Runtime's CUDA provider runs the graphs."""
        return self.backend == "onnxruntime" and self.on_gpu


def _rows() -> tuple[Target, ...]:
    return (
        Target(
            name="cpu",
            backend="onnxruntime",
            filename="model.onnx",
            on_gpu=False,
            # A third of the large network's work for the cleaner picture (docs/swappers.md).
            swapper="frameswap_256_small",
            precision="fp32",
            runtime="onnxruntime",
            blending="regions",
            ragged=True,
            # Two frames that share a run leave a CPU's caches. At 1080p, joining four took the
            # detector 42 % more processor time a frame and the blender 16 %. (The swapper's small
            # crops are joined: its time a face is the same.)
            joins_frames=False,
            # Two instances that run all steps answer 30 % more frames a second of 720p or 1080p
            # than a process a step on two cores, and one instance fewer (docs/performance.md).
            one_process=True,
            instances=2,
        ),
        Target(
            name="cuda",
            backend="onnxruntime",
            filename="model.cuda.onnx",
            on_gpu=True,
            channels_last=True,
            runtime="onnxruntime_gpu",
            blending="patches",
            # On an H100 the fp16 swapper does 895 faces a second at 8 and 1,102 at 16.
            max_batch_size=16,
            # Five requests run as long as eight, or as four and one soon after. Of two the GPU
            # makes too little to be worth not waiting.
            smallest_preferred_batch=4,
            session_per_size=True,
            # 462 frames a second where three processes reach 251 (docs/gpu.md).
            one_process=True,
        ),
        Target(
            name="tensorrt",
            backend="tensorrt",
            filename="model.plan",
            on_gpu=True,
            runtime="tensorrt",
            blending="whole",
            # NVIDIA's backend hands whole batches to the graph; its plans have no shape for rows.
            skip_empty=True,
            joins_rows=False,
            flavour="tensorrt",
            name_by_gpu=True,
        ),
        Target(
            name="rtx",
            backend="tensorrt",
            filename="model.rtx.plan",
            on_gpu=True,
            runtime="tensorrt",
            blending="whole",
            ragged=True,
            flavour="tensorrt_rtx",
            cuda_graphs=True,
        ),
    )


TARGETS: Final[Mapping[str, Target]] = MappingProxyType({row.name: row for row in _rows()})
"""Every target by name."""

DEFAULT_TARGET: Final = TARGETS["cpu"]
"""Runs everywhere: what is built and served where nothing else is asked for."""

UNTIL_PLAN: Final = TARGETS["cuda"]
"""Whose files an instance of ours serves until there is a plan (`--onnx-until-plan`)."""


def target_of(flavour: Flavour) -> Target:
    """The target whose plans a library compiles and loads."""
    return next(row for row in TARGETS.values() if row.flavour == flavour)
