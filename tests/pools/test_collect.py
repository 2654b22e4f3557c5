"""The noise pool as it is filled from a folder of photos."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import skimage
from conftest import flat_picture
from PIL import Image

from realsr.data.cameras import CAMERAS
from realsr.estimation.auto_rule import LEVELS, AutoRule, lower_envelope
from realsr.estimation.flatness import correlation, without_plane
from realsr.estimation.noise import REASONS, NoiseRule, tile_statistics
from realsr.imaging import Photo, gray_uint8, read_image, write_image
from realsr.imaging.camera_models import camera_model
from realsr.pools.collect import collect_noise
from realsr.pools.folder import Entry
from realsr.runtime.errors import InputError
from realsr.runtime.files import find_images, warn_once


def save(path, image):
    write_image(path, Photo(np.clip(np.round(image), 0, 255).astype(np.uint8)))


def noisy(gray, sigma=2.0, seed=0):
    """``(H, W, 3)`` of a gray picture ``(H, W)`` with noise that is alike in the channels."""
    return np.repeat((gray + sigma * np.random.default_rng(seed).standard_normal(gray.shape))[..., None], 3, 2)


def flat_and_sky(folder, count=2):
    """Photos whose left half is flat (8 tiles of 32 pixels) and whose right half has a gradient (8 tiles)."""
    for index in range(count):
        gray = np.full((128, 128), 100.0)
        gray[:, 64:] += np.linspace(-12, 12, 64)
        save(folder / f"photo{index}.png", noisy(gray, seed=index))
    return find_images(folder)


def entries_of(folder):
    return [Entry.read(path) for path in sorted(folder.glob("*.npz"))]


def reasons_of(entry):
    return [list(REASONS)[reason] for reason in entry.arrays["reason"]]


def deviation(tiles):
    """Standard deviation and correlation of neighbours of gray tiles ``(N, T, T, 3)``, without their planes."""
    flat = without_plane(np.stack([gray_uint8(np.ascontiguousarray(tile)) for tile in tiles]).astype(float))
    return flat.std(), correlation(flat).mean()


# -- what the camera's noise is --------------------------------------------------------------------------------------


BANDS = (0.35, 0.5, 0.65, 0.8)


@pytest.fixture(scope="module")
def scenes():
    """Scikit-image's colour photographs, and walls of four grays, ``(h, w, 3)`` in [0, 1]."""
    folder = Path(skimage.__file__).parent / "data"
    photos = {name: read_image(folder / name).rgb[:384, :448] / 255 for name in ("astronaut.png", "coffee.png")}
    walls = np.repeat(np.tile(np.repeat(BANDS, 104)[:, None], (1, 240))[..., None], 3, 2)
    return {**photos, "walls.png": walls}


@pytest.mark.parametrize("name", ["compact", "phone", "system", "cctv", "drone", "hand"])
def test_the_pool_is_like_the_cameras_noise(scenes, tmp_path, name):
    """Within 10 % of what a gray wall shows of the brightness of the tiles, though most of the photos is scene."""
    camera, rng = CAMERAS[name], np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for stem, scene in scenes.items():
        enlarged = scene.repeat(2, 0).repeat(2, 1)
        (tmp_path / "photos" / f"{stem}{camera.suffix}").write_bytes(camera.file(camera.photograph(enlarged, 2, rng)))
    pool = collect_noise(find_images(tmp_path / "photos"), tmp_path / "noise", AutoRule())
    tiles = pool.tiles.permute(0, 2, 3, 1).numpy()
    grays = tiles.mean((1, 2))
    on_walls = np.array(["walls" in photo for photo in pool.photos]) & (np.ptp(grays, axis=1) < 8)
    for band in BANDS:
        wall = flat_picture(camera, band, 256, rng)
        chosen = tiles[on_walls & (abs(grays.mean(1) - wall.mean()) < 5)]
        assert len(chosen) > 12
        truth = deviation(wall.reshape(8, 32, 8, 32, 3).swapaxes(1, 2).reshape(64, 32, 32, 3))
        assert deviation(chosen) == pytest.approx(truth, rel=0.1)


