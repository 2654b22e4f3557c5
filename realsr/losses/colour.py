"""Colour over some pixels: what a GAN may shift without any of its losses minding."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

CELL = 16  # LR pixels on a side; noise of 8 levels is 0.4 levels in their mean


def colour_difference(a: Tensor, b: Tensor, scale: int = 1) -> Tensor:
    """Mean absolute difference of the colours of cells of ``CELL`` LR pixels, what is left at the edges not counted.

    Args:
        a: ``(N, 3, scale*H, scale*W)``.
        b: ``(N, 3, H, W)``, in the same units.
        scale: of ``a`` against ``b``.

    Returns:
        A scalar in their units.
    """
    height, width = (min(CELL, side) for side in b.shape[-2:])
    coarse = F.avg_pool2d(a, (height * scale, width * scale)), F.avg_pool2d(b, (height, width))
    return F.l1_loss(*coarse)
