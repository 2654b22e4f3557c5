"""What tiles show besides noise: each kind is found at a stated strength, and noise of every kind passes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image
from scipy import ndimage

from realsr.estimation.auto_rule import MAX_BLOCKINESS, AutoRule
from realsr.estimation.flatness import blockiness, correlation, direction, slope, structure, unevenness, without_plane
from realsr.estimation.noise import REASONS, count_reasons, tile_statistics
from realsr.imaging import gray_uint8, read_image

RULE = AutoRule(stride=32)


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
    """Share of the tiles that show what the reasons (or one of all) say."""
    statistics = tile_statistics(image, 32, 32)
    counts = count_reasons(RULE.reasons(statistics))
    return sum(counts[reason] for reason in reasons or list(REASONS)[1:]) / sum(counts.values())


def in_tiles(image: np.ndarray, side: int = 32) -> np.ndarray:
    """``(T, side, side)``"""
    rows, columns = (length // side for length in image.shape)
    return image.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


@pytest.mark.parametrize("quality", [None, 98])
@pytest.mark.parametrize("smooth", [0, 0.5, 0.8])
@pytest.mark.parametrize("sigma", [0.7, 2, 4])
def test_noise_passes(sigma, smooth, quality):
    """White, and smooth over a few pixels as demosaicing leaves it, weak and strong: 98 of 100 tiles."""
    image = stored(120 + noise(768, 768, sigma, smooth), quality)
    assert shows(image) < 0.02


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
@pytest.mark.parametrize("channel", [0, 2, slice(3)])
def test_gradients_are_rejected(smooth, channel):
    """Of 16 levels over a tile in noise of standard deviation 3, a variance of 21 and 9; also of colours alone."""
    ramp = np.tile(np.arange(768) % 32 / 2, (768, 1))
    noisy = noise(768, 768, 3, smooth)
    assert shows(stored(100 + ramp / 4 + noisy), "gradient") == 0
    image = stored(100 + noisy)
    image[..., channel] = stored(100 + ramp + noisy)[..., channel]
    assert shows(image, "gradient") > 0.95


@pytest.mark.parametrize("smooth", [0, 0.7])
def test_soft_shapes_are_rejected(smooth):
    """A bump of 10 levels in the middle of each tile, in noise of standard deviation 3."""
    y, x = np.indices((768, 768)) % 32 - 15.5
    bump = 10 * np.exp(-(x**2 + y**2) / (2 * 8**2))
    assert shows(stored(100 + bump + noise(768, 768, 3, smooth)), "scene") > 0.95


@pytest.mark.parametrize(("name", "least", "most"), [("brick", 0.6, 1), ("gravel", 0.6, 1), ("grass", 0, 0.5)])
def test_faint_texture_is_rejected(name, least, most):
    """Of the tiles of scikit-image's textures that are as strong as the noise; grass is as fine as noise."""
    texture = read_image(Path(skimage.__file__).parent / "data" / f"{name}.png").rgb[..., 0].astype(np.float64)
    tiles = in_tiles(texture)
    tiles *= 3 / tiles.std((1, 2), keepdims=True)
    noisy = tiles - tiles.mean((1, 2), keepdims=True) + in_tiles(noise(512, 512, 3))
    rows = noisy.reshape(16, 16, 32, 32).swapaxes(1, 2).reshape(512, 512)
    assert least < shows(stored(120 + rows)) <= most


@pytest.mark.parametrize("angle", [0, 0.6, 1.6, 2.5])
def test_fine_stripes_are_rejected(angle):
    """A wavelength of 5 pixels, where structure is not looked for; at the noise's own strength."""
    y, x = np.indices((512, 512))
    stripes = 3.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / 5)
    image = stored(100 + stripes + noise(512, 512, 2.5))
    assert shows(image, "scene") < 0.05
    assert shows(image, "stripes") > 0.95


def test_what_is_on_a_part_of_a_tile_is_rejected():
    """A corner of each tile with noise three times as strong."""
    y, x = np.indices((512, 512)) % 32
    assert shows(stored(100 + noise(512, 512, 2) * np.where((x < 12) & (y < 12), 4, 1)), "uneven") > 0.95


def test_tiles_without_noise_are_told():
    """Constant; of two levels, one of them rare; and clipped, at black or at white, in one channel."""
    image = stored(100 + noise(64, 192, 2))
    image[:32, :32] = 90
    image[:32, 32:64] = 90
    image[3:6, 40:50] = 91
    image[:4, 64:96] = 0
    image[:4, 96:128, 2] = 255
    reasons = RULE.reasons(tile_statistics(image, 32, 32))
    assert [list(REASONS)[r] for r in reasons] == ["no noise", "no noise", "clipped", "clipped", *[""] * 8]


@pytest.mark.parametrize("angle", [0, 0.4, 1.3])
def test_direction_is_that_of_the_gradients_whatever_they_are(angle):
    y, x = np.indices((64, 64))
    edge = np.tanh(((x - 31) * np.cos(angle) + (y - 31) * np.sin(angle)) / 4)
    assert direction(edge) > 0.95
    assert direction(np.hypot(x - 31.5, y - 31.5) ** 2) < 1e-9  # all directions alike


