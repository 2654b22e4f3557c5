"""Empirical Bayes over a pool of kernels: a photo's blur, as far as its evidence goes, else that of the camera.

The photos of a camera share its optics, while a photo's estimate is off by what its scene looks like: edges of soft
things, or that run in one direction only. So the estimates of a pool differ by more than the camera's kernels do. How
much of their spread is the camera's, follows from how far scenes alone lead estimates apart (James and Stein, 1961;
Efron and Morris, JASA 1973); logarithms of covariances are averaged, in which ratios of widths count.
"""

from __future__ import annotations

import numpy as np

from realsr.estimation.kernels import Array, of_eigenvalues

SCENE = 0.15  # standard deviation of a sure estimate's logarithm of variance, by scenes alone
ROUNDS = 20  # in which the mean and the spread settle


def shrunk(blurs: Array, confidence: Array) -> Array:
    """Blurs of photos of one camera, drawn towards their mean the more the less sure they are.

    Where the estimates differ by no more than scenes make them, all become the mean; where they differ by much more,
    as of a camera that is moved and focused otherwise for every photo, they stay what they are.

    Args:
        blurs: ``(N, 2, 2)`` covariances.
        confidence: ``(N,)`` in [0, 1]; the error of an estimate grows as it falls.

    Returns:
        ``(N, 2, 2)`` covariances.
    """
    logs = of_eigenvalues(blurs, np.log)
    errors = (SCENE / np.clip(confidence, 0.05, 1)) ** 2
    spread = 0.0
    for _ in range(ROUNDS):
        weights = 1 / (errors + spread)
        weights /= weights.sum()
        mean = np.tensordot(weights, logs, 1)
        # a third for each of the three numbers of a covariance; of N photos one is spent on the mean
        squares = ((logs - mean) ** 2).sum((1, 2)) / 3 / max(1 - float((weights**2).sum()), 1e-6)
        spread = max(float(weights @ (squares - errors)), 0.0)
    share = spread / (spread + errors)
    return of_eigenvalues(mean + share[:, None, None] * (logs - mean), np.exp)
