"""A camera's sensor and development, fitted to its noise: simulated noise is developed until it looks alike."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from realsr.degradation.development import KNOTS, RIM, Development
from realsr.estimation.kernels import Array
from realsr.estimation.noise import TileRule
from realsr.estimation.noise_model import MOST_VALUES, NoiseModel
from realsr.estimation.patch_statistics import opponent, power_spectrum
from realsr.imaging import quantize
from realsr.imaging.colour import luma
from realsr.imaging.jpeg import jpeg
from realsr.pools.collect import NoNoiseError, collect_noise
from realsr.pools.jpeg_tables import JpegPool, collect_tables
from realsr.pools.pool import NoisePool
from realsr.pools.sampling import without_slope
from realsr.runtime.evenly import evenly

log = logging.getLogger(__name__)

# values that are tried for each part
CHOICES: dict[str, tuple[Any, ...]] = {
    "demosaicking": ("malvar", "bilinear", "none"),
    "crosstalk": (0.0, 0.5, 1.0),
    "chroma": (0.0, 0.7, 1.5, 3.0),
    "sharpening": (0.0, 0.2, 0.4, 0.6, 0.9, 1.3),
    "reduction": (0.0, 0.4, 0.55, 0.7, 1.0),
    "radius": (0.7, 1.0, 1.5),
}
# parts that make up for each other in part, so that they are tried together
TOGETHER = (("demosaicking", "crosstalk"), ("chroma", "reduction"), ("sharpening", "radius"))
LITTLE = 0.3  # power, relative to gray noise's mean over all frequencies, under which differences count little
TONES = (0.0, 0.2, 0.4, 0.6, 0.8)  # contrasts of the tone curve that are tried
SIMPLER = 0.03  # cost of a pixel of noise reduction, and of a contrast of 1
HALO = 0.1  # cost of sharpening of 1 over a pixel
SCENE = 0.2  # standard deviation over photos of the logarithm of the noise's variance that scenes alone make
WALLS, WALL_SIDE = 64, 32  # number and side of the simulated tiles
USABLE = (8, 247)  # mean levels of a colour, beyond which its noise is clipped
READ = 0.01  # light whose shot noise is as strong as the noise in the dark, where the tiles do not tell


def fit_development(noise: NoisePool, tables: JpegPool | None, without: Sequence[str] = ()) -> Development:
    """Fit the development that turns a sensor's noise into the pool's.

    A colour's variance by its brightness gives the sensor's noise, through the slope of the tone curve. The spectra of
    gray and of the colours give demosaicking, crosstalk, noise reduction and sharpening: walls as bright as the pool's
    tiles are developed with each in turn, and compressed with the photos' tables.

    Args:
        noise: pool of flat tiles, on the CPU.
        tables: pool of the photos' JPEG tables; None where they are not compressed.
        without: parts (:data:`realsr.degradation.development.PARTS`) that are left out, and not fitted.
    """
    step = noise.tiles.numel() // MOST_VALUES + 1
    tiles, photos = noise.tiles[::step].float(), np.array(noise.photos[::step])
    levels, residual = tiles.mean((2, 3)), without_slope(tiles - tiles.mean((2, 3), keepdim=True))
    wanted, variance = signature(residual), residual.square().mean((2, 3))
    choices = dict(CHOICES)
    gray = bool((tiles == tiles[:, :1]).all())
    if gray or "mosaic" in without:
        choices["demosaicking"] = ("none",)
    if gray:
        choices["crosstalk"] = (0.0,)
    if "sharpening" in without:
        choices["sharpening"] = (0.0,)
    plain = Development(linear="linear" not in without, gray=gray)
    sensor, seen = _sensor(plain, levels, variance)
    sensor = replace(sensor, photos=_by_photo(photos, levels, variance, seen))
    chosen = evenly(WALLS, len(tiles))
    walls = Walls(levels[chosen], torch.from_numpy(np.exp(_looked_up(seen, levels[chosen]))).float(), tables)

    if bool((variance.amax(0) == 0).any()):
        log.warning("camera: a colour has no noise in any tile, so demosaicking and sharpening are not known")
        return walls.matched(replace(sensor, demosaicking=choices["demosaicking"][0]))[0]

    def cost(development: Development, times: int = 1) -> tuple[float, Development]:
        matched, made = walls.matched(development, times)
        # noise that was smoothed and sharpened is much like untouched noise: prefer the simpler where both fit
        simpler = SIMPLER * development.reduction + HALO * development.sharpening * development.radius
        return float((signature(made) - wanted).square().sum()) + simpler, matched

    ways = itertools.product(choices["demosaicking"], choices["crosstalk"][::2], choices["sharpening"])
    starts = [replace(sensor, demosaicking=way, crosstalk=share, sharpening=amount) for way, share, amount in ways]
    begun = sorted((cost(start, times=2) for start in starts), key=lambda found: found[0])[:3]
    tried: set[tuple[Any, ...]] = set()
    return min((_descended(found, choices, cost, tried) for found in begun), key=lambda found: found[0])[1]


def signature(residual: Tensor) -> Tensor:
    """How noise ``(N, 3, T, T)`` was developed, in ``(30,)`` numbers that do not depend on its strength.

    The logarithm of its power at ten frequencies (:data:`realsr.estimation.patch_statistics.BANDS`), of gray and of
    two colour differences. All tiles weigh the same.
    """
    gray = luma(residual)[:, None]
    strength = gray.square().mean((2, 3), keepdim=True).sqrt() + 0.2  # of 255 levels, so that none is divided by 0
    return (power_spectrum(opponent(residual / strength / 255)).mean(0) + LITTLE).log().flatten().float()


class Walls:
    """Evenly lit walls, as bright as tiles of noise, to be photographed with any development.

    Args:
        levels: ``(N, 3)`` mean of each tile's colours in [0, 255].
        variance: ``(N, 3)`` of the noise that each is to show, in squared levels.
        tables: pool of the photos' compression, or None.
    """

    def __init__(self, levels: Tensor, variance: Tensor, tables: JpegPool | None) -> None:
        draws = torch.Generator().manual_seed(0)
        side = WALL_SIDE + 2 * RIM
        self.field = torch.randn(len(levels), 3, side, side, generator=draws)
        self.coding = None if tables is None else tables.sample(len(levels), draws, cut=True)
        self.walls = (levels / 255)[:, :, None, None]
        self.variance, self.usable = variance, (levels > USABLE[0]) & (levels < USABLE[1])

    def matched(self, development: Development, times: int = 1) -> tuple[Development, Tensor]:
        """The development with its noise as strong as the tiles', and the noise ``(N, 3, T, T)`` of its walls."""
        made = self._seen(development)
        for _ in range(times):
            ratio = ((self.variance + 0.1) / (made.square().mean((2, 3)) + 0.1)).log()
            mean = (ratio * self.usable).sum(0) / self.usable.sum(0).clamp(min=1)
            colours = zip(mean.clamp(-2.5, 2.5).tolist(), development.noise, strict=True)
            noise = tuple(tuple(log + more for log in logs) for more, logs in colours)
            made = self._seen(development := replace(development, noise=noise))
        return development, made

    def _seen(self, development: Development) -> Tensor:
        picture = development.develop(development.light(self.walls), self.field)[..., RIM:-RIM, RIM:-RIM]
        picture = 255 * (quantize(picture) if self.coding is None else jpeg(picture, *self.coding))
        return without_slope(picture - picture.mean((2, 3), keepdim=True))


