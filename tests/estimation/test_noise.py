"""The noise-patch rule against the authors' tiles and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import leaves, scene

from realsr.estimation.noise import NoiseRule, cut_tiles, shows_noise, tile_statistics
from realsr.estimation.noise_model import noise_level
from realsr.imaging import gray_uint8


def flat_tiles(statistics, max_variance, min_mean):
    """What the paper's rule takes."""
    return NoiseRule(max_variance=max_variance, min_mean=min_mean).reasons(statistics) == 0


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(1, 255, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("min_mean", [0, 50])
def test_golden(golden, min_mean):
    data = golden("noise_patches.npz")
    size = int(data["patch"])
    statistics = tile_statistics(data["image"], size, size)
    ours = statistics.corner[flat_tiles(statistics, float(data["max_var"]), min_mean)]
    expected = data[f"top_left_min_mean_{min_mean}"]
    # the reference loops to `side - patch` exclusively: it leaves out the tiles that end at the right or bottom border
    border = (ours + size == data["image"].shape[:2]).any(1)
    np.testing.assert_array_equal(ours[~border], expected)
    if min_mean == 0:
        assert border.any()  # ours uses them


@pytest.mark.parametrize(("size", "stride"), [(16, 16), (16, 8), (16, 20), (48, 48)])
def test_statistics_are_numpys(size, stride):
    image = picture()
    image[:8, :20, 1], image[30:, 40:, 2] = 0, 255
    statistics = tile_statistics(image, size, stride)
    corners = [(y, x) for y in range(0, 48 - size + 1, stride) for x in range(0, 64 - size + 1, stride)]
    np.testing.assert_array_equal(statistics.corner, corners)
    for i, (y, x) in enumerate(corners):
        tile, gray = (a[y : y + size, x : x + size] for a in (image, gray_uint8(image)))
        assert statistics.variance[i] == pytest.approx(np.var(gray, dtype=np.float64))
        assert statistics.mean[i] == pytest.approx(np.mean(gray))
        assert statistics.clipped[i] == pytest.approx(((tile == 0) | (tile == 255)).any(-1).mean())
    assert statistics.clipped.max() > 0


@pytest.mark.parametrize("shape", [(15, 64), (48, 15)])
def test_image_smaller_than_a_tile_has_none(shape):
    statistics = tile_statistics(picture(*shape), 16, 16)
    assert statistics.corner.shape == (0, 2)
    assert not len(flat_tiles(statistics, 20, 0)) and not len(shows_noise(statistics))


def test_both_bounds_are_strict():
    image = np.full((16, 48, 3), 100, np.uint8)
    image[::2, :16] = 110  # variance 25, mean 105
    statistics = tile_statistics(image, 16, 16)
    np.testing.assert_array_equal(flat_tiles(statistics, 25, 0), [False, True, True])
    np.testing.assert_array_equal(flat_tiles(statistics, 25.1, 0), [True, True, True])
    np.testing.assert_array_equal(flat_tiles(statistics, 25.1, 100), [True, False, False])


def test_clipped_and_noiseless_tiles_witness_nothing():
    image = picture(16, 80)
    image[:, 16:32] = 100  # no noise at all
    image[:2, 32:48, 1] = 255  # 1/8 of the pixels have a channel at white
    image[0, 48:50, 0] = 0  # 2 of 256 at black: within the bound of 1 %
    image[0, 64:67, 0] = 0  # 3 of 256: beyond
    statistics = tile_statistics(image, 16, 16)
    np.testing.assert_allclose(statistics.clipped, [0, 0, 1 / 8, 2 / 256, 3 / 256])
    np.testing.assert_array_equal(shows_noise(statistics), [True, False, False, True, False])
    np.testing.assert_array_equal(shows_noise(statistics, 0.2), [True, False, True, True, True])


def test_cut_tiles():
    image = picture()
    tiles = cut_tiles(image, np.array([[0, 3], [31, 47]]), 16)
    np.testing.assert_array_equal(tiles, [image[:16, 3:19], image[31:47, 47:63]])
    assert tiles.dtype == np.uint8
    assert cut_tiles(image, np.zeros((0, 2), np.int64), 16).shape == (0, 16, 16, 3)


# -- the level of noise ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grays():
    """A smooth scene with edges, and one with detail of every size."""
    return {"smooth": scene(200, 240)[0].double().numpy(), "leaves": leaves(200, 240)[0].double().numpy()}


@pytest.mark.parametrize("sigma", [0.5, 1, 2, 5, 10, 20])
@pytest.mark.parametrize("name", ["smooth", "leaves"])
def test_the_level_of_noise_is_found(grays, name, sigma):
    noisy = grays[name] + sigma / 255 * np.random.default_rng(1).standard_normal(grays[name].shape)
    assert noise_level(noisy) * 255 == pytest.approx(sigma, rel=0.15)
    stored = np.clip(np.round(noisy * 255), 0, 255)
    assert noise_level(stored / 255) * 255 == pytest.approx(np.hypot(sigma, np.sqrt(1 / 12)), rel=0.15)


def test_where_the_noise_is_on_a_part_only_texture_is_not_taken_for_it(grays):
    gray = np.tile(np.linspace(0.2, 0.8, 300), (200, 1))
    gray[:, :100] = grays["leaves"][:, :100]
    noisy = gray + 3 / 255 * np.random.default_rng(1).standard_normal(gray.shape)
    assert noise_level(noisy) * 255 == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("name", ["leaves", "smooth", "grid", "waves"])
def test_sharp_texture_is_no_noise(grays, name):
    y, x = np.indices((200, 240))
    grays = {**grays, "grid": 0.3 + 0.4 * ((y // 5 + x // 7) % 2), "waves": 0.5 + 0.3 * np.sin(y * 0.9 + x * 1.7)}
    for gray in (grays[name], np.round(grays[name] * 255) / 255):
        assert grays[name].std() > 0.1
        assert noise_level(gray) < 1 / 255


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_flat_photo_has_no_noise(value):
    assert noise_level(np.full((60, 70), value)) == pytest.approx(0, abs=1e-9)


def test_a_photo_that_is_clipped_witnesses_no_noise(grays):
    noisy = grays["leaves"] + 5 / 255 * np.random.default_rng(1).standard_normal(grays["leaves"].shape)
    assert noise_level(np.clip(noisy + 0.9, 0, 1)) == noise_level(np.clip(noisy - 0.9, 0, 1)) == 0
    clipped = np.clip(noisy - 0.5, 0, 1)  # in part
    assert 0.3 < (clipped == 0).mean() < 0.6
    assert noise_level(clipped) * 255 == pytest.approx(5, rel=0.15)


@pytest.mark.parametrize("shape", [(10, 10), (10, 300), (31, 12)])
def test_the_smallest_photos_have_a_level_too(shape):
    noisy = 0.5 + 5 / 255 * np.random.default_rng(0).standard_normal(shape)
    assert 0 <= noise_level(noisy) * 255 < 10
