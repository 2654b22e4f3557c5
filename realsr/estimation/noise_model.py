"""Model of a camera's noise: its autocovariance, and its variance by brightness.

Sensor noise is white, but a camera's processing correlates it over a few pixels and makes it depend on brightness. Both
are measured on flat tiles, of a noise pool or of one photo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy import linalg, ndimage, signal, stats

from realsr.estimation.auto_rule import AutoRule
from realsr.estimation.flatness import without_plane
from realsr.estimation.kernels import Array, framed, of_eigenvalues
from realsr.estimation.noise import NO_NOISE, cut_tiles, tile_statistics
from realsr.imaging.colour import LUMA

REACH = 6  # pixels over which noise is correlated
MOST_VALUES = 2**25  # most values of tiles that are used
GROUPS = 8  # of tiles of similar brightness
RULE, TILES, LEAST = AutoRule(), 1000, 4  # which tiles of a photo are noise; how many are measured, and needed
ROUNDING = 1 / 12 / 255**2  # variance of what rounding to 8 bits adds
LOW_VARIANCE, LOW_SHARE = 0.3, 0.02  # tiles were texture where over LOW_SHARE of all have under LOW_VARIANCE of theirs


@dataclass(frozen=True)
class NoiseModel:
    """Noise of the gray picture (BT.601), whose range is [0, 1].

    Attributes:
        covariance: ``(2R + 1, 2R + 1)``, mean autocovariance at distances of up to R rows and columns.
        levels: ``(L,)`` brightness in [0, 1], rising.
        variances: ``(L,)`` at these levels.
        response: ``(T, T)``, kernel of the camera's development on small details (noise passes it as the picture
            does), see :meth:`realsr.degradation.development.Development.response`; a single 1 where it is not known.

    >>> noise = np.random.default_rng(0).normal(128, 3, (200, 32, 32, 1)).round().astype(np.uint8).repeat(3, 3)
    >>> model = NoiseModel.of_tiles(noise)
    >>> round(255 * model.variance**0.5, 1), round(model.fineness(), 1)  # strength in levels; white
    (3.0, 1.0)
    """

    covariance: Array
    levels: Array
    variances: Array
    response: Array = field(default_factory=lambda: np.ones((1, 1)))

    @classmethod
    def white(cls, level: float) -> NoiseModel:
        """White noise of this standard deviation at all brightnesses."""
        return cls(np.array([[level**2]]), np.zeros(1), np.array([level**2]))

    @classmethod
    def of_tiles(cls, tiles: npt.NDArray[np.uint8]) -> NoiseModel:
        """The model of flat tiles ``(N, T, T, 3)`` uint8, N at least one, each without its least-squares plane."""
        gray = tiles[:: tiles.size // MOST_VALUES + 1] @ (np.array(LUMA) / 255)
        level, flat = gray.mean((1, 2)), without_plane(gray)
        groups = [group for group in np.array_split(np.argsort(level), GROUPS) if len(group)]
        return cls(
            np.mean([_autocovariance(tile) for tile in flat], axis=0),
            np.array([level[group].mean() for group in groups]),
            np.array([flat[group].var() for group in groups]),
        )

    @classmethod
    def of_photo(cls, image: npt.NDArray[np.uint8]) -> NoiseModel | None:
        """The model of the flat tiles of a photo ``(H, W, 3)`` uint8; None where it has fewer than four.

        Noise is everywhere in a photo: where other tiles of the same brightness have much less, the tiles were texture,
        and the result is None.
        """
        stride = max(RULE.stride, math.isqrt(image.shape[0] * image.shape[1] // TILES))
        seen = tile_statistics(image, RULE.tile_size, stride)
        found = seen.where(RULE.candidates(seen))
        corners = found.corner[RULE.choose([found])[0] == 0]
        if len(corners) < LEAST:
            return None
        model = cls.of_tiles(cut_tiles(image, corners, RULE.tile_size))
        real = (seen.clipped <= 0.01) & (seen.detrended > NO_NOISE)
        there = np.interp(seen.mean[real] / 255, model.levels, model.variances) * 255**2
        calmer = (seen.detrended[real] < LOW_VARIANCE * there).mean()
        return model if calmer < LOW_SHARE else None

    def fineness(self, grid: int = 32) -> float:
        """Mean power at wavelengths under 3.3 pixels along either axis, over the mean power of all.

        Rounding to 8 bits, which is white, is left out: it hides that weak noise was enlarged. 1 for white noise and
        for hardly any; at least 0.1 for photos of cameras; less for enlarged photos.
        """
        if self.variance <= 2 * ROUNDING:
            return 1.0
        reach = len(self.covariance) // 2
        wrapped = np.pad(self.covariance, (0, grid - 2 * reach - 1))
        power = np.fft.fft2(np.roll(wrapped, (-reach, -reach), (0, 1))).real
        frequency = abs(np.fft.fftfreq(grid))
        fine = power[np.maximum.outer(frequency, frequency) > 0.3]
        return float((fine.mean() - ROUNDING) / (power.mean() - ROUNDING))

    def as_strong_as(self, other: NoiseModel) -> NoiseModel:
        """Scaled to the other's variance, by the median ratio over the other's brightness levels."""
        there = np.interp(other.levels, self.levels, self.variances)
        return self.times(float(np.median(other.variances / np.maximum(there, 1e-12))))

    def times(self, factor: float) -> NoiseModel:
        """Variance scaled by ``factor``."""
        return replace(self, covariance=factor * self.covariance, variances=factor * self.variances)

    def within(self, patches: Array) -> NoiseModel:
        """Scaled down where a photo, whose patches have this covariance ``(p**2, p**2)``, has less noise.

        In three of four directions a photo has at least the variance of its noise. Without this, photos of lower ISO
        speed than the noise pool's would be taken for noise.
        """
        if self.variance <= 0:
            return self
        # a measured autocovariance may give a direction a variance of zero or less
        least = 1e-3 * self.variance
        own = of_eigenvalues(self.of_patches(math.isqrt(len(patches))), lambda of: of.clip(least))
        return self.times(min(float(np.quantile(linalg.eigvalsh(patches, own), 0.25)), 1.0))

    def filtered(self, kernel: Array) -> NoiseModel:
        """Noise after correlation with a symmetric kernel, cut to the same distances."""
        spread = signal.convolve(self.covariance, signal.convolve(kernel, kernel))
        covariance = framed(spread, len(self.covariance))
        gain = covariance.max() / max(self.covariance.max(), 1e-12)
        return replace(self, covariance=covariance, variances=gain * self.variances)

    @property
    def variance(self) -> float:
        """Mean variance over tiles."""
        return float(self.covariance[len(self.covariance) // 2, len(self.covariance) // 2])

    def gains(self, levels: Array) -> Array:
        """Standard deviation at these brightness levels in [0, 1] over the mean's."""
        return np.sqrt(np.interp(levels, self.levels, self.variances) / max(self.variance, 1e-12))

    def at(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Array:
        """Autocovariance at these distances in pixels; 0 beyond R."""
        reach = len(self.covariance) // 2
        near = (abs(rows) <= reach) & (abs(columns) <= reach)
        return np.where(near, self.covariance[(near * rows) + reach, (near * columns) + reach], 0.0)

    def of_patches(self, side: int) -> Array:
        """Covariance of noise in patches, ``(side**2, side**2)``."""
        y, x = np.divmod(np.arange(side**2), side)
        return self.at(y[:, None] - y, x[:, None] - x)

    def of_slopes(self) -> Array:
        """Covariance ``(2, 2)`` of noise in central differences along rows and columns."""
        apart = self.at(np.array([0, 2, 0, 1, 1]), np.array([0, 0, 2, -1, 1]))
        mixed = (apart[3] - apart[4]) / 2
        return np.array([[(apart[0] - apart[1]) / 2, mixed], [mixed, (apart[0] - apart[2]) / 2]])


def _autocovariance(tile: Array) -> Array:
    """Autocovariance ``(2R + 1, 2R + 1)`` of a tile ``(T, T)`` of mean zero, by the FFT of the zero-padded tile."""
    side = len(tile)
    distance = np.arange(-min(REACH, side - 1), min(REACH, side - 1) + 1)
    sums = np.fft.irfft2(np.abs(np.fft.rfft2(tile, s=(2 * side, 2 * side))) ** 2, s=(2 * side, 2 * side))
    pairs = side - abs(distance)
    return np.asarray(sums[np.ix_(distance, distance)] / np.outer(pairs, pairs))


def noise_level(gray: Array, patch: int = 7) -> float:
    """Standard deviation of the white noise in ``gray (H, W)``, in its units (Liu, Tanaka and Okutomi, IEEE TIP 2013).

    Texture fills few directions of patch space and noise all of them, so the smallest eigenvalue of the patches'
    covariance is the noise's variance. It is taken over patches whose gradients noise alone can explain, which are
    found iteratively. Clipped patches are left out; the result is 0 where nearly all are.

    >>> round(255 * noise_level(np.random.default_rng(0).normal(0.5, 4 / 255, (80, 80))))
    4
    """
    inner = gray[1:-1, 1:-1]
    windows = sliding_window_view(inner, (patch, patch))
    steepness = (gray[1:-1, 2:] - gray[1:-1, :-2]) ** 2 / 4 + (gray[2:, 1:-1] - gray[:-2, 1:-1]) ** 2 / 4
    whole = slice(patch // 2, -(patch // 2)), slice(patch // 2, -(patch // 2))  # where filters see no border
    usable = (ndimage.minimum_filter(inner, patch) > 1 / 255) & (ndimage.maximum_filter(inner, patch) < 254 / 255)
    energy, usable = ndimage.uniform_filter(steepness, patch)[whole] * patch**2, usable[whole]
    # the gradients' energy of white noise in a patch is nearly gamma distributed with scale 2 * variance
    quantile = float(stats.gamma.ppf(1 - 1e-6, patch**2 / 2, scale=2))
    variance, weak = 0.0, usable
    for _ in range(6):
        if weak.sum() < patch**3:
            break
        variance = _least_eigenvalue(windows, weak)
        weak = usable & (energy < variance * quantile)
    return math.sqrt(variance)


def _least_eigenvalue(windows: Array, mask: npt.NDArray[np.bool_], count: int = 50_000) -> float:
    """Smallest eigenvalue of the covariance of the patches in ``mask``, of about ``count`` of them at most."""
    rows, columns = np.nonzero(mask)
    step = max(len(rows) // count, 1)
    chosen = windows[rows[::step], columns[::step]]
    return max(float(np.linalg.eigvalsh(np.cov(chosen.reshape(len(chosen), -1), rowvar=False))[0]), 0.0)
