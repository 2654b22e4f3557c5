"""The noise pool as it is filled from a folder of photos."""

from __future__ import annotations

import numpy as np
import pytest

from realsr.collect import collect_noise
from realsr.entries import Entry
from realsr.errors import InputError
from realsr.files import find_images
from realsr.images import Photo, write_image
from realsr.noise import NoiseRule

STRICT = {"max_structure": 0.2, "max_direction": 0.3, "max_blockiness": 0.5}


def flat_and_sky(folder, count=2):
    """Photos whose left half is flat (8 tiles of 32 pixels) and whose right half has a gradient (8 tiles)."""
    rng = np.random.default_rng(0)
    for index in range(count):
        gray = 100 + 2 * rng.standard_normal((128, 128))
        gray[:, 64:] += np.linspace(-6, 6, 64)
        image = np.repeat(np.clip(np.round(gray), 0, 255).astype(np.uint8)[..., None], 3, 2)
        write_image(folder / f"photo{index}.png", Photo(image))
    return find_images(folder)


def entries_of(folder):
    return [Entry.read(path) for path in sorted(folder.glob("*.npz"))]


def test_tiles_that_show_more_than_noise_are_not_taken(tmp_path):
    photos = flat_and_sky(tmp_path / "photos")
    authors = collect_noise(photos, tmp_path / "a", NoiseRule(32, 32))
    assert len(authors) == 32
    assert len(collect_noise(photos, tmp_path / "b", NoiseRule(32, 32, **STRICT))) == 16
    for entry in entries_of(tmp_path / "b"):
        assert set(entry.arrays) == {
            *("tiles", "kept", "corner", "variance", "mean", "clipped", "structure", "direction", "blockiness")
        }
        assert (entry.arrays["corner"][entry.arrays["kept"], 1] < 64).all()


def test_the_flattest_fill_up_whatever_they_show(tmp_path):
    """Else tiles of far more variance would, which happen to show no structure."""
    photos = flat_and_sky(tmp_path / "photos")
    pool = collect_noise(photos, tmp_path / "a", NoiseRule(32, 32, keep_best=20, **STRICT))
    assert len(pool) == 20
    variance, kept = (
        np.concatenate([e.arrays[name] for e in entries_of(tmp_path / "a")]) for name in ("variance", "kept")
    )
    assert variance[kept].max() < np.sort(variance)[21]


def test_where_every_flat_tile_shows_more_the_bounds_are_named(tmp_path):
    photos = flat_and_sky(tmp_path / "photos")
    with pytest.raises(InputError, match=r"32 tiles are flat and bright.*raise collector.max_direction") as error:
        collect_noise(photos, tmp_path / "a", NoiseRule(32, 32, max_direction=1e-9))
    assert "max_structure" not in str(error.value)


def test_pools_of_versions_that_looked_at_less_load_and_are_made_anew(tmp_path, caplog):
    """Training takes them with a word, the command makes them anew."""
    photos, folder = flat_and_sky(tmp_path / "photos"), tmp_path / "a"
    made = collect_noise(photos, folder, NoiseRule(32, 32))
    for entry in entries_of(folder):
        for name in ("structure", "direction", "blockiness"):
            del entry.arrays[name], entry.manifest["settings"][f"max_{name}"]
        entry.write()
    caplog.set_level("INFO")
    old = collect_noise(photos, folder, NoiseRule(32, 32), redo=False)
    assert "of another rule or version; python -m realsr.collect makes it anew" in caplog.text
    new = collect_noise(photos, folder, NoiseRule(32, 32))
    assert old.photos == new.photos == made.photos
    assert (old.tiles == made.tiles).all() and (new.tiles == made.tiles).all()
    assert all("structure" in entry.arrays for entry in entries_of(folder))
