"""What tiles show besides noise: each kind is found at a stated strength, and noise of every kind passes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image
from scipy import ndimage

from realsr.images import gray_uint8, read_image
from realsr.noise import NoiseRule, flat_tiles, rejections, structured_tiles, tile_statistics
from realsr.structure import blockiness, direction, structure

STRICT = NoiseRule(tile_size=32, stride=32, max_structure=0.2, max_direction=0.3, max_blockiness=0.5)


def noise(height: int, width: int, sigma: float, smooth: float = 0.0, seed: int = 0) -> np.ndarray:
    """White noise, or noise that a Gaussian of ``smooth`` pixels has made smooth; of standard deviation ``sigma``."""
    white = np.random.default_rng(seed).standard_normal((height, width))
    coloured = ndimage.gaussian_filter(white, smooth, mode="wrap") if smooth else white
    return sigma * coloured / coloured.std()


def stored(gray: np.ndarray, quality: int | None = None) -> np.ndarray:
    """An RGB photo of 8 bits; of a quality, as JPEG keeps it."""
    image = np.repeat(np.clip(np.round(gray), 0, 255).astype(np.uint8)[..., None], 3, 2)
    if quality is None:
        return image
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def shows(image: np.ndarray, *reasons: str) -> float:
    """Share of the tiles that show what the reasons (or one of all) say; the authors' rule keeps them."""
    statistics = tile_statistics(image, 32, 32)
    assert flat_tiles(statistics, 26, 0).all()
    found = structured_tiles(statistics, STRICT)
    return np.any([found[reason] for reason in reasons or found], axis=0).mean()


def in_tiles(image: np.ndarray, side: int = 32) -> np.ndarray:
    """``(T, side, side)``"""
    rows, columns = (length // side for length in image.shape)
    return image.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


@pytest.mark.parametrize("quality", [None, 98])
@pytest.mark.parametrize("smooth", [0, 0.5, 0.8])
@pytest.mark.parametrize("sigma", [0.7, 2, 4])
def test_noise_passes(sigma, smooth, quality):
    """White, and smooth over a few pixels as demosaicing leaves it, weak and strong: 99 of 100 tiles."""
    image = stored(120 + noise(768, 768, sigma, smooth), quality)
    assert shows(image) < 0.01


def test_noise_that_depends_on_brightness_and_differs_by_photo_passes():
    levels = np.repeat(np.linspace(20, 230, 24), 32)[:, None]  # flat in every tile
    image = stored(levels + noise(768, 768, 1) * np.sqrt(1 + 0.05 * levels))
    assert shows(image) < 0.005


@pytest.mark.parametrize("smooth", [0, 0.7])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6])
def test_structure_is_the_share_of_the_variance_that_a_gradient_has(share, smooth):
    ramp = np.tile(np.linspace(-1, 1, 32) / np.linspace(-1, 1, 32).std(), (32, 1))
    tiles = in_tiles(noise(512, 512, np.sqrt(1 - share), smooth)) + np.sqrt(share) * ramp
    for turned in (tiles, tiles.transpose(0, 2, 1)):
        found = [structure(tile) for tile in turned]
        assert np.mean(found) == pytest.approx(share, abs=0.03)
        assert structure(7 * turned[0]) == pytest.approx(found[0])  # the strength of the noise does not matter


def test_what_changes_slowly_does_little_to_lr_crops():
    """The sky of a large tile: as much variance as the noise, over 256 pixels."""
    ramp = np.tile(np.linspace(-1, 1, 256), (256, 1))
    tile = noise(256, 256, 1) + ramp / ramp.std()
    assert 0.45 < 1 - 1 / tile.var() < 0.55
    assert 0 < structure(tile) < 0.05
    assert structure(tile, window=256) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("smooth", [0, 0.7])
def test_gradients_are_rejected(smooth):
    """Of 8 levels over a tile in noise of standard deviation 3: a variance of 5 and 9."""
    ramp = np.tile(np.arange(768) % 32 / 4, (768, 1))
    assert shows(stored(100 + ramp + noise(768, 768, 3, smooth)), "structure") > 0.95
    assert shows(stored(100 + ramp / 4 + noise(768, 768, 3, smooth)), "structure") < 0.05


@pytest.mark.parametrize(("name", "least", "most"), [("brick", 0.5, 1), ("gravel", 0.5, 1), ("grass", 0, 0.4)])
def test_faint_texture_is_rejected(name, least, most):
    """Half of the tiles of scikit-image's textures that are as strong as the noise; grass is as fine as noise."""
    texture = read_image(Path(skimage.__file__).parent / "data" / f"{name}.png").rgb[..., 0].astype(np.float64)
    tiles = in_tiles(texture)
    tiles *= 3 / tiles.std((1, 2), keepdims=True)
    noisy = tiles - tiles.mean((1, 2), keepdims=True) + in_tiles(noise(512, 512, 3))
    found = [structure(tile) > 0.2 or direction(tile) > 0.3 for tile in noisy]
    assert least < np.mean(found) <= most


@pytest.mark.parametrize("angle", [0, 0.6, 1.6, 2.5])
def test_fine_stripes_are_rejected(angle):
    """A wavelength of 5 pixels, where structure is not looked for; at the noise's own strength."""
    y, x = np.indices((512, 512))
    stripes = 3.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / 5)
    image = stored(100 + stripes + noise(512, 512, 2.5))
    assert shows(image, "structure") < 0.05
    assert shows(image, "stripes") > 0.95


