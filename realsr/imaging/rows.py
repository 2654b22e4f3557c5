"""Pixels of an image that libvips has opened: all, or the rows that are asked for; and what is wrong with a file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from realsr.runtime.errors import InputError

Pixels = npt.NDArray[Any]
DTYPES = {"uchar": np.uint8, "ushort": np.uint16}  # by libvips' names
_AT_ONCE = 128  # rows decoded at once
_LOOKED_BACK = 64  # rows kept before those read last
_UNSUPPORTED = re.compile(r"[^;]*(?:support|configured|implement|annot handle)[^;]*")


def check_pixels(path: Path, height: int, width: int, most_pixels: int) -> None:
    """Raise InputError for an image without a pixel, or with more than ``most_pixels``, which memory may not hold."""
    if min(height, width) < 1:
        raise InputError(f"{path}: has {width} x {height} pixels, the file is damaged")
    if (pixels := height * width) > most_pixels:
        size = f"{pixels / 1e6:.0f} megapixels, at most {most_pixels / 1e6:.0f}"
        raise InputError(f"{path}: has {size} are read; cut it into parts or give max_megapixels")


@contextlib.contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Raise any exception of a decoder, which a damaged file may cause, as an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as e:
        raise InputError(f"{path}: no such file") from e
    except (PermissionError, IsADirectoryError) as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e
    except MemoryError as e:
        raise InputError(f"{path}: does not fit into memory, or its file is damaged") from e
    except Exception as e:
        text = e.detail if isinstance(e, pyvips.Error) else str(e)
        reason = "; ".join(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))[:200]
        if isinstance(e, pyvips.Error) and (missing := _UNSUPPORTED.search(reason)):
            raise InputError(f"{path}: is of a kind that is not read ({missing[0].strip()}); save it in another") from e
        raise InputError(f"{path}: cannot be decoded, the file is damaged ({reason or type(e).__name__})") from e


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
