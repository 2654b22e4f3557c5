"""How a camera develops light on its sensor to a picture: mosaic, noise, demosaicking, colours, sharpening."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from realsr.degradation.sensor import (
    CAMERA_FROM_SRGB,
    bilinear,
    degamma,
    demosaic,
    gamma,
    mixed,
    mosaic,
    toned,
    untoned,
)
from realsr.estimation.kernels import GRID, Kernel, frequencies, kernel_of_gains
from realsr.imaging.colour import luma
from realsr.runtime.hardware import to_device

RIM = 4  # LR pixels around a crop that demosaicking, noise reduction and sharpening read
Part = Literal["kernel", "linear", "mosaic", "noise", "sharpening", "jpeg"]  # of a camera, that ablations leave out
PARTS = get_args(Part)
KNOTS = 17  # display values from 0 to 1 for which the noise's variance is stored
RINGS = 32  # bins of frequency up to one cycle a pixel, each with one gain


@dataclass(frozen=True)
class Development:
    """A camera's sensor and the development of its signal to a picture.

    Attributes:
        demosaicking: ``malvar``, ``bilinear``, or ``none``: every pixel has all colours.
        gray: whether the sensor sees no colours, so that noise is the same in all.
        crosstalk: distance of the sensor's colours from sRGB's, 0 for none, 1 for the mean of known cameras.
        reduction: standard deviation in pixels of the Gaussian that smooths the noise, and not the picture.
        chroma: standard deviation in pixels of the Gaussian that smooths the noise of the colours against luma.
        sharpening: amount of unsharp masking of display values.
        radius: standard deviation in pixels of the blur in it.
        linear: whether light is linear; False blurs and adds noise to display values.
        tone: contrast of the tone curve under sRGB's, 0 for none, 1 for :func:`realsr.degradation.sensor.toned`.
        noise: for each colour the logarithm of its noise's variance on the sensor where the signal has the display
            values 0, 1/16, ... 1, linear in between.
        photos: for each of the camera's photos, whose ISO speeds differ, the logarithm of the factor of its variance.

    >>> camera = Development("bilinear", noise=Development.sensor_noise(shot=1e-3, read=1e-6, gains=(2, 1, 1.5)))
    >>> camera.develop(torch.full((1, 3, 8, 8), 0.2), torch.randn(1, 3, 8, 8)).shape
    torch.Size([1, 3, 8, 8])
    """

    demosaicking: Literal["malvar", "bilinear", "none"] = "malvar"
    gray: bool = False
    crosstalk: float = 0.0
    reduction: float = 0.0
    chroma: float = 0.0
    sharpening: float = 0.0
    radius: float = 1.0
    linear: bool = True
    tone: float = 0.0
    noise: tuple[tuple[float, ...], ...] = field(default=((-30.0,) * KNOTS,) * 3, repr=False)
    photos: tuple[float, ...] = field(default=(0.0,), repr=False)

    def __str__(self) -> str:
        """The parts in words.

        >>> print(Development("bilinear", sharpening=0.6, radius=0.7))
        bilinear demosaicking, colour noise, sharpening of 0.6 over 0.7 pixels
        """
        words = ["no demosaicking" if self.demosaicking == "none" else f"{self.demosaicking} demosaicking"]
        words += ["gray noise" if self.gray else "colour noise"]
        words += [f"noise smoothed over {self.reduction:g} pixels"] * (self.reduction > 0)
        words += [f"its colours over {self.chroma:g} pixels"] * (self.chroma > 0)
        words += [
            f"sharpening of {self.sharpening:g} over {self.radius:g} pixels" if self.sharpening else "no sharpening"
        ]
        words += [f"tone curve with {self.tone:g} of an S"] * (self.tone > 0)
        return ", ".join(words)

    @staticmethod
    def sensor_noise(shot: float, read: float, gains: Iterable[float]) -> tuple[tuple[float, ...], ...]:
        """The attribute ``noise`` of a sensor in linear light, of variance ``shot * signal + read`` before the gains.

        Args:
            shot: variance for each unit of raw signal in [0, 1].
            read: variance in the dark.
            gains: factors of red, green and blue, white balance and exposure in one.
        """
        signal = degamma(torch.linspace(0, 1, KNOTS)).double().numpy()
        return tuple(tuple(np.log(gain * shot * signal + gain**2 * read).tolist()) for gain in gains)

    def light(self, images: Tensor) -> Tensor:
        """Light on the sensor for display values, both in [0, 1]."""
        return untoned(degamma(images), self.tone) if self.linear else images

    def display(self, light: Tensor) -> Tensor:
        """Display values for light, the inverse of :meth:`light`."""
        return gamma(toned(light, self.tone)) if self.linear else light

    def develop(self, light: Tensor, field: Tensor | None = None) -> Tensor:
        """The camera's picture, before compression.

        Args:
            light: ``(N, 3, h, w)`` on the sensor, in sRGB's colours, [0, 1]; with a field also ``(N, 3, 1, 1)``, even
                light.
            field: ``(N, 3, h, w)`` independent normal numbers for the noise, on any device; None adds none.

        Returns:
            ``(N, 3, h, w)`` display values in [0, 1].
        """
        mixing = torch.eye(3) + self.crosstalk * (CAMERA_FROM_SRGB - torch.eye(3))
        back = to_device(torch.linalg.inv(mixing), light.device)
        seen = mixed(light, to_device(mixing, light.device))
        if field is None:
            picture = self._developed(seen, back)
        else:
            field = large_to_device(field, light.device)
            field = field[:, :1] if self.gray else field
            deviation = (0.5 * self._log_variance(self.display(seen.clamp(0, 1)))).exp()
            picture = self._developed(seen + field * deviation, back)
            if self.reduction or self.chroma:
                clean = self._developed(seen, back)
                noise = smoothed(picture - clean, self.reduction)
                gray = luma(noise)[:, None]
                picture = clean + gray + smoothed(noise - gray, self.chroma)
        if self.sharpening:
            picture = picture + self.sharpening * (picture - smoothed(picture, self.radius))
        return picture.clamp(0, 1)

    def response(self, side: int = 128) -> Kernel:
        """The kernel ``(11, 11)`` by which developing changes small details in display values, alike in all directions.

        Measured by frequency on a noiseless chart of low contrast. Without mosaic and sharpening it is a single 1.
        """
        draws = torch.Generator().manual_seed(0)
        chart = self.light(0.5 + 0.04 * torch.randn(8, 1, side, side, generator=draws)).repeat(1, 3, 1, 1)
        pictures = self.display(chart[:, 0]), luma(self.develop(chart))
        before, after = (np.fft.fft2(x.double().numpy() - float(x.mean())) for x in pictures)
        ring = np.rint(RINGS * frequencies(side)).astype(int).ravel()
        kept, power = (np.bincount(ring, (x * before.conj()).real.sum(0).ravel())[1:] for x in (after, before))
        return kernel_of_gains(np.interp(frequencies(GRID), np.arange(1, len(kept) + 1) / RINGS, kept / power))

    def _log_variance(self, display: Tensor) -> Tensor:
        """Logarithm of the noise's variance where the signal ``(N, 3, h, w)`` has these display values."""
        place = (KNOTS - 1) * display
        low = place.long().clamp(max=KNOTS - 2)
        table = to_device(torch.tensor(self.noise), display.device).flatten()
        of_colour = low + KNOTS * torch.arange(3, device=display.device)[:, None, None]
        return torch.lerp(table[of_colour], table[of_colour + 1], place - low)

    def _developed(self, seen: Tensor, back: Tensor) -> Tensor:
        if self.demosaicking != "none" and seen.shape[-1] > 1:  # even light is the same in all pixels
            seen = (demosaic if self.demosaicking == "malvar" else bilinear)(mosaic(seen))
        return self.display(mixed(seen, back).clamp(0, 1))


def smoothed(images: Tensor, sigma: float) -> Tensor:
    """Blur ``(N, C, h, w)`` by a Gaussian of this standard deviation in pixels, borders mirrored; 0 changes nothing."""
    if not sigma:
        return images
    down, across = (to_device(_smoothing(side, sigma).to(images.dtype), images.device) for side in images.shape[-2:])
    return down.T @ (images @ across)


@functools.lru_cache(maxsize=16)
def _smoothing(side: int, sigma: float) -> Tensor:
    """Matrix ``(side, side)`` that blurs rows of pixels by multiplication from the right."""
    reach = min(int(3 * sigma + 1), side - 1)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    rows = F.pad(torch.eye(side), (reach, reach), mode="reflect")[:, None]
    return F.conv1d(rows, (taps / taps.sum())[None, None])[:, 0]


def large_to_device(field: Tensor, device: torch.device) -> Tensor:
    """A large tensor of drawn numbers on a device without waiting for it: CUDA wants it pinned for that."""
    return to_device(field.pin_memory() if device.type == "cuda" and not field.is_cuda else field, device)
