"""degradation=camera: its parts against other programs' and its settings against cameras that it has not seen."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import flat_picture, scene

from realsr.data.cameras import CAMERAS
from realsr.degradation.camera import CameraDegradation, lens_kernels
from realsr.degradation.camera_fit import fit_development, signature
from realsr.degradation.development import PARTS, Development, smoothed
from realsr.estimation.kernels import (
    bicubic_kernel,
    centre_index,
    centre_of_mass,
    covariance,
    developed,
    gaussian_of,
    max_normalised_correlation,
)
from realsr.imaging.jpeg import standard_tables
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool, NoisePool
from realsr.runtime.errors import InputError


def walls(name: str, darkest: float = 0.15, brightest: float = 0.85) -> NoisePool:
    """What a camera sees of gray walls, in tiles."""
    rng = np.random.default_rng(0)
    seen = [flat_picture(CAMERAS[name], level, 64, rng) for level in np.linspace(darkest, brightest, 15)]
    tiles = np.concatenate([s.reshape(2, 32, 2, 32, 3).swapaxes(1, 2).reshape(4, 32, 32, 3) for s in seen])
    return NoisePool(torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous(), ["wall"] * len(tiles))


def tables(quality: int, subsampling: int = 2) -> JpegPool:
    return JpegPool(standard_tables(torch.tensor([quality])), torch.full((1, 2), subsampling), ["wall"])


def gaussians(*variances: tuple[float, float, float]) -> KernelPool:
    kernels = [gaussian_of(33, np.array([[xx, xy], [xy, yy]]), 4) for xx, xy, yy in variances]
    return KernelPool(torch.from_numpy(np.stack(kernels)).float(), ["photo"] * len(kernels))


def rising(dark: float, more: float) -> tuple[tuple[float, ...], ...]:
    """Logarithms of the noise's variance, that rise by ``more`` up to white."""
    return (tuple((dark + more * np.linspace(0, 1, 17)).tolist()),) * 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def system() -> NoisePool:
    return walls("system")


@pytest.mark.parametrize(
    ("name", "quality", "demosaicking", "crosstalk", "sharpening", "tone"),
    [
        ("compact", 92, "bilinear", 0.0, (0.2, 0.6), 0.0),  # OpenCV's edge-aware one is the bilinear one on walls
        ("system", None, "malvar", 1.0, (0.0, 0.2), 0.0),
        ("phone", 90, "bilinear", 1.0, (0.2, 1.3), 0.4),  # its noise reduction spares edges: noise shows less of it
        ("drone", 97, "malvar", 1.0, (0.2, 0.9), 0.4),
    ],
)
def test_walls_tell_how_a_camera_develops(name, quality, demosaicking, crosstalk, sharpening, tone):
    subsampling = 1 if CAMERAS[name].subsampling == "4:4:4" else 2
    pool, coding = walls(name), None if quality is None else tables(quality, subsampling)
    degradation = CameraDegradation(4, None, pool, coding)
    found = degradation.development
    assert (found.demosaicking, found.crosstalk) == (demosaicking, crosstalk)
    assert sharpening[0] <= found.sharpening <= sharpening[1]
    assert abs(found.tone - tone) < 0.3
    # and a wall seen through what was found has the camera's noise
    levels = pool.tiles.float().mean((2, 3), keepdim=True) / 255
    made = degradation(levels.expand(-1, -1, 160, 160), seeded(), margin=16)
    gray = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    ours, theirs = ((x * gray).sum(1).var((1, 2)).view(15, 4).mean(1).sqrt() for x in (made, pool.tiles / 255))
    assert torch.allclose(ours, theirs, rtol=0.25)
    assert float((ours / theirs).log().mean().abs()) < 0.15


@functools.cache
def fitted(name: str) -> Development:
    return fit_development(walls(name, 0.3, 0.7), None)


