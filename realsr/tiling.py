"""A whole photo of any size through a network, tile by tile, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from realsr.colour import match_colours


@torch.inference_mode()
def upscale_tiled(
    network: Callable[[Tensor], Tensor],
    lr: Tensor,
    scale: int,
    tile: int = 192,
    overlap: int = 24,
    keep_colours: bool = False,
) -> Tensor:
    """Upscale in tiles whose surroundings the network also sees; only the inner part of each is kept.

    Args:
        network: ``(1, 3, h, w)`` to ``(1, 3, scale*h, scale*w)``.
        lr: ``(1, 3, H, W)`` in [0, 1], on the network's device.
        scale: of the network.
        tile: side of what is kept of each tile, in LR pixels; 0 takes the image whole.
        overlap: LR pixels of surroundings on every side. With 24, published RRDBNets stay within 0.2 of 255
            levels of the whole-image result in the worst pixel.
        keep_colours: whether the result gets LR's colours, see :func:`realsr.colour.match_colours`.

    Returns:
        ``(1, 3, scale*H, scale*W)`` in [0, 1] on the CPU.
    """
    height, width = lr.shape[-2:]
    tile = tile or max(height, width)
    sr = torch.empty(1, 3, height * scale, width * scale)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            y, x = max(top - overlap, 0), max(left - overlap, 0)
            seen = network(lr[..., y : bottom + overlap, x : right + overlap])
            inner = seen[..., (top - y) * scale : (bottom - y) * scale, (left - x) * scale : (right - x) * scale]
            target = sr[..., top * scale : bottom * scale, left * scale : right * scale]
            target.copy_(inner.float().clamp(0, 1))
    if keep_colours:
        match_colours(sr, lr.cpu().float(), scale)
    return sr