@pytest.mark.parametrize("angle", [0, 0.4, 1.3])
def test_direction_is_that_of_the_gradients_whatever_they_are(angle):
    y, x = np.indices((64, 64))
    edge = np.tanh(((x - 31) * np.cos(angle) + (y - 31) * np.sin(angle)) / 4)
    assert direction(edge) > 0.95
    assert direction(np.hypot(x - 31.5, y - 31.5) ** 2) < 1e-9  # all directions alike


@pytest.mark.parametrize("corner", [(0, 0), (3, 6), (4, 1)])
@pytest.mark.parametrize(("quality", "low", "high"), [(95, 0, 0.02), (75, 0.7, 1), (60, 0.99, 1), (40, 0.99, 1)])
def test_block_edges_are_rejected_wherever_they_are(quality, low, high, corner):
    """Of noise of standard deviation 3 that was stored as JPEG, also where the photo was cropped since."""
    image = stored(120 + noise(520, 520, 3, 0.7), quality)[corner[0] :, corner[1] :]
    assert low <= shows(image, "block edges") <= high


def test_blockiness_is_the_excess_of_the_steps_over_the_edges():
    """Steps of 1 level everywhere and of 3 over every eighth edge."""
    steps = np.where(np.arange(63) % 8 == 5, 3.0, 1.0) * np.where(np.arange(63) % 2, 1, -1)
    row = np.concatenate([[0], np.cumsum(steps)])
    assert blockiness(row[:, None] + row) == pytest.approx(2, rel=0.02)
    assert blockiness(np.tile(row, (64, 1))) == pytest.approx(1, rel=0.02)  # in one direction alone
    assert blockiness(in_tiles(noise(64, 64, 1), 64)[0]) < 0.15


@pytest.mark.parametrize("side", [1, 2, 7, 8, 9, 16, 33, 50])
def test_tiles_of_every_size_have_plain_numbers(side):
    for tile in (np.full((side, side), 7.0), noise(side, side, 3) if side > 1 else np.zeros((1, 1))):
        for measure in (structure, direction, blockiness):
            assert np.isfinite(measure(tile)) and measure(tile) < 2
        if np.ptp(tile) == 0:
            assert structure(tile) == direction(tile) == blockiness(tile) == 0


def test_a_tile_has_one_reason_and_no_bound_looks_at_nothing():
    image = np.concatenate([stored(np.full((32, 128), 10) + noise(32, 128, 2)), stored(120 + noise(32, 128, 9))])
    image[:32, 32:64] = stored(100 + np.tile(np.linspace(-6, 6, 32), (32, 1)))
    image[:32, 64:128] = 255, 90, 90
    image[:32, 96:128] = 90  # without variance
    statistics = tile_statistics(image, 32, 32)
    bounds = {"max_clipped": 0.01, "max_structure": 0.2, "max_direction": 0.3, "max_blockiness": 0.5}
    reasons = rejections(statistics, NoiseRule(32, 32, min_mean=20, **bounds))
    assert {name: mask.nonzero()[0].tolist() for name, mask in reasons.items()} == {
        "too much variance": [4, 5, 6, 7],
        "too dark": [0],
        "clipped": [2, 3],
        "structure": [1],
        "stripes": [],
        "block edges": [],
    }
    plain = rejections(statistics, NoiseRule(32, 32, min_mean=20))
    assert not any(plain[name].any() for name in ("clipped", "structure", "stripes", "block edges"))
    np.testing.assert_array_equal(
        ~np.any(list(plain.values()), axis=0), flat_tiles(statistics, NoiseRule().max_variance, 20)
    )


def test_by_how_much_the_pool_changes():
    """The authors' rule keeps tiles that are a quarter scene; of what else is looked at little is left.

    A photo of clouds, fewer to the left, with noise as smooth as a camera's; both are known.
    """
    clean = 120 + np.linspace(0, 1, 1024) * noise(1024, 1024, 16, 20, seed=1)
    truth = noise(1024, 1024, 3, 0.7)
    image = stored(clean + truth)
    statistics = tile_statistics(image, 32, 32)
    flat = flat_tiles(statistics, STRICT.max_variance, STRICT.min_mean)
    kept = ~np.any(list(rejections(statistics, STRICT).values()), axis=0)
    gray = gray_uint8(image).astype(np.float64)
    scene_share, low_power = {}, {}
    for name, chosen in {"authors": flat, "strict": kept}.items():
        pool, clouds, noises = (in_tiles(a)[chosen] for a in (gray, clean, truth))
        scene_share[name] = clouds.var((1, 2)).sum() / pool.var((1, 2)).sum()
        lowest = [abs(np.fft.fft2(tiles)[:, [0, 1, 1], [1, 0, 1]]) ** 2 for tiles in (pool, noises)]
        low_power[name] = lowest[0].sum() / lowest[1].sum()
    assert scene_share["authors"] > 0.25 and scene_share["strict"] < 0.1
    assert low_power["authors"] > 7 and low_power["strict"] < 2.6  # times the noise's own
    assert 0.4 * flat.sum() < kept.sum() < 0.6 * flat.sum()
