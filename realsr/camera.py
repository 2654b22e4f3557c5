"""LR as a camera makes it: blurred in linear light, seen through a mosaic, noisy, developed and compressed.

The paper blurs display values and adds noise to them. A camera does neither: light is blurred before the tone curve,
noise falls on one colour a pixel and is smoothed and sharpened with the picture, and what the mosaic makes of edges is
in no kernel. :class:`CameraDegradation` does all of it in the camera's order; how strong each part is, the pools tell.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from realsr.camera_fit import fit_development
from realsr.development import PARTS, RIM
from realsr.draws import KernelDraw
from realsr.errors import InputError
from realsr.images import quantize
from realsr.jpeg import jpeg
from realsr.jpeg_pool import JpegPool
from realsr.kernels import Kernel, developed, gaussian_like, gaussian_of, inverse
from realsr.pools import KernelPool, NoisePool
from realsr.resample import blur_subsample, imresize
from realsr.transfer import sent

log = logging.getLogger(__name__)


def lens_kernels(kernels: KernelPool, scale: int, response: Kernel) -> KernelPool:
    """Kernels of the lens and the pixels alone, of kernels that hold the camera's development as well.

    The response is divided by; what is then narrower than a pixel's own area (a variance of ``scale**2 / 12``) becomes
    a Gaussian as wide as that.

    Args:
        kernels: pool of this scale.
        scale: that the kernels are meant for.
        response: of the development, by :meth:`realsr.development.Development.response`.
    """
    undone, made = inverse(response), []
    for kernel in kernels.kernels.double().numpy():
        blur = gaussian_like(kernel, 0.1 / scale) - scale**2 * gaussian_like(response, 0.1)
        values, vectors = np.linalg.eigh(blur)
        if values[0] < scale**2 / 12:
            made.append(gaussian_of(len(kernel), (vectors * values.clip(scale**2 / 12)) @ vectors.T, scale))
        else:
            made.append(developed(kernel, undone, scale))
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
            self.kernels = lens_kernels(kernels, scale, self.development.response())
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
            field = self._field(light.shape, generator) if self.noisy else None
            lr = self.development.picture(light.clamp(0, 1), None if field is None else sent(field, hr.device))
            lr = lr[..., rim : lr.shape[-2] - rim, rim : lr.shape[-1] - rim]
            return quantize(lr) if self.jpeg is None else jpeg(lr, *self.jpeg.sample(len(lr), generator, margin > 0))

    def _field(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Normal numbers, in each image as strong as the noise of one of the camera's photos."""
        photos = torch.tensor(self.development.photos)
        drawn = photos[torch.randint(len(photos), (shape[0],), generator=generator)]
        return torch.randn(shape, generator=generator) * (drawn / 2).exp()[:, None, None, None]

    def _light(self, light: Tensor, generator: torch.Generator, margin: int, rim: int) -> Tensor:
        """Light on the sensor, with a rim of so many pixels."""
        if self.kernels is None:
            cut = margin // self.scale - rim
            light = imresize(light, 1 / self.scale)
            return light[..., cut : light.shape[-2] - cut, cut : light.shape[-1] - cut]
        draw = self.draw_kernels if self.training else KernelDraw()
        kernels = draw.sample(self.kernels, len(light), self.scale, generator)
        return blur_subsample(light, kernels, self.scale, margin - rim * self.scale)
