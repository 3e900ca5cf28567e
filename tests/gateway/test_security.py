"""Who is let in, from where, and what no request may do."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from conftest import WANTED, House, OpenHouse
from frameswap import BadOptions
from frameswap_gateway.tokens import Tokens, check_exposure, is_loopback, read_tokens
from starlette.websockets import WebSocketDisconnect

ANNA, BERT = "a" * 32, "b" * 32
TOKENS = tuple((hashlib.sha256(token.encode()).digest(), name)
               for token, name in ((ANNA, "anna"), (BERT, "bert")))  # fmt: skip


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_it_does_not_start_without_tokens_where_others_reach_it(host: str) -> None:
    with pytest.raises(BadOptions, match="no tokens are set"):
        check_exposure(host, ())
    check_exposure(host, TOKENS)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_on_this_machine_no_token_is_wanted(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, ())


def test_tokens_are_wanted_everywhere_but_where_health_is_asked(open_house: OpenHouse) -> None:
    house = open_house(tokens=TOKENS, host="0.0.0.0")
    for path in ("/v1/jobs", "/v1/assets", "/v1/capabilities", "/metrics", "/v1/jobs/a/events"):
        answer = house.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (401, "bad-token")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert house.client.get(path, headers=bearer("wrong" * 8)).status_code == 401
    assert house.client.put("/v1/assets/a", content=b"photo").status_code == 401
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert house.client.get(path).status_code == 200
    assert house.client.get("/metrics", headers=bearer(ANNA)).status_code == 200


def test_users_do_not_see_each_other(open_house: OpenHouse) -> None:
    house = open_house(tokens=TOKENS)
    for id in ("face", "target"):
        house.upload(id, headers=bearer(ANNA))
    house.client.put("/v1/jobs/mine", json=WANTED, headers=bearer(ANNA))
    for path in ("/v1/assets/face", "/v1/jobs/mine", "/v1/jobs/mine/events",
                 "/v1/jobs/mine/outputs/result.jpg"):  # fmt: skip
        assert house.client.get(path, headers=bearer(BERT)).status_code == 404
    assert house.client.get("/v1/jobs", headers=bearer(BERT)).json()["jobs"] == []
    answer = house.client.post("/v1/jobs", json=WANTED, headers=bearer(BERT))
    assert answer.json()["code"] == "not-possible"
    house.upload("face", b"photo of Bert's", headers=bearer(BERT))
    assert house.client.get("/v1/assets/face", headers=bearer(ANNA)).content == b"photo"


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    tokens = Tokens(TOKENS, key=b"k")
    assert [tokens.owner_of(token) for token in (ANNA, BERT, "", "x" * 99)] == [
        "anna", "bert", None, None,
    ]  # fmt: skip
    # Digests of one length, all of them, whoever asks.
    assert compared == [(32, 32)] * 8


def test_a_page_gets_a_cookie_for_its_token(open_house: OpenHouse) -> None:
    house = open_house(tokens=TOKENS, secure_cookies=True)
    house.client.base_url = "https://127.0.0.1"  # type: ignore[assignment]
    assert house.client.get("/v1/session").json() == {"wanted": True, "owner": None}
    assert house.client.post("/v1/session", json={"token": "x" * 32}).status_code == 401
    answer = house.client.post("/v1/session", json={"token": ANNA})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Secure"))
    assert ANNA not in cookie
    assert house.client.get("/v1/session").json()["owner"] == "anna"
    assert house.client.get("/v1/jobs").status_code == 200


def test_a_cookie_holds_for_its_time_and_its_user_only() -> None:
    now_s = [1000.0]
    tokens = Tokens(TOKENS, key=b"k", clock=lambda: now_s[0])
    cookie = tokens.cookie_for("anna")
    assert tokens.owner_of_cookie(cookie) == "anna"
    assert Tokens(TOKENS, key=b"other").owner_of_cookie(cookie) is None
    assert Tokens(TOKENS[1:], key=b"k", clock=lambda: 1000.0).owner_of_cookie(cookie) is None
    text, signature = cookie.split(".")
    for forged in ("", ".", "x.y.z", f"{text}.", f"{text}A.{signature}", "ÿ.ÿ", f"{text}.AAAA"):
        assert tokens.owner_of_cookie(forged) is None
    now_s[0] += 13 * 3600
    assert tokens.owner_of_cookie(cookie) is None


def test_a_page_of_another_site_may_change_nothing(house: House) -> None:
    for headers in (
        {"Origin": "https://evil.example"}, {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"}, {"Sec-Fetch-Site": "cross-site"},
    ):  # fmt: skip
        answer = house.client.post("/v1/jobs", json=WANTED, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "other-origin")
        answer = house.client.put("/v1/assets/a", content=b"photo", headers=headers)
        assert answer.status_code == 403
    own = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    assert house.client.post("/v1/jobs", json=WANTED, headers=own).status_code == 202


def test_a_page_of_another_site_opens_no_camera(house: House) -> None:
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        house.client.websocket_connect("ws://127.0.0.1/v1/live", headers={"Origin": "https://evil.example"}),
    ):
        pass
    assert refused.value.reason == "other-origin"


def test_no_other_site_may_read_an_answer(house: House) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    for answer in (
        house.client.get("/v1/assets/face", headers=asked),
        house.client.options("/v1/assets/face", headers=asked),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080", ""])
def test_a_name_that_was_made_to_lead_here_is_not_answered_to(house: House, host: str) -> None:
    answer = house.client.get("/v1/jobs", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "bad-host")


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:8080", "swap.example"])
def test_its_own_names_are_answered_to(open_house: OpenHouse, host: str) -> None:
    house = open_house(names=("swap.example",))
    assert house.client.get("/v1/jobs", headers={"Host": host}).status_code == 200


def test_a_request_that_never_ends_is_cut_off(house: House) -> None:
    answer = house.client.post("/v1/jobs", content=b"x" * 70_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    chunks = (b"x" * 10_000 for _ in range(10))
    assert house.client.post("/v1/jobs", content=chunks).status_code == 413


@pytest.mark.parametrize("name", ["..%2fapp.py", "%2e%2e/app.py", "app.py", "index.html%00"])
def test_the_page_is_its_own_files_and_no_others(house: House, name: str) -> None:
    assert house.client.get(f"/page/{name}").status_code == 404
    page = house.client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/v1/jobs/nothing"])
def test_what_is_not_there_is_a_problem_too(house: House, path: str) -> None:
    answer = house.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no token"),
        ("# nobody\n", "has no token"),
        ("anna\n", "line 1"),
        ("anna short\n", "at least 16"),
        (f"ok {ANNA}\nanna {ANNA} more\n", "line 2"),
    ],
)
def test_a_file_of_tokens_that_is_none_is_said(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(BadOptions, match=says):
        read_tokens(path)


def test_a_file_of_tokens_is_read_to_digests(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# users\nanna {ANNA}\n\nbert {BERT}\n")
    assert read_tokens(path) == TOKENS
