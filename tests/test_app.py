"""The page of ``realsr.app`` in headless Chromium, with real uploads: what it shows, gives, asks for and leaves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from conftest import scene

from realsr.images import Photo, to_uint, write_image
from realsr.networks.compact import CompactRRDBNet

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, photos, and where the server makes its folder."""
    folder = tmp_path_factory.mktemp("app")
    torch.manual_seed(0)
    network = CompactRRDBNet(features=8)
    for parameter in network.parameters():  # else it is bilinear
        parameter.data += 0.02 * torch.randn_like(parameter)
    target = {"_target_": "realsr.networks.compact.CompactRRDBNet", "features": 8}
    weights = {f"generator.{key}": value for key, value in network.state_dict().items()}
    torch.save({"config": {"model": {"generator": target}}, "state_dict": weights}, folder / "model.ckpt")
    rgb = to_uint(scene(40, 56), np.uint16)
    alpha = np.linspace(0, 65535, 56).round().astype(np.uint16)[None].repeat(40, 0)
    write_image(folder / "deep & small.png", Photo(rgb, alpha))
    write_image(folder / "wide.jpg", Photo(to_uint(scene(64, 640, 1))))
    write_image(folder / "huge.png", Photo(np.zeros((500, 500, 3), np.uint8)))
    (folder / "text.png").write_text("no picture " * 100)
    (folder / "heavy.png").write_bytes(bytes(1_200_000))
    (folder / "tmp").mkdir()
    (folder / "cwd").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """The command, and the address that it says."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'realsr[app]'")
    limits = ["max_megabytes=1", "max_megapixels=0.2", "tile=16", "overlap=8"]
    # what would open it or send something elsewhere if Gradio heard of it
    own = {
        "GRADIO_SHARE": "True",
        "GRADIO_ALLOWED_PATHS": "/",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "realsr.app", f"ckpt={folder / 'model.ckpt'}", *limits],
        cwd=folder / "cwd",
        env={**os.environ, **own, "TMPDIR": str(folder / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = process.stdout.readline()
    found = re.search(r"model\.ckpt on cpu: open (http://127\.0\.0\.1:\d+)/", said)
    assert found, said + process.stdout.read()
    yield process, found[1]
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'realsr[dev]'"
    )
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome in PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """``open_page(**options)``: the page; in the end, it had no errors and asked for nothing elsewhere."""
    wrong, contexts = [], []

    def make(**options):
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on(
            "request",
            lambda request: request.url.startswith((server[1], "data:", "blob:")) or wrong.append(request.url),
        )
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("response", lambda answer: answer.status >= 400 and wrong.append((answer.status, answer.url)))
        page.goto(server[1])
        page.locator("#photo input[type=file]").wait_for(state="attached")
        return page

    yield make
    for context in contexts:
        context.close()
    assert wrong == []


def files(folder):
    """What there is of anybody in the server's folder."""
    return sorted(path.name for path in (folder / "tmp").rglob("*") if path.is_file())


def wait_for(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def drop(page, photo):
    page.locator("#photo input[type=file]").set_input_files(photo)


def enlarge(page):
    page.get_by_role("button", name="Enlarge").click()
    page.get_by_text(" MB").wait_for()


def download(page):
    with page.expect_download() as info:
        page.get_by_role("button", name="Download").click()
    return info.value.suggested_filename, info.value.path().read_bytes()


def divided_at(page):
    """Where the pictures before and after meet, in parts of the width, by what is seen."""
    after = page.locator("#slider img").nth(1)
    return float(re.search(r"inset\(0px 0px 0px ([\d.]+)%\)", after.get_attribute("style"))[1]) / 100


def call(address, **headers):
    """Status of a request by somebody who is no browser."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as e:
        return e.code


def test_a_photo_is_enlarged_compared_and_downloaded_and_nothing_stays(open_page, folder):
    page = open_page(viewport={"width": 1280, "height": 900})
    assert page.get_by_role("button", name="Enlarge").is_disabled()
    drop(page, folder / "deep & small.png")
    page.get_by_text("56 × 40 pixels").wait_for()
    enlarge(page)
    page.get_by_text("224 × 160 pixels").wait_for()
    name, content = download(page)
    assert name == "deep & small_x4.png"
    out = folder / "out"
    # EXPECTED
    assert content == (out / "deep & small.png").read_bytes()

    pictures = page.locator("#slider img")
    assert pictures.evaluate_all("all => all.map(one => [one.naturalWidth, one.naturalHeight])") == [[224, 160]] * 2
    assert divided_at(page) == pytest.approx(0.5, abs=0.02)
    page.get_by_role("slider", name="Before | After").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert wait_for(lambda: divided_at(page) == pytest.approx(0.7, abs=0.02))
    box, middle = page.locator("#slider img").first.bounding_box(), page.locator("#slider [data-testid=slider] .inner")
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 20, steps=4)
    page.mouse.up()
    assert middle.count() == 1
    assert wait_for(lambda: divided_at(page) == pytest.approx(0.2, abs=0.03))

    assert "deep & small_x4.png" in files(folder)
    page.close()
    assert wait_for(lambda: files(folder) == [])
