import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import flat_picture, leaves
from PIL import Image

from realsr.data.cameras import CAMERAS, Camera
from realsr.estimation.kernels import (
    centre_index,
    centre_of_mass,
    covariance,
    gaussian_kernel,
    max_normalised_correlation,
)
from realsr.imaging.resample import blur_subsample

EVEN = Camera(core=0.45, defocus=(0, 0), motion=(0, 0), sharpening=0, quality=None, tone="srgb", gains=(1, 1, 1))


def luma(picture):
    return picture @ [0.299, 0.587, 0.114]


def neighbours(picture):
    rest = luma(picture.astype(float))
    rest = rest - rest.mean()
    return (rest[:, 1:] * rest[:, :-1]).mean() / rest.var()


def test_there_are_six_cameras_that_differ_in_every_part():
    assert len(CAMERAS) >= 6
    for part, least in {"demosaic": 3, "tone": 3, "subsampling": 2, "quality": 5, "sharpening": 4, "shot": 4}.items():
        assert len({getattr(camera, part) for camera in CAMERAS.values()}) >= least, part


@pytest.mark.parametrize("scale", [2, 4])
def test_a_point_spread_is_as_wide_as_its_parts(scale):
    """Variances add: of core, disk (a quarter of its squared radius along an axis), line, and the scene's pixel."""
    camera = Camera(core=0.4, defocus=(0.6, 0.6), motion=(1.2, 1.2), corners=1.5)
    middle, corner = camera.spreads(scale, np.random.default_rng(0))
    for spread, core in ((middle, 0.4), (corner, 0.6)):
        assert spread.sum() == pytest.approx(1)
        np.testing.assert_allclose(centre_of_mass(spread), len(spread) // 2, atol=1e-6)
        expected = 2 * core**2 + 2 * 0.6**2 / 4 + 1.2**2 / 12 + 2 / 12 / scale**2
        assert np.trace(covariance(spread)) / scale**2 == pytest.approx(expected, rel=0.05)


def test_the_field_is_soft_in_the_corners_alone():
    camera = replace(EVEN, corners=3.0)
    dots = np.zeros((240, 240, 3))
    dots[8::16, 8::16] = 1
    light = camera.expose(dots, 2, camera.spreads(2, np.random.default_rng(0)))[..., 0]
    middle, corner = light[52:68, 52:68].max(), light[:12, :12].max()
    assert middle > 2 * corner
    even = EVEN.expose(dots, 2, EVEN.spreads(2, np.random.default_rng(0)))[..., 0]
    assert middle == pytest.approx(even[52:68, 52:68].max(), rel=0.1)


def test_light_is_blurred_before_it_is_toned():
    """A chessboard finer than a pixel is as bright as its mean light, brighter than the mean of its display values."""
    board = np.indices((64, 64)).sum(0)[..., None] % 2 * np.ones(3)
    picture = EVEN.develop(EVEN.expose(board, 4, EVEN.spreads(4, np.random.default_rng(0))), None)
    assert picture[4:-4, 4:-4].mean() == pytest.approx(0.735, abs=0.005)  # sRGB of a half of the light


@pytest.mark.parametrize("name", CAMERAS)
def test_gray_stays_gray_and_white_white(name):
    camera = CAMERAS[name]
    for level in (0.2, 0.6, 1.0):
        picture = camera.develop(np.full((32, 32, 3), level), None)
        assert picture.std() < 1e-3, level
    assert picture.mean() == pytest.approx(1, abs=1e-3)


def test_noise_in_the_raw_signal_is_as_set():
    """Without gains, tone and demosaicking it would be the variance; bilinear filling keeps the measured pixels."""
    camera = replace(EVEN, demosaic="bilinear", shot=4e-4, read=5e-3)
    level = 0.25
    picture = camera.develop(np.full((400, 400, 3), level), np.random.default_rng(0))
    linear = ((picture + 0.055) / 1.055) ** 2.4
    red = linear[::2, ::2, 0] if linear[::2, ::2, 0].std() > linear[1::2, 1::2, 0].std() else linear[1::2, 1::2, 0]
    assert red[2:-2, 2:-2].std() == pytest.approx((4e-4 * level + 5e-3**2) ** 0.5, rel=0.05)


@pytest.mark.parametrize("name", CAMERAS)
def test_noise_of_a_wall_is_a_cameras(name):
    """Some levels strong, its neighbours correlated, since two of three colours of a pixel are filled in."""
    wall = flat_picture(CAMERAS[name], 0.5, 192, np.random.default_rng(1))
    assert wall.dtype == np.uint8 and wall.shape == (192, 192, 3)
    assert 0.5 < luma(wall.astype(float)).std() < 8
    assert 0.1 < neighbours(wall) < 0.8
    other = flat_picture(CAMERAS[name], 0.5, 192, np.random.default_rng(2))
    assert (wall != other).mean() > 0.2


def test_noise_reduction_takes_noise():
    strong = flat_picture(replace(CAMERAS["cctv"], reduction=0.0), 0.5, 128, np.random.default_rng(1))
    weak = flat_picture(CAMERAS["cctv"], 0.5, 128, np.random.default_rng(1))
    assert luma(weak.astype(float)).std() < 0.9 * luma(strong.astype(float)).std()


def test_files_are_what_the_camera_is_set_to():
    picture = leaves(96, 128).permute(1, 2, 0).double().numpy()
    for name, camera in CAMERAS.items():
        with Image.open(io.BytesIO(camera.file(picture))) as image:
            assert (image.format == "PNG") == (camera.quality is None) == (camera.suffix == ".png"), name
            if camera.quality is not None:
                assert image.layer[0][1:3] == ((2, 2) if camera.subsampling == "4:2:0" else (1, 1))
        levels = camera.stored(picture)
        assert cv2.PSNR(levels, (picture * 255).round().astype(np.uint8)) > 28


def test_the_same_draws_give_the_same_photo():
    scene = leaves(96, 128).permute(1, 2, 0).double().numpy()
    camera = CAMERAS["compact"]
    photos = [camera.photograph(scene, 4, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert (photos[0] == photos[1]).all() and (photos[0] != photos[2]).any()


@pytest.mark.parametrize("scale", [2, 4])
def test_the_effective_kernel_of_a_camera_that_only_blurs_is_its_blur(scale):
    """Core and the pixel's own area, 0.53 pixels together; Malvar's demosaicking widens it a little, bilinear more."""
    widths = {}
    for how in ("malvar", "bilinear"):
        camera = replace(EVEN, demosaic=how)
        kernel = camera.effective_kernel(camera.spreads(scale, np.random.default_rng(0)), scale)
        assert kernel.shape == (8 * scale + 1,) * 2 and kernel.sum() == pytest.approx(1)
        lobe = np.clip(kernel - 0.05 * kernel.max(), 0, None)
        np.testing.assert_allclose(centre_of_mass(lobe), centre_index(len(kernel), scale), atol=0.03)
        gaussians = {w: gaussian_kernel(len(kernel), (w * scale,) * 2, 0, scale) for w in np.arange(0.4, 1.0, 0.02)}
        likeness = {width: max_normalised_correlation(g, kernel) for width, g in gaussians.items()}
        widths[how] = max(likeness, key=likeness.get)
        assert likeness[widths[how]] > 0.99
    assert 0.55 < widths["malvar"] < 0.7 < widths["bilinear"] < 0.85


@pytest.mark.parametrize(("name", "most"), [("phone", 0.06), ("cctv", 0.005), ("hand", 0.01)])
def test_the_effective_kernel_makes_of_a_faint_scene_what_the_camera_makes(name, most):
    """Of one that it was not fitted to, up to a gain of contrast, without noise; what is left is the mosaic's."""
    camera = replace(CAMERAS[name], reduction=0.0, corners=1.0)
    scene = 0.5 + 0.06 * (leaves(256, 256, seed=3) - 0.5)
    spreads = camera.spreads(4, np.random.default_rng(5))
    photo = luma(camera.develop(camera.expose(scene.permute(1, 2, 0).double().numpy(), 4, spreads), None))

    def left(kernel):
        made = blur_subsample(scene[None].double(), torch.from_numpy(kernel)[None], 4)[0, 0].numpy()[10:-10, 10:-10]
        return 1 - np.corrcoef(made.ravel(), photo[10:-10, 10:-10].ravel())[0, 1] ** 2

    true = left(camera.effective_kernel(spreads, 4))
    assert true < most
    assert true < min(left(gaussian_kernel(33, (sigma, sigma), 0, 4)) for sigma in np.arange(1.2, 5, 0.2))
