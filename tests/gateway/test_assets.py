"""Uploads: whole, in parts, too large, no pictures; and their way back."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import House, OpenHouse
from frameswap_gateway.settings import Limits
from frameswap_gateway.uploads import clean_name
from frameswap_gateway.workers import WorkerDied


def files(house: House) -> list[Path]:
    return list((house.gateway.folder.root / "assets").iterdir())


def test_an_upload_comes_back_as_it_was(house: House) -> None:
    house.upload("a", b"photo of somebody", params={"name": "C:\\x\\me & you.jpg"})
    info = house.client.get("/v1/assets/a/info").json()
    assert (info["name"], info["size"], info["state"]) == ("me & you.jpg", 17, "ready")
    answer = house.client.get("/v1/assets/a")
    assert answer.content == b"photo of somebody"
    assert answer.headers["content-type"] == "image/jpeg"
    assert "me%20%26%20you.jpg" in answer.headers["content-disposition"]
    assert house.client.head("/v1/assets/a").headers["content-length"] == "17"


def test_an_upload_in_parts_is_looked_at_when_all_is_there(house: House) -> None:
    content = b"photo in parts"
    for start, end in ((0, 5), (5, 9), (9, 14)):
        answer = house.client.put(
            "/v1/assets/p", content=content[start:end],
            headers={"Content-Range": f"bytes {start}-{end - 1}/14"},
        )  # fmt: skip
        assert answer.status_code == (201 if end == 14 else 202), answer.text
        assert answer.json()["received"] == end
    assert house.client.get("/v1/assets/p").content == content


def test_a_part_at_the_wrong_place_is_told_where_to_go_on(house: House) -> None:
    half = {"Content-Range": "bytes 0-4/10"}
    assert house.client.put("/v1/assets/p", content=b"photo", headers=half).status_code == 202
    for start, size in ((3, 10), (7, 10), (5, 11)):
        answer = house.client.put(
            "/v1/assets/p", content=b"xx",
            headers={"Content-Range": f"bytes {start}-{start + 1}/{size}"},
        )  # fmt: skip
        assert (answer.status_code, answer.json()["code"]) == (409, "wrong-offset")
        assert answer.json()["received"] == 5
    answer = house.client.get("/v1/assets/p")
    assert (answer.status_code, answer.headers["upload-offset"]) == (409, "5")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-9/5"},
        {"Content-Range": "bytes 0-9/20"},
        {"Content-Range": "bytes five-9/20"},
        {"Content-Range": "bytes 0-4/*"},
    ],
)
def test_headers_that_contradict_each_other_are_refused(
    house: House, headers: dict[str, str]
) -> None:
    answer = house.client.put("/v1/assets/p", content=b"photo", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")


def test_a_file_that_is_said_to_be_too_large_is_refused_unread(open_house: OpenHouse) -> None:
    house = open_house(limits=Limits(asset_bytes=10))
    answer = house.client.put("/v1/assets/a", content=b"photo 12345")
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    assert not files(house)


def test_a_body_that_grows_past_the_limit_is_cut_off(open_house: OpenHouse) -> None:
    house = open_house(limits=Limits(asset_bytes=3 << 20))
    chunks = (b"x" * (1 << 20) for _ in range(5))
    answer = house.client.put("/v1/assets/a", content=chunks)
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    assert not files(house)
    assert house.client.get("/v1/assets/a").status_code == 404


def test_what_is_no_picture_is_not_kept(house: House) -> None:
    before = len(files(house))
    answer = house.client.put("/v1/assets/a", content=b"#EXTM3U\nfile:///etc/passwd")
    assert (answer.status_code, answer.json()["code"]) == (415, "not-a-picture")
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(files(house)) == before


def test_a_file_that_kills_who_looks_at_it_is_refused(house: House) -> None:
    house.probes.script.append(WorkerDied("a worker ended with -11"))
    answer = house.client.put("/v1/assets/a", content=b"photo")
    assert (answer.status_code, answer.json()["code"]) == (415, "not-a-picture")


def test_a_new_upload_replaces_the_old_one_unless_told_not_to(house: House) -> None:
    first = house.client.get("/v1/assets/face").headers["etag"]
    refused = house.client.put("/v1/assets/face", content=b"photo", headers={"If-None-Match": "*"})
    assert refused.status_code == 412
    house.upload("face", b"photo that is better")
    again = house.client.get("/v1/assets/face")
    assert again.content == b"photo that is better"
    assert again.headers["etag"] != first


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=0-4", 206, b"photo"),
        ("bytes=6-", 206, b"0123456789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=99-", 416, None),
        ("bytes=5-2", 200, b"photo 0123456789"),
        ("bytes=0-1,4-5", 200, b"photo 0123456789"),
        ("lines=1-2", 200, b"photo 0123456789"),
    ],
)
def test_a_range_of_a_file(house: House, asked: str, status: int, content: bytes | None) -> None:
    house.upload("a", b"photo 0123456789")
    answer = house.client.get("/v1/assets/a", headers={"Range": asked})
    assert answer.status_code == status
    if content is None:
        assert answer.headers["content-range"] == "bytes */16"
        assert answer.json()["code"] == "range-not-satisfiable"
    else:
        assert answer.content == content


def test_a_file_that_is_known_is_not_sent_again(house: House) -> None:
    etag = house.client.get("/v1/assets/face").headers["etag"]
    answer = house.client.get("/v1/assets/face", headers={"If-None-Match": f'"x", {etag}'})
    assert (answer.status_code, answer.content) == (304, b"")


def test_a_removed_upload_is_gone_from_the_disk(house: House) -> None:
    before = len(files(house))
    assert house.client.delete("/v1/assets/face").status_code == 204
    assert house.client.get("/v1/assets/face").status_code == 404
    assert len(files(house)) == before - 1


def test_a_users_files_have_a_limit_together(open_house: OpenHouse) -> None:
    house = open_house(limits=Limits(user_bytes=20))
    house.upload("a", b"photo 12345")
    answer = house.client.put("/v1/assets/b", content=b"photo 12345")
    assert (answer.status_code, answer.json()["code"]) == (507, "storage-full")
    house.client.delete("/v1/assets/a")
    house.upload("b", b"photo 12345")


def test_a_body_of_unknown_length_is_bounded_by_what_its_user_has_left(
    open_house: OpenHouse,
) -> None:
    house = open_house(limits=Limits(user_bytes=20))
    house.upload("a", b"photo 12345")
    answer = house.client.put("/v1/assets/b", content=iter([b"photo 12345"]))
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


def test_a_full_disk_is_said_and_nothing_is_half_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, data: bytes, at: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    answer = house.client.put("/v1/assets/a", content=b"photo")
    assert (answer.status_code, answer.json()["code"]) == (507, "storage-full")
    monkeypatch.undo()
    assert house.client.get("/v1/assets/a").status_code == 404


@pytest.mark.parametrize("id", ["..", "a%2Fb", "a.b", "%2e%2e%2fetc", "x" * 65, "ä"])
def test_an_id_that_could_be_a_path_is_refused(house: House, id: str) -> None:
    for answer in (
        house.client.put(f"/v1/assets/{id}", content=b"photo"),
        house.client.get(f"/v1/assets/{id}"),
    ):
        assert answer.status_code in (404, 405, 422)
    assert len(files(house)) == 2


def test_nothing_on_the_disk_has_a_name_of_the_users(house: House) -> None:
    house.upload("my-id", b"photo", params={"name": "../../my-name.jpg"})
    house.job("my-job")
    for path in house.gateway.folder.root.rglob("*"):
        assert "my-" not in path.name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/etc/passwd", "passwd"),
        ("..\\..\\a.mp4", "a.mp4"),
        ("a\r\nSet-Cookie: b", "aSet-Cookie: b"),
        ("x" * 300, "x" * 200),
        ("größe.jpg", "größe.jpg"),
    ],
)
def test_a_name_is_only_ever_shown(name: str, shown: str) -> None:
    assert clean_name(name) == shown
