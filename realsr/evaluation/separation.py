"""The difference between two sets of patches: a camera's and made ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from realsr.estimation.patch_statistics import Array, Curves

FOLDS = 5
PENALTY = 0.01  # weight of the squared coefficients against the mean loss, both classes weighted equally


def compare(real: Curves, made: Curves) -> dict[str, float]:
    """Distances between the statistics of real and of made patches.

    Returns:
        ``noise`` (mean difference of the noise's standard deviations in levels, over brightness bins that both have),
        ``noise_spectrum`` and ``spectrum`` (root mean square over the bands in dB), ``colour`` (largest difference of
        the correlations), ``edges`` (earth mover's distance of the widths in pixels; NaN where a side has none).

    >>> real = Curves(np.full(8, 3.0), np.full(10, 9.0), np.zeros(3), np.full(10, 50.0), np.array([2.0, 3.0]))
    >>> made = Curves(np.full(8, 5.0), np.full(10, 25.0), np.zeros(3), np.full(10, 50.0), np.array([2.0, 2.0]))
    >>> {name: round(value, 2) for name, value in compare(real, made).items()}
    {'noise': 2.0, 'noise_spectrum': 4.43, 'colour': 0.0, 'spectrum': 0.0, 'edges': 0.5}
    """

    def decibels(a: Array, b: Array) -> float:
        return float(np.sqrt(np.mean((10 * np.log10((b + 0.01) / (a + 0.01))) ** 2)))

    both = np.isfinite(real.noise) & np.isfinite(made.noise)
    edges = len(real.edges) and len(made.edges)
    return {
        "noise": float(np.abs(real.noise - made.noise)[both].mean()) if both.any() else np.nan,
        "noise_spectrum": decibels(real.noise_power, made.noise_power),
        "colour": float(np.abs(real.colour - made.colour).max()),
        "spectrum": decibels(real.power, made.power),
        "edges": float(stats.wasserstein_distance(real.edges, made.edges)) if edges else np.nan,
    }


class Separation(NamedTuple):
    """How well a classifier separates two sets of patches on held-out photos.

    Attributes:
        auc: area under its ROC curve, 0.5 for equal sets, 1 for sets that are always told apart.
        low, high: quantiles of 2.5 and 97.5 % over bootstrap samples of the photos.
    """

    auc: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.auc:.3f} ({self.low:.2f} to {self.high:.2f})"


def separation(real: Mapping[str, Array], made: Mapping[str, Array], seed: int = 0) -> Separation:
    """Train a logistic regression to tell made patches from real ones, and test it on held-out photos.

    Features are ``(n, F)`` by the photo's name; photos of one name on both sides are in the same fold. The bootstrap
    draws photos with replacement, since patches of one photo are correlated.
    """
    sides = [*real.values(), *made.values()]
    counts = [len(side) for side in sides]
    x, photo = np.concatenate(sides), np.repeat(np.arange(len(sides)), counts)
    y, names = photo >= len(real), np.repeat([*real, *made], counts)
    aucs, weights = np.zeros((len(real), len(made))), np.zeros((len(real), len(made)))
    for train, test in StratifiedGroupKFold(min(FOLDS, len(real), len(made))).split(x, y, names):
        ridge = LogisticRegression(C=1 / (2 * PENALTY * len(train)), class_weight="balanced", max_iter=1000)
        scores = make_pipeline(StandardScaler(), ridge).fit(x[train], y[train]).decision_function(x[test])
        tested = {i: scores[photo[test] == i] for i in np.unique(photo[test])}
        for i, j in product([i for i in tested if i < len(real)], [j for j in tested if j >= len(real)]):
            truth = np.repeat([0, 1], [len(tested[i]), len(tested[j])])
            aucs[i, j - len(real)] = roc_auc_score(truth, np.concatenate([tested[i], tested[j]]))
            weights[i, j - len(real)] = counts[i] * counts[j]

    def mean(rows: Any, columns: Any) -> Any:
        pairs = np.ix_(rows, columns)
        return (weights * aucs)[pairs].sum() / weights[pairs].sum()

    photos = np.arange(len(real)), np.arange(len(made))
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # few photos: a draw may have no pair in one fold
        drawn = stats.bootstrap(photos, mean, vectorized=False, n_resamples=1000, method="percentile", rng=seed)
        low, high = np.nanquantile(drawn.bootstrap_distribution, [0.025, 0.975])
    return Separation(float(mean(*photos)), float(low), float(high))
