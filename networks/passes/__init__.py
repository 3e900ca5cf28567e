"""Rewrites that make a network fast, one pass a file, outputs equal to rounding.

Exporters leave AdaIN networks (inswapper and its relatives) as dozens of small operators: an
instance normalisation written out, a Linear per style, reflected pads that channels-last kernels
handle badly. Orders of passes:

    PORTABLE_PASSES       swappers, for any runtime, TensorRT included
    CHANNELS_LAST_PASSES  swappers, for ONNX Runtime's CUDA provider with `prefer_nhwc` and
                          `fuse_conv_bias`: everything between the convolutions runs on [B, H, W, C]
    DETECTOR_PASSES       detectors, for any runtime: heads that read one map together
    GPU_DETECTOR_PASSES   detectors, for ONNX Runtime's CUDA provider in float32, which runs biases
                          and activations as kernels of their own
    GPU_SAMPLING_PASSES   networks that warp pictures, behind the others, for ONNX Runtime's CUDA
                          provider
    CPU_LANDMARKER_PASSES landmarkers, for ONNX Runtime's CPU provider, whose PRelu is slow
    GPU_LANDMARKER_PASSES landmarkers, for ONNX Runtime's CUDA provider: few kernels, all there

Measured by `bench/network_passes.py` on an H100, inswapper_128's architecture in float16, faces a
second at batch 1 / 8 / 16 with a captured CUDA graph: as exported 386 / 745 / 753; portable
452 / 875 / 882; channels last 581 / 1012 / 1179; all within 67 dB of float32. Tried and left out:
carrying residual shifts to the end of the stream (one elementwise kernel less a block, and yet
3 % slower).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from networks.opset import to_project_opset
from networks.passes.cancel_transposes import cancel_transposes
from networks.passes.drop_cancelled_biases import drop_cancelled_biases
from networks.passes.fold_depthwise_biases import fold_depthwise_biases
from networks.passes.fold_output_activation import fold_output_activation
from networks.passes.fuse_instance_normalization import fuse_instance_normalization
from networks.passes.join_separable_biases import join_separable_biases
from networks.passes.merge_sibling_convolutions import merge_sibling_convolutions
from networks.passes.merge_style_linears import merge_style_linears
from networks.passes.normalize_channels_last import normalize_channels_last
from networks.passes.pad_channels_last import pad_channels_last
from networks.passes.pool_before_relu import pool_before_relu
from networks.passes.rewriting import Pass, infer_shapes
from networks.passes.sample_with_onnxruntime import sample_with_onnxruntime
from networks.passes.spell_out_prelu import spell_out_prelu
from networks.passes.upsample_channels_last import upsample_channels_last
from networks.passes.widen_by_convolution import widen_by_convolution
from networks.passes.widen_image_channels import widen_image_channels

PASSES: Final[Mapping[str, Pass]] = MappingProxyType(
    {
        rewrite.__name__: rewrite
        for rewrite in (
            merge_style_linears,
            drop_cancelled_biases,
            fold_output_activation,
            fuse_instance_normalization,
            normalize_channels_last,
            pad_channels_last,
            upsample_channels_last,
            widen_image_channels,
            cancel_transposes,
            merge_sibling_convolutions,
            join_separable_biases,
            pool_before_relu,
            spell_out_prelu,
            fold_depthwise_biases,
            sample_with_onnxruntime,
            widen_by_convolution,
        )
    }
)
"""Every pass by name."""

PORTABLE_PASSES: Final = (
    "merge_style_linears",
    "drop_cancelled_biases",
    "fold_output_activation",
    "fuse_instance_normalization",
)
CHANNELS_LAST_PASSES: Final = (
    "merge_style_linears",
    "drop_cancelled_biases",
    "fold_output_activation",
    "normalize_channels_last",
    "widen_image_channels",
    "pad_channels_last",
    "upsample_channels_last",
    "cancel_transposes",
)
DETECTOR_PASSES: Final = ("merge_sibling_convolutions",)
GPU_DETECTOR_PASSES: Final = (*DETECTOR_PASSES, "join_separable_biases", "pool_before_relu")
GPU_SAMPLING_PASSES: Final = ("sample_with_onnxruntime",)
CPU_LANDMARKER_PASSES: Final = ("spell_out_prelu",)
GPU_LANDMARKER_PASSES: Final = (
    "fold_depthwise_biases",
    "widen_by_convolution",
    *GPU_SAMPLING_PASSES,
)


def apply_passes(
    network: onnx.ModelProto, passes: Sequence[str] = PORTABLE_PASSES
) -> onnx.ModelProto:
    """`network` rewritten by the named passes, in their order, in this project's opset.

    A pass that finds nothing to rewrite changes nothing, so any network may be given. Run them on
    the float32 network with its batch free (`networks.batching`), before it is typed or embedded.

    Raises:
        KeyError: a name is none of PASSES.
    """
    rewrites = [PASSES[name] for name in passes]
    model = ir.from_proto(to_project_opset(network))
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for rewrite in rewrites:
        infer_shapes(model)
        rewrite(model)
        common_passes.RemoveUnusedNodesPass()(model)
    infer_shapes(model)
    return ir.to_proto(model)
