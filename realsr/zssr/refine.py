"""What is done to the network's outputs: back-projection, and the median of eight (ZSSR, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from realsr.resample import imresize
from realsr.turns import TURNS, turned, unturned
from realsr.zssr.pairs import shrunk


def back_projected(sr: Tensor, lr: Tensor, scale: int, kernel: Tensor | None = None, times: int = 1) -> Tensor:
    """Correct ``sr`` so that, shrunk, it comes closer to ``lr`` (Irani and Peleg, 1991).

    Args:
        sr: ``(3, s*H, s*W)``.
        lr: ``(3, H, W)``.
        scale: between them.
        kernel: that ``lr`` was made with, ``(K, K)``; None: bicubic.
        times: each adds the difference, enlarged by bicubic.
    """
    for _ in range(times):
        sr = sr + imresize(lr - shrunk(sr, scale, kernel), scale)
    return sr


def self_ensemble(network: Callable[[Tensor], Tensor], image: Tensor, turns: Iterable[int] = TURNS) -> Tensor:
    """What a network makes of an image ``(3, H, W)`` in each of ``turns``, turned back: ``(T, 3, H', W')``."""
    return torch.stack([unturned(network(turned(image, turn)), turn) for turn in turns])


def median(images: Tensor) -> Tensor:
    """Of ``(T, ...)`` over the first axis: of an even number the mean of the two in the middle."""
    low, high = (len(images) + 1) // 2, len(images) // 2 + 1
    return (images.kthvalue(low, 0).values + images.kthvalue(high, 0).values) / 2
