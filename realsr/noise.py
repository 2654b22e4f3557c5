"""Noise: RealSR's rule for tiles that show nothing else (cut, keep the flat ones), and how strong it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage, stats

from realsr.errors import at_least
from realsr.images import gray_uint8
from realsr.structure import blockiness, direction, structure


@dataclass(frozen=True)
class NoiseRule:
    """Which tiles of the photos show noise and nothing else.

    The authors take tiles of 256 pixels with a gray variance under 20, and a gray mean over 0 (DF2K) or over 50
    (DPED). Other cameras need other bounds. The variance does not tell noise from a faint scene: the last four bounds
    look at what the authors do not, see :mod:`realsr.structure`; they are None (not looked at) in their presets.

    Attributes:
        tile_size: side in pixels, at least that of the LR crops.
        stride: step in pixels between tiles.
        max_variance: of the gray tile, in squared 8-bit levels.
        min_mean: of the gray tile, in 8-bit levels.
        keep_best: where the rule gives fewer tiles than this from all photos together, the flattest others that
            are neither clipped black nor white fill up to this number, whatever they show: variance does more harm.
        max_clipped: share of pixels that have a channel at 0 or at 255; None: any, and tiles without variance too.
        max_structure: of the gray tile; None: anything.
        max_direction: of the gray tile; None: anything.
        max_blockiness: of the gray tile; None: anything.
    """

    tile_size: int = 256
    stride: int = 256
    max_variance: float = 20.0
    min_mean: float = 0.0
    keep_best: int = 0
    max_clipped: float | None = None
    max_structure: float | None = None
    max_direction: float | None = None
    max_blockiness: float | None = None

    def __post_init__(self) -> None:
        at_least(1, "collector.", tile_size=self.tile_size, stride=self.stride)
        at_least(0, "collector.", max_variance=self.max_variance, keep_best=self.keep_best)
        for name in ("max_clipped", "max_structure", "max_direction", "max_blockiness"):
            if (bound := getattr(self, name)) is not None:
                at_least(0, "collector.", **{name: bound})


@dataclass(frozen=True)
class TileStatistics:
    """What the rule looks at, one entry for every tile of a photo, row by row.

    Attributes:
        corner: ``(T, 2)`` int, top-left ``(y, x)`` in pixels.
        variance: ``(T,)`` of the gray tile in squared 8-bit levels (population variance).
        mean: ``(T,)`` of the gray tile in 8-bit levels, [0, 255].
        clipped: ``(T,)`` share of pixels that have a channel at 0 or at 255: there the noise is cut off.
        structure: ``(T,)`` of :func:`realsr.structure.structure`.
        direction: ``(T,)`` of :func:`realsr.structure.direction`.
        blockiness: ``(T,)`` of :func:`realsr.structure.blockiness`.
    """

    corner: npt.NDArray[np.int64]
    variance: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    clipped: npt.NDArray[np.float64]
    structure: npt.NDArray[np.float64]
    direction: npt.NDArray[np.float64]
    blockiness: npt.NDArray[np.float64]


def tile_statistics(image: npt.NDArray[np.uint8], tile_size: int, stride: int) -> TileStatistics:
    """Statistics of the tiles at every ``stride`` pixels that lie wholly inside the image.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        tile_size: side in pixels (256 in the authors' program).
        stride: step in pixels (256 there: tiles that do not overlap).
    """
    sides = tile_size, tile_size
    if min(image.shape[:2]) < tile_size:
        return TileStatistics(np.zeros((0, 2), np.int64), *np.zeros((6, 0)))
    gray = sliding_window_view(gray_uint8(image), sides)[::stride, ::stride]
    clipped = sliding_window_view(((image == 0) | (image == 255)).any(-1), sides)[::stride, ::stride]
    rows: list[tuple[npt.NDArray[np.float64], ...]] = []
    for tiles, cut_off in zip(gray, clipped, strict=True):
        t = tiles.astype(np.float64)
        rows.append((t.var((1, 2)), t.mean((1, 2)), cut_off.mean((1, 2)), structure(t), direction(t), blockiness(t)))
    corner = np.argwhere(np.ones(gray.shape[:2], bool)) * stride
    return TileStatistics(corner, *np.concatenate(rows, axis=1))


def flat_tiles(statistics: TileStatistics, max_variance: float, min_mean: float) -> npt.NDArray[np.bool_]:
    """The rule: gray variance under ``max_variance`` and gray mean over ``min_mean`` (both strict)."""
    return (statistics.variance < max_variance) & (statistics.mean > min_mean)


def structured_tiles(statistics: TileStatistics, rule: NoiseRule) -> dict[str, npt.NDArray[np.bool_]]:
    """Tiles that show more than noise, ``(T,)``, by what they show."""
    looks = {
        "structure": (statistics.structure, rule.max_structure),
        "stripes": (statistics.direction, rule.max_direction),
        "block edges": (statistics.blockiness, rule.max_blockiness),
    }
    return {name: values > (math.inf if bound is None else bound) for name, (values, bound) in looks.items()}


def rejections(statistics: TileStatistics, rule: NoiseRule) -> dict[str, npt.NDArray[np.bool_]]:
    """The tiles that the rule rejects, ``(T,)``, by reason; a tile has one reason, the first that applies."""
    none = np.zeros(len(statistics.variance), bool)
    reasons = {
        "too much variance": statistics.variance >= rule.max_variance,
        "too dark": ~flat_tiles(statistics, rule.max_variance, rule.min_mean),
        "clipped": none if rule.max_clipped is None else ~unclipped_tiles(statistics, rule.max_clipped),
        **structured_tiles(statistics, rule),
    }
    left = ~none
    for reason, applies in reasons.items():
        reasons[reason] = applies & left
        left &= ~applies
    return reasons


def unclipped_tiles(statistics: TileStatistics, max_clipped: float = 0.01) -> npt.NDArray[np.bool_]:
    """Tiles that can witness noise at all.

    Not those with more than ``max_clipped`` of their pixels at 0 or 255, nor those without any variance.
    """
    return (statistics.clipped <= max_clipped) & (statistics.variance > 0)


def cut_tiles(image: npt.NDArray[np.uint8], corners: npt.NDArray[np.int64], tile_size: int) -> npt.NDArray[np.uint8]:
    """The tiles at ``corners`` ``(T, 2)`` as ``(T, tile_size, tile_size, 3)`` uint8."""
    tiles = [image[y : y + tile_size, x : x + tile_size] for y, x in corners]
    return np.stack(tiles) if tiles else np.zeros((0, tile_size, tile_size, 3), np.uint8)


def noise_level(gray: npt.NDArray[np.float64], patch: int = 7) -> float:
    """Standard deviation of the white noise in a photo (Liu, Tanaka and Okutomi, IEEE TIP 2013).

    Texture fills few directions of the space of patches and noise all of them, so the least eigenvalue of the
    patches' covariance is the noise's variance. It is taken over the patches whose gradients could be noise alone,
    which are found in a few rounds. Clipped patches are left out.

    Args:
        gray: ``(H, W)`` in [0, 1], both sides longer than a patch by three at least.
        patch: side of the patches.

    Returns:
        In units of ``gray``; 0 for a photo that is clipped nearly everywhere.
    """
    inner = gray[1:-1, 1:-1]
    windows = np.lib.stride_tricks.sliding_window_view(inner, (patch, patch))
    steepness = (gray[1:-1, 2:] - gray[1:-1, :-2]) ** 2 / 4 + (gray[2:, 1:-1] - gray[:-2, 1:-1]) ** 2 / 4
    low, high, energy = (
        f(a, patch)[patch // 2 :, patch // 2 :][: windows.shape[0], : windows.shape[1]]
        for f, a in (
            (ndimage.minimum_filter, inner),
            (ndimage.maximum_filter, inner),
            (ndimage.uniform_filter, steepness),
        )
    )
    energy = energy * patch**2
    usable = (low > 1 / 255) & (high < 254 / 255)
    if usable.sum() < patch**3:
        return 0.0
    variance = _least_eigenvalue(windows, usable)
    # of white noise, the gradients' energy in a patch is about a gamma variable of this shape and scale 2 * variance
    quantile = float(stats.gamma.ppf(1 - 1e-6, patch**2 / 2, scale=2))
    for _ in range(5):
        weak = usable & (energy < variance * quantile)
        if weak.sum() < patch**3:
            break
        variance = _least_eigenvalue(windows, weak)
    return math.sqrt(variance)


def _least_eigenvalue(windows: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_], count: int = 50_000) -> float:
    """Of the covariance of the patches in ``mask``, or of evenly chosen ``count`` of them."""
    rows, columns = np.nonzero(mask)
    step = max(len(rows) // count, 1)
    chosen = windows[rows[::step], columns[::step]]
    covariance = np.cov(chosen.reshape(len(chosen), -1), rowvar=False)
    return max(float(np.linalg.eigvalsh(covariance)[0]), 0.0)