@pytest.mark.parametrize("name", ["system", "drone"])
@pytest.mark.parametrize("level", [0.1, 0.92])
def test_noise_that_is_darker_or_brighter_than_the_tiles_follows_the_sensor(name, level):
    found = fitted(name)
    true = flat_picture(CAMERAS[name], level, 160, np.random.default_rng(1)) / 255
    wall = torch.tensor(true.mean((0, 1))).float()[None, :, None, None].expand(1, 3, 160, 160)
    made = found.develop(found.light(wall), torch.randn(wall.shape, generator=seeded()))[..., 8:-8, 8:-8]
    assert made[0].std((1, 2)).numpy() == pytest.approx(true.std((0, 1)), rel=0.12)


def test_of_a_large_pool_every_few_tiles_are_looked_at(system, rough_fit, monkeypatch):
    monkeypatch.setattr("realsr.degradation.camera_fit.MOST_VALUES", 20 * 3 * 32 * 32)  # of 60 tiles: every fourth
    few = fit_development(system.subset(range(0, len(system), 4)), None)
    assert fit_development(system, None) == few


def test_colours_that_a_camera_smooths_more_are_found():
    true = Development("bilinear", chroma=1.5, noise=rising(-8.0, 2.0))
    levels = torch.linspace(0.2, 0.8, 40)[:, None, None, None].expand(-1, 3, 48, 48)
    fields = [torch.randn(levels.shape, generator=seeded(seed)) for seed in range(2)]
    seen = 255 * true.develop(true.light(levels), fields[0])[..., 8:40, 8:40]
    found = fit_development(NoisePool(seen.round().byte(), ["wall"] * 40), None)
    assert found.chroma > 0
    made = 255 * found.develop(found.light(levels), fields[1])[..., 8:40, 8:40]
    ours, theirs = (signature(x - x.mean((2, 3), keepdim=True)) for x in (made, seen))
    assert float((ours - theirs).abs().max()) < 0.4
    plain = replace(found, chroma=0.0)
    made = 255 * plain.develop(plain.light(levels), fields[1])[..., 8:40, 8:40]
    assert float((signature(made - made.mean((2, 3), keepdim=True)) - theirs).abs().max()) > 2


def test_a_lens_is_the_kernel_without_the_development():
    pool = gaussians((16.0, 4.0, 9.0), (4.0, 0.0, 4.0))
    response = Development("malvar", sharpening=0.4).response()
    whole = [developed(kernel, response, 4) for kernel in pool.kernels.double().numpy()]
    assert min(kernel.min() for kernel in whole) < -1e-3  # halos
    lens = lens_kernels(KernelPool(torch.from_numpy(np.stack(whole)).float(), pool.photos), 4, response)
    for found, true in zip(lens.kernels.double().numpy(), pool.kernels.double().numpy(), strict=True):
        assert max_normalised_correlation(found, true) > 0.999
        assert covariance(found) == pytest.approx(covariance(true), abs=0.25)
        assert found.sum() == pytest.approx(1, abs=1e-6)
        assert np.allclose(centre_of_mass(found), centre_index(33, 4), atol=0.02)


@pytest.mark.parametrize("kernel", [np.eye(33)[16][:, None] * np.eye(33)[16], bicubic_kernel(4)])
def test_the_lens_of_a_kernel_without_width_is_a_pixel_wide(kernel):
    pool = KernelPool(torch.from_numpy(kernel[None]).float(), ["photo"])
    lens = lens_kernels(pool, 4, Development("bilinear").response()).kernels[0].double().numpy()
    assert np.allclose(covariance(lens), np.eye(2) * 16 / 12, atol=0.05)


