"""How a training draws from the pools: the paper's uniform draws, and settings that depart from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from realsr.imaging.symmetries import TURNS, turned
from realsr.pools.pool import KernelPool
from realsr.runtime.errors import InputError


@dataclass(frozen=True)
class KernelDraw:
    """Which kernel an image gets. The defaults are the paper's: any of the pool, as it is.

    Attributes:
        by_confidence: draw in proportion to the estimator's confidence, in place of uniformly.
        turn: give each one of the square's eight symmetries.
    """

    by_confidence: bool = False
    turn: bool = False

    def sample(self, pool: KernelPool, count: int, scale: int, generator: torch.Generator) -> Tensor:
        """``(count, K + 2*grow, K + 2*grow)`` kernels of sum one, on the pool's device. ``generator`` is the CPU's."""
        kernels = pool.sample(count, generator, self.by_confidence)
        if not self.turn:
            return kernels
        grow = self.grow(kernels.shape[-1], scale)
        # a centred kernel's centre of mass (imaging/resample.py) is the middle of this frame, so it stays there
        frames = F.pad(kernels, (0, grow, 0, grow))
        turns = torch.randint(len(TURNS), (count,), generator=generator).tolist()
        frames = torch.stack([turned(frame, turn) for frame, turn in zip(frames, turns, strict=True)])
        return F.pad(frames, (grow, 0, grow, 0))

    def grow(self, size: int, scale: int) -> int:
        """Pixels that the frame of kernels of ``size`` needs more on every side, so that nothing is cut off."""
        return scale - size % 2 if self.turn else 0


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
