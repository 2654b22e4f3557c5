"""Tiles of photos that show noise only: what is measured of a tile, and the paper's rule."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from realsr.estimation.flatness import blockiness, correlation, direction, slope, structure, unevenness, without_plane
from realsr.imaging import gray_uint8
from realsr.runtime.errors import at_least

Mask = npt.NDArray[np.bool_]
Reasons = npt.NDArray[np.uint8]
"""``(T,)``: why a tile is not in the pool, as an index into :data:`REASONS`; ``IN_POOL`` has those that keep it."""
REASONS = {
    "": "taken by the rule",
    "added": "taken to reach `collector.keep_best`",
    "too much variance": "`collector.max_variance` or more",
    "too dark": "`collector.min_mean` or less",
    "clipped": "more than 1 % of the pixels are black or white, where noise is cut off",
    "no noise": "constant, or nearly",
    "gradient": "more of the variance is a slope's than noise's",
    "scene": "more at wavelengths over 16 pixels than noise has",
    "stripes": "gradients of one direction",
    "uneven": "stronger in a part of the tile than in another",
    "block edges": "hardly more than the edges of JPEG's blocks",
    "too strong": "stronger than the camera's noise is at this brightness, or smoother",
    "enough": "noise, but the photo has `collector.per_photo` others",
}
IN_POOL = ("", "added")
STATISTICS = 2  # version of TileStatistics: pools of other versions are made anew
NO_NOISE = 0.1  # variance in squared levels of a tile in which one pixel of nine differs by one level


@dataclass(frozen=True)
class TileRule(ABC):
    """Chooses the tiles of a camera's photos that are noise; its fields are the pool's settings."""

    tile_size: int
    stride: int

    @abstractmethod
    def reasons(self, tiles: TileStatistics) -> Reasons:
        """Why each tile is rejected by itself; 0 where it is not."""

    def candidates(self, tiles: TileStatistics) -> Mask:
        """The tiles of a photo that :meth:`choose` may take."""
        return self.reasons(tiles) == 0

    @abstractmethod
    def choose(self, photos: Sequence[TileStatistics]) -> list[Reasons]:
        """Why each candidate of each photo is rejected, given the candidates of all photos."""

    @abstractmethod
    def advice(self, rejected: Mapping[str, int]) -> str:
        """Advice where no tile is taken, given the number of tiles by reason."""


@dataclass(frozen=True)
class TileStatistics:
    """Measures of the tiles of a photo, ``(T,)`` each, row by row.

    Attributes:
        corner: ``(T, 2)`` int, top-left ``(y, x)`` in pixels.
        variance: of the gray tile in squared 8-bit levels (population variance).
        mean: of the gray tile in 8-bit levels, [0, 255].
        clipped: share of pixels with a channel at 0 or at 255, where the noise is cut off.
        detrended: variance of the gray tile without its plane, on which the measures below are taken too.
        slope: of :func:`realsr.estimation.flatness.slope`, the largest of gray, red and blue.
        structure, direction, unevenness, blockiness, correlation: see :mod:`realsr.estimation.flatness`.
    """

    corner: npt.NDArray[np.int32]
    variance: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    clipped: npt.NDArray[np.float32]
    detrended: npt.NDArray[np.float32]
    slope: npt.NDArray[np.float32]
    structure: npt.NDArray[np.float32]
    direction: npt.NDArray[np.float32]
    unevenness: npt.NDArray[np.float32]
    blockiness: npt.NDArray[np.float32]
    correlation: npt.NDArray[np.float32]

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> TileStatistics:
        """From the arrays of a pool's file."""
        return cls(**{field.name: arrays[field.name] for field in dataclasses.fields(cls)})

    def where(self, mask: Mask) -> TileStatistics:
        """Measures of the tiles in ``mask``."""
        return TileStatistics.of({name: values[mask] for name, values in vars(self).items()})


def tile_statistics(image: npt.NDArray[np.uint8], tile_size: int, stride: int) -> TileStatistics:
    """Statistics of the tiles at every ``stride`` pixels that lie wholly inside the image ``(H, W, 3)``.

    >>> found = tile_statistics(np.full((64, 96, 3), 100, np.uint8), tile_size=32, stride=32)
    >>> found.mean, found.corner[-1]
    (array([100., 100., 100., 100., 100., 100.]), array([32, 64], dtype=int32))
    """
    if min(image.shape[:2]) < tile_size:
        return TileStatistics(np.zeros((0, 2), np.int32), *np.zeros((2, 0)), *np.zeros((8, 0), np.float32))
    clipped = ((image == 0) | (image == 255)).any(-1)
    layers = gray_uint8(image), image[..., 0], image[..., 2], clipped
    windows = [sliding_window_view(layer, (tile_size, tile_size))[::stride, ::stride] for layer in layers]
    rows = []
    for gray, red, blue, cut in zip(*windows, strict=True):
        tiles = gray.astype(np.float32)
        flat = without_plane(tiles)
        slopes = [slope(colour) for colour in (tiles, red.astype(np.float32), blue.astype(np.float32))]
        shapes = [measure(flat) for measure in (structure, direction, unevenness, blockiness, correlation)]
        plain = gray.var((1, 2)), gray.mean((1, 2)), cut.mean((1, 2)), flat.var((1, 2))
        rows.append((*plain, np.max(slopes, axis=0), *shapes))
    variance, mean, *others = np.concatenate(rows, axis=1)
    corner = np.argwhere(np.ones(windows[0].shape[:2], bool)) * stride
    return TileStatistics(corner.astype(np.int32), variance, mean, *(a.astype(np.float32) for a in others))


