"""Kernel and noise pools: what was learnt of the camera, one file a photo on disk, tensors in memory.

A pool is a folder of ``<photo>-<hash>.npz`` files. Each holds the arrays and, as the JSON text ``manifest``, what
they were made from: the photo's name and SHA-256, settings, version. One file a photo makes every write atomic,
every run resumable and every pool mergeable: copy the files together.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from realsr import __version__
from realsr.errors import InputError
from realsr.images import atomic_write, file_hash
from realsr.kernels import Kernel
from realsr.resample import mirror

Arrays = dict[str, npt.NDArray[Any]]
P = TypeVar("P", "KernelPool", "NoisePool")


@dataclass(frozen=True)
class KernelPool:
    """Kernels of one scale.

    Attributes:
        kernels: ``(N, K, K)`` float32, correlation kernels of sum one; smaller ones are padded with zeros.
        photos: N names, the photo that each is from.
    """

    kernels: Tensor
    photos: list[str]

    @classmethod
    def load(cls, folder: str | Path, scale: int) -> KernelPool:
        """Read the kernels for ``scale`` from a pool's folder.

        Raises:
            InputError: the folder is missing or empty, has no kernel of this scale, or one that is not finite or
                sums to nothing.
        """
        kernels: list[Kernel] = []
        photos: list[str] = []
        for entry in _entries(folder, "kernel", "realsr.estimate"):
            if f"x{scale}" not in entry.arrays:
                have = ", ".join(sorted(entry.arrays)) or "nothing"
                raise InputError(f"{entry.path}: has no x{scale} kernel, only {have}; estimate with that scale")
            kernels.append(_checked_kernel(entry.arrays[f"x{scale}"], entry.path))
            photos.append(entry.manifest.get("photo", entry.path.stem))
        size = max(k.shape[0] for k in kernels)
        size += (size + 1) % 2
        padded = [_pad_to(k, size) for k in kernels]
        return cls(torch.from_numpy(np.stack(padded)).float(), photos)

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` kernels drawn uniformly with replacement, ``(count, K, K)``. ``generator`` is the CPU's."""
        index = torch.randint(len(self), (count,), generator=generator)
        return self.kernels[index.to(self.kernels.device)]

    def subset(self, keep: Sequence[int]) -> KernelPool:
        """The pool of these indices."""
        return KernelPool(self.kernels[list(keep)], [self.photos[i] for i in keep])

    def to(self, device: torch.device | str) -> KernelPool:
        """The same pool on another device."""
        return KernelPool(self.kernels.to(device), self.photos)


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
        for entry in _entries(folder, "noise", "realsr.collect"):
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
            raise InputError(f"{folder}: the noise pool has no tile; collect with a higher collector.max_variance")
        return cls(torch.from_numpy(np.concatenate(stacks)).permute(0, 3, 1, 2).contiguous(), photos)

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Zero-mean noise: a tile drawn uniformly, cut at random to ``size``, its mean per channel taken away.

        An LR image larger than a tile gets the tile mirrored over it.

        Args:
            count: number of patches.
            size: height and width.
            generator: the CPU's, so that a run draws the same on any device.

        Returns:
            ``(count, 3, *size)`` float32, in units of [0, 1] images.
        """
        n, _, side, _ = self.tiles.shape
        tile = torch.randint(n, (count,), generator=generator)
        rows, columns = (self._window(side, length, count, generator) for length in size)
        device = self.tiles.device
        patch = self.tiles[
            tile.to(device)[:, None, None, None],
            torch.arange(3, device=device)[None, :, None, None],
            rows.to(device)[:, None, :, None],
            columns.to(device)[:, None, None, :],
        ].float()
        return (patch - patch.mean((2, 3), keepdim=True)) / 255

    @staticmethod
    def _window(side: int, length: int, count: int, generator: torch.Generator) -> Tensor:
        """``(count, length)`` indices into a tile: a random window, or the whole tile to and fro."""
        start = torch.randint(max(side - length, 0) + 1, (count, 1), generator=generator)
        return mirror(start + torch.arange(length), side)

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


@dataclass(frozen=True)
class Entry:
    """One file of a pool: what a photo gave.

    Attributes:
        path: of the file.
        arrays: by name.
        manifest: plain JSON values: what the arrays were made from.
    """

    path: Path
    arrays: Arrays
    manifest: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Entry:
        """Read one file.

        Raises:
            InputError: the file is damaged, or no pool file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if name != "manifest"}
                manifest = json.loads(str(file["manifest"])) if "manifest" in file.files else {}
        except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as e:
            raise InputError(f"{path}: is damaged or no pool file ({e}); delete it, it will be made again") from e
        return cls(path, arrays, manifest)

    def write(self) -> None:
        """Write the file, whole or not at all."""
        with atomic_write(self.path) as file:
            np.savez(file, manifest=np.array(json.dumps(self.manifest)), **self.arrays)  # type: ignore[arg-type]


