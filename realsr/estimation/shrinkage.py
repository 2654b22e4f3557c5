"""Empirical Bayes over a pool of kernels: a photo's blur where its evidence is strong, else the camera's mean.

The photos of a camera share its optics, but a photo's estimate also depends on its scene: soft edges, or edges in one
direction only. So the estimates of a pool differ by more than the camera's kernels do. The camera's part of their
spread follows from the known error that scenes alone cause (James and Stein, 1961; Efron and Morris, JASA 1973).
Averages are of logarithms of covariances, in which ratios of widths count.
"""

from __future__ import annotations

import numpy as np

from realsr.estimation.kernels import Array, of_eigenvalues

SCENE = 0.15  # standard deviation of a sure estimate's logarithm of variance, by scenes alone
ROUNDS = 20  # in which the mean and the spread settle


def shrunk_blurs(blurs: Array, confidence: Array) -> Array:
    """Shrink the blurs of one camera's photos towards their mean, those of low confidence most.

    Where the estimates differ by no more than scenes cause, all become the mean; where they differ by much more, as of
    a camera that moves and refocuses for every photo, they hardly change.

    Args:
        blurs: ``(N, 2, 2)`` covariances.
        confidence: ``(N,)`` in [0, 1]; the error of an estimate is inversely proportional to it.

    Returns:
        ``(N, 2, 2)`` covariances.

    >>> shrunk_blurs(np.array([[[0.5, 0.0], [0.0, 0.5]], [[0.6, 0.0], [0.0, 0.5]]]), np.ones(2)).round(3).tolist()
    [[[0.548, 0.0], [0.0, 0.5]], [[0.548, 0.0], [0.0, 0.5]]]
    """
    logs = of_eigenvalues(blurs, np.log)
    errors = (SCENE / np.clip(confidence, 0.05, 1)) ** 2
    spread = 0.0
    for _ in range(ROUNDS):
        weights = 1 / (errors + spread)
        weights /= weights.sum()
        mean = np.tensordot(weights, logs, 1)
        # mean over the three numbers of a covariance; the mean takes one degree of freedom
        squares = ((logs - mean) ** 2).sum((1, 2)) / 3 / max(1 - float((weights**2).sum()), 1e-6)
        spread = max(float(weights @ (squares - errors)), 0.0)
    share = spread / (spread + errors)
    return of_eigenvalues(mean + share[:, None, None] * (logs - mean), np.exp)