def test_photos_of_several_speeds_are_used_each_by_its_own_noise(tmp_path):
    for index, sigma in enumerate((1.5, 1.5, 3, 5)):
        gray = np.full((160, 320), 110.0)
        gray[:, 160:] += 30 * np.random.default_rng(index).standard_normal((20, 20)).repeat(8, 0).repeat(8, 1)
        save(tmp_path / "photos" / f"{index}.png", noisy(gray, sigma, index))
    pool = collect_noise(find_images(tmp_path / "photos"), tmp_path / "noise", AutoRule())
    assert len(set(pool.photos)) == 4
    for entry, sigma in zip(entries_of(tmp_path / "noise"), (1.5, 1.5, 3, 5), strict=True):
        assert (entry.arrays["corner"][entry.arrays["reason"] == 0, 1] <= 128).all()
        assert deviation(entry.arrays["tiles"])[0] == pytest.approx(np.hypot(sigma, 0.29), rel=0.05)


def test_what_is_stronger_or_smoother_than_the_noise_is_left_out(tmp_path):
    """Sand, which looks like noise, of twice its strength; and a smooth one of the same strength."""
    rng = np.random.default_rng(0)
    gray = np.full((192, 320), 110.0)
    sand = rng.standard_normal((192, 320))
    gray[:, 192:256] += 3.5 * sand[:, 192:256]
    smooth = sum(np.roll(sand, shift, (0, 1)) for shift in ((0, 0), (0, 1), (1, 0), (1, 1)))
    image = noisy(gray)
    image[:, 256:] = 110 + (smooth[:, 256:, None] - smooth.mean())
    save(tmp_path / "photos" / "a.png", image)
    collect_noise(find_images(tmp_path / "photos"), tmp_path / "noise", AutoRule(stride=32))
    (entry,) = entries_of(tmp_path / "noise")
    columns = entry.arrays["corner"][:, 1]
    assert {r for r, c in zip(reasons_of(entry), columns, strict=True) if c >= 192} == {"too strong"}
    assert np.mean([r == "" for r, c in zip(reasons_of(entry), columns, strict=True) if c < 192]) > 0.8


