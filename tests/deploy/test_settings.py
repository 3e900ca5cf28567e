"""Flags and variables of the entry point say the same; wrong ones end in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.settings import read_settings


def test_without_anything_it_serves_plans_from_the_volume() -> None:
    settings = read_settings([], {})
    assert settings.repository == Path("/models")
    assert settings.target == "tensorrt"
    assert (settings.health_port, settings.grpc_port, settings.metrics_port) == (8000, 8001, 8002)
    assert settings.opened == ()
    assert settings.tls is None


def test_a_variable_sets_what_the_flag_does_and_the_flag_wins() -> None:
    environment = {
        "FRAMESWAP_DRAIN_S": "7.5", "FRAMESWAP_FRAME_SIZE": "3840x2160",
        "FRAMESWAP_OPEN": "statistics", "FRAMESWAP_GRPC_PORT": "9001",
    }  # fmt: skip
    settings = read_settings(["--grpc-port", "9002", "--", "--log-verbose=1"], environment)
    assert settings.drain_s == 7.5
    assert settings.frame_size == (3840, 2160)
    assert settings.opened == ("statistics",)
    assert settings.grpc_port == 9002
    assert settings.extra == ("--log-verbose=1",)


def test_an_empty_variable_is_none() -> None:
    assert read_settings([], {"FRAMESWAP_TARGET": ""}).target == "tensorrt"


def test_tls_comes_whole() -> None:
    files = {
        "FRAMESWAP_TLS_CERTIFICATE": "/tls/tls.crt", "FRAMESWAP_TLS_KEY": "/tls/tls.key",
        "FRAMESWAP_TLS_AUTHORITY": "/tls/ca.crt", "FRAMESWAP_TLS_NAME": "frameswap",
    }  # fmt: skip
    tls = read_settings([], {**files, "FRAMESWAP_TLS_MUTUAL": "1"}).tls
    assert tls is not None
    assert tls.mutual
    assert tls.key == Path("/tls/tls.key")


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--tls-key", "k"], {}, "TLS takes --tls-certificate, --tls-key"),
        (["--tls-mutual"], {}, "--tls-mutual needs --tls-certificate"),
        (["--max-queue-size", "8"], {}, "--max-queue-size needs --instances 2 or more"),
        (["--drain-s", "-1"], {}, "must be a number of seconds, 0 or more, not '-1'"),
        (["--drain-s", "nan"], {}, "must be a number of seconds, 0 or more, not 'nan'"),
        ([], {"FRAMESWAP_GRPC_PORT": "70000"}, "must be a port from 0 to 65535, not '70000'"),
        ([], {"FRAMESWAP_FRAME_SIZE": "1080p"}, "must be WIDTHxHEIGHT in pixels"),
        ([], {"FRAMESWAP_OPEN": "trace"}, "FRAMESWAP_OPEN takes"),
        ([], {"FRAMESWAP_TLS_MUTUAL": "yes"}, "FRAMESWAP_TLS_MUTUAL must be 0 or 1, not 'yes'"),
        (["--requests-in-flight", "0"], {}, "must be a whole number, 1 or more, not '0'"),
    ],
)
def test_what_cannot_be_is_refused_with_usage(
    arguments: list[str],
    environment: dict[str, str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(arguments, environment)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
