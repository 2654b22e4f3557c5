"""Pixels of an image that libvips has opened: all at once, or the rows that are asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from realsr.imaging.damage import naming_damage
from realsr.imaging.opening import DTYPES

Pixels = npt.NDArray[Any]
_AT_ONCE = 128  # rows that are decoded
_LOOKED_BACK = 64  # rows before those asked for last that may be asked for again


class Rows:
    """Decodes rows from top to bottom, and lets those go that are no longer asked for.

    Args:
        path: of the file.
        opened: gives the image of libvips, anew where rows are asked for that were let go.
    """

    def __init__(self, path: Path, opened: Callable[[], Any]) -> None:
        self._path, self._opened, self._top = path, opened, 0
        self._kept: Pixels = np.empty((0, 0, 0))
        self._start()

    def read(self, start: int, stop: int) -> Pixels:
        """``(stop - start, W, C)``, not to be written to.

        Raises:
            InputError: the file is damaged there.
        """
        if start < self._top:
            self._start()
        with naming_damage(self._path):
            end = self._top + len(self._kept)
            pieces = [self._fetch(top, min(top + _AT_ONCE, stop)) for top in range(end, stop, _AT_ONCE)]
        lost = max(start - _LOOKED_BACK - self._top, 0)
        self._kept, self._top = np.concatenate([self._kept, *pieces])[lost:].copy(), self._top + lost
        return self._kept[start - self._top : stop - self._top]

    def whole(self) -> Pixels:
        """``(H, W, C)``; nothing is kept of it."""
        array = np.empty(self.shape, self.dtype)
        with naming_damage(self._path):
            for top in range(0, len(array), _AT_ONCE):
                band = array[top : top + _AT_ONCE]
                band[:] = self._fetch(top, top + len(band))
        return array

    def _start(self) -> None:
        image = self._opened()
        self.shape, self.dtype = (image.height, image.width, image.bands), np.dtype(DTYPES[image.format])
        self._region = pyvips.Region.new(image)
        self._kept, self._top = np.empty((0, image.width, image.bands), self.dtype), 0

    def _fetch(self, start: int, stop: int) -> Pixels:
        _, width, channels = self.shape
        data = self._region.fetch(0, start, width, stop - start)
        return np.frombuffer(data, self.dtype).reshape(-1, width, channels)


class Plane:
    """Some channels of rows, to be looked at as an array is, by slices of rows and columns, and None for an axis.

    Args:
        rows: of the image.
        pick: these channels of ``(h, w, C)``.
    """

    def __init__(self, rows: Rows, pick: Callable[[Pixels], Pixels]) -> None:
        self._rows, self._pick, self.dtype = rows, pick, rows.dtype
        self.shape: tuple[int, ...] = rows.shape[:2] + pick(np.empty((1, 1, rows.shape[2]), rows.dtype)).shape[2:]
        self.size = int(np.prod(self.shape))

    def __getitem__(self, key: tuple[Any, ...]) -> Pixels:
        start, stop, _ = key[0].indices(self.shape[0])
        picked = self._pick(self._rows.read(start, stop)[:, key[1]])
        return picked[:, :, None] if len(key) > 2 else picked


def turned_upright(array: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation (1 to 8) on ``(H, W, C)``."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)
