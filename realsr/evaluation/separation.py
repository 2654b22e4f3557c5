"""How far apart two sets of patches lie: real ones of a camera, and made ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from realsr.estimation.patch_statistics import Array, Curves

FOLDS = 5
PENALTY = 0.01  # of the squared slopes against the mean loss of a patch, both classes weighing the same


def compare(real: Curves, made: Curves) -> dict[str, float]:
    """How far the curves of two domains lie apart.

    Returns:
        ``noise`` (mean difference of the noise's standard deviations, levels, over the brightnesses that both have),
        ``noise_spectrum`` and ``spectrum`` (root mean square over the bands, dB), ``colour`` (largest difference of
        the correlations), ``edges`` (earth mover's distance of the widths, pixels; NaN where a side has none).
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


@dataclass(frozen=True)
class Separation:
    """How well a classifier tells two domains apart in photos that it has not seen.

    Attributes:
        auc: area under its ROC curve: 0.5 where there is nothing to tell, 1 for two domains.
        low: 2.5 % quantile over bootstrap samples of the photos.
        high: 97.5 % quantile.
    """

    auc: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.auc:.3f} ({self.low:.2f} to {self.high:.2f})"


def separation(real: Mapping[str, Array], made: Mapping[str, Array], seed: int = 0) -> Separation:
    """Train a logistic regression to tell made patches from real ones, and test it on held-out photos.

    Args:
        real: features ``(n, F)`` of each real photo's patches, by its name.
        made: likewise of each photo that LR was made of. A photo and what is made of it, which share a name, are never
            apart in training and test.
        seed: of the bootstrap, which draws photos with replacement, since patches of one photo are alike.
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
            aucs[i, j - len(real)] = auc(tested[i], tested[j])
            weights[i, j - len(real)] = counts[i] * counts[j]

    def mean(rows: Any, columns: Any) -> Any:
        weight = weights[np.ix_(rows, columns)]
        return (weight * aucs[np.ix_(rows, columns)]).sum() / weight.sum()

    photos = np.arange(len(real)), np.arange(len(made))
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # of few photos, no two of one fold may be drawn
        drawn = stats.bootstrap(photos, mean, vectorized=False, n_resamples=1000, method="percentile", rng=seed)
        low, high = np.nanquantile(drawn.bootstrap_distribution, [0.025, 0.975])
    return Separation(float(mean(*photos)), float(low), float(high))


def auc(real: Array, made: Array) -> float:
    """Probability that a made patch scores higher than a real one; ties count half."""
    return float(roc_auc_score(np.repeat([0, 1], [len(real), len(made)]), np.concatenate([real, made])))
