import numpy as np
import pytest
import torch
from conftest import scene
from scipy import ndimage

from realsr.estimation.patch_statistics import BRIGHTNESS, curves, edge_widths, features, power_spectrum
from realsr.evaluation.separation import compare, separation

SIDE = 32


def noise(count, sigma, seed=0, mean=0.5):
    generator = torch.Generator().manual_seed(seed)
    return mean + sigma / 255 * torch.randn(count, 3, SIDE, SIDE, generator=generator)


def photos(count, sigma, seed=0, blur=0.0):
    """Patches of different pictures, blurred, with noise."""
    made = []
    for index in range(count):
        picture = scene(160, 160, seed=1000 * seed + index).numpy()
        picture = ndimage.gaussian_filter(picture, (0, blur, blur)) if blur else picture
        patches = [picture[:, y : y + SIDE, x : x + SIDE] for y in range(0, 128, 12) for x in range(0, 128, 12)]
        made.append(torch.from_numpy(np.stack(patches)).float() + noise(len(patches), sigma, seed + index, 0))
    return made


def named(patches):
    """Features of each photo's patches, by a name that the photo and what is made of it share."""
    return {f"photo{index}": features(of) for index, of in enumerate(patches)}


def test_power_of_white_noise_is_its_variance_in_every_band():
    power = power_spectrum(255 * noise(400, 6.0)).mean(0)
    assert torch.allclose(power, torch.tensor(36.0), rtol=0.08)


def test_separation_of_one_domain_and_of_two():
    real = named(photos(12, 5, seed=1))
    same = separation(real, named(photos(12, 5, seed=2)))
    assert 0.4 < same.auc < 0.6 and same.low < 0.55 and same.high > 0.45
    noisier = separation(real, named(photos(12, 8, seed=2)))
    assert noisier.auc > 0.95 and noisier.low > 0.9
    softer = separation(real, named(photos(12, 5, seed=2, blur=1.0)))
    assert softer.auc > 0.75 and softer.low <= softer.auc <= softer.high


def test_separation_sees_noise_that_depends_on_brightness():
    """Of the same noise on average, in one domain more of it where it is bright, in the other where it is dark."""
    bright = [torch.cat([noise(60, 4, i, 0.3), noise(60, 8, i + 50, 0.7)]) for i in range(6)]
    dark = [torch.cat([noise(60, 8, i + 100, 0.3), noise(60, 4, i + 150, 0.7)]) for i in range(6)]
    assert separation(named(bright), named(dark)).auc > 0.95


def test_separation_learns_nothing_of_the_photo_that_it_is_tested_on():
    """Photos that differ from each other, but not by domain: trained on its own photo, a classifier would know."""
    real = named(noise(80, sigma, seed) for seed, sigma in enumerate((3, 5, 8, 12)))
    made = named(noise(80, sigma, seed + 10) for seed, sigma in enumerate((3, 5, 8, 12)))
    assert separation(real, made).auc < 0.6


def test_curves_of_known_noise():
    generator = torch.Generator().manual_seed(1)
    means = torch.rand(600, generator=generator)
    gray = torch.randn(600, 1, SIDE, SIDE, generator=generator).expand(-1, 3, -1, -1)
    sigma = (2 + 6 * means)[:, None, None, None]
    patches = 0.1 + 0.8 * means[:, None, None, None] + sigma / 255 * gray
    found = curves(patches)
    centres = (BRIGHTNESS[:-1] + BRIGHTNESS[1:]) / 2 / 255
    expected = 2 + 6 * (centres - 0.1) / 0.8
    inner = slice(1, -1)
    np.testing.assert_allclose(found.noise[inner], expected[inner], rtol=0.3)
    assert np.all(np.diff(found.noise[inner]) > 0)
    np.testing.assert_allclose(found.colour, 1, atol=1e-6)
    assert abs(curves(noise(300, 5)).colour).max() < 0.05


def test_flat_places_are_found_beside_texture():
    """Half of the patches show a strong pattern; the noise is measured in the others."""
    pattern = torch.from_numpy(np.indices((SIDE, SIDE)).sum(0) % 2 * 0.2).float() - 0.1
    patches = noise(200, 4)
    patches[::2] += pattern
    assert np.nanmean(curves(patches).noise) == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("sigma", [0.8, 1.6])
def test_width_of_a_blurred_edge(sigma):
    """A step blurred by a Gaussian is sigma * sqrt(2 pi) wide, as its steepest slope says."""
    step = np.where(np.arange(SIDE) < SIDE // 2, 40.0, 200.0)
    line = ndimage.gaussian_filter1d(step, sigma)
    widths = edge_widths(torch.from_numpy(np.tile(line, (1, SIDE, 1))))
    assert np.median(widths) == pytest.approx(160 / np.abs(np.diff(line)).max(), rel=0.01)
    assert np.median(widths) == pytest.approx(sigma * np.sqrt(2 * np.pi), rel=0.15)


def test_compare_is_zero_for_a_domain_with_itself_and_says_what_differs():
    real = curves(torch.cat(photos(6, 4, seed=3)))
    assert all(value == 0 for value in compare(real, real).values())
    noisier, softer = (compare(real, curves(torch.cat(photos(6, *how)))) for how in ((8, 3), (4, 3, 1.2)))
    assert noisier["noise"] == pytest.approx(4, rel=0.3) and noisier["noise"] > 3 * softer["noise"]
    assert softer["edges"] > 2 * noisier["edges"]