def test_a_lens_keeps_the_shape_of_a_kernel():
    kernel = np.zeros((33, 33))
    kernel[10:26, 16:20] = 1  # a bar
    kernel[10:14, 20:26] = 1  # with a foot, so that no two turns of it are alike
    kernel /= kernel.sum()
    response = Development("malvar", sharpening=0.4).response()
    pool = KernelPool(torch.from_numpy(developed(kernel, response, 4)[None]).float(), ["photo"])
    same = lens_kernels(pool, 4, response).kernels[0].double().numpy()
    assert max_normalised_correlation(same, kernel) > 0.99
    assert max_normalised_correlation(same[::-1], kernel) < 0.9
    assert max_normalised_correlation(same.T, kernel) < 0.8


def test_a_thin_kernel_stays_turned_as_it_was():
    thin = gaussians((9.0, 8.7, 9.0))  # down to the right
    lens = lens_kernels(thin, 4, Development("none").response()).kernels[0].double().numpy()
    values, vectors = np.linalg.eigh(covariance(lens))
    assert values == pytest.approx([16 / 12, 17.7], rel=0.05)
    assert abs(vectors[:, 1] @ [1, 1]) == pytest.approx(2**0.5, abs=0.01) and covariance(lens)[0, 1] > 0


def gains(response: np.ndarray) -> np.ndarray:
    """Of 0.1, 0.2 and 0.3 cycles a pixel across."""
    offsets = np.arange(len(response)) - len(response) // 2
    return np.cos(2 * np.pi * np.outer([0.1, 0.2, 0.3], offsets)) @ response.sum(0)


def test_the_response_of_a_development():
    assert Development("none").response() == pytest.approx(np.pad([[1.0]], 5), abs=1e-4)
    f = np.array([0.1, 0.2, 0.3])
    # unsharp masking leaves 1 + a (1 - exp(-2 pi^2 f^2)) of frequency f
    sharp = Development("none", sharpening=0.5, radius=1.0).response()
    assert gains(sharp) == pytest.approx(1 + 0.5 * (1 - np.exp(-2 * np.pi**2 * f**2)), abs=0.03)
    # the bilinear one blurs as a Gaussian of variance 0.36 would, the mean over its four kinds of pixel
    assert gains(Development("bilinear").response()) == pytest.approx(np.exp(-2 * np.pi**2 * 0.36 * f**2), abs=0.06)
    assert gains(Development("malvar").response()).min() > 0.95


def test_without_noise_gray_stays_gray_and_light_adds_up(system, rough_fit):
    degradation = CameraDegradation(4, gaussians((4.0, 0.0, 4.0)), system, None, without=["noise"])
    flat = torch.full((1, 3, 96, 96), 0.6)
    assert torch.allclose(degradation(flat, seeded(), 32), torch.full((1, 3, 8, 8), 153 / 255))
    dots = (torch.arange(96) % 2).float().expand(1, 3, 96, 96)  # half of the light is 0.735 in display values
    light = degradation(dots, seeded(), 32)
    assert float(light.mean()) == pytest.approx(0.735, abs=0.01)
    display = CameraDegradation(4, gaussians((4.0, 0.0, 4.0)), system, None, without=["noise", "linear"])
    assert float(display(dots, seeded(), 32).mean()) == pytest.approx(0.5, abs=0.01)


