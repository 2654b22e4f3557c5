"""Kernel maths against KernelGAN's goldens, against the operators that the kernels stand for, and against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from realsr.estimation import kernels as K
from realsr.imaging.resample import blur_subsample, imresize


def lopsided(size: int, seed: int = 0) -> np.ndarray:
    """A compact kernel without symmetry, sum one, that falls to zero at its frame."""
    y, x = np.indices((size, size)) - (size - 1) / 2
    window = np.exp(-(y**2 + x**2) / (2 * (size / 8) ** 2))
    kernel = window * (0.2 + np.random.default_rng(seed).random((size, size)))
    return kernel / kernel.sum()


def blur(hr: torch.Tensor, kernel: np.ndarray, scale: int) -> torch.Tensor:
    return blur_subsample(hr, torch.from_numpy(np.ascontiguousarray(kernel))[None], scale)


def picture(side: int) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_golden_postprocess(golden):
    data = golden("kernel_postprocess.npz")
    np.testing.assert_allclose(K.suppress_small(data["raw"]), data["zeroized"], atol=1e-5)
    x2 = K.recentre(K.suppress_small(data["raw"]), 2)
    assert x2.shape == (17, 17)
    np.testing.assert_allclose(x2, data["x2"], atol=1e-5)
    np.testing.assert_allclose(K.x4_from_x2(x2), data["x4"], atol=1e-5)
    np.testing.assert_allclose(K.x4_from_x2(data["x2"].astype(np.float64)), data["x4"], atol=1e-7)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_kernel_is_imresize(scale):
    """Everywhere, borders included: both repeat the edge pixel."""
    hr = picture(12 * scale)
    torch.testing.assert_close(blur(hr, K.bicubic_kernel(scale), scale), imresize(hr, 1 / scale), rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2, 2.5])
def test_gaussian_covariance(scale, angle):
    """Eigenvectors of the covariance are the axes asked for: counter-clockwise, while rows count downwards."""
    kernel = K.gaussian_kernel(41, (3.0, 1.5), angle, scale)
    along = np.array([-math.sin(angle), math.cos(angle)])  # (row, column): y is up, rows go down
    across = np.array([math.cos(angle), math.sin(angle)])
    expected = 9 * np.outer(along, along) + 2.25 * np.outer(across, across)
    np.testing.assert_allclose(K.covariance(kernel), expected, atol=1e-3)
    np.testing.assert_allclose(K.centre_of_mass(kernel), 20 + (scale - 1) / 2, atol=1e-4)
    assert kernel.sum() == pytest.approx(1)


@pytest.mark.parametrize("sigmas", [(0.0, 1.0), (1.0, -2.0)])
def test_gaussian_refuses_widths(sigmas):
    with pytest.raises(ValueError, match="must be positive"):
        K.gaussian_kernel(13, sigmas, 0.0, 4)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [12, 13])
@pytest.mark.parametrize("moved", [(0, 0), (3, -2)])
def test_recentre(scale, size, moved):
    kernel = np.roll(lopsided(size), moved, (0, 1))
    centred = K.recentre(kernel, scale)
    middle = centred.shape[0] // 2 + (scale - 1) / 2
    np.testing.assert_allclose(ndimage.center_of_mass(centred), middle, atol=0.02)
    assert centred.sum() == pytest.approx(1)
    # only moved: the width stays, but for what the spline rings at pixels as rough as these
    np.testing.assert_allclose(K.covariance(centred), K.covariance(kernel), atol=0.05)


@pytest.mark.parametrize("size", [11, 12, 17])
def test_x4_is_two_steps_of_x2(size):
    hr, kernel = picture(96), np.pad(lopsided(5), (size - 5) // 2)
    kernel = np.pad(kernel, (0, size - kernel.shape[0]))
    four = K.x4_from_x2(kernel)
    assert four.shape == (2 * size - 1, 2 * size - 1)
    twice = blur(blur(hr, kernel, 2), kernel, 2)
    inside = np.s_[..., 6:-6, 6:-6]
    torch.testing.assert_close(blur(hr, four, 4)[inside], twice[inside], rtol=0, atol=1e-10)
    assert (blur(hr, four.T, 4) - twice)[inside].abs().max() > 1e-3


def test_suppress_small_keeps_the_large_ones():
    kernel = np.arange(1.0, 26.0).reshape(5, 5)
    cleaned = K.suppress_small(kernel, count=5)  # the sixth largest is 20: 15 is subtracted
    np.testing.assert_allclose(cleaned, np.clip(kernel - 15, 0, None) / 55)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_normalise_refuses(value):
    with pytest.raises(ValueError, match="cannot be normalised"):
        K.normalise(np.full((3, 3), value))


def test_normalise():
    np.testing.assert_allclose(K.normalise(np.full((2, 2), 4, np.float32)), np.full((2, 2), 0.25))


@pytest.fixture
def truth():
    return K.gaussian_kernel(21, (2.5, 1.2), 0.6, 4)


def test_equal_kernels_are_perfect(truth):
    assert K.kernel_psnr(truth, truth) == math.inf
    assert K.max_normalised_correlation(truth, truth) == pytest.approx(1)


def test_metrics_leave_place_and_frame_out(truth):
    other = np.pad(np.roll(truth, (2, -1), (0, 1)), ((0, 6), (3, 3)))
    assert K.kernel_psnr(other, truth) > 75
    assert K.max_normalised_correlation(other, truth) == pytest.approx(1, abs=1e-4)
    half = ndimage.shift(truth, (0.5, 0.5))
    assert K.kernel_psnr(half, truth) > 60


@pytest.mark.parametrize("wrong", [(3.5, 1.2), (2.5, 2.0), (1.2, 0.8)])
def test_metrics_punish_a_wrong_width(truth, wrong):
    near, far = (K.gaussian_kernel(21, s, 0.6, 4) for s in ((2.6, 1.25), wrong))
    assert K.kernel_psnr(far, truth) < K.kernel_psnr(near, truth) - 10
    assert K.max_normalised_correlation(far, truth) < K.max_normalised_correlation(near, truth) < 1


def test_metrics_punish_a_wrong_direction(truth):
    turned = K.gaussian_kernel(21, (2.5, 1.2), 0.6 + math.pi / 2, 4)
    assert K.kernel_psnr(turned, truth) < 50
    assert K.max_normalised_correlation(turned, truth) < 0.9


def test_kernel_psnr_by_hand():
    """Two blocks of the same centre: 9 values of 1/9 against one of 1, in a frame of 21."""
    box, point = np.full((3, 3), 1 / 9), np.zeros((3, 3))
    point[1, 1] = 1
    error = (8 * (1 / 9) ** 2 + (8 / 9) ** 2) / 21**2
    assert K.kernel_psnr(box, point) == pytest.approx(-10 * math.log10(error))


def test_mnc_is_symmetric_and_blind_to_scale(truth):
    other = lopsided(17)
    one, two = K.max_normalised_correlation(other, truth), K.max_normalised_correlation(truth, other)
    assert one == pytest.approx(two) and one < 1
    assert K.max_normalised_correlation(7 * truth, truth) == pytest.approx(1)


def test_mnc_by_hand():
    assert K.max_normalised_correlation(np.full((1, 2), 1.0), np.full((1, 8), 1.0)) == pytest.approx(0.5)


def test_covariance_is_numpys():
    kernel = lopsided(9)
    y, x = np.indices(kernel.shape)
    expected = np.cov(np.stack([y.ravel(), x.ravel()]), aweights=kernel.ravel(), ddof=0)
    np.testing.assert_allclose(K.covariance(kernel), expected, atol=1e-10)
    np.testing.assert_allclose(K.covariance(5 * kernel), expected, atol=1e-10)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, 2.5, 3.1])
def test_widths_and_angle_of_a_gaussian(angle, scale):
    """The angle is that of the wider axis, whichever was given first, and leads back to the kernel."""
    kernel = K.gaussian_kernel(41, (3.0, 1.5), angle, scale)
    wide, narrow, found = K.widths_and_angle(kernel)
    assert (wide, narrow) == pytest.approx((3.0, 1.5), abs=1e-3)
    assert math.sin(found - angle) == pytest.approx(0, abs=1e-6) and 0 <= found <= math.pi
    np.testing.assert_allclose(K.gaussian_kernel(41, (wide, narrow), found, scale), kernel, atol=1e-5)
    turned = K.gaussian_kernel(41, (1.5, 3.0), angle, scale)
    assert math.cos(K.widths_and_angle(turned)[2] - angle) == pytest.approx(0, abs=1e-6)


def test_angle_is_counter_clockwise_on_the_picture():
    """Up and to the right of the picture is 45 degrees."""
    kernel = np.fliplr(np.eye(5)) / 5
    assert K.widths_and_angle(kernel) == pytest.approx((2.0, 0.0, math.pi / 4))


@pytest.mark.parametrize("size", [9, 8, 4])
def test_framed_keeps_the_middle_index(size):
    kernel = np.zeros((size, size))
    kernel[size // 2, size // 2 - 1] = 1
    for frame in (3, 4, 7, 21):
        assert K.framed(kernel, frame).shape == (frame, frame)
        assert K.framed(kernel, frame)[frame // 2, frame // 2 - 1] == 1


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("matrix", [[[4, 0], [0, 4]], [[6, 2], [2, 3]], [[3, -1.5], [-1.5, 6]], [[2, 0], [0, 7]]])
def test_gaussian_of_has_the_covariance(scale, matrix):
    """Given as ``xx, xy, yy``, which :func:`covariance` turns around; on the picture as scipy's normal density."""
    kernel = K.gaussian_of(41, np.array(matrix, dtype=float), scale)
    np.testing.assert_allclose(K.covariance(kernel), np.array(matrix)[::-1, ::-1], atol=0.02)
    assert K.centre_of_mass(kernel) == pytest.approx([K.centre_index(41, scale)] * 2, abs=1e-3)
    y, x = np.indices(kernel.shape) - K.centre_index(41, scale)
    density = stats.multivariate_normal(cov=matrix).pdf(np.stack([x, y], -1))
    np.testing.assert_allclose(kernel, density / density.sum(), atol=1e-9)


