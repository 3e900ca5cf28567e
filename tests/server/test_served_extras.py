"""Deployments with an occluder, a parser and an enhancer on the real server.

The networks are generated ones of the published contracts, and Real-ESRGAN's own. The oracle is
ONNX Runtime in this process, one request at a time and step by step.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from frameswap import BadOptions, FaceSwapper, MaskFlag, RegionFlag, SwapOptions

import build_engines
from demo.photos import read_photo
from engines.configs import read_config
from fetching import weights
from fetching.cache_folder import cache_dir
from graphs.contract import FaceOrder, Option
from server.launcher import EmbeddedServer
from server.repository import read_repository
from tests.conftest import FOR_CPU, made_once
from tests.generated_networks import enhancer_network, occluder_network, parser_network
from tests.server.asking import Array, Asker
from tests.server.test_ensembles import Steps, as_format, assert_same_frame, options, two_faces

pytestmark = pytest.mark.e2e

EXTRAS = ("--occluder", "xseg_1", "--parser", "bisenet_resnet_18", "--enhancer", "gpen_bfr_256")


class ExtraSteps(Steps):
    """With an enhancer before the blender."""

    def swap_found(self, frame_format: str, **request: Array) -> dict[str, Array]:  # type: ignore[override]
        aligned = self.align(frame_format, **request)  # type: ignore[arg-type]
        made = {**aligned, **self.run("face_swapper", **aligned)}
        made |= self.run("face_masker", **made)
        enhanced = self.run("face_enhancer", **made)
        laid = {
            "swapped_crops": enhanced["enhanced_crops"], "masks": enhanced["enhanced_masks"],
            "warps": enhanced["enhanced_warps"],
        }  # fmt: skip
        blended = self.run(f"face_blender_{frame_format}", **{**aligned, **laid})
        return {"swapped_frame": blended["swapped_frame"], "verdicts": aligned["verdicts"]}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache with stand-ins under the published names beside what is there."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "weights").mkdir()
    for path in (cache_dir() / "weights").glob("*"):
        (folder / "weights" / path.name).symlink_to(path)
    (folder / "packages").symlink_to(cache_dir() / "packages")
    made = {
        "xseg_1": occluder_network("xseg_1"),
        "bisenet_resnet_18": parser_network("bisenet_resnet_18"),
        "gpen_bfr_256": enhancer_network("gpen_bfr_256"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, network in made.items():
            stand_in(folder, patch, name, network)
        patch.setenv("FRAMESWAP_CACHE", str(folder))
        yield folder


def stand_in(
    folder: Path, patch: pytest.MonkeyPatch, name: str, network: onnx.ModelProto
) -> None:
    content = network.SerializeToString()
    row = weights.WEIGHTS[name]
    target = folder / "weights" / row.filename
    target.unlink(missing_ok=True)
    target.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    patch.setitem(weights.WEIGHTS, name, replace(row, size=len(content), sha256=digest))


def build(folder: Path, *flags: str) -> None:
    """In this process, which knows the stand-ins; what comes out the same stays."""
    assert build_engines.main([*FOR_CPU, "--repository", str(folder), *flags]) == 0


@pytest.fixture(scope="module")
def repository(cache: Path, real_repository: Path, run_folder: Path) -> Path:
    def make(folder: Path) -> None:
        shutil.copytree(real_repository, folder, dirs_exist_ok=True)
        build(folder, *EXTRAS)

    return made_once(run_folder / "extras", make)


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository, one_process=False) as started:
        yield started


@pytest.fixture
def asker(server: EmbeddedServer) -> Iterator[Asker]:
    connected = Asker(server.grpc_url)
    yield connected
    connected.client.close()


def source(asker: Asker, *names: str) -> Array:
    """[1, K, D]."""
    photos = [cv2.resize(read_photo(name), (480, 480))[None] for name in names]
    rows = [asker.ask("encode_source_bgr", frame=p, options=options())["source"] for p in photos]
    return np.stack(rows, axis=1)


def asked(**values: float) -> Array:
    row = options(FaceOrder.LEFT_TO_RIGHT)
    for name, value in values.items():
        row[0, Option[name.upper()]] = value
    return row


@pytest.mark.parametrize("frame_format", ["i420", "bgr"])
def test_an_ensemble_with_extras_is_its_steps_composed_whatever_requests_meet(
    asker: Asker, repository: Path, frame_format: str
) -> None:
    frame = as_format(two_faces(), frame_format)  # type: ignore[arg-type]
    one, two = source(asker, "collins"), source(asker, "collins", "newton")
    requests = [
        {"frame": frame, "source": one, "options": asked()},
        {"frame": frame, "source": two, "options": asked(enhancer=101)},
        {"frame": frame, "source": two, "options": asked(masks=1 + 32, enhancer=1)},
        {"frame": frame, "source": two, "options": asked(masks=64, regions=RegionFlag.SKIN)},
        {"frame": frame, "source": one, "options": asked(masks=8)},
        {"frame": np.zeros_like(frame), "source": two, "options": asked()},
    ]
    steps = ExtraSteps(repository)
    answers = asker.ask_together(f"swap_faces_{frame_format}", requests)  # type: ignore[arg-type]
    for request, answer in zip(requests, answers, strict=True):
        expected = steps.swap(frame_format, **request)  # type: ignore[arg-type]
        assert_same_frame(answer["swapped_frame"], expected["swapped_frame"])
        np.testing.assert_array_equal(answer["verdicts"], expected["verdicts"])
    changed = [(answer["swapped_frame"] != frame).any() for answer in answers[:-1]]
    assert all(changed)
    np.testing.assert_array_equal(answers[-1]["swapped_frame"], requests[-1]["frame"])


def test_the_client_reaches_every_extra(server: EmbeddedServer) -> None:
    frame = two_faces()
    with FaceSwapper(server.grpc_url) as swapper:
        person = swapper.encode_source(cv2.resize(read_photo("collins"), (480, 480)))

        def changed(**given: object) -> Array:
            made = swapper.swap(frame, person, SwapOptions(**given))  # type: ignore[arg-type]
            return np.abs(made.frame.astype(int) - frame)

        plain = changed(enhance=0.0, masks=MaskFlag.BOX | MaskFlag.HULL)
        covered = changed(enhance=0.0, masks=MaskFlag.BOX | MaskFlag.HULL | MaskFlag.OCCLUSION)
        assert covered.sum() < plain.sum()
        skin = changed(enhance=0.0, masks=MaskFlag.REGIONS, regions=RegionFlag.SKIN)
        whole = changed(enhance=0.0, masks=MaskFlag.REGIONS)
        assert skin.sum() <= whole.sum()
        enhanced = changed(enhance=1.0, masks=MaskFlag.BOX | MaskFlag.HULL)
        assert (enhanced != plain).mean() > 0.02
        with pytest.raises(BadOptions, match="takes no weight"):
            changed(enhancer_weight=0.5)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"masks": 9}, r"option 7 \(masks\) must be a whole number from 0 to 8 or 32 to 39 or 64"),
        ({"regions": 1024}, r"option 15 \(regions\) must be a whole number from 0 to 1023"),
        ({"enhancer": 13030}, r"option 14 \(enhancer\) must be a whole number from 0 to 13029"),
    ],
)
def test_what_an_option_cannot_be_is_refused(
    asker: Asker, values: dict[str, float], sentence: str
) -> None:
    with pytest.raises(Exception, match=sentence):
        asker.ask("find_faces_bgr", frame=two_faces()[None], options=asked(**values))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"masks": 32}, r"option 7 \(masks\) must be a whole number from 0 to 8, and is 32"),
        ({"enhancer": 1}, r"option 14 \(reserved\) must be 0, and is 1"),
        ({"regions": 1}, r"option 15 \(reserved\) must be 0, and is 1"),
    ],
)
def test_a_deployment_without_extras_refuses_their_options(
    real_asker: Asker, values: dict[str, float], sentence: str
) -> None:
    with pytest.raises(Exception, match=sentence):
        real_asker.ask("find_faces_bgr", frame=two_faces()[None], options=asked(**values))


def test_real_super_resolution_is_served_and_left_out_again(
    cache: Path, own_repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights.fetch("realesr_animevideov3_x4")
    folder = own_repository
    build(folder, "--enhancer", "realesr_animevideov3_x4")
    config = read_config(folder / "swap_faces_bgr" / "configs" / "cpu.pbtxt")
    said = {key: value.string_value for key, value in config.parameters.items()}
    assert said["enhancer"] == "realesr_animevideov3_x4"
    assert said["provenance"] == "compositeWithTrainedAlgorithmicMedia"
    frame = cv2.resize(read_photo("gauss"), (320, 400))
    with EmbeddedServer(folder, models=["swap_faces_bgr", "encode_source_bgr"]) as server:
        asker = Asker(server.grpc_url)
        request = {"frame": frame[None], "source": source(asker, "collins"), "options": asked()}
        answer = asker.ask("swap_faces_bgr", **request)
        asker.client.close()
    expected = ExtraSteps(folder).swap("bgr", **request)
    assert_same_frame(answer["swapped_frame"], expected["swapped_frame"])
    # a build without it takes it out of the target, and with the last target goes its folder
    capsys.readouterr()
    build(folder)
    assert "face_blender_bgr" in re.sub(r".*unchanged", "", capsys.readouterr().out)
    assert not (folder / "face_enhancer").exists()
    assert "face_enhancer" not in read_repository(folder, "cpu").configs
