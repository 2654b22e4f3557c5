"""An image on disk as memory-mapped tiles: a crop reads little more than its own pixels, whatever the image's size.

Tiles are ``TILE`` pixels wide and as high as the image, so that the rows of a crop lie one behind the other: a crop of
160 pixels is 2.2 reads of 140 KB in all on average, where an image stored row by row needs 960 KB (or 160 reads).
"""

from __future__ import annotations

import functools
import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from realsr.errors import InputError
from realsr.files import atomic_write

TILE = 128
MAPS = 200  # images that a process keeps open: mapping one anew costs 0.04 ms, and macOS allows 256 open files

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TiledImage:
    """A stored image, of which ``image[y0:y1, x0:x1]`` reads a part: ``(y1-y0, x1-x0, 3)`` uint8 RGB, a copy.

    It is opened when it is first read, in each process anew.

    Attributes:
        path: of the file: the pixels of one tile behind those of another, without a header.
        height: in pixels.
        width: in pixels.
        name: of the photo, for people.
        content: :func:`realsr.images.content_hash` of the whole photo, before it was scaled.
    """

    path: Path
    height: int
    width: int
    name: str = field(default="", compare=False)
    content: str = field(default="", compare=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(height, width, 3)``."""
        return self.height, self.width, 3

    @property
    def whole(self) -> bool:
        """Whether the file is there, with all its bytes."""
        try:
            return self.path.stat().st_size == self.height * self.width * 3
        except FileNotFoundError:
            return False

    def __getitem__(self, cut: tuple[slice, slice]) -> Pixels:
        (top, bottom, _), (left, right, _) = cut[0].indices(self.height), cut[1].indices(self.width)
        out = np.empty((max(bottom - top, 0), max(right - left, 0), 3), np.uint8)
        if not out.size:
            return out
        pages, pixels = _map(self)
        pieces = []
        for start in range(left // TILE * TILE, right, TILE):
            row = min(TILE, self.width - start) * 3  # bytes
            first = start * self.height * 3 + top * row
            last = first + (bottom - top) * row
            _announce(pages, first, last)
            pieces.append((start, pixels[first:last].reshape(bottom - top, -1, 3)))
        for start, piece in pieces:
            inner = piece[:, max(left - start, 0) : right - start]
            x = max(start - left, 0)
            out[:, x : x + inner.shape[1]] = inner
        return out


def write_tiles(path: Path, rgb: Pixels) -> None:
    """Write ``(H, W, 3)`` uint8 for :class:`TiledImage`, whole or not at all, even if the machine fails."""
    with atomic_write(path) as file:
        for start in range(0, rgb.shape[1], TILE):
            file.write(np.ascontiguousarray(rgb[:, start : start + TILE]).data)
        file.flush()
        os.fsync(file.fileno())


@functools.lru_cache(MAPS)
def _map(image: TiledImage) -> tuple[mmap.mmap, Pixels]:
    """The file's pages, and its bytes as a flat array.

    Raises:
        InputError: it is gone, or has changed since it was found.
    """
    if not image.whole:
        raise InputError(f"{image.path}: is gone or damaged; the same command makes it again")
    with image.path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):
        pages.madvise(mmap.MADV_RANDOM)  # else every page that is read brings its neighbours, up to the whole file
    return pages, np.frombuffer(pages, np.uint8)


def _announce(pages: mmap.mmap, first: int, last: int) -> None:
    """Ask for these bytes at one go, where each page would be waited for by itself."""
    if hasattr(mmap, "MADV_WILLNEED"):
        start = first // mmap.PAGESIZE * mmap.PAGESIZE
        pages.madvise(mmap.MADV_WILLNEED, start, last - start)
