"""Where estimators look: crops are drawn by how much gradient they hold, since flat ones tell nothing."""

from __future__ import annotations

from typing import Any

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


def gradient_map(image: npt.NDArray[np.floating], window: int = 5, quantile: float = 0.97) -> Map:
    """Density of gradients, mean one: a sum of three shares, averaged over ``window x window`` pixels.

    The gray image's gradient magnitude, and for each direction the pixels whose slope lies above the ``quantile``
    (counted, not weighed, so that a few extreme edges do not take all). A frame of ``window`` pixels is left out.

    Args:
        image: ``(H, W, 3)`` in [0, 1].
        window: of the average, and width of the frame.
        quantile: in [0, 1].

    Returns:
        ``(H, W)``; zero everywhere for an image without any gradient.
    """
    dy, dx = (_zero_frame(np.abs(slope), window) for slope in np.gradient(image @ LUMA))
    steep = [(slope > np.sort(slope, axis=None)[int(quantile * slope.size)]).astype(np.float64) for slope in (dy, dx)]
    shares = [part / part.sum() for part in (*steep, np.hypot(dy, dx)) if part.any()]
    density = _box_mean(np.sum(shares, axis=0), window) if shares else np.zeros(image.shape[:2])
    return density / density.mean() if shares else density


def edge_density(image: Tensor, scale: int) -> Map:
    """:func:`gradient_map` of a photo ``(3, H, W)`` at ``1/scale`` of its size, enlarged to ``(H, W)`` again.

    Raises:
        InputError: it has no edge to learn from.
    """
    small = gradient_map(imresize(image.double(), 1 / scale).permute(1, 2, 0).numpy())
    if not small.any():
        raise InputError("no edges to estimate a kernel from, the photo is flat")
    return small.repeat(scale, 0).repeat(scale, 1)


def detailed_window(image: npt.NDArray[Any], side: int, step: int = 8) -> tuple[slice, slice]:
    """Rows and columns of the window of at most ``side x side`` pixels with most edges; all of a smaller image.

    Args:
        image: ``(H, W, C)``.
        side: in pixels.
        step: of the pixels that are looked at, so that the largest photos cost little.
    """
    height, width = image.shape[:2]
    if max(height, width) <= side:
        return slice(0, height), slice(0, width)
    thin = image[::step, ::step].mean(2, dtype=np.float64)
    slopes = np.abs(np.diff(thin, axis=0, prepend=thin[:1])) + np.abs(np.diff(thin, axis=1, prepend=thin[:, :1]))
    sums = np.pad(slopes.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = (min(side // step, length) for length in thin.shape)
    windows = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    y, x = np.unravel_index(windows.argmax(), windows.shape)
    top, left = (max(min(int(i) * step, length - side), 0) for i, length in ((y, height), (x, width)))
    return slice(top, min(top + side, height)), slice(left, min(left + side, width))


def crop_probability(density: Map, crop: int) -> Map:
    """Probability of each pixel to be the centre of a crop, ``(H, W)``, summing to one.

    The density averaged over the half crop; zero where the crop would not fit. Uniform if nothing remains.
    """
    weight = _zero_frame(_box_mean(density, crop // 2), crop // 2)
    total = weight.sum()
    return weight / total if total > 0 else np.full(weight.shape, 1 / weight.size)


def draw_corners(probability: Map, crop: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Top-left corners ``(count, 2)`` of crops, made even, by the probability ``(H, W)`` of their centres."""
    centre = rng.choice(probability.size, size=count, p=probability.ravel())
    corner = np.stack(np.unravel_index(centre, probability.shape), 1) - crop // 2
    corner = np.clip(corner, 0, np.array(probability.shape) - crop)
    return corner - corner % 2


class CropPairs(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """One item an iteration: a crop for the generator and a real one, of its output's size, for the critic.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        iterations: number of items; all corners are drawn up front.
        crop: the generator's input size; the image must be at least that large.
        real: the critic's crop size.
        scale: the generator's crops are drawn by the gradients of the photo at this smaller scale.
        seed: of the draw.

    Raises:
        InputError: the image is smaller than a crop, or has no edge to learn from.
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
    """One item an iteration: crops of each part of the photo at full size, and smaller ones out of their midst.

    Both are drawn by the gradients of the photo at half its size, where noise is less, and the small ones lie inside
    the large ones: so none of the two sets holds more edges than the other, which would be taken for sharpness.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        iterations: number of items; all corners are drawn up front.
        crops: a part.
        large: side of the crops to downscale.
        small: side of the crops to compare with.
        seed: of the draw.
        foreign: ``(H, W)``, crops with more than a hundredth of such pixels are left out if enough others remain.

    Attributes:
        clear: share of the crops, by the probability to be drawn, that have fewer foreign pixels.

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
            raise InputError(
                f"{image.shape[2]}x{image.shape[1]} pixels are too few, a photo needs {least} on both sides"
            )
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
    """Halve the photo between above and below, and both halves between left and right, by equal probability."""
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
