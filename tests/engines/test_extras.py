"""What a deployment's extras change in contract and configs, and that nothing else changes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from engines.base_configs import base_config, parsed_base
from engines.command_line import make_parser, make_request
from engines.configs import Limits, make_config
from engines.deployment import Deployment, resolve
from engines.errors import DeploymentError
from engines.repository import COMMITTED, RepositoryWriter
from engines.served_graphs import served_graphs
from engines.targets import TARGETS
from engines.typed_graphs import model_precision
from graphs.contract import (
    ENSEMBLE_SPECS,
    EVERY_MODEL,
    MODEL_SPECS,
    Extras,
    MaskFlag,
    ensemble_specs,
    mask_codes,
    model_specs,
    option_ranges,
    served_specs,
)
from networks.enhancers import ENHANCERS
from networks.swappers import SWAPPERS

ALL = [
    Extras(occludes=occludes, parses=parses, enhances=enhances)  # type: ignore[arg-type]
    for occludes, parses, enhances in itertools.product(
        (False, True), (False, True), (None, "crops", "context")
    )
]
FULL = ("xseg_1", "bisenet_resnet_34", "gfpgan_1.4")


def deployed(*extras: str, swapper: str = "image_swapper_256", boost: int = 1) -> Deployment:
    names = dict(zip(("occluder", "parser", "enhancer"), extras, strict=False))
    return resolve(
        swapper=swapper, detector="yunet", detectors=("yunet",), pixel_boost=boost, **names
    )


@pytest.mark.parametrize("extras", ALL, ids=str)
def test_every_value_is_made_before_it_is_read_and_fits(extras: Extras) -> None:
    models = model_specs(extras)
    for ensemble in ensemble_specs(extras).values():
        made = {tensor.name: tensor.dims for tensor in ensemble.inputs}
        for step in ensemble.steps:
            spec = models[step.model]
            assert set(step.inputs) == {tensor.name for tensor in spec.inputs}
            for tensor in spec.inputs:
                dims = made[step.inputs[tensor.name]]
                if extras.enhances == "crops" and step.model == "face_enhancer":
                    continue
                pairs = zip(dims, tensor.dims, strict=True)
                assert all(a == b or {a, b} <= {"F", "K"} for a, b in pairs), (step.model, tensor)
            made |= {
                step.outputs[tensor.name]: tensor.dims
                for tensor in spec.outputs if tensor.name in step.outputs
            }  # fmt: skip
        assert {tensor.name for tensor in ensemble.outputs} <= set(made)


def test_clients_see_the_same_ensembles() -> None:
    for extras in ALL:
        for name, spec in ensemble_specs(extras).items():
            assert (spec.inputs, spec.outputs) == (
                ENSEMBLE_SPECS[name].inputs, ENSEMBLE_SPECS[name].outputs,
            )  # fmt: skip


def test_without_extras_no_model_and_no_option_is_new() -> None:
    assert set(EVERY_MODEL) - set(MODEL_SPECS) == {"face_enhancer"}
    assert "occluder" not in base_config(MODEL_SPECS["face_masker"])
    assert option_ranges(Extras()) == option_ranges()
    assert mask_codes(Extras()) == tuple(range(9))
    for name, spec in served_specs(Extras()).items():
        assert base_config(spec) == (COMMITTED / name / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("extras", "masks"),
    [
        (Extras(occludes=True), "masks=0..8|32..39"),
        (Extras(parses=True), "masks=0..8|64..71"),
        (Extras(occludes=True, parses=True), "masks=0..8|32..39|64..71|96..103"),
        (Extras(enhances="crops"), "masks=0..8"),
    ],
)
def test_the_masks_that_there_are_are_the_ones_that_may_be_asked_for(
    extras: Extras, masks: str
) -> None:
    entries = option_ranges(extras).split(",")
    assert entries[7] == masks
    assert entries[14] == ("enhancer=0..13029" if extras.enhances else "reserved=0..0")
    assert entries[15] == ("regions=0..1023" if extras.parses else "reserved=0..0")
    assert all(not code & MaskFlag.NONE or code == MaskFlag.NONE for code in mask_codes(extras))


@pytest.mark.parametrize("target", TARGETS)
def test_a_config_says_which_extras_there_are(target: str) -> None:
    deployment = deployed(*FULL)
    for name, spec in served_specs(deployment.extras).items():
        config = make_config(parsed_base(spec), TARGETS[target], deployment, limits=Limits())
        said = {key: value.string_value for key, value in config.parameters.items()}
        assert (said["occluder"], said["parser"], said["enhancer"]) == FULL
        assert said["provenance"] == "compositeWithTrainedAlgorithmicMedia"
        assert "enhancer_weight" not in said
        sizes = {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}
        if name == "face_enhancer":
            assert sizes["context"] == [-1, 3, 512, 512]
            assert sizes["swapped_crops"] == [-1, 3, 256, 256]
        if name.startswith("face_blender"):
            assert sizes["swapped_crops"] == [-1, 3, 512, 512]


def test_networks_of_extras_are_typed_and_nothing_else_that_was_not() -> None:
    graphs = served_graphs(deployed(*FULL), TARGETS["cuda"])
    assert list(graphs) == list(model_specs(deployed(*FULL).extras))
    for name, graph in graphs.items():
        wanted = "fp16" if name in ("face_masker", "face_enhancer") else None
        assert wanted is None or model_precision(graph, "fp16") == wanted
    plain = served_graphs(deployed(), TARGETS["cuda"])
    assert model_precision(plain["face_masker"], "fp16") == "fp32"
    for name, graph in plain.items():
        assert "extras" not in graph.settings, name


@pytest.mark.parametrize(
    ("names", "boost", "sentence"),
    [
        (("xseg_9",), 1, "no occluder is called 'xseg_9'; known: xseg_1, xseg_2, xseg_3"),
        (("none", "bisenet"), 1, "no parser is called 'bisenet'; known: bisenet_resnet_18"),
        (("none", "none", "gfpgan"), 1, "no enhancer is called 'gfpgan'; known: realesrgan_x4plus"),
        (("none", "none", "realesrgan_x4plus"), 4,
         "realesrgan_x4plus makes crops of 2048 pixels out of 512, and 1024 is the most"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(names: tuple[str, ...], boost: int, sentence: str) -> None:
    with pytest.raises(DeploymentError, match=sentence):
        deployed(*names, swapper="inswapper_128", boost=boost)


def test_every_enhancer_fits_some_swapper() -> None:
    for name, row in ENHANCERS.items():
        made = deployed("none", "none", name, swapper="inswapper_128").laid_size
        assert made == row.made_size(SWAPPERS["inswapper_128"].crop_size) <= 1024


def test_the_flags_ask_for_them(tmp_path: Path) -> None:
    flags = ["--target", "cpu", "--repository", str(tmp_path), "--occluder", "xseg_2",
             "--parser", "bisenet_resnet_18", "--enhancer", "gpen_bfr_256"]  # fmt: skip
    request = make_request(make_parser("").parse_args(flags))
    extras = request.deployment.extras
    assert extras == Extras(occludes=True, parses=True, enhances="context")
    assert "face_enhancer" in request.models
    with pytest.raises(DeploymentError, match="no model is called 'face_enhancer'"):
        make_request(make_parser("").parse_args(["--models", "face_enhancer", "--target", "cpu"]))


def test_a_target_loses_the_model_that_its_deployment_no_longer_has(tmp_path: Path) -> None:
    writer = RepositoryWriter(tmp_path)
    folder = tmp_path / "face_enhancer"
    with_one, without = deployed("none", "none", "gpen_bfr_256"), deployed()
    writer.complete(with_one.extras)
    for target in ("cpu", "cuda"):
        writer.write_configs(TARGETS[target], with_one, limits=Limits())
    writer.write_configs(TARGETS["cpu"], without, limits=Limits())
    assert [path.name for path in (folder / "configs").iterdir()] == ["cuda.pbtxt"]
    writer.write_configs(TARGETS["cuda"], without, limits=Limits())
    assert not folder.exists()
