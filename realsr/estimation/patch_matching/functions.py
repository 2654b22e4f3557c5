"""Functions of patch matching: Gaussian kernels of three parameters, spectra of noise, sliced Wasserstein distance."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from realsr.estimation.crops import RATIO
from realsr.estimation.kernels import centre_index


def patch_covariance(image: Tensor, patch: int, seed: int, count: int = 100_000) -> Tensor:
    """Covariance of the patches of an image ``(H, W)``, of a random ``count`` of them at most; float64."""
    windows = image.unfold(0, patch, 1).unfold(1, patch, 1)
    total = windows.shape[0] * windows.shape[1]
    index = torch.arange(total)
    if total > count:
        index = torch.randint(total, (count,), generator=torch.Generator().manual_seed(seed))
    chosen = windows[index // windows.shape[1], index % windows.shape[1]].flatten(1)
    return torch.cov(chosen.T.double())


def triangle(theta: Tensor) -> Tensor:
    """Lower triangular roots ``(N, 2, 2)`` of covariances (x, y), from log widths and shear ``(N, 3)``."""
    x, y, shear = theta[:, 0].exp(), theta[:, 1].exp(), theta[:, 2]
    return torch.stack([x, torch.zeros_like(x), shear, y], 1).view(-1, 2, 2)


def gaussians(theta: Tensor, size: int) -> Tensor:
    """Gaussian kernels ``(N, size, size)`` of sum one, centred for :data:`RATIO`; y points down."""
    root = triangle(theta)[..., None, None]
    offset = torch.arange(size, dtype=theta.dtype, device=theta.device) - centre_index(size, RATIO)
    along = offset[None, None, :] / root[:, 0, 0]
    across = (offset[None, :, None] - root[:, 1, 0] * along) / root[:, 1, 1]
    kernels = torch.exp(-0.5 * (along**2 + across**2))
    return kernels / kernels.sum((1, 2), keepdim=True)


def blur_halve(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate ``(N, crops, H, H)`` with kernels ``(N, K, K)`` and keep every second pixel where they fit.

    By the FFT, since the gradient of a convolution's weights is several times slower.
    """
    size = images.shape[-2:]
    spectrum = torch.fft.rfft2(images) * torch.fft.rfft2(kernels, size).conj()[:, None]
    end = size[0] - kernels.shape[-1] + 1
    return torch.fft.irfft2(spectrum, size)[..., :end:RATIO, :end:RATIO]


def noise_power(covariance: Tensor, size: int) -> Tensor:
    """Power ``(size, size)`` at each frequency of ``fft2`` of noise of this autocovariance ``(C, C)``."""
    wide = F.pad(covariance, (0, size - len(covariance), 0, size - len(covariance)))
    return torch.fft.fft2(wide.roll((-(len(covariance) // 2),) * 2, (0, 1))).real


def missing_spectrum(covariance: Tensor, kernels: Tensor, size: int) -> Tensor:
    """Root of the power that noise loses by correlation with kernels ``(N, K, K)`` and subsampling.

    For ``rfft2`` of an image enough larger than ``size`` that the periodic border does not matter.
    """
    grid = size + len(covariance) // 2
    fine = RATIO * grid
    left = noise_power(covariance, fine) * torch.fft.fft2(kernels, (fine, fine)).abs() ** 2
    left = left.view(-1, RATIO, grid, RATIO, grid).mean((1, 3))  # frequencies that subsampling makes equal
    lost = (noise_power(covariance, grid) - left).clamp_min(1e-10).sqrt()  # a root has no slope at zero
    return lost[..., : grid // 2 + 1]


def smoothing(side: int, share: float) -> Tensor:
    """Matrix that smooths patches ``(side**2,)`` along both axes: a pixel gives ``share`` to each neighbour."""
    along = (1 - 3 * share) * torch.eye(side) + share * torch.ones(side, side).triu(-1).tril(1)
    return torch.kron(along, along)


def project(images: Tensor, filters: Tensor) -> Tensor:
    """Project all patches of ``(N, crops, H, W)`` onto ``filters (P, 1, p, p)``: ``(N*P, patches)``."""
    count, crops = images.shape[:2]
    projected = F.conv2d(images.flatten(0, 1)[:, None], filters)
    return projected.view(count, crops, len(filters), -1).transpose(1, 2).flatten(0, 1).flatten(1)


def sorted_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared differences of the sorted rows, in the order of ``a``: Wasserstein distance in one dimension.

    >>> sorted_distance(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.0]]))
    tensor([[1., 0.]])
    """
    if a.device.type == "cpu":  # numpy sorts several times faster, and integers faster than it finds their order
        bits = a.detach().float().contiguous().numpy().view(np.int32)
        keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64) << 32 | np.arange(a.shape[1])
        keys.sort(1)
        order = torch.from_numpy(keys & 0xFFFFFFFF)
        b = torch.from_numpy(np.sort(b.numpy(), 1))
    else:
        order, b = a.argsort(1), b.sort(1)[0]
    return (a - torch.empty_like(a).scatter_(1, order, b)) ** 2
