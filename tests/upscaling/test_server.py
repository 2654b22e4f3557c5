"""The page of ``realsr.app`` in headless Chromium, with real uploads: what it shows, gives, asks for and leaves."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import save_compact, scene
from PIL import Image
from spandrel.architectures.Compact import Compact

from realsr.app import _run as run
from realsr.imaging import Photo, read_image, to_uint, write_image
from realsr.networks.tiling import Tiles
from realsr.runtime.errors import InputError
from realsr.upscaling.backends import load_model
from realsr.upscaling.files import upscale_file
from realsr.upscaling.server import free_port

TILES = Tiles(24, 8)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, photos, and where the server makes its folder."""
    folder = tmp_path_factory.mktemp("app")
    torch.manual_seed(0)
    save_compact(Compact(num_feat=48, num_conv=16), folder / "model.ckpt")  # takes seconds for slow.png
    rgb = to_uint(scene(40, 56), np.uint16)
    alpha = np.linspace(0, 65535, 56).round().astype(np.uint16)[None].repeat(40, 0)
    write_image(folder / "deep & small.png", Photo(rgb, alpha))
    write_image(folder / "wide.jpg", Photo(to_uint(scene(32, 520, 1))))
    write_image(folder / "huge.png", Photo(np.zeros((800, 800, 3), np.uint8)))
    write_image(folder / "slow.png", Photo(np.zeros((700, 700, 3), np.uint8)))
    write_image(folder / "strip.png", Photo(np.zeros((1, 5000, 3), np.uint8)))
    (folder / "text.png").write_text("no picture " * 100)
    (folder / "heavy.png").write_bytes(bytes(1_200_000))
    (folder / "tmp").mkdir()
    (folder / "cwd").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """The command, and the address that it says."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'realsr[app]'")
    port = free_port("127.0.0.1", 0)
    limits = [f"port={port}", "max_megabytes=1", "max_megapixels=0.5", "tile=24", "overlap=8"]
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
    assert re.fullmatch(r"loading .*model\.ckpt and a page to try it on photos\n", process.stdout.readline())
    said = process.stdout.readline()
    found = re.search(r"model\.ckpt on cpu: open (http://127\.0\.0\.1:" + str(port) + ")/", said)
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
        page.set_default_timeout(30_000)
        page.on(
            "request",
            lambda request: request.url.startswith((server[1], "data:", "blob:")) or wrong.append(request.url),
        )
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("response", lambda answer: answer.status >= 400 and wrong.append(f"{answer.status} {answer.url}"))
        page.goto(server[1])
        page.locator("#photo input[type=file]").wait_for(state="attached")
        return page

    make.wrong = wrong
    yield make
    for context in contexts:
        context.close()
    assert wrong == []


def files(folder):
    """What there is of anybody in the server's folder."""
    return sorted(name for _, _, names in os.walk(folder / "tmp") for name in names)


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
    page.get_by_text("deep & small.png: 56 × 40 pixels").wait_for()
    enlarge(page)
    page.get_by_text("224 × 160 pixels").wait_for()
    name, content = download(page)
    assert name == "deep & small_x4.png"
    upscale_file(folder / "deep & small.png", folder / "expected.png", load_model(folder / "model.ckpt"), tiles=TILES)
    assert content == (folder / "expected.png").read_bytes()
    result = read_image(folder / "expected.png")
    assert (result.rgb.dtype, result.rgb.shape, result.alpha is None) == (np.uint16, (160, 224, 3), False)

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


