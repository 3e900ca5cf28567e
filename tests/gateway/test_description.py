"""The OpenAPI description that is checked in, and what the page and the licences go by."""

from __future__ import annotations

import ast
import json
import re
from importlib import import_module
from pathlib import Path

import pytest
from conftest import House
from frameswap import AreaFlag, KeepFlag, MaskFlag
from frameswap_gateway.app import describe_api
from frameswap_gateway.job_requests import JobRequest
from frameswap_gateway.licences import LICENCES, licence_of
from frameswap_gateway.problems import STATUSES
from frameswap_gateway.wishes import AREAS, KEEPS, MASKS, ORDERS

from fetching.known_weights import WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "gateway" / "frameswap_gateway"
KEPT = ROOT / "gateway" / "openapi.json"


def test_the_description_that_is_checked_in_is_what_the_routes_say() -> None:
    kept = json.loads(KEPT.read_text())
    assert kept == describe_api(), (
        "python -m frameswap_gateway.describe > gateway/openapi.json writes it again"
    )
    assert kept["openapi"].startswith("3.1.")


def test_it_is_served_and_its_problems_have_their_form(house: House) -> None:
    served = house.client.get("/openapi.json").json()
    assert served == json.loads(KEPT.read_text())
    for path, methods in served["paths"].items():
        for method, operation in methods.items():
            assert operation["responses"], (path, method)
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (path, status)


def test_every_problem_that_the_code_names_is_a_row() -> None:
    named = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(getattr(node, "func", None), "id", "")
            if isinstance(node, ast.Call) and name in ("Problem", "problems"):
                wanted = node.args if name == "problems" else node.args[:1]
                named |= {arg.value for arg in wanted if isinstance(arg, ast.Constant)}
    assert named <= STATUSES.keys()


def test_the_names_that_requests_take_are_those_of_the_client() -> None:
    schemas = JobRequest.model_json_schema()["$defs"]
    options = schemas["Options"]["properties"]
    assert set(options["face_order"]["enum"]) == ORDERS.keys()
    assert set(options["masks"]["items"]["enum"]) == MASKS.keys()
    assert set(options["keep"]["items"]["enum"]) == KEEPS.keys()
    assert set(options["areas"]["items"]["enum"]) == AREAS.keys()
    for names, kind in ((MASKS, MaskFlag), (KEEPS, KeepFlag), (AREAS, AreaFlag)):
        assert set(names.values()) == set(kind) - {kind(0)}


def test_licences_are_those_of_the_deployment_side() -> None:
    known = {row.name: (row.licence, row.allows) for row in WEIGHTS.values()
             if row.role == "swapper"}  # fmt: skip
    said = {name: (row.name, row.allows) for name, row in LICENCES.items()}
    own = said.pop("image_swapper_256")
    assert said == known
    readme = (ROOT / "README.md").read_text()
    assert f"| image_swapper_256 | swapper | built | {own[0]} | {own[1]} |" in readme
    assert "unclear" in licence_of("somebody's own").allows


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_of_the_client_only_its_public_names_are_used(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "frameswap":
            module = import_module(node.module or "")
            public = getattr(module, "__all__", None) or [
                name for name in vars(module) if not name.startswith("_")
            ]
            assert {alias.name for alias in node.names} <= set(public), node.module
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
            assert isinstance(node.value, ast.Name), ast.dump(node)
            assert node.value.id in ("self", "os"), f"{path.name}: {node.attr}"
