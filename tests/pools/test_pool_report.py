"""The page about the pools: well-formed, complete, right, small, and the same whenever nothing has changed."""

from __future__ import annotations

import functools
import io
import logging

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from realsr.collect import _run as run_collect
from realsr.estimate import _run as run_estimate
from realsr.estimation.auto_rule import AutoRule
from realsr.estimation.flatness import without_plane
from realsr.estimation.kernels import gaussian_kernel
from realsr.estimation.noise import REASONS, NoiseRule
from realsr.estimation.patch_matching import PatchMatching
from realsr.imaging import Photo, write_image
from realsr.pools.collect import collect_noise
from realsr.pools.estimate import estimate_kernels
from realsr.pools.folder import Entry
from realsr.pools.pool_report import report_pools
from realsr.reports.html import code, write_page
from realsr.runtime.errors import InputError
from realsr.runtime.files import find_images

ESTIMATOR = functools.partial(PatchMatching, iterations=10)
ODD = '<b>a & b\'s "photo"`x`</td> äöü 写真.png'
LONG = "x" * 230 + ".png"


@pytest.fixture
def photos(photo_folder, tmp_path):
    """Two usable photos, one of an odd name, and what cannot be used: broken, too small, without an edge."""
    folder = photo_folder("photos", 2, 96, 128, noise=0.006)
    (folder / "photo1.png").rename(folder / ODD.replace("/", "_"))
    (folder / "broken.png").write_bytes(b"no picture")
    write_image(folder / "small.png", Photo(np.full((9, 9, 3), 7, np.uint8)))
    write_image(folder / LONG, Photo(np.full((96, 128, 3), 90, np.uint8)))
    return folder


def add_kernel(folder, index, **manifest):
    photo = np.random.default_rng(index).integers(0, 255, (100, 160, 3)).astype(np.uint8)
    arrays = {"x4": gaussian_kernel(33, (3, 2), 0.01 * index, 4), "thumbnail": photo, "density": photo[..., 0]}
    Entry(folder / f"{index:05d}.npz", arrays, {"photo": f"photo{index}.jpg", **manifest}).write()


# -- the two commands ------------------------------------------------------------------------------------------------


def test_both_commands_write_the_same_page_and_name_it(photos, tmp_path, compose, caplog):
    caplog.set_level(logging.INFO)
    common = [f"data.source_dir='{photos}'", f"pool_dir={tmp_path / 'pools'}"]
    common += ["collector=df2k", "collector.tile_size=32", "collector.stride=32"]
    estimate = compose("estimate", *common, "workers=1", "estimator.iterations=10")  # which collects noise first
    collect = compose("collect", *common)
    page = tmp_path / "pools" / "report.html"
    run_estimate(estimate)
    assert caplog.messages[-2] == f"report: {page}"
    assert "There is none yet" not in Page(page).text
    caplog.clear()
    run_collect(collect)
    assert caplog.messages[-2] == f"report: {page}"
    both = page.read_bytes()
    for command, run in ((estimate, run_estimate), (collect, run_collect)):
        page.unlink()
        run(command)
        assert page.read_bytes() == both
    assert not list(page.parent.glob(".*"))


def test_the_page_has_every_photo_and_why_some_gave_nothing(photos, tmp_path):
    pools = tmp_path / "pools"
    estimate_kernels(find_images(photos), pools / "kernels", ESTIMATOR, 4, "cpu")
    collect_noise(find_images(photos), pools / "noise", NoiseRule(32, 32))
    page = Page(pools / "report.html")
    assert {row["photo"] for row in page.table_of("widths")} == {"photo0.png", ODD.replace("/", "_")}
    kernels, noise = (rows[1:] for rows in page.tables if rows[0] == ["photo or file", "reason"])
    assert {name for name, _ in kernels} == {"broken.png", "small.png", LONG}
    assert {name for name, _ in noise} == {"broken.png", "small.png"}
    reasons = dict(kernels)
    assert "9x9 pixels are too few" in reasons["small.png"] and "the photo is flat" in reasons[LONG]
    assert "smaller than a tile of 32 pixels" in dict(noise)["small.png"]
    assert not any(str(photos) in reason for _, reason in (*kernels, *noise))
    assert {row["photo"] for row in page.table_of("tiles", "taken")} == {"photo0.png", ODD.replace("/", "_"), LONG}
    assert "iterations=10" in page.text and "tile_size=32" in page.text


def photo_of_every_kind(seed):
    """36 tiles of 32 pixels: a row for each reason to reject them, and one of noise."""
    rng = np.random.default_rng(seed)
    gray = 150 + 3 * rng.standard_normal((192, 192))
    gray[:32] += 20 * rng.standard_normal((32, 192))
    gray[32:64] -= 90
    gray[64:96] += np.arange(192) % 32 / 2.5
    gray[96:128] += 5 * np.sin(np.arange(192) * 2 * np.pi / 5)
    file = io.BytesIO()
    Image.fromarray(gray[128:160].clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=70)
    gray[128:160] = np.asarray(Image.open(file))
    return gray.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("rule", [NoiseRule(32, 32, 30, 110, 0), NoiseRule(32, 32, 30, 110, 85), AutoRule(stride=32)])
