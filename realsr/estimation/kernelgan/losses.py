"""KernelGAN's losses besides the adversarial one (section 4.1 and supplementary).

The RealSR paper (Eq. 4) names the bicubic, sum, boundary and adversarial terms; sparsity and centre come from the
KernelGAN program, which its authors ran.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realsr.estimation.kernels import centre_index
from realsr.imaging.resample import imresize


def boundary_mask(size: int, height: float = 30.0) -> Tensor:
    """Weights ``(size, size)`` of a kernel's absolute values that penalise energy far from the centre; float64.

    ``height * (1 - Gaussian)`` of standard deviation ``size`` and a peak of one; zero in the central half.

    >>> boundary_mask(13)[6].round(decimals=1).tolist()
    [3.0, 2.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.1, 3.0]
    """
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    bell = torch.exp(-0.5 * (offset / size) ** 2)
    mask = height * (1 - bell[:, None] * bell[None, :])
    margin = (size - (size // 2 + size % 2)) // 2 - 1
    mask[margin : size - margin, margin : size - margin] = 0
    return mask


def centre_loss(kernel: Tensor, scale: int) -> Tensor:
    """Mean squared distance, in pixels, of the centre of mass to :func:`realsr.estimation.kernels.centre_index`."""
    index = torch.arange(kernel.shape[0], dtype=kernel.dtype, device=kernel.device)
    total = kernel.sum()
    row = (kernel.sum(1) * index).sum() / total
    column = (kernel.sum(0) * index).sum() / total
    wanted = centre_index(kernel.shape[0], scale)
    return ((row - wanted) ** 2 + (column - wanted) ** 2) / 2


def bicubic_matrix(size: int, out_size: int, scale: int) -> Tensor:
    """Antialiased bicubic downscaling of ``size`` pixels to the central ``out_size``; ``(out_size, size)``."""
    columns = imresize(torch.eye(size, dtype=torch.float64)[..., None], 1 / scale)[..., 0]
    cut = (columns.shape[1] - out_size) // 2
    return columns.T[cut : cut + out_size]


def bicubic_target(crop: Tensor, matrix: Tensor, mixed_colours: bool) -> Tensor:
    """Bicubic downscale of ``crop (N, 3, H, H)`` by :func:`bicubic_matrix` on both axes.

    With ``mixed_colours`` each channel's target is the sum of all three, as in the KernelGAN program; the paper's text
    has one target per colour.
    """
    target = matrix @ crop @ matrix.T
    return target.sum(1, keepdim=True).expand_as(target) if mixed_colours else target