def _descended(
    found: tuple[float, Development], choices: dict[str, tuple[Any, ...]], cost: Any, tried: set[tuple[Any, ...]]
) -> tuple[float, Development]:
    """Improve a development by changing one part after the other, twice; no combination is tried again."""
    for _ in range(2):
        for parts in TOGETHER:
            for values in itertools.product(*(choices[part] for part in parts)):
                trial = replace(found[1], **dict(zip(parts, values, strict=True)))
                key = tuple(getattr(trial, part) for part in choices)
                if key not in tried and (other := cost(trial))[0] < found[0]:
                    found = other
                tried.add(key)
    return found


def by_brightness(levels: Tensor, variance: Tensor, usual: Array) -> tuple[Array, float]:
    """Strength of each colour's noise by its brightness: the geometric mean over tiles about as bright.

    Args:
        levels: ``(N, 3)`` means of the tiles' colours, of 255.
        variance: ``(N, 3)`` of their noise, in squared levels.
        usual: ``(17,)`` logarithms of the variance that noise has at brightnesses of 0 to 255, but for a factor. Noise
            is taken to differ from it smoothly, and beyond the darkest and the brightest tiles by as much as there.

    Returns:
        ``(3, 17)`` logarithms of the variance at these brightnesses; and the standard deviation over the tiles of their
        difference from ``usual``, mean of the colours.
    """
    logs = (variance + 0.02).log().double().numpy()  # of 255 levels, so that none is minus infinity
    more = logs - _looked_up(np.stack([usual] * 3), levels)
    return usual + _by_knot(levels, more), float(more.std(0).mean())


