from functools import partial

import numpy as np
import pytest
import torch
from conftest import scene

from realsr.kernelgan.estimate import estimate_kernel
from realsr.kernelgan.module import KernelGAN
from realsr.kernels import bicubic_kernel, centre_of_mass, gaussian_kernel, kernel_psnr
from realsr.resample import blur_subsample

TRUTH = gaussian_kernel(17, (2.4, 1.0), 0.6, scale=2)


@pytest.fixture(scope="module")
def photo():
    """What a camera with the kernel TRUTH makes of a scene: ``(3, 120, 100)``."""
    detail = torch.rand(3, 240, 200, generator=torch.Generator().manual_seed(5))
    hr = (scene(240, 200) + 0.2 * (detail - 0.5)).clamp(0, 1)
    return blur_subsample(hr[None], torch.from_numpy(TRUTH)[None].float(), 2)[0]


@pytest.fixture(scope="module")
def estimate(photo):
    return estimate_kernel(photo, partial(KernelGAN, iterations=250, channels=16), accelerator="cpu")


def test_tmp(estimate):
    k = estimate.kernels[2]
    print(kernel_psnr(k, TRUTH), kernel_psnr(bicubic_kernel(2), TRUTH), centre_of_mass(k), k.shape, estimate.losses)
    print(np.round(k * 1000).astype(int)[4:-4, 4:-4])
