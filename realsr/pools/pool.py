"""Kernel and noise pools: what was learnt of the camera, as tensors in memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from realsr.estimation.kernels import centre_index, centre_of_mass, developed, framed, kernel_of_blur
from realsr.estimation.shrinkage import shrunk
from realsr.imaging.colour import luma
from realsr.imaging.resample import mirror
from realsr.pools.folder import kernel_entries, read_entries
from realsr.pools.interchange import remove_exported, write_kernels
from realsr.pools.jpeg_tables import JpegPool
from realsr.runtime.errors import InputError
from realsr.runtime.hardware import to_device

log = logging.getLogger(__name__)

P = TypeVar("P", "KernelPool", "NoisePool", JpegPool)


@dataclass(frozen=True)
class KernelPool:
    """Kernels of one scale.

    Attributes:
        kernels: ``(N, K, K)`` float32, correlation kernels of sum one; smaller ones are padded with zeros.
        photos: N names, the photo that each is from.
        confidence: ``(N,)`` float64 in [0, 1] on the CPU, the estimator's; None counts all alike.
    """

    kernels: Tensor
    photos: list[str]
    confidence: Tensor | None = None

    @classmethod
    def load(cls, folder: str | Path, scale: int, min_confidence: float = 0.0) -> KernelPool:
        """Read the kernels for ``scale`` from a pool's folder, or from files of other programs.

        The files hold what each photo gave; of those whose manifest has a ``blur`` the pool has the kernels that
        :func:`realsr.estimation.shrinkage.shrunk` makes of all together, each followed by the camera's ``response``.

        Args:
            folder: of a pool, or what :func:`realsr.pools.interchange.read_kernels` takes.
            scale: of the kernels.
            min_confidence: kernels of less confidence are left out; those of pools without it stay.

        Raises:
            InputError: the folder is missing or empty, has no kernel of this scale or of this confidence, or one that
                is not finite or sums to nothing.
        """
        found = list(kernel_entries(folder, scale))
        sure = np.array([entry.manifest.get("confidence", 1.0) for entry in found])
        kept = [entry for entry, confidence in zip(found, sure, strict=True) if confidence >= min_confidence]
        if not kept:
            best = max(sure)
            raise InputError(f"{folder}: min_confidence={min_confidence} leaves no kernel, the best has {best:.2f}")
        sure = sure[sure >= min_confidence]
        if min_confidence > 0:
            log.info("min_confidence=%g keeps %d of %d kernels for x%d", min_confidence, len(kept), len(found), scale)
        kernels = [entry.arrays[f"x{scale}"] for entry in kept]
        gaussian = [i for i, entry in enumerate(kept) if entry.manifest.get("blur") is not None]
        if len(gaussian) > 1:
            blurs = shrunk(np.array([kept[i].manifest["blur"] for i in gaussian]), sure[gaussian])
            for i, blur in zip(gaussian, blurs, strict=True):
                response = kept[i].arrays.get("response", np.ones((1, 1)))
                kernels[i] = developed(kernel_of_blur(blur, scale, len(kernels[i])), response, scale)
        size = max(len(kernel) for kernel in kernels)
        size += (size + 1) % 2
        padded = np.stack([framed(kernel, size) for kernel in kernels])
        offset = np.median([np.abs(centre_of_mass(kernel) - centre_index(size, scale)).max() for kernel in padded])
        if offset > 0.5:
            log.warning(
                "%s: half of the kernels move the picture by %.1f pixels or more, and a model would learn to move it "
                "back; realsr.estimation.kernels.recentre puts a kernel right",
                folder,
                offset,
            )
        photos = [entry.manifest["photo"] for entry in kept]
        return cls(torch.from_numpy(padded).float(), photos, torch.from_numpy(sure.astype(np.float64)))

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, count: int, generator: torch.Generator, by_confidence: bool = False) -> Tensor:
        """``count`` kernels drawn with replacement, ``(count, K, K)``: uniformly, or in proportion to ``confidence``.

        ``generator`` is the CPU's.
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

    def to(self, device: torch.device | str) -> KernelPool:
        """The same pool on another device."""
        return KernelPool(self.kernels.to(device), self.photos, self.confidence)


