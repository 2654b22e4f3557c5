"""Statistics of patches: power spectrum, noise by brightness, widths of edges.

Patches are ``(N, 3, P, P)`` RGB in [0, 1]; levels are those of 8 bits, 0 to 255; frequencies are in cycles per pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from realsr.imaging.colour import luma

Array = npt.NDArray[np.float64]
BANDS = np.array([0.08, 0.125, 0.175, 0.225, 0.275, 0.325, 0.375, 0.425, 0.475, 0.6, 0.71])  # edges, cycles per pixel
CALM = 0.1  # share of the patches, at each brightness, whose detail is taken for noise
BRIGHTNESS = np.linspace(0, 255, 9)  # edges of the bins
USUAL = 3.5  # logarithm of the power of noise of 6 levels, subtracted so that brightness alone has no effect
EDGE_STEP, EDGE_REACH = 40.0, 5  # smallest rise of an edge in levels; pixels on each side over which it is measured


def opponent(patches: Tensor) -> Tensor:
    """Luma and two colour differences in levels, ``(N, 3, P, P)``."""
    levels = 255 * patches.double()
    red, green, blue = levels.unbind(1)
    return torch.stack([luma(levels), red - green, blue - green], 1)


def power_spectrum(channels: Tensor) -> Tensor:
    """Power of ``(N, C, P, P)`` in the ``BANDS``, ``(N, C, B)``, in squared levels; white noise has its variance.

    >>> noise = 6 * torch.randn(100, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> round(power_spectrum(noise).mean().item())
    36
    """
    side = channels.shape[-1]
    window = torch.hann_window(side, periodic=False, dtype=channels.dtype)
    window = window[:, None] * window
    spectrum = torch.fft.rfft2((channels - channels.mean((2, 3), keepdim=True)) * window).abs() ** 2
    spectrum = spectrum / (window**2).sum()
    down, across = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)
    radius, counts = (down**2 + across**2).sqrt(), 1 + ((across > 0) & (across < 0.5))  # half of the plane is left out
    bands = torch.stack([counts * ((radius >= low) & (radius < high)) for low, high in pairwise(BANDS)]).flatten(1)
    return spectrum.flatten(2) @ (bands / bands.sum(1, keepdim=True)).to(spectrum).T


def features(patches: Tensor) -> Array:
    """Features of each patch for the classifier of :mod:`realsr.evaluation.separation`, ``(N, F)``.

    Logarithms of the power in ``BANDS`` of luma and colour differences; of quantiles of the local variance of their
    finest detail, which distinguish noise (everywhere) from texture (in places); and the finest power times the
    brightness, on which noise may depend. Brightness itself and coarse detail are :func:`content`.
    """
    channels = opponent(patches)
    power = (power_spectrum(channels) + 0.1).log()
    mask = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=channels.dtype) / 6  # of white noise: 1
    detail = F.conv2d(channels.flatten(0, 1)[:, None], mask[None, None])
    local = F.avg_pool2d(detail**2, 5, 1).flatten(1)
    quantiles = torch.quantile(local, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=local.dtype), dim=1)
    spread = (quantiles + 0.1).log().T.reshape(len(patches), -1)
    brightness = (channels[:, 0].mean((1, 2)) - 128) / 64
    finest = (power[:, :, -3:].mean(2) - USUAL) * brightness[:, None]
    return torch.cat([power.flatten(1), spread, finest], 1).numpy()


def content(patches: Tensor) -> Array:
    """Features ``(N, 5)`` that a degradation hardly changes: mean colour, coarse contrast, coarse slope."""
    channels = opponent(patches)
    mean = channels.mean((2, 3)) / 64
    coarse = F.avg_pool2d(channels[:, :1], 8)[:, 0].flatten(1)
    slope = F.avg_pool2d(channels[:, :1], 4)[:, 0].diff(dim=-1).abs().mean((1, 2))
    return torch.cat([mean, (coarse.std(1) + 1).log()[:, None], (slope + 1).log()[:, None]], 1).numpy()


@dataclass(frozen=True)
class Curves:
    """Statistics of a set of patches.

    Attributes:
        noise: ``(8,)`` standard deviation of the noise in flat blocks, in levels, by ``BRIGHTNESS``; NaN without any.
        noise_power: ``(B,)`` power of flat patches' luma in ``BANDS``, in squared levels.
        colour: ``(3,)`` correlation of the noise of red and green, red and blue, green and blue.
        power: ``(B,)`` geometric mean of all patches' power of luma in ``BANDS``.
        edges: ``(E,)`` widths of the edges in pixels.
    """

    noise: Array
    noise_power: Array
    colour: Array
    power: Array
    edges: Array

    @property
    def noise_level(self) -> float:
        """Mean of ``noise`` over the brightness bins that are not empty."""
        return float(np.nanmean(self.noise))


def curves(patches: Tensor) -> Curves:
    """Measure patches; noise is taken from the flattest tenth at each brightness.

    >>> patches = 0.5 + 5 / 255 * torch.randn(50, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> round(curves(patches).noise_level)
    5
    """
    channels, levels = opponent(patches), 255 * patches.double()
    power = power_spectrum(channels[:, :1])[:, 0]
    detail = levels - F.avg_pool2d(F.pad(levels, [2] * 4, mode="reflect"), 5, 1)  # of white noise, 24 parts in 25
    energy = F.avg_pool2d(detail**2, 8).mean(1).flatten() * 25 / 24
    calm = [energy[group] for group in _calmest(F.avg_pool2d(channels[:, :1], 8).flatten().numpy(), energy.numpy())]
    chosen = np.concatenate(_calmest(channels[:, 0].mean((1, 2)).numpy(), (detail**2).mean((1, 2, 3)).numpy()))
    colours: Array = np.asarray(np.corrcoef(detail[chosen].transpose(0, 1).flatten(1).numpy()))
    return Curves(
        np.array([float(group.mean()) ** 0.5 if len(group) else np.nan for group in calm]),
        power[chosen].mean(0).numpy(),
        colours[[0, 0, 1], [1, 2, 2]],
        np.exp((power + 1e-3).log().mean(0).numpy()),
        edge_widths(channels[:, 0]),
    )


def _calmest(brightness: Array, energy: Array) -> list[npt.NDArray[np.int64]]:
    """Indices of the items of least energy in each bin of brightness; none of bins with few items."""
    bins = np.digitize(brightness, BRIGHTNESS[1:-1])
    groups = [np.flatnonzero(bins == b) for b in range(len(BRIGHTNESS) - 1)]
    return [g[np.argsort(energy[g])][: math.ceil(CALM * len(g)) if len(g) >= 20 else 0] for g in groups]


def edge_widths(gray: Tensor, rise: float = EDGE_STEP) -> Array:
    """Widths of the edges of ``(N, H, W)`` in pixels: the step over the steepest slope, along rows and columns.

    An edge is a maximum of the slope within five pixels, over which the image rises or falls by at least ``rise``
    levels. A step within one pixel has width 1.

    >>> set(edge_widths(torch.tensor([0.0] * 8 + [50, 100] + [100] * 7).expand(1, 17, 17)).tolist())
    {2.0}
    """
    found = []
    for picture in (gray, gray.transpose(1, 2)):
        lines = picture.reshape(-1, picture.shape[-1])
        for first in range(0, len(lines), 4096):  # in chunks, for the memory
            line = lines[first : first + 4096]
            steepest = line.diff(dim=1).abs()
            around = F.max_pool1d(steepest[:, None], 2 * EDGE_REACH + 1, 1, EDGE_REACH)[:, 0]
            window = line.unfold(1, 2 * EDGE_REACH + 2, 1)
            inner = slice(EDGE_REACH, steepest.shape[1] - EDGE_REACH)
            step = window.amax(2) - window.amin(2)
            here = (steepest[:, inner] == around[:, inner]) & (step >= rise)
            found.append((step / steepest[:, inner].clamp(min=1e-6))[here])
    return torch.cat(found).numpy()
