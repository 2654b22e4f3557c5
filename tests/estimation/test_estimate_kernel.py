import logging
import math
from functools import partial

import numpy as np
import pytest
import torch
from conftest import scene

from realsr.estimation.estimate import estimate_kernel
from realsr.estimation.kernelgan.module import KernelGAN
from realsr.estimation.kernels import (
    bicubic_kernel,
    centre_of_mass,
    gaussian_kernel,
    kernel_psnr,
    max_normalised_correlation,
)
from realsr.imaging.resample import blur_subsample

TRUTH = gaussian_kernel(17, (2.4, 1.0), 0.6, scale=2)


def run(photo, **options):
    return estimate_kernel(photo, estimator=partial(KernelGAN, channels=16, **options), accelerator="cpu")


@pytest.fixture(scope="module")
def photo():
    """What a camera with the kernel TRUTH makes of a scene: ``(3, 120, 100)``."""
    detail = torch.rand(3, 240, 200, generator=torch.Generator().manual_seed(5))
    hr = (scene(240, 200) + 0.3 * (detail - 0.5)).clamp(0, 1)
    return blur_subsample(hr[None], torch.from_numpy(TRUTH)[None].float(), 2)[0]


@pytest.fixture(scope="module")
def estimate(photo):
    # a narrow network starts at a kernel of nearly zero, and needs the learning rate to leave it in so few steps
    return run(photo, iterations=250, learning_rate=1e-3)


@pytest.mark.parametrize("scale", [2, 4])
def test_kernels_are_normalised_and_centred(estimate, scale):
    kernel = estimate.kernels[scale]
    assert kernel.sum() == pytest.approx(1)
    # a kernel that moves nothing has its centre there: realsr.imaging.resample's phase convention
    centre = kernel.shape[0] // 2 + (scale - 1) / 2
    assert centre_of_mass(kernel) == pytest.approx([centre, centre], abs=0.05)


def test_the_true_kernel_is_found_better_than_without_looking(estimate):
    found, bicubic = estimate.kernels[2], bicubic_kernel(2)
    assert kernel_psnr(found, TRUTH) > kernel_psnr(bicubic, TRUTH) + 5
    assert max_normalised_correlation(found, TRUTH) > max_normalised_correlation(bicubic, TRUTH) + 0.05


def test_losses_are_reported_and_finite(estimate):
    assert estimate.iterations == 250
    assert {"total", "adversarial", "bicubic", "sum", "boundary", "centre", "sparsity"} <= set(estimate.losses)
    assert all(math.isfinite(value) for value in estimate.losses.values())
    assert estimate.losses["sum"] < 0.2  # of a kernel that has learnt to keep the brightness


def test_only_the_seed_decides(photo):
    torch.manual_seed(1)
    first = run(photo, iterations=30, seed=7)
    torch.manual_seed(2)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    second = run(photo, iterations=30, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    for scale in (2, 4):
        assert np.array_equal(first.kernels[scale], second.kernels[scale])
    assert first.losses == second.losses
    other = run(photo, iterations=30, seed=8).kernels[2]
    assert other.shape != first.kernels[2].shape or not np.allclose(other, first.kernels[2])


def test_a_kernel_that_has_not_left_its_start_is_told(photo):
    estimate = run(photo, iterations=2)
    assert estimate.confidence == 0
    assert len(estimate.reasons) == 1 and "has not converged, its sum is off by" in estimate.reasons[0]


@pytest.mark.parametrize(
    ("kernel", "confidence", "reasons"),
    [
        (gaussian_kernel(13, (1.5, 1.0), 0.3, 2), 1, []),
        (np.full((13, 13), -1 / 169), 0, ["52% of the kernel is at its border"]),
        (np.pad(np.full((9, 9), 0.95 / 81), 2) + np.pad(np.zeros((11, 11)), 1, constant_values=0.05 / 48), 0.625,
         ["5% of the kernel is at its border"]),
    ],
)  # fmt: skip
def test_a_kernel_that_fills_its_frame_is_told(kernel, confidence, reasons):
    module = KernelGAN(channels=2)
    module.losses, module.kernel = {"sum": torch.tensor(0.1)}, lambda: kernel
    assert module.confidence() == (pytest.approx(confidence, abs=0.01), reasons)


def test_lightnings_log_level_is_restored(photo):
    logger = logging.getLogger("pytorch_lightning")
    before = logger.level
    run(photo, iterations=1)
    assert logger.level == before
