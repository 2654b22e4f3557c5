"""The part of a photo with most detail, which tells most about the camera and shows most of a result."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def detailed_window(image: npt.NDArray[Any], side: int, step: int = 8) -> tuple[slice, slice]:
    """Rows and columns of the ``side x side`` window of ``(H, W, C)`` with most edges, or of the whole smaller image.

    Only every ``step``-th pixel is read, so that large photos cost little.

    >>> image = np.zeros((64, 64, 3)); image[32:48, 40:56] = np.arange(16)[:, None]
    >>> detailed_window(image, 24)
    (slice(32, 56, None), slice(40, 64, None))
    """
    height, width = image.shape[:2]
    if max(height, width) <= side:
        return slice(0, height), slice(0, width)
    thin = image[::step, ::step].mean(2, dtype=np.float64)
    slopes = np.abs(np.diff(thin, axis=0, prepend=thin[:1])) + np.abs(np.diff(thin, axis=1, prepend=thin[:, :1]))
    sums = np.pad(slopes.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = (min(side // step, length) for length in thin.shape)
    windows = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    y, x = np.unravel_index(windows.argmax(), windows.shape)
    top, left = (max(min(int(i) * step, length - side), 0) for i, length in ((y, height), (x, width)))
    return slice(top, min(top + side, height)), slice(left, min(left + side, width))
