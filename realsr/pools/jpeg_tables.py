"""The pool of JPEG quantisation tables, with which a camera compresses its photos."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from realsr.imaging.jpeg import BLOCK, read_compression
from realsr.pools.builder import fill_pool
from realsr.pools.folder import Arrays, read_entries
from realsr.runtime.errors import InputError, counted
from realsr.runtime.files import check_writable, info_once
from realsr.runtime.hardware import to_device

log = logging.getLogger(__name__)


class JpegPool(nn.Module):
    """How the camera's photos are compressed, an item for each photo, so that a draw is as frequent as in the folder.

    Args:
        tables: ``(N, 2, 8, 8)`` float32 for luma and chroma, as in :class:`realsr.imaging.jpeg.Compression`.
        subsampling: ``(N, 2)`` int64 factors of chroma; stays on the CPU, where it is read.
        photos: N names, the photo that each item was read from.

    >>> pool = JpegPool(torch.ones(1, 2, 8, 8), torch.tensor([[2, 2]]), ["a.jpg"])
    >>> tables, subsampling, phase = pool.sample(3, torch.Generator(), cut=False)
    >>> tables.shape, subsampling.shape, phase
    (torch.Size([3, 2, 8, 8]), torch.Size([3, 2]), None)
    """

    tables: Tensor

    def __init__(self, tables: Tensor, subsampling: Tensor, photos: list[str]) -> None:
        super().__init__()
        self.register_buffer("tables", tables, persistent=False)
        self.subsampling, self.photos = subsampling, photos

    @classmethod
    def load(cls, folder: str | Path) -> JpegPool:
        """Read all items of a folder; raises InputError if there is none, a damaged file or one of another pool."""
        tables, subsampling, photos = [], [], []
        for entry in read_entries(folder, "JPEG"):
            table, factors = (entry.arrays.get(name, np.zeros(0)) for name in ("tables", "subsampling"))
            shapes = table.shape == (2, BLOCK, BLOCK) and factors.shape == (2,)
            if not (shapes and 1 <= table.min() <= table.max() < np.inf and {*factors.tolist()} <= {1, 2}):
                raise InputError(f"{entry.path}: is no JPEG pool file; delete it")
            tables.append(table)
            subsampling.append(factors)
            photos.append(entry.photo)
        return cls(torch.from_numpy(np.stack(tables)).float(), torch.from_numpy(np.stack(subsampling)).long(), photos)

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, count: int, generator: torch.Generator, cut: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw tables, subsampling and phase for :func:`realsr.imaging.jpeg.jpeg`, uniformly with replacement.

        ``generator`` is the CPU's, so that a run draws the same on any device. Images that are ``cut`` from photos
        start anywhere in a block; whole photos have no phase.
        """
        index = torch.randint(len(self), (count,), generator=generator)
        phase = torch.randint(2 * BLOCK, (count, 2), generator=generator) if cut else None
        return self.tables[to_device(index, self.tables.device)], self.subsampling[index], phase

    def subset(self, keep: Sequence[int]) -> JpegPool:
        """The pool of these indices."""
        return JpegPool(self.tables[list(keep)], self.subsampling[list(keep)], [self.photos[i] for i in keep])


def collect_tables(photos: Sequence[Path], folder: Path, whole: bool = True) -> int:
    """Fill the JPEG pool in ``folder`` from the headers of ``photos``, files as the camera wrote them.

    Files other than .jpg and .jpeg are left out. Give ``whole=False`` if these are not all photos of the pool.

    Returns:
        The number of photos with an entry; 0 is no error, since few degradations need the pool.
    """
    files = [photo for photo in photos if photo.suffix.lower() in (".jpg", ".jpeg")]
    if not files:
        return 0
    check_writable(folder)
    filled = fill_pool(folder, files, {}, _tables_of, whole=whole)
    left_out = [result for _, result in filled if isinstance(result, str)]
    count = len(files) - len(left_out)
    info_once(f"{folder}: quantisation tables of {count} of {counted(len(photos), 'photo')}")  # training asks twice
    if left_out and count:
        log.warning("no tables from %s, such as %s", counted(len(left_out), "photo"), left_out[0])
    return count


def require_tables(photos: Sequence[Path], folder: Path) -> None:
    """:func:`collect_tables`; raises InputError if no photo is a JPEG file and the pool is empty."""
    if not collect_tables(photos, folder) and not any(folder.glob("*.npz")):
        raise InputError(
            f"{photos[0].parent}: none of {len(photos)} photos is a JPEG file with tables to compress LR by; choose a "
            "degradation without jpeg, or data.pools.jpeg_dir=POOL/jpeg, made of the camera's own files by python -m "
            "realsr.collect data.source_dir=FILES pool_dir=POOL"
        )


def _tables_of(photo: Path) -> tuple[Arrays, dict[str, Any]]:
    compression = read_compression(photo)
    return {"tables": compression.tables, "subsampling": np.array(compression.subsampling)}, {}
