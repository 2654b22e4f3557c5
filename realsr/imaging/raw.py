"""Raw files of cameras (DNG, NEF, CR2, ARW and others), developed by the extra ``realsr[raw]``, LibRaw.

The camera's white balance, colours and curve of sRGB, 16 bits. The exposure stays as it was taken: LibRaw's own
brightening would clip the brightest hundredth of every photo, and differently in each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from realsr.imaging.damage import check_pixels
from realsr.imaging.opening import MOST_PIXELS


def read_raw(path: Path, most_pixels: int = MOST_PIXELS) -> npt.NDArray[np.uint16]:
    """Develop a raw file: ``(H, W, C)`` uint16, upright, C 3 for RGB or 1 for cameras that see gray alone.

    Raises:
        InputError: larger than ``most_pixels``.
        Exception: of many kinds, where the file is damaged or its camera is unknown.
    """
    with _opened(path, most_pixels) as (raw, _):
        raw.unpack()
        pixels = raw.postprocess(use_camera_wb=True, no_auto_bright=True, output_bps=16, gamma=(2.4, 12.92))
    return np.asarray(pixels.reshape(*pixels.shape[:2], -1))


def raw_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` once developed; the pixels are not decoded."""
    with _opened(path) as (_, size):
        return size


@contextmanager
def _opened(path: Path, most_pixels: int = MOST_PIXELS) -> Iterator[tuple[Any, tuple[int, int]]]:
    import rawpy  # an extra

    with rawpy.RawPy() as raw:
        raw.open_file(str(path))
        sizes = raw.sizes
        swapped = sizes.flip & 4  # LibRaw's bits: 1 mirrors across, 2 mirrors down, 4 swaps the axes
        size = (sizes.iwidth, sizes.iheight) if swapped else (sizes.iheight, sizes.iwidth)
        check_pixels(path, *size, most_pixels)
        check_pixels(path, sizes.raw_height, sizes.raw_width, most_pixels)
        yield raw, size
