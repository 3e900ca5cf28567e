"""The page in a real browser: what people do with it, and that it shuts nobody out."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from bench.gateway.running import RunningGateway
from demo.make_clip import clip_of, write_clip
from demo.photos import photo_path

pytestmark = pytest.mark.e2e

SCREENSHOTS = Path(__file__).resolve().parents[2] / "out" / "screenshots"
DONE_MS = 90_000
NEWEST = "#job-list li:first-child"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of Gauss."""
    path = tmp_path_factory.mktemp("clips") / "gauss.mp4"
    write_clip(path, clip_of("gauss", width=640, height=360, frames=72))
    return path


@pytest.fixture(scope="module")
def two_persons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of Gauss, and Newton at his right, each moving by himself."""
    path = tmp_path_factory.mktemp("clips") / "two.mp4"
    clips = [clip_of(name, width=320, height=360, frames=48) for name in ("gauss", "newton")]
    with av.open(str(path), "w") as writing:
        stream = writing.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(48):
            picture = np.hstack([clip.frame(number) for clip in clips])
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")):
                writing.mux(packet)
        for packet in stream.encode():
            writing.mux(packet)
    return path


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """The clip as Chromium's camera plays it."""
    path = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    with av.open(str(clip)) as reading, av.open(str(path), "w", format="mjpeg") as writing:
        stream = writing.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuvj420p"
        for frame in reading.decode(video=0):
            for packet in stream.encode(frame.reformat(format="yuvj420p")):
                writing.mux(packet)
        for packet in stream.encode():
            writing.mux(packet)
    return path


@pytest.fixture(scope="module")
def browser(camera: Path) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium is not None, "make readers installs chromium"
    arguments = [
        "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    ]  # fmt: skip
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield launched
        launched.close()


OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, gateway: RunningGateway) -> Iterator[OpenPage]:
    """Open the page anew, with the consent given, and hold it to saying no error of its own."""
    contexts = []
    said: list[str] = []

    def make(*, consents: bool = True, **more: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **more})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(DONE_MS)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(gateway.url)
        if consents:
            page.check("#consent-box")
            page.click("#consent-go")
            page.wait_for_selector("body[data-ready]")
        return page

    yield make
    for context in contexts:
        context.close()
    assert not said