def test_a_crop_is_a_part_of_the_photo(system, rough_fit):
    degradation = CameraDegradation(4, gaussians((5.0, 1.0, 7.0)), system, None, without=["noise"]).eval()
    hr, margin = scene(256, 320)[None], degradation.margin
    whole = degradation(hr, seeded())
    top, left = 64, 72  # even rows and columns of the mosaic
    crop = degradation(hr[..., top - margin : top + 64 + margin, left - margin : left + 64 + margin], seeded(), margin)
    expected = whole[..., top // 4 : top // 4 + 16, left // 4 : left // 4 + 16]
    assert crop.shape == expected.shape
    assert float((crop - expected).abs().max()) <= 1.01 / 255  # a rounding at most


def test_every_part_counts_and_draws_follow_the_seed(system, rough_fit):
    pools = gaussians((5.0, 1.0, 7.0)), system.subset(range(0, len(system), 6)), tables(80)
    full = CameraDegradation(4, *pools)
    full.development = Development(crosstalk=0.5, sharpening=0.5, noise=rising(-8.5, 3.0))
    hr = scene(160, 160).repeat(2, 1, 1, 1)
    lr = full(hr, seeded(), 32)
    assert lr.shape == (2, 3, 24, 24)
    assert torch.equal(lr, full(hr, seeded(), 32))
    assert not torch.equal(lr, full(hr, seeded(1), 32))
    assert not torch.equal(lr[0], lr[1])
    less = {part: CameraDegradation(4, *pools, without=[part]) for part in PARTS}
    for part, degradation in less.items():
        assert float((degradation(hr, seeded(), 32) - lr).abs().mean()) > 1e-3, part
    assert less["mosaic"].development.demosaicking == "none"
    assert less["sharpening"].development.sharpening == 0


def test_a_gray_camera_has_gray_noise():
    tiles = (128 + 4 * torch.randn(8, 1, 32, 32, generator=seeded())).round().byte().repeat(1, 3, 1, 1)
    degradation = CameraDegradation(4, None, NoisePool(tiles, ["photo"] * 8))
    assert degradation.development.gray
    lr = degradation(torch.full((2, 3, 96, 96), 0.5), seeded(), 16)
    assert float((lr - lr[:, :1]).abs().max()) == 0
    assert 3 < 255 * float(lr.std()) < 5


def test_noise_is_as_strong_as_in_one_of_the_photos():
    draws, levels = seeded(), [(40.0, 3.0), (120.0, 3.0), (120.0, 9.0), (200.0, 6.0)]
    tiles = torch.cat([level + strength * torch.randn(40, 3, 32, 32, generator=draws) for level, strength in levels])
    photos = [name for name in ("dark", "calm", "loud", "light") for _ in range(40)]
    degradation = CameraDegradation(4, None, NoisePool(tiles.round().byte(), photos)).eval()
    development = degradation.development
    calm, dark, light, loud = np.exp(np.array(development.photos) / 2)  # by their names
    assert loud / calm == pytest.approx(3, rel=0.1)
    assert (dark, light) == pytest.approx((1, 1), rel=0.1)
    made = degradation(torch.full((200, 3, 128, 128), 120 / 255), seeded(), 16)
    strengths = 255 * made.std((1, 2, 3))
    assert strengths.min() == pytest.approx(3, rel=0.15) and strengths.max() == pytest.approx(9, rel=0.15)
    for level, strength in ((40, 3), (200, 6)):
        one = replace(development, photos=(0.0,))
        wall = torch.full((1, 3, 64, 64), level / 255)
        made = one.develop(one.light(wall), torch.randn(wall.shape, generator=seeded()))
        assert 255 * float(made.std()) == pytest.approx(strength, rel=0.15)


def test_a_colour_without_noise_is_said(system, caplog):
    tiles = system.tiles.clone()
    tiles[:, 2] = 0
    degradation = CameraDegradation(4, None, NoisePool(tiles, system.photos))
    assert "a colour has no noise" in caplog.text
    assert bool(degradation(torch.full((1, 3, 96, 96), 0.5), seeded(), 16).isfinite().all())


def test_bad_input(system):
    with pytest.raises(InputError, match=r"data\.pools\.noise_dir"):
        CameraDegradation(4, gaussians((4.0, 0.0, 4.0)))
    with pytest.raises(InputError, match="lens"):
        CameraDegradation(4, None, system, without=["lens"])


def test_smoothing_is_a_gaussian():
    spot = torch.zeros(1, 1, 31, 31)
    spot[0, 0, 15, 15] = 1
    out = smoothed(spot, 1.2)[0, 0].double().numpy()
    assert out.sum() == pytest.approx(1)
    assert np.allclose(covariance(out), np.eye(2) * 1.44, atol=0.03)
