"""Kernel and noise pools in memory: modules whose tensors follow ``.to()`` and are in no checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from realsr.estimation.kernels import centre_index, centre_of_mass, developed, framed, kernel_of_blur
from realsr.estimation.shrinkage import shrunk_blurs
from realsr.imaging.colour import luma
from realsr.pools.folder import kernel_entries, read_entries
from realsr.pools.jpeg_tables import JpegPool
from realsr.runtime.errors import InputError
from realsr.runtime.hardware import to_device

log = logging.getLogger(__name__)

P = TypeVar("P", "KernelPool", "NoisePool", JpegPool)


class KernelPool(nn.Module):
    """Blur kernels of one scale.

    Args:
        kernels: ``(N, K, K)`` float32, correlation kernels of sum one, placed by the phase convention of
            :mod:`realsr.imaging.resample`.
        photos: N names, the photo that each kernel was estimated from.
        confidence: ``(N,)`` float64 in [0, 1], the estimator's; stays on the CPU. None counts all alike.

    >>> pool = KernelPool(torch.full((2, 5, 5), 1 / 25), ["a.jpg", "b.jpg"])
    >>> pool.sample(16, torch.Generator().manual_seed(0)).shape
    torch.Size([16, 5, 5])
    """

    kernels: Tensor

    def __init__(self, kernels: Tensor, photos: list[str], confidence: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("kernels", kernels, persistent=False)
        self.photos, self.confidence = photos, confidence

    @classmethod
    def load(cls, folder: str | Path, scale: int, min_confidence: float = 0.0) -> KernelPool:
        """Read the kernels for ``scale`` from a pool's folder, or from files of other programs.

        Kernels with a ``blur`` in their manifest are replaced: their blurs are shrunk towards the camera's
        (:func:`realsr.estimation.shrinkage.shrunk_blurs`), and each is developed by the camera's ``response``.

        Args:
            folder: of the pool, or a path that :func:`realsr.pools.interchange.read_kernels` takes.
            scale: of the kernels; smaller kernels are padded with zeros to the size of the largest.
            min_confidence: kernels of less confidence are left out; kernels without a confidence stay.

        Raises:
            InputError: there is no kernel of this scale or of this confidence, or one is not finite or sums to nothing.
        """
        found = list(kernel_entries(folder, scale))
        sure = np.array([entry.manifest.get("confidence", 1) for entry in found], np.float64)
        enough = sure >= min_confidence
        if not enough.any():
            best = max(sure)
            raise InputError(f"{folder}: min_confidence={min_confidence} leaves no kernel, the best has {best:.2f}")
        kept, sure = list(compress(found, enough)), sure[enough]
        if min_confidence > 0:
            log.info("min_confidence=%g keeps %d of %d kernels for x%d", min_confidence, len(kept), len(found), scale)
        kernels = [entry.arrays[f"x{scale}"] for entry in kept]
        gaussian = [i for i, entry in enumerate(kept) if "blur" in entry.manifest]
        if len(gaussian) > 1:
            blurs = shrunk_blurs(np.array([kept[i].manifest["blur"] for i in gaussian]), sure[gaussian])
            for i, blur in zip(gaussian, blurs, strict=True):
                response = kept[i].arrays.get("response", np.ones((1, 1)))
                kernels[i] = developed(kernel_of_blur(blur, scale, len(kernels[i])), response, scale)
        size = max(len(kernel) for kernel in kernels)
        size += (size + 1) % 2
        padded = np.stack([framed(kernel, size) for kernel in kernels])
        offset = np.median([np.abs(centre_of_mass(kernel) - centre_index(size, scale)).max() for kernel in padded])
        if offset > 0.5:
            moved = f"half of the kernels move the picture by {offset:.1f} pixels or more, and a model would learn to"
            log.warning("%s: %s move it back; realsr.estimation.kernels.recentre puts a kernel right", folder, moved)
        return cls(torch.from_numpy(padded).float(), [entry.photo for entry in kept], torch.from_numpy(sure))

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, count: int, generator: torch.Generator, by_confidence: bool = False) -> Tensor:
        """Draw ``(count, K, K)`` kernels with replacement, uniformly or in proportion to ``confidence``.

        ``generator`` is the CPU's, so that a run draws the same on any device.
        """
        if by_confidence and self.confidence is not None:
            weights = self.confidence.clamp(min=1e-6)  # where all are 0, they are alike
            index = torch.multinomial(weights, count, replacement=True, generator=generator)
        else:
            index = torch.randint(len(self), (count,), generator=generator)
        return self.kernels[to_device(index, self.kernels.device)]

    def subset(self, keep: Sequence[int]) -> KernelPool:
        """The pool of these indices."""
        confidence = None if self.confidence is None else self.confidence[list(keep)]
        return KernelPool(self.kernels[list(keep)], [self.photos[i] for i in keep], confidence)


class NoisePool(nn.Module):
    """Flat tiles of the camera's photos; :class:`realsr.pools.sampling.NoiseDraw` makes noise of them.

    Args:
        tiles: ``(N, 3, T, T)`` uint8 RGB, mean still in it.
        photos: N names, the photo that each tile was cut from.
    """

    tiles: Tensor
    levels: Tensor | None
    order: Tensor | None

    def __init__(self, tiles: Tensor, photos: list[str]) -> None:
        super().__init__()
        self.register_buffer("tiles", tiles, persistent=False)
        self.register_buffer("levels", None, persistent=False)
        self.register_buffer("order", None, persistent=False)
        self.photos = photos

    @classmethod
    def load(cls, folder: str | Path) -> NoisePool:
        """Read all tiles of a folder; raises InputError if there is none, a damaged file, or tiles of several sizes."""
        stacks: list[npt.NDArray[np.uint8]] = []
        photos: list[str] = []
        for entry in read_entries(folder, "noise"):
            tiles = entry.arrays.get("tiles", np.zeros(0))
            if tiles.ndim != 4 or tiles.shape[1:] != (tiles.shape[2], tiles.shape[2], 3) or tiles.dtype != np.uint8:
                raise InputError(f"{entry.path}: is no noise pool file, `tiles` (N, T, T, 3) uint8 is missing")
            if stacks and len(tiles) and tiles.shape[1:] != stacks[0].shape[1:]:
                sizes = f"tiles of {tiles.shape[1]} pixels, others have {stacks[0].shape[1]}"
                raise InputError(f"{entry.path}: {sizes}; a pool has one size, delete {folder} and collect again")
            stacks += [tiles] if len(tiles) else []
            photos += [entry.photo] * len(tiles)
        if not stacks:
            raise InputError(f"{folder}: the noise pool has no tile; fill it with python -m realsr.collect")
        return cls(torch.from_numpy(np.concatenate(stacks)).permute(0, 3, 1, 2).contiguous(), photos)

    def __len__(self) -> int:
        return len(self.photos)

    def by_brightness(self) -> tuple[Tensor, Tensor]:
        """The tiles' brightness in [0, 1] in rising order, and their indices in that order, ``(N,)`` each."""
        if self.levels is None or self.order is None:  # measured when it is first needed: it takes a pass over all
            parts = torch.split(self.tiles, 256)
            self.levels, self.order = torch.cat([brightness(part / 255) for part in parts]).sort()
        return self.levels, self.order

    def subset(self, keep: Sequence[int]) -> NoisePool:
        """The pool of these indices."""
        return NoisePool(self.tiles[list(keep)], [self.photos[i] for i in keep])


