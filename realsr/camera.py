"""LR as a camera makes it: blurred in linear light, seen through a mosaic, noisy, developed and compressed.

The paper blurs display values and adds noise to them. A camera does neither: light is blurred before the tone curve,
noise falls on one colour a pixel and is smoothed and sharpened with the picture, and what the mosaic makes of edges is
in no kernel. :class:`CameraDegradation` does all of it in the camera's order; how strong each part is, the pools tell.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from realsr.draws import KernelDraw
from realsr.errors import InputError
from realsr.images import quantize
from realsr.jpeg import jpeg
from realsr.jpeg_pool import JpegPool
from realsr.kernels import centre_index, covariance, gaussian_of, normalise
from realsr.pools import KernelPool, NoisePool
from realsr.resample import blur_subsample, imresize
from realsr.sensor import CAMERA_FROM_SRGB, bilinear, degamma, demosaic, gamma, mosaic
from realsr.transfer import sent

log = logging.getLogger(__name__)

LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]  # ITU-R BT.601
RIM = 4  # LR pixels around a crop that demosaicking, noise reduction and sharpening reach
NARROW = 0.5  # variance in squared HR pixels; a kernel of less is a few points, which stretching would blow up
PARTS = ("kernel", "linear", "mosaic", "noise", "sharpening", "jpeg")


@dataclass(frozen=True)
class Development:
    """A sensor, and how the camera makes a picture of what it sees.

    Attributes:
        demosaicking: ``malvar``, ``bilinear``, or ``none``: every pixel has all colours.
        gray: whether the sensor sees no colours, so that noise is the same in all.
        crosstalk: how far the sensor's colours are from sRGB's, 0 for not at all, 1 for the known cameras' mean.
        reduction: standard deviation in pixels of the Gaussian that smooths the noise, and not the picture.
        chroma: standard deviation in pixels of the Gaussian that smooths the noise of the colours against luma.
        sharpening: amount of unsharp masking of display values.
        radius: standard deviation in pixels of its blur.
        linear: whether light is linear; False blurs and adds noise to display values.
        noise: of each colour, ``(c0, c1, c2)`` of its noise's variance ``exp(c0 + c1*d + c2*d**2)`` on the sensor,
            where the signal has the display value d: whatever the camera's tone curve is, noise is as strong as seen.
        seen: display values between which it holds; in darker places noise is as strong as there, in brighter ones
            its variance goes with the signal.
    """

    demosaicking: Literal["malvar", "bilinear", "none"] = "malvar"
    gray: bool = False
    crosstalk: float = 0.0
    reduction: float = 0.0
    chroma: float = 0.0
    sharpening: float = 0.0
    radius: float = 1.0
    linear: bool = True
    noise: tuple[tuple[float, ...], ...] = ((0.0, 0.0, 0.0),) * 3
    seen: tuple[float, float] = (0.0, 1.0)

    def light(self, images: Tensor) -> Tensor:
        """What falls on the sensor, of display values in [0, 1]."""
        return degamma(images) if self.linear else images

    def display(self, light: Tensor) -> Tensor:
        """Inverse of :meth:`light`."""
        return gamma(light) if self.linear else light

    def picture(self, light: Tensor, field: Tensor | None = None) -> Tensor:
        """The camera's picture, before compression.

        Args:
            light: ``(N, 3, h, w)`` on the sensor, in sRGB's colours, [0, 1].
            field: ``(N, 3, h, w)`` of independent normal numbers for the noise; None adds none.

        Returns:
            ``(N, 3, h, w)`` display values in [0, 1].
        """
        mixing = torch.eye(3) + self.crosstalk * (CAMERA_FROM_SRGB - torch.eye(3))
        back = sent(torch.linalg.inv(mixing), light.device)
        seen = _mixed(light, sent(mixing, light.device))
        if field is None:
            picture = self._developed(seen, back)
        else:
            field = field[:, :1] if self.gray else field
            c0, c1, c2 = sent(torch.tensor(self.noise), light.device).T[..., None, None]
            d = self.display(seen.clamp(0, 1)).clamp(*self.seen)
            # in places brighter than any tile, noise grows as that of light does
            brighter = (seen / self.light(d).clamp(min=1e-4)).clamp(1, 64)
            deviation = (0.5 * (c0 + d * (c1 + d * c2))).exp() * brighter.sqrt()
            picture = self._developed(seen + field * deviation, back)
            if self.reduction or self.chroma:
                clean = self._developed(seen, back)
                noise = smoothed(picture - clean, self.reduction)
                luma = (noise * sent(LUMA, noise.device)).sum(1, keepdim=True)
                picture = clean + luma + smoothed(noise - luma, self.chroma)
        if self.sharpening:
            picture = picture + self.sharpening * (picture - smoothed(picture, self.radius))
        return picture.clamp(0, 1)

    def blur(self, side: int = 128) -> float:
        """Variance, in squared LR pixels along an axis, of the Gaussian that the picture is blurred by in developing.

        Negative where it is sharpened. Of a chart of low contrast, what is left of it from 0.1 to 0.3 cycles a pixel.
        """
        draws = torch.Generator().manual_seed(0)
        chart = self.light(0.5 + 0.04 * torch.randn(8, 1, side, side, generator=draws)).repeat(1, 3, 1, 1)
        picture = self.picture(chart) * LUMA
        before, after = (torch.fft.rfft2(x - x.mean()) for x in (self.display(chart[:, 0]), picture.sum(1)))
        left = ((after * before.conj()).sum(0) / before.abs().square().sum(0)).real
        frequency = (torch.fft.fftfreq(side)[:, None] ** 2 + torch.fft.rfftfreq(side) ** 2).sqrt()
        band = (frequency > 0.1) & (frequency < 0.3)
        weight = frequency[band] ** 2  # a Gaussian of variance v leaves exp(-2 pi^2 v f^2)
        return float((-left[band].clamp(min=0.05).log() * weight).sum() / (2 * np.pi**2 * (weight**2).sum()))

    def _developed(self, seen: Tensor, back: Tensor) -> Tensor:
        if self.demosaicking != "none":
            seen = (demosaic if self.demosaicking == "malvar" else bilinear)(mosaic(seen))
        return self.display(_mixed(seen, back).clamp(0, 1))


def lens_kernels(kernels: KernelPool, scale: int, blurred: float) -> KernelPool:
    """Kernels of the lens and the pixels alone, of kernels that hold the camera's development as well.

    Their covariances lose what development blurs by, down to that of a pixel's own area (``scale**2 / 12``); their
    shapes stay, stretched, but for those too narrow to have one, which become Gaussians. Lobes under zero are left out.

    Args:
        kernels: pool of this scale.
        scale: that the kernels are meant for.
        blurred: variance in squared LR pixels that development adds along each axis, by :meth:`Development.blur`.
    """
    made = []
    for kernel in kernels.kernels.double().numpy().clip(0):
        values, vectors = np.linalg.eigh(covariance(kernel))  # of (y, x)
        wanted = np.maximum(values - scale**2 * blurred, scale**2 / 12)
        if values[0] < NARROW:
            made.append(gaussian_of(len(kernel), ((vectors * wanted) @ vectors.T)[::-1, ::-1], scale))
            continue
        # what the new kernel has at x, the old one has at `lookup @ x`
        lookup = vectors @ np.diag(np.sqrt(values / wanted)) @ vectors.T
        middle = np.full(2, centre_index(len(kernel), scale))
        made.append(normalise(ndimage.affine_transform(kernel, lookup, middle - lookup @ middle).clip(0)))
    return replace(kernels, kernels=torch.from_numpy(np.stack(made)).float())


class CameraDegradation(nn.Module):
    """A camera in the order of its parts, for a whole batch on its device, in float32.

    HR becomes linear light, is blurred by the lens' kernel (pooled), subsampled, seen through a Bayer mosaic with shot
    and read noise, demosaicked, toned, sharpened and compressed by the photos' tables. The sensor and its development
    are fitted to the noise pool by :func:`realsr.camera_fit.fit_development`: noise passes all that the picture passes,
    so its spectrum and the correlation of its colours show it. Kernels that photos give hold the development's blur,
    which is taken off (:func:`lens_kernels`), else it would be there twice.

    Args:
        scale: integer subsampling factor.
        kernels: pool of this scale; None downscales with bicubic.
        noise: pool, which the sensor is fitted to.
        jpeg: pool; None compresses nothing.
        draw_kernels: how a kernel is drawn in training; in evaluation (``eval()``) always uniformly.
        without: parts that are left out, for ablations: of ``kernel``, ``linear``, ``mosaic``, ``noise``,
            ``sharpening``, ``jpeg``.

    Raises:
        InputError: there is no noise pool, or ``without`` names no part.
    """

    def __init__(
        self,
        scale: int = 4,
        kernels: KernelPool | None = None,
        noise: NoisePool | None = None,
        jpeg: JpegPool | None = None,
        draw_kernels: KernelDraw = KernelDraw(),  # noqa: B008  (frozen)
        without: Sequence[str] = (),
    ) -> None:
        from realsr.camera_fit import fit_development

        super().__init__()
        if unknown := set(without) - set(PARTS):
            raise InputError(f"degradation.without={sorted(unknown)}: give some of {', '.join(PARTS)}")
        if noise is None:
            raise InputError("degradation=camera reads the sensor off a noise pool; give data.noise_dir")
        self.scale, self.draw_kernels = scale, draw_kernels
        self.jpeg = None if "jpeg" in without else jpeg
        self.development = fit_development(noise, self.jpeg, without)
        self.noise, self.noisy = noise, "noise" not in without
        self.kernels = None
        if kernels is not None and "kernel" not in without:
            self.kernels = lens_kernels(kernels, scale, self.development.blur())
        log.info("camera: %s", self.development)

    @property
    def margin(self) -> int:
        """Pixels around an HR crop that the blur and the development read, a multiple of the scale."""
        reach = 2 * self.scale
        if self.kernels is not None:
            size = self.kernels.kernels.shape[-1]
            reach = size // 2 + self.draw_kernels.grow(size, self.scale)
        return (-(-reach // self.scale) + RIM) * self.scale

    @torch.no_grad()
    def forward(self, hr: Tensor, generator: torch.Generator, margin: int = 0) -> Tensor:
        """Degrade a batch; see :meth:`realsr.degradation.Degradation.forward`.

        Args:
            hr: ``(N, 3, H + 2*margin, W + 2*margin)`` RGB in [0, 1]; H and W multiples of the scale.
            generator: the CPU's.
            margin: real pixels around the wanted H x W, a multiple of the scale; mirrored where too few.

        Returns:
            ``(N, 3, H/scale, W/scale)`` of 256 levels in [0, 1].
        """
        if self.kernels is not None and self.kernels.kernels.device != hr.device:
            self.kernels = self.kernels.to(hr.device)
        if self.jpeg is not None and self.jpeg.tables.device != hr.device:
            self.jpeg = self.jpeg.to(hr.device)
        with torch.autocast(hr.device.type, enabled=False):
            rim = min(RIM, margin // self.scale)  # LR pixels that are developed, and then cut off
            light = self._light(self.development.light(hr.float()), generator, margin, rim)
            field = torch.randn(light.shape, generator=generator) if self.noisy else None
            lr = self.development.picture(light.clamp(0, 1), None if field is None else sent(field, hr.device))
            lr = lr[..., rim : lr.shape[-2] - rim, rim : lr.shape[-1] - rim]
            return quantize(lr) if self.jpeg is None else jpeg(lr, *self.jpeg.sample(len(lr), generator, margin > 0))

    def _light(self, light: Tensor, generator: torch.Generator, margin: int, rim: int) -> Tensor:
        """Light on the sensor, with a rim of so many pixels."""
        if self.kernels is None:
            cut = margin // self.scale - rim
            light = imresize(light, 1 / self.scale)
            return light[..., cut : light.shape[-2] - cut, cut : light.shape[-1] - cut]
        draw = self.draw_kernels if self.training else KernelDraw()
        kernels = draw.sample(self.kernels, len(light), self.scale, generator)
        return blur_subsample(light, kernels, self.scale, margin - rim * self.scale)


def smoothed(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of ``(N, C, h, w)`` by a standard deviation in pixels, borders mirrored; none by 0."""
    if not sigma:
        return images
    reach = min(int(3 * sigma + 1), *(side - 1 for side in images.shape[-2:]))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=images.dtype) / sigma) ** 2)
    row = sent(taps / taps.sum(), images.device).expand(images.shape[1], 1, 1, -1)
    images = F.conv2d(F.pad(images, (reach, reach, 0, 0), mode="reflect"), row, groups=images.shape[1])
    return F.conv2d(F.pad(images, (0, 0, reach, reach), mode="reflect"), row.mT, groups=images.shape[1])


def _mixed(images: Tensor, matrix: Tensor) -> Tensor:
    return (matrix @ images.flatten(2)).view(images.shape)