def fill_pool(
    folder: Path,
    photos: Sequence[Path],
    settings: dict[str, Any],
    make: Callable[[Path], tuple[Arrays, dict[str, Any]]],
    redo: bool = True,
) -> Iterator[tuple[Path, Entry | str]]:
    """Make the entries that are missing, one photo after another; each is on disk before the next begins.

    An entry is current when the photo's hash and the settings in its manifest agree; others are made anew (with
    ``redo=False`` only those of changed photos, and those whose manifest calls them ``doubtful``).

    Args:
        folder: of the pool.
        photos: files to make entries for.
        settings: all that the entries depend on besides the photo, as plain JSON values.
        make: gives arrays and further manifest fields for a photo, or raises InputError for an unusable one.
        redo: whether entries made with other settings are made anew.

    Yields:
        Each photo with its entry, or with the reason why it has none.
    """
    settings = json.loads(json.dumps(settings))
    for photo in photos:
        digest = file_hash(photo)
        path = folder / f"{photo.stem}-{digest[:8]}.npz"
        if path.exists():
            entry = Entry.read(path)
            outdated = redo or entry.manifest.get("doubtful", False)
            same_settings = entry.manifest.get("settings") == settings or not outdated
            if entry.manifest.get("sha256") == digest and same_settings:
                yield photo, entry
                continue
        try:
            arrays, details = make(photo)
        except InputError as e:
            yield photo, str(e)
            continue
        manifest = {
            "photo": photo.name,
            "sha256": digest,
            "settings": settings,
            "realsr": __version__,
            **details,
        }
        entry = Entry(path, arrays, manifest)
        entry.write()
        yield photo, entry


def _entries(folder: str | Path, kind: str, command: str) -> list[Entry]:
    folder = Path(folder)
    paths = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if not paths:
        state = "is empty" if folder.is_dir() else "does not exist"
        raise InputError(f"{folder}: the {kind} pool {state}; fill it with python -m {command} data.source_dir=PHOTOS")
    return [Entry.read(path) for path in paths]


def _checked_kernel(kernel: npt.NDArray[Any], path: Path) -> Kernel:
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
        raise InputError(f"{path}: a kernel is a square array, this one is {kernel.shape}; delete the file")
    if not np.isfinite(kernel).all():
        raise InputError(f"{path}: the kernel has NaN or infinite values; delete the file and estimate again")
    if kernel.sum() <= 1e-6:
        raise InputError(f"{path}: the kernel sums to {kernel.sum():.3g}; delete the file and estimate again")
    return np.asarray(kernel / kernel.sum(), dtype=np.float64)


def _pad_to(kernel: Kernel, size: int) -> Kernel:
    """Zeros around, so that index ``K//2`` stays at ``K//2``."""
    before = size // 2 - kernel.shape[0] // 2
    after = size - kernel.shape[0] - before
    return np.pad(kernel, (before, after))