def reason_codes(against: Mapping[str, Mask]) -> Reasons:
    """The first reason of each tile, 0 where none applies; the keys are names of :data:`REASONS`."""
    codes = [list(REASONS).index(name) for name in against]
    return np.select([*against.values()], codes, 0).astype(np.uint8)


def in_pool(reasons: Reasons) -> Mask:
    """Whether each tile is in the pool."""
    return reasons < len(IN_POOL)


def count_reasons(reasons: Reasons) -> dict[str, int]:
    """Number of tiles by the name of the reason."""
    return dict(zip(REASONS, np.bincount(reasons, minlength=len(REASONS)).tolist(), strict=True))


def listed(rejected: Mapping[str, int]) -> str:
    """The reasons of rejected tiles, the most frequent first.

    >>> listed({"": 7, "clipped": 3, "scene": 120, "stripes": 0})
    '120 scene, 3 clipped'
    """
    counts = sorted(((-count, name) for name, count in rejected.items() if count and name not in IN_POOL))
    return ", ".join(f"{-count} {name}" for count, name in counts)


def shows_noise(tiles: TileStatistics, max_clipped: float = 0.01) -> Mask:
    """Tiles in which noise can be seen: at most ``max_clipped`` of the pixels at 0 or 255, and some variance."""
    return (tiles.clipped <= max_clipped) & (tiles.variance > 0)


@dataclass(frozen=True)
class NoiseRule(TileRule):
    """The paper's rule (RealSR, section 3.2): tiles of low variance that are not too dark.

    The authors take tiles of 256 pixels with a gray variance under 20, and a gray mean over 0 (DF2K) or over 50
    (DPED). Other cameras need other bounds, and faint scenes pass as noise.

    Attributes:
        tile_size: at least the side of the LR crops.
        stride: step in pixels between tiles.
        max_variance: of the gray tile, in squared 8-bit levels; tiles of less are taken.
        min_mean: of the gray tile, in 8-bit levels; tiles of more are taken.
        keep_best: where all photos together give fewer tiles, the flattest unclipped others are added up to this
            number, whatever they show.
    """

    tile_size: int = 256
    stride: int = 256
    max_variance: float = 20.0
    min_mean: float = 0.0
    keep_best: int = 0

    def __post_init__(self) -> None:
        at_least(16, "collector.", tile_size=self.tile_size)
        at_least(1, "collector.", stride=self.stride)
        at_least(0, "collector.", max_variance=self.max_variance, keep_best=self.keep_best)

    def reasons(self, tiles: TileStatistics) -> Reasons:
        """Compare with both bounds."""
        dark = tiles.mean <= self.min_mean
        return reason_codes({"too much variance": tiles.variance >= self.max_variance, "too dark": dark})

    def candidates(self, tiles: TileStatistics) -> Mask:
        """Tiles that pass, and tiles that ``keep_best`` may add."""
        passed = self.reasons(tiles) == 0
        return passed | shows_noise(tiles) if self.keep_best else passed

    def choose(self, photos: Sequence[TileStatistics]) -> list[Reasons]:
        """Add the flattest tiles of all photos until there are ``keep_best``."""
        chosen = [self.reasons(tiles) for tiles in photos]
        missing = self.keep_best - sum(int((reasons == 0).sum()) for reasons in chosen)
        others = sorted(
            (float(tiles.variance[index]), photo, int(index))
            for photo, tiles in enumerate(photos)
            for index in np.flatnonzero((chosen[photo] > 0) & shows_noise(tiles))
        )
        for _, photo, index in others[: max(missing, 0)]:
            chosen[photo][index] = list(REASONS).index("added")
        return chosen

    def advice(self, rejected: Mapping[str, int]) -> str:
        """How many tiles each bound rejects; a bound that is raised blindly lets scenes in."""
        return (
            f"{rejected['too much variance']} tiles have a variance of collector.max_variance={self.max_variance:g} or "
            f"more, {rejected['too dark']} others a mean of collector.min_mean={self.min_mean:g} or less; "
            "collector=auto finds out what this camera's noise is"
        )


def cut_tiles(image: npt.NDArray[np.uint8], corners: npt.NDArray[np.integer], tile_size: int) -> npt.NDArray[np.uint8]:
    """The tiles at ``corners`` ``(T, 2)`` as ``(T, tile_size, tile_size, 3)`` uint8."""
    tiles = [image[y : y + tile_size, x : x + tile_size] for y, x in corners]
    return np.stack(tiles) if tiles else np.zeros((0, tile_size, tile_size, 3), np.uint8)
