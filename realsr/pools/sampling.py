"""How training draws from the pools: the paper's uniform draws, and settings that depart from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from realsr.imaging.resample import mirror
from realsr.imaging.symmetries import TURNS, turned
from realsr.pools.pool import KernelPool, NoisePool, brightness
from realsr.runtime.errors import InputError
from realsr.runtime.hardware import to_device


@dataclass(frozen=True)
class KernelDraw:
    """Which kernel an image gets. The defaults are the paper's: any of the pool, as it is.

    Attributes:
        by_confidence: draw in proportion to the estimator's confidence, in place of uniformly.
        turn: give each kernel one of the square's eight symmetries.
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
    """Which noise an image gets. The defaults are the paper's: a cut of any tile, its mean taken away.

    Attributes:
        nearest: share of the pool, those tiles nearest in brightness to the image and at least 8, that one is drawn
            from; 1 is all. Raises InputError if it is not in (0, 1].
        detrend: take away from each channel its ``mean``, or a fitted ``plane`` (gradients that tiles have left).

    >>> pool = NoisePool(torch.randint(90, 110, (4, 3, 16, 16), dtype=torch.uint8), list("abcd"))
    >>> drawn = NoiseDraw().draw(pool, 2, (8, 12), torch.Generator().manual_seed(0))
    >>> NoiseDraw().noise(pool, drawn, torch.rand(2, 3, 8, 12)).shape
    torch.Size([2, 3, 8, 12])
    """

    nearest: float = 1.0
    detrend: Literal["mean", "plane"] = "mean"

    def __post_init__(self) -> None:
        if not 0 < self.nearest <= 1:
            raise InputError(f"noise.nearest={self.nearest}: give more than 0, up to 1")

    def draw(self, pool: NoisePool, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw tiles and where they are cut for images ``(height, width)`` that are not known yet.

        ``generator`` is the CPU's, so that a run draws the same on any device. Returns ``(3, count)`` int64 on the CPU:
        tile (of those near an image, from the darkest), top row, left column.
        """
        tile = torch.randint(self._among(len(pool)), (count,), generator=generator)
        spare = [max(pool.tiles.shape[-1] - length, 0) for length in size]
        return torch.stack([tile, *(torch.randint(most + 1, (count,), generator=generator) for most in spare)])

    def noise(self, pool: NoisePool, drawn: Tensor, images: Tensor) -> Tensor:
        """Cut the tiles, drawn by :meth:`draw` from ``pool``, to the size of ``images (N, 3, H, W)`` in [0, 1].

        A tile is mirrored over an image that is larger. Returns ``(N, 3, H, W)`` float32 of mean zero in every channel,
        in units of [0, 1] images, on their device, where the pool is too.
        """
        tiles, (height, width) = pool.tiles, images.shape[-2:]
        tile, top, left = to_device(drawn, tiles.device)
        n, side, among = len(pool), tiles.shape[-1], self._among(len(pool))
        if among < n:
            levels, order = pool.by_brightness()
            # the nearest are neighbours in order: the first of them leaves while the next beyond the last is nearer
            middles = (levels[: n - among] + levels[among:]) / 2
            tile = order[tile + torch.searchsorted(middles, brightness(images))]
        if max(height, width) > side:
            reach = [torch.arange(max(side, length), device=tiles.device) for length in (height, width)]
            rows, columns = (mirror(places, side) for places in reach)
            tiles, tile = tiles[tile][:, :, rows][..., columns], torch.arange(len(images), device=tiles.device)
        # a view of all windows of all tiles, of which these are copied: half the time of an index for every pixel
        patch = tiles.unfold(2, height, 1).unfold(3, width, 1)[tile, :, top, left].float()
        patch = patch - patch.mean((2, 3), keepdim=True)
        return (without_slope(patch) if self.detrend == "plane" else patch) / 255

    def _among(self, tiles: int) -> int:
        """How many tiles of a pool one is drawn from."""
        return tiles if self.nearest == 1 else min(max(round(self.nearest * tiles), 8), tiles)


def without_slope(patches: Tensor) -> Tensor:
    """Take the slope of the plane that fits best (least squares) from each channel of zero-mean ``(N, C, H, W)``.

    >>> slope = torch.arange(5.0).expand(1, 1, 4, 5) - 2
    >>> bool(without_slope(slope).abs().max() < 1e-6)
    True
    """
    for axis in (2, 3):
        length = patches.shape[axis]
        ramp = torch.arange(length, device=patches.device) - (length - 1) / 2
        ramp = (ramp / ramp.square().mean().sqrt().clamp(min=0.5)).view(-1, *[1] * (3 - axis))  # orthogonal, norm one
        patches = patches - (patches * ramp).mean((2, 3), keepdim=True) * ramp
    return patches
