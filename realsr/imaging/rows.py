"""Pixels of an image that libvips has opened: all of them, or the rows that are asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from realsr.imaging.damage import naming_damage

Pixels = npt.NDArray[Any]
DTYPES = {"uchar": np.uint8, "ushort": np.uint16}  # by libvips' names
_AT_ONCE = 128  # rows decoded at once
_LOOKED_BACK = 64  # rows kept before those read last


def decoded(image: Any, orientation: int) -> Pixels:
    """All pixels of a libvips image, ``(H, W, C)``, upright: its EXIF orientation (1 to 8) is undone."""
    array, region = np.empty((image.height, image.width, image.bands), DTYPES[image.format]), pyvips.Region.new(image)
    for top in range(0, len(array), _AT_ONCE):
        bottom = min(top + _AT_ONCE, len(array))
        array[top:bottom] = _fetch(image, region, top, bottom)
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _fetch(image: Any, region: Any, start: int, stop: int) -> Pixels:
    data = region.fetch(0, start, image.width, stop - start)
    return np.frombuffer(data, DTYPES[image.format]).reshape(-1, image.width, image.bands)


class Rows:
    """Channels of an image, decoded from top to bottom as rows are sliced, ``rows[a:b, c:d]``.

    ``open_again`` returns the upright libvips image, and ``pick`` the channels of ``(h, w, C)``. Rows far above those
    read last are let go; reading them again starts the file anew.
    """

    def __init__(self, path: Path, open_again: Callable[[], Any], pick: Callable[[Pixels], Pixels]) -> None:
        self._path, self._open_again, self._pick = path, open_again, pick
        self._start()
        self.shape, self.dtype = (self._image.height, *pick(self._kept).shape[1:]), self._kept.dtype

    def _start(self) -> None:
        self._image = self._open_again()
        self._region, self._top = pyvips.Region.new(self._image), 0
        self._kept: Pixels = np.empty((0, self._image.width, self._image.bands), DTYPES[self._image.format])

    def __getitem__(self, key: tuple[slice, slice]) -> Pixels:
        """Pixels not to be written to.

        Raises:
            InputError: the file is damaged there.
        """
        start, stop, _ = key[0].indices(self.shape[0])
        if start < self._top:
            self._start()
        with naming_damage(self._path):
            tops = range(self._top + len(self._kept), stop, _AT_ONCE)
            pieces = [_fetch(self._image, self._region, top, min(top + _AT_ONCE, stop)) for top in tops]
        lost = max(start - _LOOKED_BACK - self._top, 0)
        self._kept, self._top = np.concatenate([self._kept, *pieces])[lost:].copy(), self._top + lost
        return self._pick(self._kept[start - self._top : stop - self._top, key[1]])