def keep(page: Any, name: str) -> None:
    """A picture for people to look at; CI keeps the folder."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def check_for_barriers(page: Any) -> None:
    """axe-core finds no fault that it calls serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    serious = [
        (fault["id"], [node["html"] for node in fault["nodes"]])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
    assert not serious


def bring(page: Any, source: str, target: Path) -> None:
    page.set_input_files("#source-files", photo_path(source))
    page.wait_for_selector("#sources img")
    page.set_input_files("#target-files", target)
    page.wait_for_selector("#persons select")


def test_consent_and_licence_come_first_and_once(open_page: OpenPage) -> None:
    page = open_page(consents=False)
    page.wait_for_selector("#consent[open]")
    assert "Apache-2.0" in page.inner_text("#consent-licence")
    check_for_barriers(page)
    keep(page, "consent")
    page.keyboard.press("Escape")
    page.click("#consent-go")
    assert page.is_visible("#consent")
    page.check("#consent-box")
    page.click("#consent-go")
    page.wait_for_selector("body[data-ready]")
    assert "marked as edited" in page.inner_text("#about")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert not page.is_visible("#consent")


def test_a_photo_is_previewed_swapped_and_downloaded(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    bring(page, "newton", photo_path("gauss"))
    page.click("#show-preview")
    page.wait_for_selector("#after:not([hidden])")
    assert page.inner_text("#preview-state") == "One face was found here."
    page.fill("#wipe", "30")
    assert "30%" in page.eval_on_selector("#after", "image => image.style.clipPath")
    page.click("#options summary")
    keep(page, "photo")
    check_for_barriers(page)
    page.click("#begin")
    row = page.locator(f"{NEWEST}[data-job=succeeded]")
    row.wait_for()
    assert row.locator("h3").inner_text() == "gauss-swapped.png"
    with page.expect_download() as download:
        row.get_by_text("Download").click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert saved.read_bytes().startswith(b"\x89PNG")
    keep(page, "photo-done")
    check_for_barriers(page)


def test_several_files_are_dropped_and_one_is_taken_away_again(open_page: OpenPage) -> None:
    page = open_page()
    content = base64.b64encode(photo_path("newton").read_bytes()).decode()
    dropped = page.evaluate_handle(
        """(content) => {
            const bytes = Uint8Array.from(atob(content), (mark) => mark.charCodeAt(0));
            const transfer = new DataTransfer();
            for (const name of ["one.png", "two.png"])
                transfer.items.add(new File([bytes], name, { type: "image/png" }));
            return transfer;
        }""",
        content,
    )
    page.dispatch_event("#source-drop", "dragenter", {"dataTransfer": dropped})
    assert page.get_attribute("#source-drop", "class") == "drop over"
    page.dispatch_event("#source-drop", "drop", {"dataTransfer": dropped})
    page.wait_for_selector("#sources li:nth-child(2) img")
    assert page.get_attribute("#source-drop", "class") == "drop"
    page.get_by_label("Remove one.png").click()
    page.wait_for_selector("#sources li:nth-child(2)", state="detached")
    assert "two.png" in page.inner_text("#sources")


def test_a_video_goes_on_over_a_reload_and_is_canceled(open_page: OpenPage, clip: Path) -> None:
    page = open_page()
    bring(page, "newton", clip)
    page.fill("#moment", "1.2")
    page.dispatch_event("#moment", "change")
    page.click("#begin")
    page.wait_for_selector(f"{NEWEST} progress")
    page.reload()
    # The job is known from the gateway, not from the page.
    page.wait_for_selector(".job")
    row = page.locator(NEWEST)
    row.locator("video").wait_for(state="attached")
    assert row.get_attribute("data-job") == "succeeded"
    keep(page, "video-done")
    page.goto(page.url.partition("#")[0])
    page.wait_for_selector("body[data-ready]")
    bring(page, "newton", clip)
    page.click("#begin")
    page.locator(NEWEST).get_by_text("Cancel").click()
    page.wait_for_selector(f"{NEWEST}[data-job=canceled]")


def test_two_persons_of_a_video_are_given_two_faces(
    open_page: OpenPage, gateway: RunningGateway, two_persons: Path
) -> None:
    page = open_page()
    page.set_input_files("#source-files", [photo_path("newton"), photo_path("gauss")])
    page.wait_for_selector("#sources li:nth-child(2) img")
    page.set_input_files("#target-files", two_persons)
    page.wait_for_selector("#persons select")
    assert page.inner_text("#persons-state") == "2 persons were found."
    assert page.locator("#persons img").count() == 2
    chosen = page.locator("#persons select")
    for index in range(2):
        chosen.nth(index).select_option(index=index + 1)
    page.click("#show-preview")
    page.wait_for_selector("#after:not([hidden])")
    keep(page, "two-persons")
    check_for_barriers(page)
    page.click("#begin")
    page.wait_for_selector(f"{NEWEST}[data-job=succeeded] video", state="attached")
    with gateway.client() as client:
        job = next(job for job in client.get("/v1/jobs").json()["jobs"] if job["kind"] == "video")
        report = client.get(job["outputs"][1]["href"]).text.splitlines()
    assert job["result"]["summary"]["frames"] == 48
    verdicts = [json.loads(line)["faces"] for line in report[:-1]]
    assert all(sum(face["swapped"] for face in faces) == 2 for faces in verdicts)


def test_a_job_is_gone_on_with_when_the_gateway_was_killed(
    open_page: OpenPage, gateway: RunningGateway, clip: Path
) -> None:
    page = open_page()
    bring(page, "newton", clip)
    page.click("#begin")
    page.wait_for_selector(f"{NEWEST} .numbers >> text=a second")
    gateway.kill()
    gateway.start()
    # Nobody touches the page: its stream comes back by itself.
    page.wait_for_selector(f"{NEWEST}[data-job=succeeded] video", state="attached")


def test_an_error_is_said_to_people(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    text = tmp_path / "notes.png"
    text.write_text("no picture at all")
    page.set_input_files("#source-files", text)
    page.wait_for_selector("#alert:not([hidden])")
    assert "neither a photo nor a video" in page.inner_text("#alert")
    keep(page, "error")
    check_for_barriers(page)


def test_the_camera_comes_back_swapped(open_page: OpenPage) -> None:
    page = open_page()
    page.set_input_files("#source-files", photo_path("newton"))
    page.wait_for_selector("#sources img")
    page.click("nav a[href='#live']")
    page.click("#live-start")
    page.wait_for_selector("#live-state >> text=/\\d+ ms delay/")
    page.wait_for_timeout(2000)
    assert page.eval_on_selector("#swapped", "canvas => [canvas.width, canvas.height]") == [
        640, 360,
    ]  # fmt: skip
    keep(page, "live")
    check_for_barriers(page)
    page.click("#live-stop")
    assert page.inner_text("#live-state") == "The camera is off."


def test_it_works_by_keyboard_on_a_telephone_in_the_dark(open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, color_scheme="dark")
    bring(page, "newton", photo_path("gauss"))
    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not wide, "the page is wider than the screen"
    page.focus("#show-preview")
    page.keyboard.press("Enter")
    page.wait_for_selector("#after:not([hidden])")
    keep(page, "telephone")
    check_for_barriers(page)
    page.focus("#begin")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{NEWEST}[data-job=succeeded]")
    check_for_barriers(page)