@pytest.mark.parametrize("corner", [(0, 0), (3, 6), (4, 1)])
@pytest.mark.parametrize(("quality", "low", "high"), [(95, 0, 0.02), (75, 0, 0.1), (20, 0.99, 1)])
def test_what_jpeg_has_left_of_noise_is_rejected_wherever_blocks_are(quality, low, high, corner):
    """Of noise of standard deviation 3 that was stored as JPEG, also where the photo was cropped since."""
    image = stored(120 + noise(520, 520, 3, 0.7), quality)[corner[0] :, corner[1] :]
    assert low <= shows(image) <= high


def test_block_edges_without_noise_are_rejected():
    steps = np.random.default_rng(0).standard_normal((64, 64)).repeat(8, 0).repeat(8, 1)
    blocks = blockiness(in_tiles(100 + 2 * steps + noise(512, 512, 0.3)))
    assert (blocks > MAX_BLOCKINESS).all()


def test_blockiness_is_the_excess_of_the_steps_over_the_edges():
    """Steps of 1 level everywhere and of 3 over every eighth edge."""
    steps = np.where(np.arange(63) % 8 == 5, 3.0, 1.0) * np.where(np.arange(63) % 2, 1, -1)
    row = np.concatenate([[0], np.cumsum(steps)])
    assert blockiness(row[:, None] + row) == pytest.approx(2, rel=0.02)
    assert blockiness(np.tile(row, (64, 1))) == pytest.approx(1, rel=0.02)  # in one direction alone
    assert blockiness(in_tiles(noise(64, 64, 1), 64)[0]) < 0.15


@pytest.mark.parametrize("side", [16, 17, 33, 50])
def test_tiles_of_every_size_have_plain_numbers(side):
    for tile in (np.full((side, side), 7.0), noise(side, side, 3)):
        for measure in (structure, direction, blockiness, slope, unevenness, correlation):
            assert np.isfinite(measure(tile)) and measure(tile) < 2
            assert np.ptp(tile) or measure(tile - tile.mean()) == 0


def test_measures_of_many_tiles_are_those_of_each():
    tiles = in_tiles(noise(96, 64, 3, 0.7) + np.linspace(0, 20, 64))
    for measure in (structure, direction, blockiness, slope, unevenness, correlation, without_plane):
        np.testing.assert_allclose(measure(tiles), [measure(tile) for tile in tiles], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(measure(tiles.reshape(3, 2, 32, 32))[1, 1], measure(tiles[3]), rtol=1e-9, atol=1e-9)


def test_planes_are_found_by_least_squares():
    y, x = np.indices((24, 24))
    tile = noise(24, 24, 2) + 100 + 0.3 * x - 0.2 * y
    terms = np.stack([np.ones(576), x.ravel(), y.ravel()], 1)
    rest = tile.ravel() - terms @ np.linalg.lstsq(terms, tile.ravel(), rcond=None)[0]
    np.testing.assert_allclose(without_plane(tile).ravel(), rest, atol=1e-9)
    assert slope(tile) == pytest.approx(1 - rest.var() / tile.var())


@pytest.mark.parametrize("smooth", [0, 0.7, 1.2])
def test_correlation_is_that_of_neighbours(smooth):
    image = noise(512, 512, 3, smooth)
    pairs = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in ((image[1:], image[:-1]), (image[:, 1:], image[:, :-1]))
    ]
    assert correlation(image) == pytest.approx(np.mean(pairs), abs=0.01)


def test_by_how_much_the_pool_changes():
    """The paper's rule keeps tiles that are a quarter scene; of what is no slope, the other keeps little.

    A photo of clouds, fewer to the left, with noise as smooth as a camera's; both are known.
    """
    clean = 120 + np.linspace(0, 1, 1024) * noise(1024, 1024, 16, 20, seed=1)
    truth = noise(1024, 1024, 3, 0.7)
    image = stored(clean + truth)
    statistics = tile_statistics(image, 32, 32)
    (reasons,) = AutoRule(stride=32, per_photo=1024).choose([statistics.where(RULE.candidates(statistics))])
    kept = RULE.candidates(statistics)
    kept[kept] = reasons == 0
    share = {}
    for name, chosen in {"paper": statistics.variance < 20, "auto": kept}.items():
        pool, clouds = (in_tiles(a)[chosen] for a in (gray_uint8(image).astype(np.float64), clean))
        share[name] = clouds.var((1, 2)).sum() / pool.var((1, 2)).sum()
    flat, flat_truth = (without_plane(in_tiles(a)[kept]) for a in (gray_uint8(image).astype(np.float64), truth))
    assert share["paper"] > 0.25 and share["auto"] < 0.22
    assert flat.std() / flat_truth.std() == pytest.approx(1, abs=0.03)
    assert kept.sum() > 0.6 * (statistics.variance < 20).sum()
