"""An even choice of a few among many."""

import numpy as np


def evenly(count: int, total: int) -> list[int]:
    """At most ``count`` indices below ``total`` at even distances, with the first and the last.

    >>> evenly(3, 9)
    [0, 4, 8]
    """
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