def hold_out(pool: P, share: float, seed: int) -> tuple[P, P]:
    """Split a pool into ``(training, held out)`` so that no photo is on both sides.

    At least one photo goes to each side. The items of a single photo are split among both; a single item serves both.

    >>> pool = KernelPool(torch.full((4, 1, 1), 1.0), ["a", "a", "b", "c"])
    >>> [part.photos for part in hold_out(pool, 0.1, seed=0)]
    [['a', 'a', 'b'], ['c']]
    """
    if len(pool) == 1:
        return pool, pool
    groups = pool.photos if len(set(pool.photos)) > 1 else [str(i) for i in range(len(pool))]
    names = sorted(set(groups))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(max(round(share * len(names)), 1), len(names) - 1)
    held = {names[i] for i in order[:count]}
    train = [i for i, g in enumerate(groups) if g not in held]
    return pool.subset(train), pool.subset([i for i, g in enumerate(groups) if g in held])


def check_confidence(min_confidence: float) -> None:
    """Raise InputError for a ``pool.min_confidence`` out of [0, 1]."""
    if not 0 <= min_confidence <= 1:
        raise InputError(f"pool.min_confidence={min_confidence}: give 0 to 1")


def brightness(images: Tensor) -> Tensor:
    """Mean BT.601 luma of each of ``(N, 3, H, W)`` RGB images, ``(N,)`` in their range."""
    return luma(images.mean((2, 3), keepdim=True))[:, 0, 0]
