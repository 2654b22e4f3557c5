"""A loss against patterns with the period of the scale, which pixel-shuffle networks draw and LPIPS rewards."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

CELLS = 4  # of scale x scale pixels, along each side of a window that a pattern is looked for in


def by_place(images: Tensor, scale: int) -> Tensor:
    """Detail of the mean of the colours by its place in cells of ``scale`` pixels, ``(N, scale**2, H/scale, W/scale)``.

    What is left of it in a mean over cells repeats from cell to cell. ``images`` as in :func:`pattern`.
    """
    gray = images.mean(1, keepdim=True)
    return F.pixel_unshuffle(gray - F.avg_pool2d(gray, 2 * scale + 1, 1, scale, count_include_pad=False), scale)


def pattern(images: Tensor, scale: int) -> Tensor:
    """How strong a pattern of ``scale`` pixels lies in each window of CELLS cells.

    Args:
        images: ``(N, C, H, W)`` in [0, 1]; H and W multiples of ``scale``, at least CELLS of them.
        scale: period in pixels.

    Returns:
        ``(N, h, w)`` standard deviations over the places in the cell, in [0, 1]; windows overlap by half.
    """
    return (F.avg_pool2d(by_place(images, scale), CELLS, CELLS // 2).var(1) + 1e-8).sqrt()


def pattern_loss(sr: Tensor, hr: Tensor, scale: int) -> Tensor:
    """Mean of what :func:`pattern` finds in ``sr`` beyond ``hr``, both ``(N, C, H, W)`` in [0, 1]; a scalar."""
    return F.relu(pattern(sr, scale) - pattern(hr, scale)).mean()
