"""Noise in numbers: of noise that is known, and what tells enlarged photos."""

import numpy as np
import pytest
from conftest import leaves
from PIL import Image
from scipy import ndimage

from realsr.estimation.noise_model import NoiseModel


def tiles(count=400, level=0.5, strength=6.0, sigma=0.8, seed=0):
    """Gray tiles ``(count, 32, 32, 3)`` of noise of this standard deviation in levels, smoothed, on slanted planes."""
    noise = np.random.default_rng(seed).standard_normal((count, 40, 40))
    noise = ndimage.gaussian_filter(noise, (0, sigma, sigma), mode="wrap") if sigma else noise
    noise = noise[:, 4:36, 4:36] * strength / noise.std()
    plane = np.linspace(-8, 8, 32)[:, None] - np.linspace(-3, 3, 32)
    return np.round(255 * level + plane + noise).clip(0, 255).astype(np.uint8)[..., None].repeat(3, 3)


def test_autocovariance_is_that_of_the_noise():
    model = NoiseModel.of_tiles(tiles())
    impulse = np.zeros((21, 21))
    impulse[10, 10] = 1
    shape = ndimage.gaussian_filter(impulse, 0.8)
    own = ndimage.correlate(shape, shape, mode="constant")
    expected = (6 / 255) ** 2 * own[4:17, 4:17] / own[10, 10]
    assert model.covariance.shape == (13, 13)
    np.testing.assert_allclose(model.covariance, expected, atol=0.03 * expected.max())
    assert np.sqrt(model.variance) * 255 == pytest.approx(6, rel=0.03)
    assert model.covariance[6, 7] > 0.5 * model.variance


def test_noise_is_filtered_as_the_picture():
    model = NoiseModel.of_tiles(tiles(sigma=0))
    impulse = np.zeros((5, 5))
    impulse[2, 2] = 1
    kernel = ndimage.gaussian_filter(impulse, 0.6, mode="constant")
    own = np.array([[ndimage.correlate(kernel, kernel, mode="constant")[2, 2 + x]] for x in range(3)])[:, 0]
    found = model.filtered(kernel)
    assert found.covariance[6, 6:9] == pytest.approx(model.variance * own, abs=0.01 * model.variance)
    assert found.variances / model.variances == pytest.approx(own[0], rel=0.03)


def test_strength_follows_the_brightness():
    dark, light = tiles(level=0.2, strength=8), tiles(level=0.8, strength=2)
    model = NoiseModel.of_tiles(np.concatenate([light, dark]))
    assert (np.diff(model.levels) >= 0).all()
    found = model.gains(np.array([0.0, 0.2, 0.8, 1.0])) * np.sqrt(model.variance) * 255
    np.testing.assert_allclose(found, [8, 8, 2, 2], rtol=0.05)


def test_covariances_of_patches_and_slopes_are_those_of_the_noise():
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.standard_normal((600, 600)), (1.0, 0.6), mode="wrap") * 0.1
    distance = np.arange(-6, 7)
    exact = np.array([[(noise * np.roll(noise, (y, x), (0, 1))).mean() for x in distance] for y in distance])
    model = NoiseModel(exact, np.zeros(1), exact[6:7, 6])
    patches = np.lib.stride_tricks.sliding_window_view(noise, (5, 5)).reshape(-1, 25)
    np.testing.assert_allclose(model.of_patches(5), np.cov(patches.T), atol=0.02 * model.variance)
    slopes = np.stack(np.gradient(noise)).reshape(2, -1)
    np.testing.assert_allclose(model.of_slopes(), np.cov(slopes), atol=0.02 * model.variance)


def test_a_photo_gives_the_model_of_its_flat_tiles_alone():
    rng = np.random.default_rng(0)
    photo = np.full((200, 300), 120.0)
    photo[:, 150:] = 255 * leaves(200, 150)[0].numpy()
    noise = ndimage.gaussian_filter(rng.standard_normal(photo.shape), 0.7)
    image = np.round(photo + 5 * noise / noise.std()).clip(0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    model = NoiseModel.of_photo(image)
    assert np.sqrt(model.variance) * 255 == pytest.approx(5, rel=0.1)
    assert NoiseModel.of_photo(image[:, 150:]) is None
    assert NoiseModel.of_photo(np.full_like(image, 255)) is None
    assert NoiseModel.of_photo(image[:20, :20]) is None


@pytest.mark.parametrize("strength", [6, 2])  # levels; rounding is half of what is fine in 2
def test_enlarged_noise_is_smooth_and_white_noise_fine(strength):
    white = tiles(strength=strength, sigma=0)
    enlarged = [
        np.asarray(Image.fromarray(tile).resize((64, 64), Image.Resampling.BICUBIC))[16:48, 16:48] for tile in white
    ]
    assert NoiseModel.of_tiles(white).fineness() == pytest.approx(1, abs=0.03)
    assert NoiseModel.white(0.1).fineness() == pytest.approx(1) == NoiseModel.white(0).fineness()
    assert 0.1 < NoiseModel.of_tiles(tiles(sigma=0.6)).fineness() < 0.7
    assert NoiseModel.of_tiles(np.stack(enlarged)).fineness() < 0.05
