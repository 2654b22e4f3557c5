"""How a training draws from the pools: the paper's uniform draws, and settings that depart from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from realsr.errors import InputError
from realsr.pools import KernelPool
from realsr.resample import cubic
from realsr.transfer import sent


@dataclass(frozen=True)
class KernelDraw:
    """Which kernel an image gets. The defaults are the paper's: any of the pool, as it is.

    Attributes:
        by_confidence: draw in proportion to the estimator's confidence, in place of uniformly.
        turn: give each one of the square's eight symmetries.
        width_jitter: j widens each by a factor drawn from [1 - j, 1 + j]; 0 to 0.5.

    Raises:
        InputError: ``width_jitter`` is out of range.
    """

    by_confidence: bool = False
    turn: bool = False
    width_jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.width_jitter <= 0.5:
            raise InputError(f"pool.width_jitter={self.width_jitter}: give 0 to 0.5")

    def sample(self, pool: KernelPool, count: int, scale: int, generator: torch.Generator) -> Tensor:
        """``(count, K + 2*grow, K + 2*grow)`` kernels of sum one, on the pool's device. ``generator`` is the CPU's."""
        kernels = pool.sample(count, generator, self.by_confidence)
        kernels = F.pad(kernels, [self.grow(kernels.shape[-1], scale)] * 4)
        if self.turn:
            turns = torch.randint(8, (count,), generator=generator)
            kernels = turned(kernels, sent(turns, kernels.device), scale)
        if self.width_jitter:
            factors = 1 + self.width_jitter * (2 * torch.rand(count, generator=generator) - 1)
            kernels = widened(kernels, sent(factors, kernels.device), scale)
        return kernels

    def grow(self, size: int, scale: int) -> int:
        """Pixels that the frame of kernels of ``size`` needs more on every side, so that nothing is cut off."""
        grow = scale - size % 2 if self.turn else 0
        if self.width_jitter:  # what lies furthest from the centre moves most; cubic interpolation reaches 2 pixels on
            grow += math.ceil(self.width_jitter * (size // 2 + (scale - 1) / 2)) + 2
        return grow


@dataclass(frozen=True)
class NoiseDraw:
    """Which noise an image gets. The defaults are the paper's: of any tile, its mean taken away.

    Attributes:
        nearest: share of the pool, those tiles nearest in brightness to the image, that one is drawn from; 1 is all.
        detrend: what is taken away per channel, the ``mean`` or a fitted ``plane`` (gradients that tiles have left).

    Raises:
        InputError: ``nearest`` is out of range.
    """

    nearest: float = 1.0
    detrend: Literal["mean", "plane"] = "mean"

    def __post_init__(self) -> None:
        if not 0 < self.nearest <= 1:
            raise InputError(f"noise.nearest={self.nearest}: give more than 0, up to 1")


def turned(kernels: Tensor, turns: Tensor, scale: int) -> Tensor:
    """Turn and flip kernels about the point where a centred kernel has its centre of mass (:mod:`realsr.resample`).

    That point lies on the grid of half pixels, so this is exact.

    Args:
        kernels: ``(N, K, K)``, zero in the first ``scale - 1`` rows and columns (one more for an even K).
        turns: ``(N,)`` integers from 0 to 7, for the symmetries of the square; 0 is none.
        scale: that the kernels are meant for.
    """
    shift = 2 * (kernels.shape[-1] // 2) + scale - kernels.shape[-1]  # a plain flip is about the middle of the array
    for bit in range(3):
        other = kernels.mT if bit == 0 else kernels.flip(bit).roll(shift, bit)
        kernels = torch.where((turns >> bit & 1).bool()[:, None, None], other, kernels)
    return kernels


def widened(kernels: Tensor, factors: Tensor, scale: int) -> Tensor:
    """Widen kernels about the point that :func:`turned` turns them about, and bring their sum back to one.

    By cubic interpolation: linear adds its own blur, 8 % of the width of a kernel of sigma 1.

    Args:
        kernels: ``(N, K, K)`` of sum one, with zeros around as far as they grow.
        factors: ``(N,)``; 1.1 makes a kernel wider by a tenth, its variance 1.21-fold.
        scale: that the kernels are meant for.
    """
    place = torch.arange(kernels.shape[-1], device=kernels.device) - kernels.shape[-1] // 2 - (scale - 1) / 2
    taps = cubic(place[:, None] / factors[:, None, None] - place)  # (N, K, K): of each new pixel, on the old ones
    kernels = taps @ kernels @ taps.mT
    return kernels / kernels.sum((1, 2), keepdim=True)
