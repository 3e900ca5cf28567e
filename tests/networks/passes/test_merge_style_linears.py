from __future__ import annotations

from onnx import helper

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    inswapper_network,
    map_network,
)

PASS = ["merge_style_linears"]


def test_twelve_linears_become_one_and_every_scale_and_shift_is_a_part_of_it() -> None:
    rewritten = assert_same_outputs(inswapper_network(), PASS)
    counts = count(rewritten)
    assert (counts["Gemm"], counts["Split"], counts["Slice"]) == (1, 1, 0)
    (split,) = [node for node in rewritten.graph.node if node.op_type == "Split"]
    assert len(split.output) == 24


def style_of(net: NetworkWriter, image: str, *, transposed: bool, channels: int = 4) -> str:
    """A scale per channel as a chunk, from a Linear whose weights lie either way round."""
    shape = (2 * channels, 6) if transposed else (6, 2 * channels)
    style = net.node("Gemm", "source", net.weight(*shape), transB=int(transposed))
    style = net.node("Unsqueeze", style, net.constant([2, 3]))
    lengths = net.constant([channels, channels])
    scale, shift = f"{style}_scale", f"{style}_shift"
    net.nodes.append(helper.make_node("Split", [style, lengths], [scale, shift], axis=1))
    return net.node("Add", net.node("Mul", image, scale), shift)


def test_linears_without_bias_and_with_weights_either_way_round_are_joined() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        once = style_of(net, image, transposed=True)
        return style_of(net, once, transposed=False)

    assert count(assert_same_outputs(map_network(layers), PASS))["Gemm"] == 1


def test_a_style_that_is_read_whole_and_in_parts_keeps_its_value() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        style = net.node("Gemm", "source", net.weight(6, 4))
        whole = net.node("Unsqueeze", style, net.constant([2, 3]))
        other = net.node("Gemm", "source", net.weight(6, 8))
        part = net.node("Slice", other, net.constant([2]), net.constant([6]), net.constant([1]))
        part = net.node("Unsqueeze", part, net.constant([2, 3]))
        both = net.node("Unsqueeze", net.node("Tanh", other), net.constant([2, 3]))
        pooled = net.node("ReduceMean", both, net.constant([1]))
        image = net.node("Add", net.node("Mul", image, whole), part)
        return net.node("Add", image, pooled)

    assert count(assert_same_outputs(map_network(layers), PASS))["Gemm"] == 1


def test_a_single_linear_and_linears_of_different_inputs_stay() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        first = net.node("Gemm", "source", net.weight(6, 4))
        second = net.node("Gemm", net.node("Tanh", "source"), net.weight(6, 4))
        style = net.node("Unsqueeze", net.node("Add", first, second), net.constant([2, 3]))
        return net.node("Mul", image, style)

    assert_untouched(map_network(layers), PASS)
