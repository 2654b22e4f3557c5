"""The crops that estimators see: drawn by the density of gradients, since flat crops tell nothing of a blur."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from realsr.imaging.colour import LUMA
from realsr.imaging.resample import crop_to_multiple, imresize
from realsr.runtime.errors import InputError

Map = npt.NDArray[np.float64]
RATIO = 2  # between the two scales that patch matching compares
FOREIGN, CLEAR = 0.01, 0.25  # share of foreign pixels that a crop may have; least share of crops without them
PARTS = 4  # of the photo, each of which gives patch matching an estimate


def gradient_map(image: npt.NDArray[np.floating]) -> Map:
    """Density ``(H, W)`` of the gradients of ``(H, W, 3)`` in [0, 1], as in the KernelGAN program, of mean one.

    The sum of three normalised maps: the gray image's gradient magnitude, and for each axis the pixels whose slope lies
    above the quantile of 0.97 (counted, not weighted, so that a few extreme edges do not dominate). It is averaged over
    5x5 pixels; a border of 5 is zero, and all of it without any gradient.
    """
    window, quantile = 5, 0.97
    dy, dx = (_zero_frame(np.abs(slope), window) for slope in np.gradient(image @ LUMA))
    steep = [(slope > np.sort(slope, axis=None)[int(quantile * slope.size)]).astype(np.float64) for slope in (dy, dx)]
    shares = [part / part.sum() for part in (*steep, np.hypot(dy, dx)) if part.any()]
    density = _box_mean(np.sum(shares, axis=0), window) if shares else np.zeros(image.shape[:2])
    return density / density.mean() if shares else density


def edge_density(image: Tensor, scale: int) -> Map:
    """:func:`gradient_map` of a photo ``(3, H, W)`` at ``1/scale`` of its size, enlarged to ``(H, W)``."""
    small = gradient_map(imresize(image.double(), 1 / scale).permute(1, 2, 0).numpy())
    if not small.any():
        raise InputError("no edges to estimate a kernel from, the photo is flat")
    return small.repeat(scale, 0).repeat(scale, 1)


def crop_probability(density: Map, crop: int) -> Map:
    """Probability of each pixel to be the centre of a crop, ``(H, W)``, sum one.

    The density averaged over half the crop's side; zero where the crop would not fit; uniform if nothing remains.
    """
    weight = _zero_frame(_box_mean(density, crop // 2), crop // 2)
    total = weight.sum()
    return weight / total if total > 0 else np.full(weight.shape, 1 / weight.size)


def draw_corners(probability: Map, crop: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw top-left corners ``(count, 2)`` of crops, even numbers, by the probability ``(H, W)`` of their centres."""
    centre = rng.choice(probability.size, size=count, p=probability.ravel())
    corner = np.stack(np.unravel_index(centre, probability.shape), 1) - crop // 2
    corner = np.clip(corner, 0, np.array(probability.shape) - crop)
    return corner - corner % 2


