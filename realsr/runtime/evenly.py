"""A few of many, from the first to the last."""

from __future__ import annotations

import numpy as np


def evenly(count: int, total: int) -> list[int]:
    """Indices of ``count`` at most out of ``total``, at even distances, the first and the last among them."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
