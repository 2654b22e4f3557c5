"""Resampling against MATLAB-like goldens and an independent scipy formulation of blur and subsampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from realsr.estimation.kernels import recentre
from realsr.imaging.resample import blur_subsample, crop_to_multiple, imresize, resize_bands
from realsr.runtime.errors import InputError


def lopsided(size: int, seed: int = 0) -> np.ndarray:
    """A kernel without any symmetry, sum one: flipping or transposing it shows."""
    kernel = np.random.default_rng(seed).random((size, size)) ** 3
    kernel[: size // 2] *= 3
    return kernel / kernel.sum()


def reference(image: np.ndarray, kernel: np.ndarray, scale: int) -> np.ndarray:
    """``(C, H, W)`` by scipy: correlation with origin ``K//2``, mirrored with the edge pixel repeated, every s-th."""
    return np.stack([ndimage.correlate(plane, kernel, mode="reflect")[::scale, ::scale] for plane in image])


def batch(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("name", "scale"), [("s2", 1 / 2), ("s3", 1 / 3), ("s4", 1 / 4), ("up2", 2)])
def test_bicubic_golden(golden, name, scale):
    data = golden("imresize_bicubic.npz")
    ours = imresize(torch.from_numpy(data["x"]), scale)
    np.testing.assert_allclose(ours.clamp(0, 1), data[name], atol=1e-5)  # the goldens are clamped


def test_kernel_golden(golden):
    data = golden("imresize_kernel.npz")
    hr = torch.from_numpy(data["x"]).permute(2, 0, 1)[None].double()
    lr = blur_subsample(hr, torch.from_numpy(data["kernel"])[None], 4)[0].permute(1, 2, 0)
    np.testing.assert_array_equal(lr.clamp(0, 255).floor(), data["y"])  # the reference truncates to 8 bits


@pytest.mark.parametrize("size", [1, 4, 7, 12, 13, 21])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_blur_subsample_is_scipys_correlation(size, scale):
    hr, kernel = batch(2, 3, 24, 36), lopsided(size)
    ours = blur_subsample(hr, torch.from_numpy(kernel)[None], scale)
    for image, lr in zip(hr.numpy(), ours.numpy(), strict=True):
        np.testing.assert_allclose(lr, reference(image, kernel, scale), atol=1e-10)
        if size > 1:  # were it convolution, or the axes mixed up, this would be far off
            for wrong in (kernel[::-1, ::-1], kernel.T):
                assert np.abs(lr - reference(image, wrong, scale)).max() > 1e-2


def test_kernel_larger_than_the_image():
    hr, kernel = batch(1, 3, 8, 12), lopsided(33)
    ours = blur_subsample(hr, torch.from_numpy(kernel)[None], 4)
    np.testing.assert_allclose(ours[0], reference(hr[0].numpy(), kernel, 4), atol=1e-10)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [12, 13])
def test_recentred_kernel_moves_nothing(scale, size):
    """A blob, degraded with a lopsided kernel and enlarged by bicubic, lands where it was."""
    kernel = recentre(lopsided(size), scale)
    side = 24 * scale
    y, x = np.indices((side, side))
    place = np.array([0.45 * side + 0.3, 0.55 * side - 0.2])
    blob = np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / (2 * (1.5 * scale) ** 2))
    lr = blur_subsample(torch.from_numpy(blob)[None, None], torch.from_numpy(kernel)[None], scale)
    back = imresize(lr, scale)[0, 0].numpy()
    np.testing.assert_allclose(ndimage.center_of_mass(back), place, atol=0.05)
    shift = np.subtract(
        ndimage.center_of_mass(imresize(imresize(torch.from_numpy(blob), 1 / scale), scale).numpy()), place
    )
    np.testing.assert_allclose(shift, 0, atol=0.05)  # nor does bicubic down and up


