"""The page of an evaluation in a browser: it opens from disk, and mouse, keyboard and touch do what they should."""

from __future__ import annotations

import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from test_evaluation_report import COLOURS, ODD, REALSR, write

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'realsr[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome in PATH")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "a report.html"
    write(path, time="x" * 300)
    return path


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context_of(browser, report):
    """``context_of(**options)``: a page of an own context, and what it wrongly said or asked the network for."""

    def make(**options):
        wrong = []

        def only_the_report(route):
            if route.request.url == report.as_uri():
                route.continue_()
            else:
                wrong.append(route.request.url)
                route.abort()

        context = browser.new_context(**options)
        context.route("**/*", only_the_report)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        return page, wrong

    return make


@pytest.fixture(scope="module")
def desktop(context_of):
    return context_of(viewport={"width": 1280, "height": 900})


@pytest.fixture
def page(desktop, report):
    """The report, opened anew from disk; in the end, there was no error and nothing else was asked for."""
    page, wrong = desktop
    page.goto("about:blank")
    page.goto(report.as_uri())
    yield page
    assert wrong == []


def seen(page, photo=1):
    """The methods by their colours at 10, 30, 70 and 90 % of the width, above the middle."""
    page.mouse.move(0, 0)
    stage = np.asarray(Image.open(io.BytesIO(page.locator(f"#photo-{photo} .stage").screenshot())).convert("RGB"))
    height, width = stage.shape[:2]
    names, colours = list(COLOURS), np.array(list(COLOURS.values()))
    pixels = (stage[height // 4, int(part * width)] for part in (0.1, 0.3, 0.7, 0.9))
    return [names[int(np.abs(colours - pixel).sum(1).argmin())] for pixel in pixels]


def drag(page, start, end, photo=1):
    """With the mouse, between places in parts of the stage's width and height."""
    stage = page.locator(f"#photo-{photo} .stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    points = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=4)
    page.mouse.up()


def line(page, photo=1):
    return float(page.locator(f"#photo-{photo} .stage input").input_value())


def part_seen(page, photo=1):
    """``(zoom, x, y)`` of both visible pictures, measured where they are drawn; they must agree."""
    boxes = page.evaluate(
        """photo => {
            const stage = document.querySelector(`#photo-${photo} .stage`);
            const at = stage.getBoundingClientRect();
            return [...stage.querySelectorAll("figure.left img, figure.right img")].map(img => {
                const box = img.getBoundingClientRect();
                return [box.width / at.width, (at.x - box.x) / box.width, (at.y - box.y) / box.height];
            });
        }""",
        photo,
    )
    assert len(boxes) == 2 and boxes[0] == boxes[1]
    return boxes[0]


def column(page, number, metric="psnr"):
    """Texts of a column of the list, from top to bottom."""
    return page.locator(f'[data-key="{metric}"] tbody td:nth-child({number})').all_inner_texts()


# -- it opens --------------------------------------------------------------------------------------------------------


def test_all_pictures_load_when_they_come_into_sight(page):
    for method in COLOURS:
        page.select_option("#all select.left", method)
        for image in page.locator("img:visible").all():
            image.scroll_into_view_if_needed()
    page.wait_for_function("[...document.images].every(image => image.complete)")
    widths = page.evaluate("[...document.images].map(image => [image.naturalWidth, image.getAttribute('width')])")
    assert len(widths) == 15 and all(natural == int(given) for natural, given in widths)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_lies_beside_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for photo in (1, 2, 3):
        box = page.locator(f"#photo-{photo} .stage").bounding_box()
        assert box["x"] > 0 and box["x"] + box["width"] < width and box["height"] < 900
        assert box["width"] / box["height"] == pytest.approx(96 / 64, rel=0.01)
    page.set_viewport_size({"width": 1280, "height": 900})


# -- the line --------------------------------------------------------------------------------------------------------


def test_it_opens_with_the_first_and_the_last_method(page):
    assert seen(page) == ["bicubic", "bicubic", REALSR, REALSR]
    assert "PSNR 25.00" in page.inner_text("#photo-1 .captions .left")
    assert "LPIPS 0.1000" in page.inner_text("#photo-1 .captions .right")


def test_the_mouse_moves_the_line(page):
    drag(page, (0.5, 0.5), (0.2, 0.6))
    assert line(page) == pytest.approx(20, abs=0.5)
    assert seen(page) == ["bicubic", REALSR, REALSR, REALSR]
    drag(page, (0.6, 0.1), (1.2, 0.1))  # from elsewhere, and beyond the edge
    assert line(page) == 100
    assert seen(page) == ["bicubic"] * 4
    assert line(page, 2) == 50


def test_the_keyboard_moves_the_line_and_the_focus_is_seen(page):
    outline = "stage => getComputedStyle(stage).outlineStyle"
    stage = page.locator("#photo-1 .stage")
    page.focus("#photo-1 .zoom button:last-of-type")
    page.keyboard.press("Tab")
    assert stage.evaluate(outline) == "none"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "range"
    assert stage.evaluate(outline) == "solid"
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    assert line(page) == 47
    page.keyboard.press("Home")
    assert seen(page) == [REALSR] * 4
    page.keyboard.press("End")
    assert seen(page) == ["bicubic"] * 4
    given = stage.locator("input").evaluate("line => [line.ariaLabel, line.ariaValueText]")
    assert given == [f"photo1: bicubic to {REALSR}", "100 % bicubic"]


def test_touch_moves_the_line(context_of, report):
    phone = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    page, wrong = context_of(viewport={"width": 390, "height": 844}, **phone)
    page.goto(report.as_uri())
    assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    page.locator("#photo-1 .stage").scroll_into_view_if_needed()
    box = page.locator("#photo-1 .stage").bounding_box()
    page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + 0.5 * box["height"])
    assert line(page) == pytest.approx(80, abs=0.5)
    assert seen(page) == ["bicubic"] * 3 + [REALSR]
    assert wrong == []


# -- methods ---------------------------------------------------------------------------------------------------------


def test_a_photo_s_picker_changes_its_picture_alone(page):
    page.select_option("#photo-1 select.right", "zssr")
    assert seen(page) == ["bicubic", "bicubic", "zssr", "zssr"]
    assert "PSNR 26.50" in page.inner_text("#photo-1 .captions .right")
    page.select_option("#photo-1 select.left", "zssr")
    assert seen(page) == ["zssr"] * 4
    assert seen(page, 2) == ["bicubic", "bicubic", REALSR, REALSR]


def test_the_page_s_pickers_change_all_photos_that_have_the_method(page):
    page.select_option("#all select.left", "zssr")
    page.select_option("#all select.right", "LR")
    assert seen(page, 1) == seen(page, 2) == ["zssr", "zssr", "LR", "LR"]
    assert seen(page, 3) == ["bicubic", "bicubic", "LR", "LR"]
    assert page.locator("#photo-3 h3").inner_text() == ODD


# -- zoom ------------------------------------------------------------------------------------------------------------


def test_buttons_zoom_both_sides_about_the_middle(page):
    assert part_seen(page) == pytest.approx([1, 0, 0])
    page.click("#photo-1 [aria-label='Zoom in']")
    page.click("#photo-1 [aria-label='Zoom in']")
    assert part_seen(page) == pytest.approx([4, 0.375, 0.375], abs=1e-4)
    assert part_seen(page, 2) == pytest.approx([1, 0, 0])
    rendered = page.locator("#photo-1 figure.left img").evaluate("img => getComputedStyle(img).imageRendering")
    assert rendered == "pixelated"
    width = page.locator("#photo-1 .stage").bounding_box()["width"]
    assert page.inner_text("#photo-1 .zoom output") == f"{round(400 * width / 96)} %"
    page.click("#photo-1 [aria-label='Zoom out']")
    assert part_seen(page)[0] == pytest.approx(2)
    page.click("#photo-1 .zoom button:last-of-type")
    assert part_seen(page) == pytest.approx([1, 0, 0])


def test_keys_zoom_and_move(page):
    page.focus("#photo-1 .stage input")
    for key in ("+", "="):
        page.keyboard.press(key)
    page.keyboard.press("-")
    assert part_seen(page) == pytest.approx([2, 0.25, 0.25], abs=1e-4)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    assert part_seen(page) == pytest.approx([2, 0.26, 0.24], abs=1e-4)
    assert line(page) == 50
    page.keyboard.press("0")
    assert part_seen(page) == pytest.approx([1, 0, 0])


def test_the_wheel_scrolls_until_a_picture_is_clicked_and_then_zooms_about_the_pointer(page):
    page.locator("#photo-1 .stage").scroll_into_view_if_needed()
    box = page.locator("#photo-1 .stage").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    scrolled = page.evaluate("scrollY")
    page.mouse.wheel(0, -40)
    page.wait_for_function(f"scrollY === {scrolled - 40}")
    assert part_seen(page)[0] == 1
    box = page.locator("#photo-1 .stage").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.up()
    page.mouse.wheel(0, -400)
    page.wait_for_function("document.querySelector('#photo-1 .stage').classList.contains('zoomed')")
    zoom, x, y = part_seen(page)
    assert zoom == pytest.approx(2, rel=1e-3)
    assert (x + 0.25 / zoom, y + 0.5 / zoom) == pytest.approx((0.25, 0.5), abs=2e-3)
    assert page.evaluate("scrollY") == scrolled - 40


def test_a_zoomed_picture_is_dragged_up_to_its_edge_and_the_line_beside_it(page):
    page.click("#photo-1 [aria-label='Zoom in']")
    drag(page, (0.8, 0.5), (0.7, 0.7))
    assert part_seen(page) == pytest.approx([2, 0.3, 0.15], abs=3e-3)
    assert line(page) == 50
    drag(page, (0.1, 0.1), (0.9, 0.9))
    assert part_seen(page) == pytest.approx([2, 0, 0], abs=1e-4)
    drag(page, (0.5, 0.2), (0.25, 0.2))
    assert line(page) == pytest.approx(25, abs=0.5)
    assert part_seen(page) == pytest.approx([2, 0, 0], abs=1e-4)


def test_all_photos_zoom_together_if_wanted(page):
    page.check("#together")
    page.click("#photo-2 [aria-label='Zoom in']")
    drag(page, (0.8, 0.5), (0.7, 0.7), 2)
    assert part_seen(page, 1) == part_seen(page, 3) == pytest.approx(part_seen(page, 2), abs=1e-3)
    assert part_seen(page, 1)[0] == pytest.approx(2)


# -- the list --------------------------------------------------------------------------------------------------------


def test_the_list_is_sorted_by_value_and_missing_values_are_last(page):
    heads = page.locator('[data-key="psnr"] th')
    zssr = heads.nth(2)
    zssr.locator("button").click()
    assert zssr.get_attribute("aria-sort") == "ascending"
    assert column(page, 3) == ["26.50", "∞", "NaN", "–"]
    zssr.locator("button").click()
    assert zssr.get_attribute("aria-sort") == "descending"
    assert column(page, 3) == ["∞", "26.50", "NaN", "–"]
    heads.nth(5).locator("button").focus()
    page.keyboard.press("Enter")
    assert column(page, 6) == ["−∞", "−1.00", "+0.25", "+91.00"]
    assert column(page, 1) == ["photo10", "photo1", "photo2", ODD]
    assert [head.get_attribute("aria-sort") for head in heads.all()] == [None] * 5 + ["ascending"]
    page.keyboard.press("Space")
    assert column(page, 5) == ["100.00", "31.50", "24.00", "20.00"]


def test_photos_are_sorted_as_people_count(page):
    page.click('[data-key="psnr"] th:first-child button')
    names = [name for name in column(page, 1) if name != ODD]
    assert names == ["photo1", "photo2", "photo10"]


def test_the_picker_chooses_the_metric(page):
    lists = page.locator(".metric")
    assert [part.is_visible() for part in lists.all()] == [True, False, False]
    page.select_option("#metric", "lpips")
    assert [part.is_visible() for part in lists.all()] == [False, True, False]
    assert column(page, 2, "lpips")[0] == "0.4000"


def test_a_row_leads_to_its_photo(page):
    page.click('[data-key="psnr"] a >> text=photo2')
    page.wait_for_function("Math.abs(document.querySelector('#photo-2').getBoundingClientRect().top) < 100")
    assert page.locator("#photo-2 h3").inner_text() == "photo2"


# -- without a script, and on paper ----------------------------------------------------------------------------------


def stand_beside_each_other(page):
    """All pictures, with their values, and no control is left."""
    seen = "(parts) => [...document.querySelectorAll(parts)].map(part => part.checkVisibility())"
    assert page.evaluate(seen, ".stage figure, .stage img, .stage figcaption") == [True] * 33
    assert not any(page.evaluate(seen, "select, input, .zoom, #all, .captions"))
    corners = """[...document.querySelectorAll("#photo-1 .stage img")].map(image => {
        const box = image.getBoundingClientRect();
        return [box.x, box.y];
    })"""
    assert len({tuple(corner) for corner in page.evaluate(corners)}) == 4
    assert "PSNR 26.50" in page.locator("#photo-1 figcaption").nth(2).inner_text()


def test_without_a_script_the_pictures_stand_beside_each_other(context_of, report):
    page, wrong = context_of(java_script_enabled=False)
    page.goto(report.as_uri())
    stand_beside_each_other(page)
    assert [part.is_visible() for part in page.locator(".metric").all()] == [True] * 3
    assert wrong == []


def test_on_paper_the_pictures_stand_beside_each_other(page):
    page.click("#photo-1 [aria-label='Zoom in']")
    page.emulate_media(media="print")
    stand_beside_each_other(page)
    images = [int(size) for size in re.findall(rb"/Subtype /Image\n/Width (\d+)", page.pdf())]
    assert images.count(96) >= 4
    page.emulate_media(media="screen")