def test_the_counts_are_right(tmp_path, rule):
    """Against the tiles of the photos, by plain numpy; what no plain number says is taken from the pool."""
    for seed in range(3):
        write_image(tmp_path / "photos" / f"{seed}.png", Photo(np.repeat(photo_of_every_kind(seed)[..., None], 3, 2)))
    pool = collect_noise(find_images(tmp_path / "photos"), tmp_path / "pools" / "noise", rule)
    page = Page(tmp_path / "pools" / "report.html")
    rows, totals = page.table_of("tiles", "taken"), page.table_of("reason", "what it says")
    names = [row["reason"] for row in totals]
    for row, path in zip(rows, sorted((tmp_path / "pools" / "noise").glob("*.npz")), strict=True):
        assert row["photo"] == f"{path.name[0]}.png"
        reasons, gray = Entry.read(path).arrays["reason"], photo_of_every_kind(int(path.name[0])).astype(float)
        tiles = [gray[y : y + 32, x : x + 32] for y in range(0, 192, 32) for x in range(0, 192, 32)]
        taken = [tile for tile, reason in zip(tiles, reasons, strict=True) if reason < 2]
        assert (int(row["tiles"]), int(row["taken"])) == (36, len(taken)) and len(taken) == pool.photos.count(
            row["photo"]
        )
        for name in names:
            assert int(row[name]) == (reasons == list(REASONS).index(name)).sum()
        if isinstance(rule, NoiseRule):
            passed = [tile for tile in tiles if tile.var() < 30 and tile.mean() > 110]
            assert len(passed) == len(taken) - int(row.get("added", 0))
        assert row["brightness"] == f"{min(map(np.mean, taken)):.0f} to {max(map(np.mean, taken)):.0f}"
        flat = without_plane(np.stack(taken))
        assert float(row["noise level"]) == pytest.approx(np.sqrt(flat.var((1, 2)).mean()), abs=0.051)
    for total in totals:
        assert int(total["tiles"]) == sum(int(row[total["reason"]]) for row in rows) > 0
    wanted = {"too much variance", "too dark"} if isinstance(rule, NoiseRule) else {"gradient", "stripes", "too strong"}
    assert wanted <= set(names) and ("added" in names) == (getattr(rule, "keep_best", 0) > 0)