def _by_knot(levels: Tensor, values: Array) -> Array:
    """Smoothed means of ``values`` ``(N, 3)`` by the tiles' mean ``levels`` ``(N, 3)``, at the knots, ``(3, 17)``."""
    found, knots = np.zeros((3, KNOTS)), (levels / 255 * (KNOTS - 1)).round().long().numpy()
    for colour in range(3):
        counts, sums = (np.bincount(knots[:, colour], of, KNOTS) for of in (np.ones(len(knots)), values[:, colour]))
        near, total = (ndimage.gaussian_filter1d(of, 1, mode="constant") for of in (counts, sums))
        enough = np.flatnonzero(counts >= max(counts.sum() / 100, 1))
        found[colour] = np.interp(np.arange(KNOTS), enough, total[enough] / near[enough])
    return found


def _looked_up(seen: Array, levels: Tensor) -> Array:
    """Interpolate logarithms ``(3, 17)`` at brightnesses of 0 to 255 at the tiles' mean levels ``(N, 3)``."""
    colours = zip(levels.T.numpy(), seen, strict=True)
    return np.stack([np.interp(level, np.linspace(0, 255, KNOTS), logs) for level, logs in colours], 1)


def _by_photo(photos: npt.NDArray[np.str_], levels: Tensor, variance: Tensor, seen: Array) -> tuple[float, ...]:
    """For each photo the logarithm of how much its noise's variance exceeds the camera's at that brightness.

    Shrunk by the differences that scenes make, whose texture counts as noise.
    """
    more = np.log(variance.numpy() + 0.02) - _looked_up(seen, levels)
    medians = [float(np.median(more[photos == name])) for name in np.unique(photos)]
    share = max(1 - (SCENE / max(float(np.std(medians)), 1e-9)) ** 2, 0.0)
    return tuple(float(share * median) for median in medians)


def _sensor(plain: Development, levels: Tensor, variance: Tensor) -> tuple[Development, Array]:
    """The development with the sensor's noise, were it neither smoothed nor sharpened, and :func:`by_brightness`.

    Its tone curve is the one with which noise differs least from a sensor's by brightness (shot and read noise).
    """
    knots, found = torch.linspace(0, 1, KNOTS), []
    for tone in TONES if plain.linear else (0.0,):
        curve = replace(plain, tone=tone)
        light = curve.light(knots)
        low, high = (light - 1e-3).clamp(min=0), (light + 1e-3).clamp(max=1)
        slope = 2 * (255 * (curve.display(high) - curve.display(low)) / (high - low)).log()
        seen, spread = by_brightness(levels, variance, ((light + READ).log() + slope).double().numpy())
        noise = tuple(map(tuple, (torch.from_numpy(seen).float() - slope).tolist()))
        found.append((spread + SIMPLER * tone, replace(curve, noise=noise), seen))
    return min(found, key=lambda of: of[0])[1:]


def camera_noise(
    photos: Sequence[Path], folder: Path, rule: TileRule, pool: NoisePool | None = None
) -> NoiseModel | None:
    """The camera's noise and development by the noise pool in ``folder``; it and ``jpeg`` beside it are filled first.

    Args:
        photos: all photos of the camera.
        folder: of the noise pool.
        rule: which tiles to keep of photos that are not in the pool yet.
        pool: the folder's content, where it has just been filled.

    Returns:
        None where no photo has a flat tile; that is logged.
    """
    try:
        pool = pool or collect_noise(photos, folder, rule, redo=False)
    except NoNoiseError as e:
        log.warning("kernels are estimated without the camera's noise, with each photo's own: %s", e)
        return None
    tables = folder.parent / "jpeg"
    jpeg = JpegPool.load(tables) if collect_tables(photos, tables) else None
    tiles = pool.tiles.permute(0, 2, 3, 1).numpy()
    return replace(NoiseModel.of_tiles(tiles), response=fit_development(pool, jpeg).response())