def test_a_response_is_undone():
    x = np.arange(11) - 5
    smooth = np.exp(-0.5 * (x[:, None] ** 2 + x**2) / 0.25)
    smooth /= smooth.sum()
    kernel = K.gaussian_kernel(33, (2.5, 1.8), 0.4, 4)
    back = K.developed(K.developed(kernel, smooth, 4), K.inverse(smooth), 4)
    assert K.max_normalised_correlation(back, kernel) > 0.999
    assert K.max_normalised_correlation(K.developed(kernel, smooth, 4), kernel) < 0.985
    assert K.inverse(np.ones((1, 1))) == pytest.approx(np.pad([[1.0]], 5), abs=1e-9)


def test_the_gaussian_that_leaves_as_much_of_a_frequency():
    kernel = K.gaussian_kernel(33, (2.5, 1.5), 0.7, 4)
    yx = K.covariance(kernel)
    assert K.gaussian_like(kernel, 0.05) == pytest.approx(yx[::-1, ::-1], abs=0.03)


def test_widths_are_of_the_lobe_without_halos():
    kernel = K.gaussian_kernel(33, (2.0, 1.5), 0.4, 4)
    sharp = K.developed(kernel, 1.5 * np.pad([[1.0]], 2) - 0.5 * K.gaussian_kernel(5, (1.0, 1.0), 0, 1), 4)
    assert sharp.min() < -1e-3 and K.covariance(sharp)[0, 0] < 0.3 * K.covariance(kernel)[0, 0]
    wide, narrow, angle = K.widths_and_angle(sharp)
    assert (wide, narrow) == pytest.approx((2.0, 1.5), rel=0.15) and angle == pytest.approx(0.4, abs=0.1)
