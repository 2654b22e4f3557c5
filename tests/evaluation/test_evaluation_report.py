"""The page of an evaluation as it is written: whole, right, escaped, one file. A browser reads it in another file."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from realsr.evaluation.evaluation_report import Views, report_evaluation
from realsr.evaluation.tables import MEASURES

ODD = '<b>a & b\'s "photo"`x`</td> äöü 写真.png' + 120 * "x"
REALSR = "realsr:outputs/2020-06-14_noise/checkpoints/a_run's <last>.ckpt"
COLOURS = {"LR": (90, 90, 90), "bicubic": (200, 0, 0), "zssr": (0, 160, 0), REALSR: (0, 0, 200)}
RESULTS = {
    "bicubic": {
        "photo1": {"psnr": 25.0, "lpips": 0.4},
        "photo2": {"psnr": 31.25, "lpips": 0.2},
        "photo10": {"psnr": math.inf, "lpips": 0.0},
        ODD: {"psnr": 9.0, "lpips": 0.5},
    },
    "zssr": {
        "photo1": {"psnr": 26.5, "lpips": 0.5},
        "photo2": {"psnr": math.nan, "lpips": 0.3},
        "photo10": {"psnr": math.inf, "lpips": 0.0},
    },
    REALSR: {
        "photo1": {"psnr": 24.0, "lpips": 0.1, "niqe": 7.0},
        "photo2": {"psnr": 31.5, "lpips": 0.2},
        "photo10": {"psnr": 20.0, "lpips": 0.6},
        ODD: {"psnr": 100.0, "lpips": 0.3},
    },
}


class EvaluationPage(Page):
    """What a page with a script says."""

    forbidden = ("link", "iframe")

    def __init__(self, path):
        self.ids, self.links = [], []
        super().__init__(path)

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        given = dict(attrs)
        if "id" in given:
            self.ids.append(given["id"])
        if "href" in given:
            self.links.append(given["href"])
        assert not (tag == "script" and given)


def plain(colour, height=64, width=96):
    return np.full((height, width, 3), colour, np.uint8)


def views(names=("photo1", "photo2", ODD)):
    """A colour for every method, so that what is seen tells which it is; the last photo has no zssr."""
    for name in names:
        pictures = {method: plain(colour) for method, colour in COLOURS.items()}
        if name == ODD:
            del pictures["zssr"]
        yield Views(
            name, pictures, np.eye(8, dtype=np.uint8)[..., None].repeat(3, 2) * 255 if name == "photo2" else None
        )


def write(path, results=RESULTS, shown=None, pools=None, **about):
    summary = [["method", "PSNR", "paper"], *([name, "20.00 [19.00, 21.00]", "–"] for name in results)]
    notes = ["Photos were <compared> with `data.hashes` & nothing was found."]
    pools = {"kernels of it": [plain(9, 8, 8)] * 3} if pools is None else pools
    about = {"command": "`realsr-evaluate 'a b'`", **about}
    report_evaluation(path, "x4 <&>", [summary], notes, views() if shown is None else shown, results, pools, about)
    return EvaluationPage(path)


@pytest.fixture
def page(tmp_path):
    return write(tmp_path / "report.html")


def test_the_page_has_the_summary_notes_pools_and_how_it_was_made(page):
    assert page.tables[0] == [
        ["method", "PSNR", "paper"],
        *([name, "20.00 [19.00, 21.00]", "–"] for name in RESULTS),
    ]
    said = " ".join(page.text.split())
    assert "Photos were <compared> with data.hashes & nothing was found." in said
    assert "realsr-evaluate 'a b'" in said
    assert [image["alt"] for image in page.images][-3:] == ["kernels of it, 1", "kernels of it, 2", "kernels of it, 3"]


def test_the_list_has_every_photo_and_the_difference_from_the_first_method(page):
    (rows,) = (rows for rows in page.tables if len(rows) == 5 and rows[1][1] == "25.00")
    assert rows[0][0::2][0] == "photo" and [rows[0][i] for i in (1, 2, 4)] == list(RESULTS)
    assert rows[1:] == [
        ["photo1", "25.00", "26.50", "+1.50", "24.00", "−1.00"],
        ["photo2", "31.25", "NaN", "NaN", "31.50", "+0.25"],
        ["photo10", "∞", "∞", "+0.00", "20.00", "−∞"],
        [ODD, "9.00", "–", "–", "100.00", "+91.00"],
    ]


def test_a_difference_that_is_not_seen_is_neither_a_gain_nor_a_loss(tmp_path):
    page = write(tmp_path / "page.html", {"bicubic": {"p": {"psnr": 25.0}}, "zssr": {"p": {"psnr": 24.999}}}, [])
    assert page.tables[1][1] == ["p", "25.00", "25.00", "+0.00"]
    assert '<data value="-0.001" class="same">+0.00</data>' in page.source


@pytest.mark.parametrize(("key", "best"), [("psnr", {26.5, 31.5, math.inf, 100.0}), ("lpips", {0.1, 0.2, 0.0, 0.3})])
def test_the_best_value_of_a_photo_is_bold(page, key, best):
    (listed,) = (part for part in page.source.split('<div class="metric" data-key="')[1:] if part.startswith(f'{key}"'))
    written = {MEASURES[key].written(value) for value in best}
    bold = [part.split("</b>")[0] for part in listed.split("</table>")[0].split("<b>")[1:]]
    assert set(bold) == written


def test_values_are_coloured_by_what_is_better(page):
    looks = {}
    for key in ("psnr", "lpips"):
        part = page.source.split(f'data-key="{key}"')[1].split("</tr>")[1]
        looks[key] = [look.split('"')[0] for look in part.split('class="')[1:] if look[0] in "gls"]
    assert looks == {"psnr": ["gain", "loss"], "lpips": ["loss", "gain"]}


def test_every_picture_is_held_once_at_its_size_and_looks_as_given(page):
    alts = [image["alt"] for image in page.images]
    assert len(alts) == len(set(alts)) == 4 + 4 + 3 + 1 + 3
    for image in page.images:
        kind, data = image["src"].split(";base64,")
        decoded = Image.open(io.BytesIO(base64.b64decode(data)))
        assert f"data:image/{decoded.format.lower()}" == kind
        assert decoded.size == (int(image["width"]), int(image["height"]))
        assert (image["loading"], image["decoding"]) == ("lazy", "async")
        method = image["alt"].partition(": ")[2]
        if method in COLOURS:
            assert kind == "data:image/webp" and decoded.size == (96, 64)
            np.testing.assert_allclose(np.asarray(decoded.convert("RGB"))[32, 48], COLOURS[method], atol=4)


def test_rows_lead_to_the_photos_that_are_shown(page):
    targets = ["#photo-1", "#photo-2", "#photo-3"]
    assert [link for link in page.links] == targets * 3  # of every metric's list
    assert {link[1:] for link in targets} <= set(page.ids) and len(page.ids) == len(set(page.ids))
    assert "3 of 4 photos." in page.text


def test_the_page_needs_no_other_file(page, tmp_path):
    assert "http" not in page.source and "@import" not in page.source and "url(" not in page.source
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_same_page_is_written_from_the_same(page, tmp_path):
    assert write(tmp_path / "again.html").source == page.source


def test_photos_are_taken_one_at_a_time(tmp_path):
    """So that a hundred photos of seven methods need not lie in memory."""
    alive = []

    def watched():
        for view in views(["a", "b", "c"]):
            picture = plain((1, 2, 3))
            alive.append(picture)
            yield Views(view.name, {"bicubic": picture})
            assert len(alive) == 1
            alive.clear()

    write(tmp_path / "page.html", shown=watched())
    assert not alive


def test_without_ground_truth_pictures_or_pools_the_rest_is_there(tmp_path):
    bare = write(tmp_path / "bare.html", {"bicubic": {}, "zssr": {}}, [], {})
    assert bare.images == [] and len(bare.tables) == 1
    one = write(tmp_path / "one.html", {"bicubic": {}}, views(["p"]), {})
    assert [image["alt"] for image in one.images] == [f"p: {method}" for method in COLOURS]
    assert "of 0 photos" not in one.text