@pytest.mark.parametrize("size", [4, 9, 12, 17])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("margin", [12, 24])
def test_margin_gives_the_interior_of_the_whole(size, scale, margin):
    """With real picture around it, a crop's LR is that part of the whole image's LR: no border is invented."""
    whole, kernel = batch(2, 3, 96, 96), torch.from_numpy(lopsided(size))[None]
    inside = slice(margin // scale, (96 - margin) // scale)
    expected = blur_subsample(whole, kernel, scale)[..., inside, inside]
    torch.testing.assert_close(blur_subsample(whole, kernel, scale, margin), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("margin", [1, 3, 5])
def test_margin_that_is_too_small_is_mirrored(margin):
    whole, kernel = batch(1, 3, 32 + 2 * margin, 40 + 2 * margin), lopsided(13)
    ours = blur_subsample(whole, torch.from_numpy(kernel)[None], 4, margin)
    full = np.stack([ndimage.correlate(plane, kernel, mode="reflect") for plane in whole[0].numpy()])
    np.testing.assert_allclose(ours[0], full[:, margin:-margin:4, margin:-margin:4], atol=1e-10)


@pytest.mark.parametrize("size", [8, 13])
def test_a_kernel_for_each_image(size):
    hr = batch(3, 3, 24, 28)
    kernels = torch.from_numpy(np.stack([lopsided(size, seed) for seed in range(3)]))
    together = blur_subsample(hr, kernels, 4)
    alone = torch.cat([blur_subsample(hr[i : i + 1], kernels[i : i + 1], 4) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert (together[1] - blur_subsample(hr[1:2], kernels[:1], 4)[0]).abs().max() > 1e-3


def test_blur_subsample_errors():
    kernels = torch.full((1, 3, 3), 1 / 9)
    with pytest.raises(ValueError, match=r"10x12.*scale 4"):
        blur_subsample(torch.rand(1, 3, 10, 12), kernels, 4)
    with pytest.raises(ValueError, match=r"6x8.*margin 2"):
        blur_subsample(torch.rand(1, 3, 10, 12), kernels, 4, margin=2)


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 0.4, 1.5, 2])
def test_imresize_gradients(scale):
    image = batch(1, 2, 5, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: imresize(x, scale), image)


def test_blur_subsample_gradients():
    hr, kernels = batch(2, 1, 4, 2).requires_grad_(), batch(2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, k: blur_subsample(x, k, 2), (hr, kernels), fast_mode=True)


@pytest.mark.parametrize(("size", "scale", "expected"), [(37, 1 / 3, 13), (12, 1 / 4, 3), (10, 0.55, 6), (7, 2, 14)])
def test_imresize_rounds_sizes_up(size, scale, expected):
    assert imresize(torch.rand(3, size, size), scale).shape == (3, expected, expected)


def test_crop_to_multiple():
    image = torch.arange(7 * 9).view(1, 7, 9)
    torch.testing.assert_close(crop_to_multiple(image, 4), image[:, :4, :8])
    with pytest.raises(InputError, match=r"3x9.*scale 4"):
        crop_to_multiple(image[:, :3], 4)


def test_a_large_image_is_resized_in_pieces_to_the_same_bits(monkeypatch):
    image = torch.rand(3, 61, 47, generator=torch.Generator().manual_seed(0))
    for scale in (1 / 2, 1 / 3, 0.7, 4):
        whole = imresize(image, scale)
        with monkeypatch.context() as patch:
            patch.setattr("realsr.imaging.resample.PIECE", 1000)
            assert torch.equal(imresize(image, scale), whole)


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.73, 1.0, 1.5, 3])
@pytest.mark.parametrize("rows", [1, 5, 16, 100])
def test_bands_are_resized_as_the_whole(scale, rows):
    image = torch.rand(2, 41, 23, generator=torch.Generator().manual_seed(0))
    pieces = list(resize_bands(iter(image.split(rows, 1)), 41, scale))
    torch.testing.assert_close(torch.cat(pieces, 1), imresize(image, scale))
    if rows == 1 and scale == 0.25:
        assert len(pieces) > 8  # given on as soon as they can be


def test_a_band_that_becomes_large_is_handed_on_in_pieces(monkeypatch):
    image = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("realsr.imaging.resample.LARGEST_BAND", 1000)
    pieces = list(resize_bands(iter(image.split(3, 1)), 6, 40))
    assert max(piece[0].numel() for piece in pieces) <= 1000
    torch.testing.assert_close(torch.cat(pieces, 1), imresize(image, 40))
