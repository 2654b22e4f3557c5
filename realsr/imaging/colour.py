"""Luma, and how far a generator shifts the colours of large areas, which are right in LR."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CELL = 16  # LR pixels on a side; noise of 8 levels is 0.4 levels in their mean
SIGMA = 4.0  # LR pixels; noise of 8 levels is 0.6 levels in means so weighted
BAND = 256  # LR rows that are enlarged at once
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


def luma(rgb: Tensor) -> Tensor:
    """BT.601 luma of ``(..., 3, H, W)`` RGB, ``(..., H, W)`` in the same range.

    >>> luma(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1))
    tensor([[0.2990]])
    """
    red, green, blue = rgb.unbind(-3)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def colour_difference(sr: Tensor, lr: Tensor, scale: int) -> Tensor:
    """Mean absolute difference of the mean colours of whole cells of ``CELL`` x ``CELL`` LR pixels, a scalar.

    ``sr (N, 3, scale*H, scale*W)`` and ``lr (N, 3, H, W)`` are in one unit, which is also that of the result.

    >>> colour_difference(torch.full((1, 3, 128, 128), 0.6), torch.full((1, 3, 32, 32), 0.5), scale=4)
    tensor(0.1000)
    """
    height, width = (min(CELL, side) for side in lr.shape[-2:])
    return F.l1_loss(F.avg_pool2d(sr, (height * scale, width * scale)), F.avg_pool2d(lr, (height, width)))


def match_colours(sr: Tensor, lr: Tensor, scale: int) -> None:
    """Give ``sr`` the low frequencies of ``lr``, in place: the smoothed difference to its scale x scale means is added.

    The Gaussian has a sigma of ``SIGMA`` LR pixels, which keeps LR's noise out and leaves detail alone. Blur and
    subsampling keep low frequencies, so those of LR are right. Noise clipped at black brightens LR, and the result as
    much (by 1.2 levels at most, for noise of 3 levels). ``sr (N, 3, scale*H, scale*W)`` and ``lr (N, 3, H, W)`` are in
    [0, 1] on one device.
    """
    lack = _smooth(lr - F.avg_pool2d(sr, scale))
    height = lr.shape[-2]
    for top in range(0, height, BAND):  # enlarged as a whole it would take as much memory as `sr`
        bottom, above = min(top + BAND, height), min(top, 1)
        rows = lack[..., top - above : bottom + 1, :]
        enlarged = F.interpolate(rows, scale_factor=float(scale), mode="bilinear", align_corners=False)
        band = sr[..., top * scale : bottom * scale, :]
        band.add_(enlarged[..., above * scale : above * scale + band.shape[-2], :]).clamp_(0, 1)


def _smooth(image: Tensor) -> Tensor:
    """Gaussian mean of ``(N, C, H, W)``; at the borders, of the pixels inside."""
    for axis in (-1, -2):
        radius = min(math.ceil(3 * SIGMA), image.shape[axis] - 1)
        x = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        weights = torch.exp(-0.5 * (x / SIGMA) ** 2).view(shape)
        padding = (0, radius) if axis == -1 else (radius, 0)
        flat = image.reshape(-1, 1, *image.shape[-2:])
        total = F.conv2d(torch.ones_like(flat[:1]), weights, padding=padding)
        image = (F.conv2d(flat, weights, padding=padding) / total).view_as(image)
    return image
