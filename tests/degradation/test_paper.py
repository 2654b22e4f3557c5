"""The degradation is its three steps done by hand, whatever the margin, the device's precision and the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import jpeg_pool, kernel_pool, noise_pool, scene, seeded
from PIL import Image
from scipy import ndimage

from realsr.degradation.paper import PaperDegradation
from realsr.imaging.jpeg import jpeg
from realsr.imaging.resample import imresize
from realsr.pools.pool import KernelPool
from realsr.pools.sampling import KernelDraw, NoiseDraw

WITH = [(False, False), (False, True), (True, False), (True, True)]


def degradation(kernels: bool, noise: bool) -> PaperDegradation:
    return PaperDegradation(4, kernel_pool() if kernels else None, noise_pool() if noise else None)


@pytest.fixture(scope="module")
def hr() -> torch.Tensor:
    return torch.stack([scene(96, 112, seed) for seed in range(3)])


@pytest.mark.parametrize(("kernels", "noise"), WITH)
def test_equals_the_steps_by_hand(hr, kernels, noise):
    """Blur by scipy's correlation (or bicubic), subsample, round to 8 bits, add noise, clamp."""
    ours = degradation(kernels, noise)(hr, seeded(3))
    generator = seeded(3)  # kernels are drawn first, then noise
    if kernels:
        drawn = kernel_pool().sample(3, generator).double().numpy()
        pairs = zip(hr.double().numpy(), drawn, strict=True)
        blurred = [[ndimage.correlate(plane, k, mode="reflect")[::4, ::4] for plane in image] for image, k in pairs]
        expected = np.array(blurred)
    else:
        expected = imresize(hr, 1 / 4).double().numpy()
    expected = np.round(expected.clip(0, 1) * 255) / 255
    if noise:
        drawn = NoiseDraw().draw(noise_pool(), 3, (24, 28), generator)
        expected = (expected + NoiseDraw().noise(noise_pool(), drawn, torch.zeros(3, 3, 24, 28)).numpy()).clip(0, 1)
    assert ours.dtype == torch.float32 and ours.shape == (3, 3, 24, 28)
    difference = np.abs(ours.numpy() - expected)
    assert (difference > 1e-5).mean() < 1e-3  # where rounding error tips the 8-bit rounding,
    assert difference.max() < 1.01 / 255  # it is by one level


def test_bicubic_is_pillows(hr):
    ours = degradation(False, False)(hr, seeded())
    for image, lr in zip(hr, ours, strict=True):
        for plane, small in zip(image.numpy(), lr.numpy(), strict=True):
            pillow = np.asarray(Image.fromarray(plane).resize((28, 24), Image.Resampling.BICUBIC)).clip(0, 1)
            # Pillow weighs the pixels inside the picture only, so the border differs
            np.testing.assert_allclose(small[2:-2, 2:-2], pillow[2:-2, 2:-2], atol=0.51 / 255)
            np.testing.assert_allclose(small, pillow, atol=0.1)


def test_every_image_gets_its_own_kernel_and_noise(hr):
    same = hr[:1].expand(8, -1, -1, -1)
    assert len(degradation(True, False)(same, seeded()).flatten(1).unique(dim=0)) > 1
    assert len(degradation(False, True)(same, seeded()).flatten(1).unique(dim=0)) == 8


@pytest.mark.parametrize(("kernels", "noise"), WITH)
def test_margin_gives_the_interior_of_the_whole(hr, kernels, noise):
    degrade = degradation(kernels, False)
    margin = degrade.margin
    assert margin == 8 and margin % 4 == 0
    whole = degrade(hr, seeded())
    cut = margin // 4
    torch.testing.assert_close(
        degrade(hr, seeded(), margin), whole[..., cut:-cut, cut:-cut], rtol=0, atol=1.01 / 255 if kernels else 1e-6
    )
    assert degradation(kernels, noise)(hr, seeded(), margin).shape == (3, 3, 20, 24)


@pytest.mark.parametrize(("kernels", "noise"), WITH)
def test_more_margin_changes_nothing(hr, kernels, noise):
    """What lies beyond ``margin`` is not read: crops with 8 and with 16 around the same middle agree."""
    degrade = degradation(kernels, noise)
    wide = degrade(hr, seeded(), 16)
    narrow = degrade(hr[..., 8:-8, 8:-8], seeded(), 8)
    torch.testing.assert_close(narrow, wide, rtol=0, atol=1.01 / 255)
    assert (narrow - wide).abs().gt(1e-5).float().mean() < 1e-3


@pytest.mark.parametrize("size", [4, 9, 13, 17, 33])
def test_margin_covers_the_kernel(size):
    pool = KernelPool(torch.full((1, size, size), size**-2.0), ["a"])
    margin = PaperDegradation(4, pool).margin
    assert margin % 4 == 0 and size // 2 <= margin < size // 2 + 4


@pytest.mark.parametrize(("kernels", "noise"), WITH)
def test_same_draws_from_the_same_generator(hr, kernels, noise):
    degrade = degradation(kernels, noise)
    first = degrade(hr, seeded(5))
    assert torch.equal(degrade(hr, seeded(5)), first)
    assert torch.equal(degrade(hr, seeded(6)), first) != (kernels or noise)