def test_where_nothing_was_found_the_page_says_why_all_the_same(photo_folder, tmp_path):
    folder = photo_folder("photos", 2, 96, 96, noise=0.05)
    with pytest.raises(InputError, match="no noise tile"):
        collect_noise(find_images(folder), tmp_path / "pools" / "noise", NoiseRule(32, 32, max_variance=1))
    rows = Page(tmp_path / "pools" / "report.html").table_of("tiles", "taken")
    assert [(row["taken"], row["too much variance"]) for row in rows] == [("0", "9")] * 2
    (folder / "photo0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="no kernel from 1 photo:"):
        estimate_kernels(find_images(folder)[:1], tmp_path / "other" / "kernels", ESTIMATOR, 4, "cpu")
    assert "photo0.png" in Page(tmp_path / "other" / "report.html").text


# -- what lies in the folders ----------------------------------------------------------------------------------------


def test_a_page_without_pools(tmp_path):
    report_pools(tmp_path / "kernels", tmp_path / "noise")
    page = Page(tmp_path / "report.html")
    assert "There are none yet" in page.text and "There is none yet" in page.text


def test_the_page_of_many_photos_is_small_and_shows_the_least_sure(tmp_path):
    sure = np.random.default_rng(0).permutation(400) / 400
    for index, confidence in enumerate(sure):
        add_kernel(tmp_path / "kernels", index, confidence=confidence, reasons=["reason <&>"], settings={"seed": 0})
    report_pools(tmp_path / "kernels", tmp_path / "noise")
    page = Page(tmp_path / "report.html")
    rows = page.table_of("widths")
    assert [row["photo"] for row in rows] == [f"photo{i}.jpg" for i in np.argsort(sure)]
    assert [row["confidence"] for row in rows] == [f"{c:.2f}" for c in np.sort(sure)]
    assert all(row["what speaks against it"] == "reason <&>" for row in rows)
    assert len(page.images) == 1 + 2 * 48
    named = [image["alt"] for image in page.images]
    assert all(f"photo{i}.jpg" in named for i in np.argsort(sure)[:24])
    assert f"photo{np.argmax(sure)}.jpg" in named
    assert all(image["src"].startswith("data:image/") for image in page.images) and "http" not in page.source
    assert len(page.source) < 1_500_000
    assert f"0.5 keeps {(sure >= 0.5).sum()}" in page.text


def test_a_row_has_the_widths_and_the_angle(tmp_path):
    Entry(tmp_path / "kernels" / "a.npz", {"x2": gaussian_kernel(17, (2, 1), 0.5, 2)}, {}).write()
    report_pools(tmp_path / "kernels", tmp_path / "noise")
    (row,) = Page(tmp_path / "report.html").table_of("widths")
    assert (row["photo"], row["confidence"]) == ("a", "")
    scale, widths, angle = row["widths"].replace(",", ":").split(":")
    wide, narrow = (float(w) for w in widths.removesuffix(" px").split(" × "))
    assert scale == "x2" and (wide, narrow) == pytest.approx((2, 1), rel=0.03)
    assert int(angle.strip().removesuffix("°")) == pytest.approx(np.degrees(0.5), abs=1)


def test_an_even_choice_of_tiles_is_shown(tmp_path):
    strong = list(REASONS).index("too strong")
    for name, count in (("a", 70), ("b", 0), ("c", 30)):
        arrays = {"tiles": np.full((count, 8, 8, 3), 9, np.uint8), "mean": np.full(120, 9), "detrended": np.ones(120)}
        arrays["reason"] = np.where(np.arange(120) < count, 0, strong).astype(np.uint8)
        Entry(tmp_path / "noise" / f"{name}.npz", arrays, {"photo": name, "settings": {"tile_size": 8}}).write()
    report_pools(tmp_path / "kernels", tmp_path / "noise")
    page = Page(tmp_path / "report.html")
    shown = [image["alt"] for image in page.images]
    assert len(shown) == 48 and shown.count("a") in (33, 34) and "b" not in shown
    assert [(row["taken"], row["too strong"]) for row in page.table_of("tiles", "taken")] == [
        *(("70", "50"), ("0", "120"), ("30", "90"))
    ]


def test_files_that_are_no_entries_are_named(tmp_path):
    add_kernel(tmp_path / "kernels", 0)
    add_kernel(tmp_path / "kernels", 1, reasons=[3])
    (tmp_path / "kernels" / "half.npz").write_bytes(b"PK half")
    Entry(tmp_path / "kernels" / "nan.npz", {"x4": np.full((5, 5), np.nan)}, {}).write()
    Entry(tmp_path / "kernels" / "none.npz", {"y": np.zeros(3)}, {}).write()
    Entry(tmp_path / "noise" / "theirs.npz", {"tiles": np.zeros((2, 8, 8, 3), np.uint8)}, {}).write()
    report_pools(tmp_path / "kernels", tmp_path / "noise")
    page = Page(tmp_path / "report.html")
    kernels, noise = (rows[1:] for rows in page.tables if rows[0] == ["photo or file", "reason"])
    assert [name for name, _ in kernels] == ["00001.npz", "half.npz", "nan.npz", "none.npz"]
    assert "reasons is [3], not a list of texts" in kernels[0][1]
    assert "damaged" in kernels[1][1] and [name for name, _ in noise] == ["theirs.npz"]
    assert [row["photo"] for row in page.table_of("widths")] == ["photo0.jpg"]


def test_a_page_that_cannot_be_written_ends_nothing(tmp_path, caplog):
    (tmp_path / "report.html" / "folder").mkdir(parents=True)
    report_pools(tmp_path / "kernels", tmp_path / "noise")
    assert "no report: " in caplog.text


# -- text ------------------------------------------------------------------------------------------------------------


def test_text_is_escaped_and_pictures_are_not(tmp_path):
    nasty = "</td></table><script>alert('&')</script>\""
    add_kernel(tmp_path / "kernels", 0, photo=nasty, confidence=0.5, reasons=[nasty], settings={nasty: nasty})
    report_pools(tmp_path / "kernels", tmp_path / "noise")
    page = Page(tmp_path / "report.html")
    (row,) = page.table_of("widths")
    assert row["photo"] == row["what speaks against it"] == nasty and f"{nasty}={nasty}" in page.text
    assert [image["alt"] for image in page.images[1:]] == [nasty, f"kernel of {nasty}"]
    shown = page.images[1]
    assert (shown["width"], shown["height"]) == ("160", "100")
    assert code("a `b < c` d & `e`") == "a <code>b &lt; c</code> d &amp; <code>e</code>"


def test_names_that_are_no_text_are_written(tmp_path):
    write_page(tmp_path / "page.html", "page.html", title=b"a\xff.png".decode("utf-8", "surrogateescape"))
    assert "a?.png" in Page(tmp_path / "page.html").text


def test_pictures_that_show_all_of_a_pool_are_not_drawn_again(photo_folder, tmp_path):
    photos = find_images(photo_folder("photos", 2, 160, 192, 0.02))
    files = [tmp_path / name for name in ("noise/contact_sheet.png", "kernels/contact_sheet.png", "report.html")]

    def drawn(redo=False):
        """Which files were written."""
        before = [path.exists() and path.stat().st_mtime_ns for path in files]
        collect_noise(photos, tmp_path / "noise", NoiseRule(tile_size=16, stride=16), redo)
        estimate_kernels(photos, tmp_path / "kernels", ESTIMATOR, 4, "cpu", redo)
        return [path.stat().st_mtime_ns != time for path, time in zip(files, before, strict=True)]

    assert drawn() == [True, True, True]
    assert drawn() == [False, True, False]  # the sheet of kernels depends on the scale and on min_confidence
    next((tmp_path / "kernels").glob("photo1*.npz")).unlink()
    assert drawn() == [False, True, True]
    assert drawn(redo=True) == [True, True, True]
