"""The small programs of a deployment: building, looking at a swap, load, a row of the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from frameswap import Security
from frameswap.errors import BadOptions

import build_engines
from bench import random_inswapper, tensorrt_row
from bench.load.command import make_command, write_run
from bench.load.inputs import LoadScene, write_inputs
from deploy import tensorrt_bindings
from deploy.build_plans import seed_cache
from deploy.swap_check import compare, judge
from engines import build as engines_build
from fetching import weights
from graphs.contract import ENSEMBLE_SPECS, FACE_COLUMNS
from tests.deploy.serving import ROOT, EntryPoint
from tests.deploy.tools import run, tool
from tests.generated_networks import recognizer_network

FACE = np.array([[40, 30, 60, 60, 0.9, *[0.0] * (FACE_COLUMNS - 5)]], np.float32)


def swapped_frame() -> tuple[np.ndarray, np.ndarray]:
    frame = np.full((90, 120, 3), 100, np.uint8)
    swapped = frame.copy()
    swapped[28:64, 38:63] = 180
    return frame, swapped


def test_a_right_swap_is_right() -> None:
    assert judge(*swapped_frame(), FACE) is None


def test_a_swap_that_is_none_is_seen() -> None:
    frame, swapped = swapped_frame()
    assert judge(frame, frame, FACE) == "the face was not changed"
    assert judge(frame, swapped, FACE[:0]) == "0 faces were found where there is one"
    swapped[0, 119] = 101
    assert judge(frame, swapped, FACE) == "pixels away from the face were changed"


def test_a_cache_is_given_what_it_lacks_and_keeps_what_it_has(tmp_path: Path) -> None:
    downloads, cache = tmp_path / "downloads", tmp_path / "cache"
    (downloads / "weights").mkdir(parents=True)
    (downloads / "weights" / "a.onnx").write_bytes(b"a")
    (downloads / "weights" / "b.onnx").write_bytes(b"b")
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / "b.onnx").write_bytes(b"mine")
    assert seed_cache(downloads, cache) == [cache / "weights" / "a.onnx"]
    assert (cache / "weights" / "b.onnx").read_bytes() == b"mine"
    assert seed_cache(downloads, cache) == []


@pytest.mark.e2e
def test_the_images_downloads_are_all_that_a_build_needs(tmp_path: Path) -> None:
    """The Dockerfile's own steps, then a build that can fetch nothing."""
    downloads, models = tmp_path / "downloads", tmp_path / "models"
    recipe = (ROOT / "deploy" / "Dockerfile").read_text()
    steps = {
        (".venv/bin/frameswap", "models", "fetch", "yunet", "sface", "face_mesh_attention"):
            ("-m", "frameswap", "models", "fetch", "yunet", "sface", "face_mesh_attention"),
        (".venv/bin/python", "-m", "demo.photos", "newton", "gauss"):
            ("-m", "demo.photos", "newton", "gauss"),
    }  # fmt: skip
    for written, words in steps.items():
        assert " ".join(written) in recipe
        done = run(sys.executable, *words, FRAMESWAP_CACHE=str(downloads))
        assert done.returncode == 0, done.stderr
    done = run(
        sys.executable, "-m", "deploy.build_plans", "--target", "cpu", "--repository", models,
        FRAMESWAP_CACHE=str(tmp_path / "cache"), FRAMESWAP_DOWNLOADS=str(downloads),
        PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path), PIP_EXTRA_INDEX_URL="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (models / "face_swapper" / "1" / "model.onnx").is_file()
    pictures = "from demo.photos import read_photo as read; read('newton'); read('gauss')"
    done = run(
        sys.executable, "-c", pictures, FRAMESWAP_CACHE=str(downloads), PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(tmp_path), PIP_EXTRA_INDEX_URL="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Their owner may read them, and nobody write: the image's files are root's.
    assert "COPY --from=build /opt/frameswap /opt/frameswap" in recipe


def test_bindings_are_of_the_librarys_release() -> None:
    offered = ["11.4.0.106", "11.3.0.99", "11.3.0.101", "10.14.1.48"]
    assert tensorrt_bindings.matching("11.3.0", offered) == "11.3.0.101"
    with pytest.raises(tensorrt_bindings.BindingsError, match=r"no bindings of TensorRT 11\.2\.0"):
        tensorrt_bindings.matching("11.2.0", offered)
    with pytest.raises(tensorrt_bindings.BindingsError, match="no TensorRT library is here"):
        tensorrt_bindings.library_version((9,))


@pytest.mark.e2e
def test_bindings_are_installed_from_what_the_registry_offers(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    code = "import tensorrt_bindings as t; t.install('11.4.0')"
    done = run(python, "-c", code, PYTHONPATH=str(ROOT / "deploy"))
    assert done.returncode == 0, done.stderr
    listed = run(python, "-m", "pip", "list", "--format=json")
    versions = {one["name"]: one["version"] for one in json.loads(listed.stdout)}
    assert versions["tensorrt_cu13_bindings"].startswith("11.4.0.")
    (shim,) = venv.glob("lib/python*/site-packages/tensorrt/__init__.py")
    assert "from tensorrt_bindings import *" in shim.read_text()


def scene() -> LoadScene:
    return LoadScene(np.zeros((96, 64), np.uint8), np.zeros((1, 7), np.float32))


def test_load_sends_every_input_of_the_contract(tmp_path: Path) -> None:
    inputs = write_inputs(scene(), tmp_path / "inputs")
    wanted = {tensor.name for tensor in ENSEMBLE_SPECS[inputs.model].inputs}
    assert {path.name for path in inputs.folder.iterdir()} == wanted
    command = make_command("dns:///a:8001", inputs, [1, 8], seconds=9)
    first, second = command.with_binary("perf_analyzer")
    assert first[first.index("--concurrency-range") + 1] == "1"
    assert second[second.index("-u") + 1] == "a:8001"
    assert "frame:96,64" in first


def test_loads_script_reads_the_token_when_it_runs(tmp_path: Path) -> None:
    inputs = write_inputs(scene(), tmp_path / "inputs")
    (tmp_path / "token").write_text("secret-token\n")
    security = Security(ca=Path("/tls/ca.crt"))
    command = make_command(
        "a:8001", inputs, [4], seconds=3, security=security, token_file=tmp_path / "token"
    )
    write_run(command, tmp_path / "run.sh")
    text = (tmp_path / "run.sh").read_text()
    assert "secret-token" not in text
    assert "--ssl-grpc-root-certifications-file /tls/ca.crt" in text
    assert run("sh", "-n", tmp_path / "run.sh").returncode == 0
    with pytest.raises(BadOptions, match="leave --tls-name out"):
        make_command("a:1", inputs, [4], seconds=3, security=Security(tls=True, name="n"))


def test_answers_to_one_frame_may_differ_by_rounding_alone() -> None:
    frame, swapped = swapped_frame()
    assert compare(frame, frame + np.uint8(4)) is None
    assert compare(frame, swapped) == "the same frame came 80 levels apart"


@pytest.fixture(scope="module")
def identity_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A swapper that is given an identity vector, of random weights, as the default is given
    pixels."""
    load, folder = weights.load_network, tmp_path_factory.mktemp("identity")

    def load_network(name: str) -> onnx.ModelProto:
        made = {
            "inswapper_128": lambda: random_inswapper.build(channels=16),
            "w600k_r50": lambda: recognizer_network("w600k_r50"),
        }
        return made.get(name, lambda: load(name))()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "load_network", load_network)
        patch.setattr(engines_build, "bring_weights", lambda names, **_: dict.fromkeys(names, "x"))
        words = ["--target", "cpu", "--swapper", "inswapper_128", "--accept-licence"]
        words += ["--repository", str(folder)]
        assert build_engines.main(words) == 0
    return folder


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("repository", "swapper"),
    [("real_repository", "image_swapper_256"), ("identity_repository", "inswapper_128")],
)
def test_a_frame_is_looked_at_and_load_is_measured_at_one_endpoint(
    request: pytest.FixtureRequest, tmp_path: Path, repository: str, swapper: str
) -> None:
    models = request.getfixturevalue(repository)
    with EntryPoint(models, tmp_path / "run", "--open", "statistics") as server:
        server.wait_ready()
        address = f"127.0.0.1:{server.grpc_port}"
        check = run(sys.executable, "-m", "deploy.swap_check", "--server", address)
        assert check.returncode == 0, check.stderr
        assert f"swaps faces with {swapper}" in check.stdout
        load = run(
            sys.executable, "-m", "bench.load", "--server", address, "--frame", "320x240",
            "--concurrency", "2", "--seconds", "2", "--faces", "2",
        )  # fmt: skip
        assert load.returncode == 0, load.stderr + load.stdout
        assert "p99 latency" in load.stdout


def test_rows_of_the_table_have_its_columns() -> None:
    report = tensorrt_row.Report(
        facts={"engine": "TensorRT fp16", "GPU": "a card"},
        seconds={"building, cold cache": 300.0},
        rows=[{"batch": 8, "frames per second": 500.0, "p50 ms": 16.0, "gpu busy %": 97.0}],
    )
    row = report.markdown().splitlines()[0]
    assert row == "| TensorRT fp16 | 8 | 97.0 | 2.0 | 500 | 0.060 | 16 |"
    table = (ROOT / "docs" / "gpu.md").read_text()
    (head,) = [line for line in table.splitlines() if line.startswith("| | batch | GPU use, %")]
    assert head.count("|") == row.count("|")
    assert "a card" in report.markdown()


@pytest.mark.e2e
def test_a_stranger_can_try_the_script_without_a_gpu(tmp_path: Path) -> None:
    output = tmp_path / "row.json"
    done = run(
        sys.executable, "-m", "bench.tensorrt_row", "--target", "cpu", "--seconds", "4",
        "--output", output,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(output.read_text())
    assert [row["batch"] for row in told["rows"]] == [1, 2, 4, 8]
    assert told["seconds"].keys() >= {"building, cold cache", "starting the server, warm"}
    # Nothing that names a person or a machine.
    assert told["facts"].keys() == {"engine", "swapper", "in flight", "cores"}
    assert str(Path.home()) not in output.read_text()


@pytest.mark.e2e
def test_the_bill_of_materials_names_what_the_image_installs(tmp_path: Path) -> None:
    lock = ROOT / "requirements" / "runtime.lock"
    output = tmp_path / "sbom.json"
    done = run(
        tool("cyclonedx-py"), "requirements", "--output-reproducible",
        "--of", "JSON", "-o", output, lock,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    named = {one["name"]: one for one in json.loads(output.read_text())["components"]}
    pinned = [line.partition("==")[0] for line in lock.read_text().splitlines() if "==" in line]
    assert pinned
    assert set(pinned) <= named.keys()
    assert all(one.get("hashes") or one.get("externalReferences") for one in named.values())
