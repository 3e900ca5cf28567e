"""The error tree and the one place where vendor errors are mapped."""

from __future__ import annotations

import inspect

import frameswap
import grpc
import pytest
from frameswap import errors


def test_every_grpc_status_but_ok_is_mapped() -> None:
    assert set(errors.STATUS_ERRORS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize("code", list(errors.STATUS_ERRORS))
def test_every_status_gives_one_sentence_that_names_the_server(code: grpc.StatusCode) -> None:
    error = errors.from_status(
        code, "line one\nline two.", address="host:1", doing="while testing", timeout_s=2.5
    )
    assert type(error) is errors.STATUS_ERRORS[code]
    assert "host:1" in str(error)
    assert "while testing" in str(error)
    assert "\n" not in str(error)


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    classes = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.FrameswapError)
    }
    drawn = {}
    for line in errors.__doc__.splitlines():
        name = line.strip("│├└─ ").split(" ")[0].strip()
        if name in classes:
            drawn[name] = line.index(name)
    assert drawn.keys() == classes.keys()
    for name, kind in classes.items():
        parent = kind.__mro__[1].__name__
        if name != "FrameswapError":
            assert drawn[name] == drawn[parent] + 4


def test_every_error_is_exported_once() -> None:
    assert set(errors.__all__) <= set(frameswap.__all__)
    assert sorted(errors.__all__) == sorted(
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.FrameswapError)
    )


def test_an_error_without_a_status_is_the_servers_fault() -> None:
    error = errors.from_rpc_error(grpc.RpcError("odd"), address="host:1", doing="while testing")
    assert isinstance(error, errors.ServerFault)
    assert "odd" in str(error)
