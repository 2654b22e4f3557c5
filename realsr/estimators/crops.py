"""Where KernelGAN looks: crops are drawn by how much gradient they hold, since flat ones tell nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from realsr.errors import InputError
from realsr.resample import crop_to_multiple, imresize

Map = npt.NDArray[np.float64]
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


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


def crop_probability(density: Map, crop: int) -> Map:
    """Probability of each pixel to be the centre of a crop, ``(H*W,)``, summing to one.

    The density averaged over the half crop; zero where the crop would not fit. Uniform if nothing remains.
    """
    weight = _zero_frame(_box_mean(density, crop // 2), crop // 2).ravel()
    total = weight.sum()
    return weight / total if total > 0 else np.full(weight.size, 1 / weight.size)


def draw_corners(
    probability: Map, shape: tuple[int, int], crop: int, count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """``count`` top-left corners ``(count, 2)`` of crops inside ``shape``, made even."""
    centre = rng.choice(probability.size, size=count, p=probability)
    corner = np.stack(np.divmod(centre, shape[1]), 1) - crop // 2
    corner = np.clip(corner, 0, np.array(shape) - crop)
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
        image = crop_to_multiple(image, scale)
        shape = (image.shape[1], image.shape[2])
        if min(shape) < crop + scale:
            raise InputError(f"{shape[1]}x{shape[0]} pixels are too few for KernelGAN's crops of {crop}")
        large = gradient_map(image.double().permute(1, 2, 0).numpy())
        small = gradient_map(imresize(image.double(), 1 / scale).permute(1, 2, 0).numpy())
        if not small.any():
            raise InputError("no edges to estimate a kernel from, the photo is flat")
        small = small.repeat(scale, 0).repeat(scale, 1)
        rng = np.random.default_rng(seed)
        self.image = image * 2 - 1
        self.sizes = (crop, real)
        self.corners = (
            draw_corners(crop_probability(small, crop), shape, crop, iterations, rng),
            draw_corners(crop_probability(large, real), shape, real, iterations, rng),
        )

    def __len__(self) -> int:
        return len(self.corners[0])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """``(3, crop, crop)`` and ``(3, real, real)``, both in [-1, 1]."""
        crops = []
        for size, corners in zip(self.sizes, self.corners, strict=True):
            y, x = corners[index]
            crops.append(self.image[:, y : y + size, x : x + size])
        return crops[0], crops[1]


def _zero_frame(values: Map, width: int) -> Map:
    out = np.zeros_like(values)
    out[width:-width, width:-width] = values[width:-width, width:-width]
    return out


def _box_mean(values: Map, window: int) -> Map:
    mean = ndimage.uniform_filter(values, window, mode="constant")
    return np.maximum(mean, 0)  # its running sum leaves -1e-19 where nothing is, as in a clipped sky
