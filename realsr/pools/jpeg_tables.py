"""The pool of quantisation tables: what a camera's photos are compressed with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from realsr.imaging.jpeg import BLOCK, read_compression
from realsr.pools.builder import fill_pool
from realsr.pools.folder import Arrays, read_entries
from realsr.runtime.config import check_writable
from realsr.runtime.errors import InputError
from realsr.runtime.hardware import to_device

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JpegPool:
    """How the camera's photos are compressed, an item for each photo: so a draw is as frequent as in the folder.

    Attributes:
        tables: ``(N, 2, 8, 8)`` float32, as in :class:`realsr.imaging.jpeg.Compression`.
        subsampling: ``(N, 2)`` int64; stays on the CPU, where it is looked at.
        photos: that each is from, N names.
    """

    tables: Tensor
    subsampling: Tensor
    photos: list[str]

    @classmethod
    def load(cls, folder: str | Path) -> JpegPool:
        """Read all items of a pool's folder.

        Raises:
            InputError: the folder is missing or empty, or holds a damaged file or one of another pool.
        """
        tables, subsampling, photos = [], [], []
        for entry in read_entries(folder, "JPEG", "realsr.collect"):
            table, factors = (entry.arrays.get(name, np.zeros(0)) for name in ("tables", "subsampling"))
            if table.shape != (2, BLOCK, BLOCK) or table.min() < 1:
                raise InputError(f"{entry.path}: is no JPEG pool file, `tables` (2, 8, 8) is missing; delete it")
            if factors.shape != (2,) or not set(factors.tolist()) <= {1, 2}:
                raise InputError(f"{entry.path}: is no JPEG pool file, `subsampling` of 1 or 2 is missing; delete it")
            tables.append(table)
            subsampling.append(factors)
            photos.append(entry.manifest.get("photo", entry.path.stem))
        return cls(torch.from_numpy(np.stack(tables)).float(), torch.from_numpy(np.stack(subsampling)).long(), photos)

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, count: int, generator: torch.Generator, cut: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Tables, subsampling and phase for :func:`realsr.imaging.jpeg.jpeg`, drawn uniformly with replacement.

        Args:
            count: number of images.
            generator: the CPU's, so that a run draws the same on any device.
            cut: whether the images are cuts from photos, which start anywhere in a block; whole photos have no phase.
        """
        index = torch.randint(len(self), (count,), generator=generator)
        phase = torch.randint(2 * BLOCK, (count, 2), generator=generator) if cut else None
        return self.tables[to_device(index, self.tables.device)], self.subsampling[index], phase

    def subset(self, keep: Sequence[int]) -> JpegPool:
        """The pool of these indices."""
        return JpegPool(self.tables[list(keep)], self.subsampling[list(keep)], [self.photos[i] for i in keep])

    def to(self, device: torch.device | str) -> JpegPool:
        """The same pool on another device."""
        return JpegPool(self.tables.to(device), self.subsampling, self.photos)


def collect_tables(photos: Sequence[Path], folder: Path, whole: bool = True) -> int:
    """Fill the JPEG pool in ``folder`` from the photos' headers, going on from what is there.

    Args:
        photos: files as the camera wrote them; those that are not called .jpg or .jpeg, or are no JPEG, are left out.
        folder: of the pool.
        whole: whether these are all photos of the pool.

    Returns:
        How many have an entry; 0 is no error, some degradations only need the pool.
    """
    files = [photo for photo in photos if photo.suffix.lower() in (".jpg", ".jpeg")]
    if not files:
        return 0
    check_writable(folder)
    filled = fill_pool(folder, files, {}, _tables_of, whole=whole)
    left_out = [result for _, result in filled if isinstance(result, str)]
    count = len(files) - len(left_out)
    log.info("%s: quantisation tables of %d of %d photos", folder, count, len(photos))
    if left_out and count:
        log.warning("no tables from %d photos, such as %s", len(left_out), left_out[0])
    return count


def require_tables(photos: Sequence[Path], folder: Path) -> None:
    """:func:`collect_tables`, for a degradation that cannot do without.

    Raises:
        InputError: no photo is a JPEG file, and the pool holds nothing of other photos either.
    """
    if not collect_tables(photos, folder) and not any(folder.glob("*.npz")):
        raise InputError(
            f"{photos[0].parent}: none of {len(photos)} photos is a JPEG file with tables to compress LR by; choose a "
            "degradation without jpeg, or data.pools.jpeg_dir=POOL/jpeg, made of the camera's own files by python -m "
            "realsr.collect data.source_dir=FILES pool_dir=POOL"
        )


def _tables_of(photo: Path) -> tuple[Arrays, dict[str, Any]]:
    compression = read_compression(photo)
    return {"tables": compression.tables, "subsampling": np.array(compression.subsampling)}, {}
