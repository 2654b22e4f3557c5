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


def correlated(covariance: Tensor, kernels: Tensor) -> Tensor:
    """Autocovariance ``(N, 2K + C - 2, 2K + C - 2)`` of noise, ``(C, C)``, after correlation with ``(N, K, K)``."""
    own = F.conv2d(kernels[None], kernels[:, None], padding=kernels.shape[-1] - 1, groups=len(kernels))
    return F.conv2d(own.transpose(0, 1), covariance[None, None], padding=len(covariance) - 1)[:, 0]


def subsampled_power(covariance: Tensor, size: int, step: int) -> Tensor:
    """Power ``(N, size, size//2 + 1)`` of noise at each frequency of ``rfft2`` after subsampling.

    Args:
        covariance: ``(N, C, C)``, autocovariance before subsampling.
        size: of the square image after subsampling.
        step: of the subsampling.
    """
    middle = covariance.shape[-1] // 2
    kept = covariance[:, middle % step :: step, middle % step :: step]
    wrapped = F.pad(kept, (0, size - kept.shape[-1], 0, size - kept.shape[-1])).roll((-(middle // step),) * 2, (1, 2))
    return torch.fft.rfft2(wrapped).real


def missing_spectrum(covariance: Tensor, kernels: Tensor, size: int) -> Tensor:
    """Root of the power that noise loses by correlation with kernels ``(N, K, K)`` and subsampling.

    For ``rfft2`` of an image enough larger than ``size`` that the periodic border does not matter.
    """
    grid = size + len(covariance) // 2
    left = subsampled_power(correlated(covariance, kernels), grid, RATIO)
    return (subsampled_power(covariance[None], grid, 1) - left).clamp_min(1e-10).sqrt()  # a root has no slope at zero


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
    if a.device.type == "cpu":  # numpy sorts several times faster
        order = torch.from_numpy(np.argsort(a.detach().numpy(), 1))
        b = torch.from_numpy(np.sort(b.numpy(), 1))
    else:
        order, b = a.argsort(1), b.sort(1)[0]
    return (a - torch.empty_like(a).scatter_(1, order, b)) ** 2
