"""What a kernel has to be besides fooling the critic (KernelGAN, section 4.1 and supplementary).

The RealSR paper (Eq. 4) names the bicubic, sum, boundary and adversarial terms; sparsity and centre come from
KernelGAN, whose program its authors ran.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realsr.kernels import centre_index
from realsr.resample import imresize


def sum_loss(kernel: Tensor) -> Tensor:
    """``|1 - sum k|``."""
    return (1 - kernel.sum()).abs()


def boundary_loss(kernel: Tensor, mask: Tensor) -> Tensor:
    """``mean |k m|`` with the mask of :func:`boundary_mask`: energy far from the centre is suspect."""
    return (kernel * mask).abs().mean()


def boundary_mask(size: int, height: float = 30.0) -> Tensor:
    """``height * (1 - Gaussian)`` of standard deviation ``size``, zero in the central half; ``(size, size)`` float64.

    The Gaussian is scaled to a peak of one.
    """
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    bell = torch.exp(-0.5 * (offset / size) ** 2)
    mask = height * (1 - bell[:, None] * bell[None, :])
    margin = (size - (size // 2 + size % 2)) // 2 - 1
    mask[margin : size - margin, margin : size - margin] = 0
    return mask


def centre_loss(kernel: Tensor, scale: int) -> Tensor:
    """Mean squared distance, in pixels, of the centre of mass to where the phase convention wants it."""
    index = torch.arange(kernel.shape[0], dtype=kernel.dtype, device=kernel.device)
    total = kernel.sum()
    row = (kernel.sum(1) * index).sum() / total
    column = (kernel.sum(0) * index).sum() / total
    wanted = centre_index(kernel.shape[0], scale)
    return ((row - wanted) ** 2 + (column - wanted) ** 2) / 2


def sparsity_loss(kernel: Tensor, power: float = 0.2) -> Tensor:
    """``mean |k|^0.2``."""
    return (kernel.abs() ** power).mean()


def bicubic_loss(g_output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the generator's output to :func:`bicubic_target`."""
    return ((g_output - target) ** 2).mean()


def bicubic_matrix(size: int, out_size: int, scale: int) -> Tensor:
    """Antialiased bicubic downscaling of ``size`` pixels, cut to the central ``out_size``; ``(out_size, size)``."""
    columns = imresize(torch.eye(size, dtype=torch.float64)[..., None], 1 / scale)[..., 0]
    cut = (columns.shape[1] - out_size) // 2
    return columns.T[cut : cut + out_size]


def bicubic_target(crop: Tensor, matrix: Tensor, mixed_colours: bool) -> Tensor:
    """The ideal bicubic downscale of ``crop (N, 3, H, H)`` by :func:`bicubic_matrix` on both axes.

    With ``mixed_colours`` each channel's target is the sum of all three, as in the KernelGAN program (one kernel
    expanded over input and output channels); the paper's text has each colour by itself.
    """
    target = matrix @ crop @ matrix.T
    return target.sum(1, keepdim=True).expand_as(target) if mixed_colours else target