def test_the_envelope_is_the_noise_where_a_scene_is_all_that_is_there():
    """Noise of variance 4 in the middle, nothing in the dark, texture alone in the bright, which rises no further."""
    mean = np.repeat(np.arange(72, 256, 16.0), 20)
    variance = np.where(mean < 180, 4.0, 400.0) * np.random.default_rng(0).uniform(0.9, 1.1, len(mean))
    curve = lower_envelope(mean, variance)
    assert curve.shape == (256 // LEVELS,)
    assert curve[4:11] == pytest.approx(4, rel=0.1)
    assert curve[11:] == pytest.approx(curve[10] * 2.0 ** np.arange(1, 6))
    assert (lower_envelope(mean[:0], variance[:0]) == 1).all()
    assert lower_envelope(mean[:1], variance[:1])[4] == variance[0]


# -- which tiles never count -----------------------------------------------------------------------------------------


def test_tiles_without_noise_never_count(tmp_path):
    """A white sky, black bars, a drawn area; the paper's rule takes them, and says so."""
    for index in range(2):
        image = noisy(np.full((192, 192), 120.0), seed=index)
        image[:64], image[160:], image[64:96, :96] = 255, 0, 77
        save(tmp_path / "photos" / f"{index}.png", image)
    pool = collect_noise(find_images(tmp_path / "photos"), tmp_path / "noise", AutoRule())
    tiles = pool.tiles.numpy()
    assert (tiles.std((2, 3)) > 1.5).all() and tiles.min() > 0 and tiles.max() < 255 and len(tiles) > 40
    assert {"clipped", "no noise", ""} <= set(reasons_of(entries_of(tmp_path / "noise")[0]))


def test_the_papers_rule_says_that_tiles_are_without_noise(tmp_path, caplog):
    image = noisy(np.full((64, 96), 120.0))
    image[:, :64] = 255
    save(tmp_path / "photos" / "a.png", image)
    pool = collect_noise(find_images(tmp_path / "photos"), tmp_path / "noise", NoiseRule(32, 32))
    assert len(pool) == 6
    assert "4 tiles have no noise, they are constant or clipped; collector=auto leaves such out" in caplog.text


def test_a_photo_gives_so_many_tiles_even_in_brightness(tmp_path):
    save(tmp_path / "photos" / "a.png", noisy(np.tile(np.linspace(60, 100, 640), (96, 1))))
    collect_noise(find_images(tmp_path / "photos"), tmp_path / "noise", AutoRule(per_photo=5))
    (entry,) = entries_of(tmp_path / "noise")
    taken = np.sort(entry.arrays["mean"][entry.arrays["reason"] == 0])
    assert len(taken) == len(entry.arrays["tiles"]) == 5
    assert taken == pytest.approx(np.linspace(60, 100, 5), abs=4)
    assert reasons_of(entry).count("enough") > 50


def test_where_no_photo_has_noise_all_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    x = np.tile(np.arange(160), (128, 1))
    save(tmp_path / "photos" / "stripes.png", noisy(120 + 40 * np.sin(x / 2)))
    save(tmp_path / "photos" / "white.png", np.full((128, 160, 3), 255))
    save(tmp_path / "photos" / "drawn.png", np.full((128, 160, 3), 130))
    says = r"no noise tile in 3 photos \(0 skipped\): of 189 tiles are .*63 clipped.*63 no noise.*something plain"
    with pytest.raises(InputError, match=says) as error:
        collect_noise(find_images(tmp_path / "photos"), tmp_path / "noise", AutoRule())
    assert "raise" not in str(error.value) and "lower" not in str(error.value)
    assert "white.png: 0 of 63 tiles (63 clipped)" in caplog.text
    assert "drawn.png: 0 of 63 tiles (63 no noise)" in caplog.text
    assert "stripes.png: 0 of 63 tiles (" in caplog.text


def test_the_papers_bounds_that_reject_all_lead_to_auto(tmp_path):
    photos = flat_and_sky(tmp_path / "photos")
    with pytest.raises(
        InputError, match=r"16 tiles have a variance of collector.max_variance=5 or more, 16 others"
    ) as e:
        collect_noise(photos, tmp_path / "a", NoiseRule(32, 32, 5, 200))
    assert "collector=auto finds out" in str(e.value) and "raise" not in str(e.value)


def test_the_flattest_fill_up(tmp_path):
    photos = flat_and_sky(tmp_path / "photos")
    pool = collect_noise(photos, tmp_path / "a", NoiseRule(32, 32, 4.2, keep_best=20))
    assert len(pool) == 20
    variance, reason = (
        np.concatenate([e.arrays[name] for e in entries_of(tmp_path / "a")]) for name in ("variance", "reason")
    )
    assert (reason == 1).any() and variance[reason < 2].max() < np.sort(variance)[20]


# -- pools that are there --------------------------------------------------------------------------------------------


def test_what_was_measured_is_kept_and_tiles_are_chosen_again_from_it(tmp_path, monkeypatch):
    """A photo comes that shows more of the noise: the first ones are not measured again."""
    folder, rule = tmp_path / "photos", AutoRule(stride=32, tolerance=1.2)
    for index in range(2):
        gray = np.full((160, 160), 110.0)
        gray[80:] += 1.2 * np.random.default_rng(9).standard_normal((80, 160))
        save(folder / f"{index}.png", noisy(gray, seed=index))
    before = collect_noise(find_images(folder), tmp_path / "noise", rule)
    whole = {entry.path: entry.arrays["variance"] for entry in entries_of(tmp_path / "noise")}
    times = {path: path.stat().st_mtime_ns for path in whole}
    collect_noise(find_images(folder), tmp_path / "noise", rule)
    assert times == {path: path.stat().st_mtime_ns for path in whole}  # nothing to do
    save(folder / "quiet.png", noisy(np.full((320, 320), 110.0), 2))
    measured = []
    real = tile_statistics
    monkeypatch.setattr("realsr.estimation.noise.tile_statistics", lambda *a: measured.append(a) or real(*a))
    after = collect_noise(find_images(folder), tmp_path / "noise", rule)
    assert len(measured) == 1
    assert after.photos.count("0.png") != before.photos.count("0.png")
    for entry in entries_of(tmp_path / "noise"):
        assert len(entry.arrays["tiles"]) == (entry.arrays["reason"] == 0).sum()
        assert entry.path not in whole or (entry.arrays["variance"] == whole[entry.path]).all()


def test_a_run_that_was_stopped_between_measuring_and_choosing_goes_on(tmp_path, monkeypatch):
    photos = flat_and_sky(tmp_path / "photos")
    whole = collect_noise(photos, tmp_path / "whole", AutoRule())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("realsr.pools.collect._cut_chosen", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        collect_noise(photos, tmp_path / "a", AutoRule())
    assert [len(entry.arrays["tiles"]) for entry in entries_of(tmp_path / "a")] == [0, 0]
    again = collect_noise(photos, tmp_path / "a", AutoRule())
    assert (again.tiles == whole.tiles).all()


def test_pools_of_earlier_versions_are_made_anew_and_it_is_said(tmp_path, caplog):
    """By training too, which takes a pool of another rule of this version as it is."""
    photos, folder = flat_and_sky(tmp_path / "photos"), tmp_path / "a"
    made = collect_noise(photos, folder, NoiseRule(32, 32))
    caplog.set_level("INFO")
    as_it_is = collect_noise(photos, folder, AutoRule(), redo=False)
    assert "is of another rule; python -m realsr.collect makes it anew" in caplog.text
    assert (as_it_is.tiles == made.tiles).all()
    for entry in entries_of(folder):
        settings = {
            "tile_size": 32,
            "stride": 32,
            "max_variance": 20,
            "min_mean": 0,
            "keep_best": 0,
            "max_clipped": None,
        }
        kept = {name: entry.arrays[name] for name in ("tiles", "corner", "variance", "mean", "clipped")}
        Entry(entry.path, kept, {**entry.manifest, "settings": settings}).write()
    caplog.clear()
    new = collect_noise(photos, folder, AutoRule(), redo=False)
    assert f"{folder}: is of an earlier version, which looked at less; it is made anew" in caplog.text
    assert len(new) != len(made) and all("unevenness" in entry.arrays for entry in entries_of(folder))


def test_a_photo_that_is_added_to_a_pool_of_another_rule_changes_nothing(tmp_path):
    folder = tmp_path / "pool" / "noise"
    photos = [tmp_path / "0.png", tmp_path / "1.png"]
    for seed, photo in enumerate(photos):
        save(photo, noisy(np.full((96, 96), 128.0), seed=seed))
    made = collect_noise(photos[:1], folder, NoiseRule(tile_size=32, stride=32))
    added = collect_noise(photos, folder, AutoRule(), redo=False)
    assert (added.tiles == made.tiles).all()
    assert "its tiles are not chosen yet" in (tmp_path / "pool" / "report.html").read_text()


# -- whose photos they are -------------------------------------------------------------------------------------------


def with_model(path, make, model):
    exif = Image.Exif()
    exif[271], exif[272] = make, model
    with Image.open(path) as image:
        image.save(path, exif=exif)


def test_photos_of_several_cameras_are_said_with_their_counts(tmp_path, caplog):
    warn_once.cache_clear()
    photos = flat_and_sky(tmp_path / "photos", 5)
    for photo in photos[:2]:
        with_model(photo, "NIKON CORPORATION", "NIKON D800")
    collect_noise(photos, tmp_path / "a", AutoRule())
    assert "cameras:" not in caplog.text  # what has no model may be anything
    with_model(photos[3], "Canon", "Canon EOS 5D\n")
    with_model(photos[4], "Google", "Pixel 7")
    for _ in range(2):
        collect_noise(photos, tmp_path / "a", AutoRule())
    said = [message for message in caplog.messages if "cameras:" in message]
    assert said == [
        f"{tmp_path / 'photos'}: photos of 3 cameras: NIKON D800 (2 photos), Canon EOS 5D (1 photo), Google Pixel 7 "
        "(1 photo); a model learns one camera best, give a folder of each"
    ]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".heic"])
def test_the_camera_is_read_from_every_kind_of_file(tmp_path, suffix):
    path = tmp_path / f"photo{suffix}"

    def save_with(**options):
        image = Image.new("RGB", (64, 64))
        (pillow_heif.from_pillow(image) if suffix == ".heic" else image).save(path, **options)

    exif = Image.Exif()
    exif[271], exif[272] = "NIKON CORPORATION", "NIKON D800"
    save_with(exif=exif.tobytes())
    assert camera_model(path) == "NIKON D800"
    exif[271], exif[272] = "Google", ""
    save_with(exif=exif.tobytes())
    assert camera_model(path) == "Google"
    save_with()
    assert camera_model(path) == ""
    path.write_bytes(path.read_bytes()[:40])
    assert camera_model(path) == ""
    path.unlink()
    assert camera_model(path) == ""
