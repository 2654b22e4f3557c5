"""The rule ``collector=auto``, which finds tiles of noise without bounds that are set by hand.

Noise is stationary in a tile and isotropic; a scene is neither, whatever its contrast. These two tests alone leave few
tiles of texture. The remaining tiles show how strong the camera's noise is by brightness and how smooth it is; tiles
that are stronger or smoother are left out. Photos of high ISO speed, and colours with a dark channel, are noisier than
others of the same brightness, so each photo has a strength of its own, bounded by the camera's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from realsr.estimation.noise import NO_NOISE, Reasons, TileRule, TileStatistics, listed, reason_codes
from realsr.runtime.errors import at_least
from realsr.runtime.evenly import evenly

Floats = npt.NDArray[np.floating]

# Measured on tiles of 32 pixels of six simulated cameras (realsr.data.cameras) and 22 scenes: 95 % of the tiles whose
# scene has less than a tenth of the noise's variance are under each bound, 96 % of those whose scene has four times the
# noise's variance are over one of them.
MAX_STRUCTURE, MAX_DIRECTION, MAX_UNEVENNESS = 0.15, 0.2, 0.6
MAX_BLOCKINESS = 1.5  # noise that was stored as JPEG of quality 80 has 0.2 to 0.9
MAX_SLOPE = 0.5  # share of a plane in the variance: LR crops would get it with the noise
LEVELS = 16  # of brightness in a step of the envelope
STEEPEST = 2.0  # largest ratio of the noise's variance between steps: 1.8 in the shadows of a gamma curve
LEAST = 4  # tiles from which the strength of the noise is measured
LOW = 0.25  # quantile of the variance that is taken for the noise's, since scenes only add variance
NOISIEST = 16.0  # times the variance that the quietest photos have: four stops of ISO


@dataclass(frozen=True)
class AutoRule(TileRule):
    """Tiles whose variance is explained by the camera's noise.

    Attributes:
        tile_size: side in pixels; LR crops that are larger get mirrored tiles. Small flat regions hold only small
            tiles, but under 24 pixels noise can hardly be told from a scene.
        stride: step in pixels between tiles.
        tolerance: largest variance of a tile in units of the noise's, which itself differs by a tenth between tiles.
        per_photo: most tiles of one photo, evenly chosen by brightness, so that no large sky dominates the pool.
    """

    tile_size: int = 32
    stride: int = 16
    tolerance: float = 1.5
    per_photo: int = 256

    def __post_init__(self) -> None:
        at_least(16, "collector.", tile_size=self.tile_size)
        at_least(1, "collector.", stride=self.stride, tolerance=self.tolerance, per_photo=self.per_photo)

    def reasons(self, tiles: TileStatistics) -> Reasons:
        """Signs of a scene, of clipping or of compression in a tile."""
        return reason_codes({
            "clipped": tiles.clipped > 0.01,
            "no noise": tiles.detrended < NO_NOISE,
            "gradient": tiles.slope > MAX_SLOPE,
            "scene": tiles.structure > MAX_STRUCTURE,
            "stripes": tiles.direction > MAX_DIRECTION,
            "uneven": tiles.unevenness > MAX_UNEVENNESS,
            "block edges": tiles.blockiness > MAX_BLOCKINESS,
        })  # fmt: skip

    def choose(self, photos: Sequence[TileStatistics]) -> list[Reasons]:
        """Keep what is as strong and as smooth as the noise, and not too many tiles of one photo."""
        strengths = relative_strengths(photos)
        smoothest = _smoothest(
            [tiles.correlation[s < self.tolerance] for tiles, s in zip(photos, strengths, strict=True)]
        )
        return [self._chosen(tiles, s, smoothest) for tiles, s in zip(photos, strengths, strict=True)]

    def _chosen(self, tiles: TileStatistics, strengths: Floats, smoothest: float) -> Reasons:
        smooth = tiles.correlation > smoothest
        own = np.quantile(strengths[~smooth], LOW) if (~smooth).sum() >= LEAST else 1.0
        against = {"too strong": smooth | (strengths > self.tolerance * np.clip(own, 1, NOISIEST))}
        order = np.flatnonzero(~against["too strong"])
        order = order[np.argsort(tiles.mean[order], kind="stable")]
        against["enough"] = ~np.isin(np.arange(len(smooth)), order[evenly(self.per_photo, len(order))])
        return reason_codes(against)

    def advice(self, rejected: Mapping[str, int]) -> str:
        """The reasons by frequency, and photos that would help."""
        return (
            f"of {sum(rejected.values())} tiles are {listed(rejected)}; add photos of this camera, taken as the others "
            "are, of something plain that is neither black nor white (a wall, an even sky, out of focus), or train "
            "without noise: degradation=kernel"
        )


def relative_strengths(photos: Sequence[TileStatistics]) -> list[Floats]:
    """The variance of each candidate in units of :func:`lower_envelope` at its brightness."""
    means, variances = ([getattr(tiles, name) for tiles in photos] for name in ("mean", "detrended"))
    curve = lower_envelope(np.concatenate([*means, []]), np.concatenate([*variances, []]))
    middles = (np.arange(len(curve)) + 0.5) * LEVELS
    return [v / np.exp(np.interp(m, middles, np.log(curve))) for m, v in zip(means, variances, strict=True)]


def lower_envelope(mean: Floats, variance: Floats) -> Floats:
    """Variance ``(256 / LEVELS,)`` of the noise by steps of brightness, from tiles most of which are noise.

    Means and variances are ``(T,)``, in 8-bit levels and their squares. The result rises by at most ``STEEPEST`` a
    step, so steps without noise are bounded by their neighbours; 1 where there are no tiles.

    >>> lower_envelope(np.full(8, 100.0), np.full(8, 6.0))[5:8]
    array([12.,  6., 12.])
    """
    steps = (mean // LEVELS).astype(int)
    inside = [variance[steps == step] for step in range(256 // LEVELS)]
    least = min(LEAST, max(map(len, inside)))
    curve = np.array([np.quantile(v, LOW) if len(v) >= max(least, 1) else np.inf for v in inside])
    away = np.abs(np.subtract.outer(np.arange(len(curve)), np.arange(len(curve))))
    lowest = (curve * STEEPEST**away).min(1)
    return np.where(np.isfinite(lowest), lowest, 1.0)


def _smoothest(correlations: Sequence[Floats]) -> float:
    """The correlation of neighbours that noise rarely exceeds, extrapolated from its lowest quarter.

    For a normal distribution it lies 1.1 standard deviations over the mean. In the trial above it rejects one of ten
    tiles of noise, and half of the faint scenes (weaker than the noise) that pass everything else.
    """
    every = np.concatenate([*correlations, []])
    if not len(every):
        return math.inf
    lowest, low = np.quantile(every, (0.02, 0.25))
    return float(low + 1.3 * (low - lowest))