@pytest.mark.parametrize(("kernels", "noise"), WITH)
def test_stays_in_range(kernels, noise):
    """Black and white stripes: bicubic overshoots and noise goes beyond, the LR does not."""
    stripes = torch.zeros(2, 3, 64, 64)
    stripes[..., ::16] = stripes[..., 1::16] = stripes[..., 2::16] = stripes[..., 3::16] = 1
    lr = degradation(kernels, noise)(stripes, seeded())
    assert lr.min() >= 0 and lr.max() <= 1
    assert lr.min() == 0


@pytest.mark.parametrize(("kernels", "noise"), WITH)
def test_autocast_does_not_coarsen_it(hr, kernels, noise):
    degrade = degradation(kernels, noise)
    degrade.jpeg = jpeg_pool()
    expected = degrade(hr, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(degrade(hr, seeded()), expected)


def test_without_noise_the_lr_has_8_bits(hr):
    lr = degradation(True, False)(hr, seeded()) * 255
    torch.testing.assert_close(lr, lr.round(), rtol=0, atol=1e-3)


def test_lr_is_of_full_precision_without_a_gradient_and_pools_are_in_no_checkpoint(hr):
    degrade = degradation(True, True)
    lr = degrade(hr.to(torch.bfloat16).requires_grad_(), seeded())
    assert lr.dtype == torch.float32 and not lr.requires_grad and not degrade.state_dict()


@pytest.mark.parametrize("margin", [0, 8])
def test_jpeg_comes_last(hr, margin):
    """The LR without it, compressed with tables that are drawn after kernels and noise; a cut has phases, too."""
    degrade = PaperDegradation(4, kernel_pool(), noise_pool(), jpeg_pool())
    ours = degrade(hr, seeded(3), margin)
    generator = seeded(3)
    before = degradation(True, True)(hr, generator, margin)
    drawn = jpeg_pool().sample(3, generator, cut=margin > 0)
    assert (drawn[2] is None) == (margin == 0)
    assert torch.equal(ours, jpeg(before, *drawn))
    assert not torch.equal(ours, before)
    assert torch.equal(degrade(hr, seeded(3), margin), ours)
    assert not torch.equal(degrade(hr, seeded(4), margin), ours)


def test_every_image_gets_its_own_tables_and_grid(hr):
    same = hr[:1].expand(8, -1, -1, -1)
    assert len(PaperDegradation(4, jpeg=jpeg_pool())(same, seeded(), 8).flatten(1).unique(dim=0)) == 8


def test_pools_follow_the_degradation_to_its_device():
    """On the meta device, which computes nothing: an operation that mixed devices or asked for a value would fail."""
    moved = PaperDegradation(4, kernel_pool(), noise_pool(), jpeg_pool()).to("meta")
    assert {buffer.device.type for buffer in moved.buffers()} == {"meta"} and len([*moved.buffers()]) == 3
    pool = moved.jpeg
    tables, subsampling, phase = pool.sample(3, seeded(), cut=True)
    assert jpeg(torch.empty(3, 3, 32, 24, device="meta"), tables, subsampling, phase).shape == (3, 3, 32, 24)


@pytest.mark.parametrize("margin", [0, 8])
def test_parameters_are_drawn_apart_from_applying_them(hr, margin):
    """The same parameters degrade any images of the size, as often as wanted, and draw nothing more."""
    degrade = PaperDegradation(4, kernel_pool(), noise_pool(), jpeg_pool(), KernelDraw(turn=True), NoiseDraw(0.5))
    generator, margin = seeded(3), margin and degrade.margin
    drawn = degrade.draw(3, hr.shape[-2:], generator, margin)
    assert len(drawn.kernels) == drawn.noise.shape[1] == len(drawn.coding[0]) == 3
    expected = degrade(hr, other := seeded(3), margin)
    assert torch.equal(generator.get_state(), other.get_state())
    for images in (hr, 1 - hr, hr):
        again = degrade.degrade(images, drawn, margin)
        assert torch.equal(again, degrade(images, seeded(3), margin))
    assert torch.equal(again, expected)


def test_settings_of_the_draws_reach_training_and_not_validation(hr):
    draws = KernelDraw(True, True), NoiseDraw(0.25, "plane")
    degrade = PaperDegradation(4, kernel_pool(), noise_pool(), None, *draws)
    plain = degradation(True, True)
    trained = degrade(hr, seeded())
    assert not torch.equal(trained, plain(hr, seeded()))
    assert torch.equal(degrade(hr, seeded()), trained)
    assert torch.equal(degrade.eval()(hr, seeded()), plain(hr, seeded()))


def test_margin_covers_kernels_that_are_turned(hr):
    """What lies beyond the margin is not read."""
    degrade = PaperDegradation(4, kernel_pool(), draw_kernels=KernelDraw(turn=True))
    margin = degrade.margin
    wide = degrade(hr, seeded(), margin + 4)
    narrow = degrade(hr[..., 4:-4, 4:-4], seeded(), margin)
    torch.testing.assert_close(narrow, wide, rtol=0, atol=1.01 / 255)
    assert (narrow - wide).abs().gt(1e-5).float().mean() < 1e-3