def test_a_large_result_is_shown_reduced_and_in_detail_and_another_format_and_size_are_given(open_page, folder):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    drop(page, folder / "wide.jpg")
    enlarge(page)
    page.get_by_text("2080 × 128 pixels").wait_for()
    size = "all => all.map(one => [one.naturalWidth, one.naturalHeight])"
    assert wait_for(lambda: page.locator("#slider img").evaluate_all(size) == [[768, 128]] * 2)
    page.get_by_label("whole photo, reduced to 1/2").check()
    assert wait_for(lambda: page.locator("#slider img").evaluate_all(size) == [[1040, 64]] * 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_label("2 ×").check()
    page.get_by_label("JPEG").check()
    page.get_by_role("button", name="Enlarge").click()
    page.get_by_text("1040 × 64 pixels").wait_for()
    assert not page.get_by_label("whole photo").is_visible()
    name, content = download(page)
    image = Image.open(io.BytesIO(content))
    assert (name, image.format, image.size) == ("wide_x2.jpg", "JPEG", (1040, 64))
    drop(page, folder / "deep & small.png")
    page.get_by_text("deep & small.png: 56 × 40 pixels").wait_for()
    assert files(folder) == ["deep & small.png"]
    assert not page.get_by_role("button", name="Download").is_visible()


def test_what_cannot_be_enlarged_is_said_in_the_page_which_goes_on(open_page, folder):
    page = open_page()
    status, button = page.locator("#status"), page.get_by_role("button", name="Enlarge")
    drop(page, folder / "heavy.png")
    page.get_by_text("exceed the maximum allowed size of 1.0 Mb").wait_for()
    drop(page, folder / "text.png")
    page.get_by_role("alert").get_by_text("text.png: its content is no image that can be read").wait_for()
    drop(page, folder / "huge.png")
    page.get_by_text("huge.png: has 0.64 megapixels, at most 0.5").wait_for()
    assert files(folder) == []
    assert button.is_disabled()
    whole = (folder / "wide.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    drop(page, folder / "cut.jpg")
    button.click()
    status.get_by_role("alert").wait_for()
    assert status.inner_text().startswith("cut.jpg: ")
    drop(page, folder / "strip.png")
    page.get_by_text("5000 × 1 pixels").wait_for()
    page.get_by_label("WebP").check()
    button.click()
    page.get_by_text("strip_x4.webp: 20000 x 4 pixels are more than").wait_for()
    page.get_by_label("PNG").check()
    enlarge(page)
    # Gradio asks how far the upload is that it has refused
    refused = re.compile(r"upload_progress|status of 404 \(Not Found\)$|^Response$")
    open_page.wrong[:] = [what for what in open_page.wrong if not refused.search(what)]


def test_one_photo_at_a_time_until_it_is_done_or_stopped_or_its_page_is_closed(open_page, folder):
    first, second = open_page(), open_page()

    def begin_long_work():
        first.get_by_role("button", name="Enlarge").click()
        first.get_by_text(re.compile(r"Enlarging slow\.png - \d")).wait_for()
        second.get_by_role("button", name="Enlarge").click()
        second.get_by_text("queue: ").wait_for()
        assert not second.get_by_text("Enlarging").is_visible()

    drop(first, folder / "slow.png")
    drop(second, folder / "wide.jpg")
    begin_long_work()
    first.get_by_role("button", name="Stop").click()
    first.get_by_text("Stopped.").wait_for()
    second.get_by_text(" MB").wait_for()
    assert download(second)[0] == "wide_x4.png"
    begin_long_work()
    first.close()
    second.get_by_text(" MB").wait_for()
    assert wait_for(lambda: "slow.png" not in files(folder))
    assert len(files(folder)) == 6  # photo, result, four pictures


def test_no_file_is_served_but_the_page_s_own_and_by_its_own_name(server, folder):
    address, root = server[1], next((folder / "tmp").iterdir())
    closed = [f"gradio_api/file={folder / 'wide.jpg'}", "gradio_api/file=/etc/hosts", f"gradio_api/file={root}/%00"]
    closed += [f"gradio_api/file={root}/../../wide.jpg", "gradio_api/proxy=http://example.com/"]
    closed += ["monitoring/summary", "gradio_api/call/enlarge"]
    assert call(f"{address}/") == 200
    assert {path for path in closed if not 400 <= call(f"{address}/{path}") < 500} == set()
    assert call(f"{address}/", Host="example.com") == 400
    assert root.stat().st_mode & 0o777 == 0o700
    assert list((folder / "cwd").iterdir()) == []


@pytest.mark.parametrize("place", ["/etc/hosts", "PHOTO", "ROOT/../../wide.jpg"])
def test_a_function_takes_no_file_but_uploads(server, folder, place):
    place = place.replace("ROOT", str(next((folder / "tmp").iterdir()))).replace("PHOTO", str(folder / "wide.jpg"))
    data = {"path": place, "url": place, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [data], "fn_index": 0, "session_hash": "abc"}).encode()
    request = urllib.request.Request(f"{server[1]}/gradio_api/run/predict", body, {"Content-Type": "application/json"})
    assert wait_for(lambda: files(folder) == [])  # of the pages that other tests have closed
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=10)
    assert any("InvalidPathError: Cannot move" in line for line in iter(server[0].stdout.readline, ""))
    assert (folder / "wide.jpg").exists() and files(folder) == []