class CropPairs(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """KernelGAN's data: per iteration a crop for the generator and a real crop, of its output's size, for the critic.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        iterations: number of items; all corners are drawn in advance.
        crop: side of the generator's crops.
        real: side of the critic's.
        scale: downscaling factor at which gradients are computed for the generator's crops.
        seed: of the draw.

    Raises:
        InputError: the image is smaller than a crop, or has no edges.
    """

    def __init__(self, image: Tensor, iterations: int, crop: int, real: int, scale: int, seed: int) -> None:
        if min(image.shape[1:]) // scale * scale < crop + scale:
            raise InputError(f"{image.shape[2]}x{image.shape[1]} pixels are too few for KernelGAN's crops of {crop}")
        image = crop_to_multiple(image, scale)
        self.density = edge_density(image, scale)
        large = gradient_map(image.double().permute(1, 2, 0).numpy())
        rng = np.random.default_rng(seed)
        self.image, self.sizes = image * 2 - 1, (crop, real)
        self.corners = [
            draw_corners(crop_probability(density, size), size, iterations, rng)
            for density, size in ((self.density, crop), (large, real))
        ]

    def __len__(self) -> int:
        return len(self.corners[0])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """``(3, crop, crop)`` and ``(3, real, real)``, both in [-1, 1]."""
        (y, x), (v, u) = (corners[index] for corners in self.corners)
        crop, real = self.sizes
        return self.image[:, y : y + crop, x : x + crop], self.image[:, v : v + real, u : u + real]


class PatchCrops(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Patch matching's data: per iteration large crops of each part of the photo, and a small crop inside each.

    Both are drawn by the gradients of the photo at half its size, where noise is weaker. Since the small crops lie
    inside the large ones, neither set holds more edges, which would be taken for sharpness.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        iterations: number of items; all corners are drawn in advance.
        crops: of a part, per iteration.
        large: side of the crops to downscale.
        small: side of the crops to compare with.
        seed: of the draw.
        foreign: ``(H, W)``; crops with more than 1 % of such pixels are left out if enough others remain.

    Attributes:
        clear: probability of a crop to have fewer foreign pixels.

    Raises:
        InputError: the image is smaller than a crop, or has no edge to learn from.
    """

    def __init__(
        self,
        image: Tensor,
        iterations: int,
        crops: int,
        large: int,
        small: int,
        seed: int,
        foreign: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        if min(image.shape[1:]) < (least := large + RATIO):
            size = f"{image.shape[2]}x{image.shape[1]}"
            raise InputError(f"{size} pixels are too few, a photo needs {least} on both sides")
        image = crop_to_multiple(image, RATIO)
        self.density = edge_density(image, RATIO)
        clear = probability = crop_probability(self.density, large)
        if foreign is not None:
            height, width = probability.shape
            clear = probability * (_box_mean(foreign[:height, :width].astype(np.float64), large) <= FOREIGN)
        self.clear = float(clear.sum())
        probability = clear if self.clear >= CLEAR else probability
        rng = np.random.default_rng(seed)
        corners = np.stack([draw_corners(p, large, iterations * crops, rng) for p in _parts(probability)], 1)
        self.large = torch.from_numpy(corners.reshape(iterations, crops, PARTS, 2)).transpose(1, 2)
        self.small = self.large + torch.from_numpy(rng.integers(0, large - small + 1, self.large.shape))
        self.image = torch.from_numpy(image.double().permute(1, 2, 0).numpy() @ LUMA).float()
        self.sizes = (large, small)

    def __len__(self) -> int:
        return len(self.large)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """``(4, crops, large, large)`` and ``(4, crops, small, small)``, gray in [0, 1]."""
        large, small = (
            self.image.unfold(0, size, 1).unfold(1, size, 1)[corners[..., 0], corners[..., 1]]
            for size, corners in zip(self.sizes, (self.large[index], self.small[index]), strict=True)
        )
        return large, small


def _parts(probability: Map) -> list[Map]:
    """Split the photo into upper and lower halves, and each into left and right, of equal probability."""
    quarters = [quarter for half in _halves(probability, 0) for quarter in _halves(half, 1)]
    return [quarter / quarter.sum() for quarter in quarters]


def _halves(probability: Map, axis: int) -> list[Map]:
    along = np.cumsum(probability.sum(1 - axis))
    low = np.arange(len(along)) <= np.searchsorted(along, along[-1] / 2)
    low = low[:, None] if axis == 0 else low
    halves = [probability * low, probability * ~low]
    return halves if all(half.any() for half in halves) else [probability, probability]


def _zero_frame(values: Map, width: int) -> Map:
    return np.pad(values[width:-width, width:-width], width)


def _box_mean(values: Map, window: int) -> Map:
    mean = ndimage.uniform_filter(values, window, mode="constant")
    return np.maximum(mean, 0)  # its running sum leaves -1e-19 where nothing is, as in a clipped sky
