"""The GPU bench's scenes, and the peers' way that it measures beside ours."""

from __future__ import annotations

import numpy as np
import pytest

from bench.gpu.cells import (
    SCENES,
)
from bench.peer_extras import Kind, PeerWithExtra
from bench.peer_way import SIZE, PeerPipeline, frames_per_second, make_box_mask
from bench.scenes import Scene
from fetching import weights
from graphs.face_masker.box import box_mask_profile
from tests.generated_networks import (
    enhancer_network,
    occluder_network,
    parser_network,
    swapper_network,
)


@pytest.fixture(scope="module")
def pipeline() -> PeerPipeline:
    weights.fetch("yunet")
    return PeerPipeline(
        weights.load_network("yunet"), swapper_network("inswapper_128"), ["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("scene", SCENES.values(), ids=list(SCENES))
def test_a_scene_holds_the_faces_that_it_says(scene: Scene, pipeline: PeerPipeline) -> None:
    frame = scene.bgr()
    assert frame.shape == (scene.height, scene.width, 3)
    assert (pipeline.detect(frame) is not None) == (scene.faces > 0)
    assert scene.i420().shape == (scene.height * 3 // 2, scene.width)
    # float32 square roots of sums of 512 squares
    np.testing.assert_allclose(np.linalg.norm(scene.source(), axis=1), 1.0, atol=1e-6)


def test_the_peers_way_changes_the_face_and_nothing_far_from_it(pipeline: PeerPipeline) -> None:
    scene = SCENES["one face"]
    frame = scene.bgr()
    assert pipeline.providers == ["CPUExecutionProvider"]
    swapped, had_face = pipeline.swap(frame, scene.source())
    assert had_face
    changed = (swapped != frame).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert 200 < rows.max() - rows.min() < 800
    assert 200 < columns.max() - columns.min() < 800
    assert frames_per_second(pipeline, frame, scene.source(), threads=1, seconds=0.2) > 0


def test_the_peers_way_shows_the_same_pictures_spared_its_repeated_work(
    pipeline: PeerPipeline,
) -> None:
    scene = SCENES["one face"]
    spared = PeerPipeline(
        weights.load_network("yunet"), swapper_network("inswapper_128"),
        ["CPUExecutionProvider"], spared=True,
    )  # fmt: skip
    frame, latent = scene.bgr(), scene.source()
    (published, _), (quick, _) = pipeline.swap(frame, latent), spared.swap(frame, latent)
    # A pixel divided in float32 and in float64 may be truncated to neighbouring levels.
    assert np.abs(published.astype(np.int16) - quick).max() <= 1


def test_the_peers_mask_is_the_blenders() -> None:
    profile = box_mask_profile(SIZE)
    # float32 sums of a Gaussian in one dimension and in two
    np.testing.assert_allclose(make_box_mask(SIZE), np.outer(profile, profile), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["occluder", "parser", "enhancer"])
def test_the_peers_way_with_a_network_more_shows_what_it_makes(kind: Kind) -> None:
    weights.fetch("yunet")
    network = {
        "occluder": occluder_network("xseg_1"), "parser": parser_network("bisenet_resnet_34"),
        "enhancer": enhancer_network("gfpgan_1.4"),
    }[kind]  # fmt: skip
    both = [
        PeerWithExtra(
            weights.load_network("yunet"), swapper_network("inswapper_128"),
            ["CPUExecutionProvider"], kind=kind, network=network, spared=spared,
        )
        for spared in (False, True)
    ]  # fmt: skip
    scene = Scene("one face", width=640, height=360)
    frame, latent = scene.bgr(), scene.source()
    made, spared = (each.swap(frame, latent)[0] for each in both)
    assert (made != frame).any()
    assert np.abs(made.astype(int) - spared).max() <= 1