def test_nothing_stays_when_the_command_is_ended_in_the_middle_of_work(open_page, server, folder):
    process, _ = server
    page = open_page()
    drop(page, folder / "slow.png")
    page.get_by_role("button", name="Enlarge").click()
    page.get_by_text(re.compile(r"Enlarging slow\.png - \d")).wait_for()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    assert process.stdout.read() == "realsr: interrupted; photos and results are deleted\n"
    assert list((folder / "tmp").iterdir()) == []
    page.close()
    open_page.wrong.clear()  # the browser has said that the server is gone


def test_a_port_that_is_in_use_is_said_and_without_one_the_next_is_taken(monkeypatch):
    real = socket.getaddrinfo
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port={port}: Address already in use; give another"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", port) == port
    first = free_port("127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", first)):
        assert first < free_port("127.0.0.1", 0) < 7960
    for host in ("256.1.1.1", "192.0.2.1"):
        with pytest.raises(InputError, match=f"host={host} port=7860: "):
            free_port(host, 7860)
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **_: asked.append(port) or real(host, port))
    with pytest.raises(InputError, match=r"host=999\.1\.1\.1 port=7860: "):
        free_port("999.1.1.1", 0)
    assert len(asked) == 1
    for no_port in (99999, -1):
        with pytest.raises(InputError, match=f"port={no_port}: give a number"):
            free_port("127.0.0.1", no_port)


def test_a_quality_out_of_range_is_refused_before_the_page_opens(compose):
    with pytest.raises(InputError, match="quality=0: give 1 to 100"):
        run(compose("app", "ckpt=x", "quality=0"))


def test_a_password_has_a_name(compose):
    for wrong in ("me", ":secret", "me:"):
        with pytest.raises(InputError, match="auth: give NAME:PASSWORD"):
            run(compose("app", "ckpt=x", f"auth='{wrong}'"))


def test_without_gradio_one_line_says_what_to_install(folder, compose, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError) as error:
        run(compose("app", f"ckpt={folder / 'model.ckpt'}"))
    assert str(error.value) == "the page needs the package gradio: pip install 'realsr[app]'"


def test_an_upload_is_taken_once_and_a_page_that_is_closed_leaves_nothing(tmp_path):
    from realsr.upscaling.app_page import Actions

    actions = Actions(None, tmp_path / "root", {}, 24)
    (tmp_path / "root").mkdir()
    upload = tmp_path / "root" / "a.png"
    write_image(upload, Photo(np.zeros((8, 9, 3), np.uint8)))
    mine, other = (SimpleNamespace(session_hash=name) for name in ("../../me", "other"))
    _, source, line, *_ = actions.take({"path": str(upload)}, mine)
    assert Path(source).parent.parent == tmp_path / "root" and "a.png: 9 × 8 pixels" in line
    assert "a.png: No such file" in actions.take({"path": str(upload)}, other)[2]
    actions.begin(mine)
    stop = actions.stops[mine.session_hash]
    actions.leave(mine)
    assert stop.is_set() and list((tmp_path / "root").iterdir()) == []
    assert "drop it again" in actions.enlarge({"path": source}, 4, "PNG", mine)[0]
