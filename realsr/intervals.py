"""How sure a mean over images is: 95 % bootstrap intervals, by percentiles (Efron and Tibshirani 1993, chapter 13)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEVEL = 0.95


def bootstrap_interval(values: Sequence[float], seed: int = 0, draws: int = 10_000) -> tuple[float, float]:
    """Interval of the mean over images, if other photos of the same kind had been measured.

    Images are drawn with replacement, as many as there are, and the mean taken anew. It knows nothing of how the
    method itself would vary, trained again.

    Args:
        values: of one metric, one for each image. NaN (not measured) is left out. Infinity, the PSNR of equal
            images, makes the bounds infinite that it reaches; infinities of both signs make them NaN.
        seed: of the drawing; the same seed draws the same images for every method with as many values.
        draws: how many means.

    Returns:
        Bounds that 95 % of the means lie within; both NaN of fewer than two values, from which nothing can be said.
    """
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    if len(known) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(known), size=(draws, len(known)))
    with np.errstate(invalid="ignore"):  # inf - inf
        means = known[drawn].mean(1)
    # bounds that are means themselves: between two of them, infinity could not be interpolated
    low = np.quantile(means, (1 - LEVEL) / 2, method="lower")
    high = np.quantile(means, (1 + LEVEL) / 2, method="higher")
    return float(low), float(high)


def paired_interval(
    ours: Sequence[float], others: Sequence[float], seed: int = 0, draws: int = 10_000
) -> tuple[float, float]:
    """Interval of the mean of ``ours - others`` over the same images; without 0 in it, the two methods differ.

    Much narrower than two intervals beside each other, since that some photos are harder than others cancels out.

    Args:
        ours: one value for each image.
        others: of another method, for the same images in the same order; an image without a value (NaN) on either
            side is left out; equal values, also infinite ones, differ by 0.
        seed: see :func:`bootstrap_interval`.
        draws: see there.

    Raises:
        ValueError: the two differ in length.
    """
    a, b = np.asarray(ours, dtype=float), np.asarray(others, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} values: give both methods' values of the same images")
    with np.errstate(invalid="ignore"):
        difference = np.where(a == b, 0.0, a - b)
    return bootstrap_interval(difference.tolist(), seed, draws)