@dataclass(frozen=True)
class NoisePool:
    """Flat tiles of the camera's photos.

    Attributes:
        tiles: ``(N, 3, T, T)`` uint8 RGB, mean still in it.
        photos: N names, the photo that each is from.
    """

    tiles: Tensor
    photos: list[str]

    @classmethod
    def load(cls, folder: str | Path) -> NoisePool:
        """Read all tiles of a pool's folder.

        Raises:
            InputError: the folder is missing, or holds no tile, a damaged file, or tiles of different sizes.
        """
        stacks: list[npt.NDArray[np.uint8]] = []
        photos: list[str] = []
        for entry in read_entries(folder, "noise", "realsr.collect"):
            tiles = entry.arrays.get("tiles")
            if tiles is None or tiles.ndim != 4 or tiles.shape[-1] != 3 or tiles.dtype != np.uint8:
                raise InputError(f"{entry.path}: is no noise pool file, `tiles` (N, T, T, 3) uint8 is missing")
            if len(tiles):
                if stacks and tiles.shape[1:] != stacks[0].shape[1:]:
                    raise InputError(
                        f"{entry.path}: tiles of {tiles.shape[1]} pixels, others have {stacks[0].shape[1]}; "
                        f"a pool has one size, delete {folder} and collect again"
                    )
                stacks.append(tiles)
                photos += [entry.manifest.get("photo", entry.path.stem)] * len(tiles)
        if not stacks:
            raise InputError(f"{folder}: the noise pool has no tile; fill it with python -m realsr.collect")
        return cls(torch.from_numpy(np.concatenate(stacks)).permute(0, 3, 1, 2).contiguous(), photos)

    def __len__(self) -> int:
        return len(self.photos)

    def sample(
        self,
        count: int,
        size: tuple[int, int],
        generator: torch.Generator,
        images: Tensor | None = None,
        nearest: float = 1.0,
        detrend: Literal["mean", "plane"] = "mean",
    ) -> Tensor:
        """Zero-mean noise: a tile drawn uniformly, cut at random to ``size``, its mean per channel taken away.

        An LR image larger than a tile gets the tile mirrored over it.

        Args:
            count: number of patches.
            size: height and width.
            generator: the CPU's, so that a run draws the same on any device.
            images: ``(count, 3, H, W)`` in [0, 1] that the noise is for, on the pool's device; None with ``nearest=1``.
            nearest: share of the pool, those tiles nearest in mean brightness to the image and at least 8, that one is
                drawn from.
            detrend: what is taken away, the mean or the fitted plane.

        Returns:
            ``(count, 3, *size)`` float32, in units of [0, 1] images.
        """
        n, _, side, _ = self.tiles.shape
        height, width = size
        among = n if images is None or nearest == 1 else min(max(round(nearest * n), 8), n)
        tile = torch.randint(among, (count,), generator=generator)
        top, left = (torch.randint(max(side - length, 0) + 1, (count,), generator=generator) for length in size)
        tile, top, left = to_device(torch.stack((tile, top, left)), self.tiles.device)
        if images is not None and among < n:
            levels, order = self._by_brightness
            # the nearest are neighbours in order: the first of them leaves while the next beyond the last is nearer
            middles = (levels[: n - among] + levels[among:]) / 2
            tile = order[tile + torch.searchsorted(middles, brightness(images))]
        tiles = self.tiles
        if max(size) > side:
            rows, columns = (mirror(torch.arange(max(side, length), device=tiles.device), side) for length in size)
            tiles, tile = tiles[tile][:, :, rows][..., columns], torch.arange(count, device=tiles.device)
        # a view of all windows of all tiles, of which these are copied: half the time of an index for every pixel
        patch = tiles.unfold(2, height, 1).unfold(3, width, 1)[tile, :, top, left].float()
        patch = patch - patch.mean((2, 3), keepdim=True)
        return (without_slope(patch) if detrend == "plane" else patch) / 255

    @cached_property
    def _by_brightness(self) -> tuple[Tensor, Tensor]:
        """The tiles' brightness in [0, 1] in rising order, and their indices in that order."""
        levels, order = torch.cat([brightness(part / 255) for part in torch.split(self.tiles, 256)]).sort()
        return levels, order

    def subset(self, keep: Sequence[int]) -> NoisePool:
        """The pool of these indices."""
        return NoisePool(self.tiles[list(keep)], [self.photos[i] for i in keep])

    def to(self, device: torch.device | str) -> NoisePool:
        """The same pool on another device."""
        return NoisePool(self.tiles.to(device), self.photos)


def hold_out(pool: P, share: float, seed: int) -> tuple[P, P]:
    """Split into ``(training, held out)`` so that no photo is on both sides.

    At least one photo goes to each side. A pool of a single photo cannot be split by photo: its items are split;
    a single item serves both.
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


def brightness(images: Tensor) -> Tensor:
    """Mean BT.601 luma of each of ``(N, 3, H, W)`` RGB images, ``(N,)`` in their range."""
    return luma(images.mean((2, 3), keepdim=True))[:, 0, 0]


def without_slope(patches: Tensor) -> Tensor:
    """Take the slope of the plane that fits best (least squares) from each channel of zero-mean ``(N, C, H, W)``."""
    for axis in (2, 3):
        length = patches.shape[axis]
        ramp = torch.arange(length, device=patches.device) - (length - 1) / 2
        ramp = (ramp / ramp.square().mean().sqrt().clamp(min=0.5)).view(-1, *[1] * (3 - axis))  # orthogonal, norm one
        patches = patches - (patches * ramp).mean((2, 3), keepdim=True) * ramp
    return patches


def check_confidence(min_confidence: float) -> None:
    """Raise InputError for a ``pool.min_confidence`` that is no confidence."""
    if not 0 <= min_confidence <= 1:
        raise InputError(f"pool.min_confidence={min_confidence}: give 0 to 1")


def export_kernels(folder: Path, target: Path, form: str, min_confidence: float = 0.0) -> None:
    """Write the kernels of a pool for other programs, in place of an earlier export.

    Args:
        folder: of the pool.
        target: folder to write into.
        form: ``mat`` or ``npy``, as :func:`realsr.pools.interchange.write_kernels` says.
        min_confidence: kernels of less are left out.

    Raises:
        InputError: there is no scale that all of the pool's files have, or no kernel is left.
    """
    have = [{name for name in e.arrays if name[0] == "x"} for e in read_entries(folder, "kernel", "realsr.estimate")]
    scales = sorted(int(name[1:]) for name in set.intersection(*have) if name[1:].isdigit())
    if not scales:
        raise InputError(f"{folder}: no scale is in all of its files, so there is nothing to export")
    for name in sorted(set.union(*have) - {f"x{scale}" for scale in scales}):
        count = sum(name in names for names in have)
        log.warning("%s: %s is not exported, only %d of %d files have it", folder, name, count, len(have))
    # before the pool is read: of jobs that end together, the last has all kernels and takes away none
    remove_exported(target, form)
    for scale in scales:
        pool = KernelPool.load(folder, scale, min_confidence)
        write_kernels(target, form, scale, pool.photos, pool.kernels.numpy())
        log.info("%s: %d kernels for x%d", target, len(pool), scale)
