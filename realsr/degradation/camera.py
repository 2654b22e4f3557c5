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
from torch import Tensor

from realsr.degradation.camera_fit import fit_development
from realsr.degradation.development import PARTS, RIM
from realsr.degradation.paper import Degradation
from realsr.estimation.kernels import Kernel, developed, gaussian_like, gaussian_of, inverse, of_eigenvalues
from realsr.imaging import quantize
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool, NoisePool
from realsr.pools.sampling import KernelDraw
from realsr.runtime.errors import InputError
from realsr.runtime.hardware import to_device

log = logging.getLogger(__name__)


def lens_kernels(kernels: KernelPool, scale: int, response: Kernel) -> KernelPool:
    """Kernels of the lens and the pixels alone, of kernels that hold the camera's development as well.

    The response is divided by; what is then narrower than a pixel's own area (a variance of ``scale**2 / 12``) becomes
    a Gaussian as wide as that.

    Args:
        kernels: pool of this scale.
        scale: that the kernels are meant for.
        response: of the development, by :meth:`realsr.degradation.development.Development.response`.
    """
    undone, made = inverse(response), []
    for kernel in kernels.kernels.double().numpy():
        blur = gaussian_like(kernel, 0.1 / scale) - scale**2 * gaussian_like(response, 0.1)
        if np.linalg.eigvalsh(blur)[0] < scale**2 / 12:
            made.append(gaussian_of(len(kernel), of_eigenvalues(blur, lambda of: of.clip(scale**2 / 12)), scale))
        else:
            made.append(developed(kernel, undone, scale))
    return replace(kernels, kernels=torch.from_numpy(np.stack(made)).float())


class CameraDegradation(Degradation):
    """A camera in the order of its parts, for a whole batch on its device, in float32.

    HR becomes linear light, is blurred by the lens' kernel (pooled), subsampled, seen through a Bayer mosaic with shot
    and read noise, demosaicked, toned, sharpened and compressed by the photos' tables. The sensor and its development
    are fitted to the noise pool by :func:`realsr.degradation.camera_fit.fit_development`: noise passes all that the
    picture passes, so its spectrum and the correlation of its colours show it. Kernels that photos give hold the
    development's blur, which is taken off (:func:`lens_kernels`), else it would be there twice.

    Args:
        scale: integer subsampling factor.
        kernels: pool of this scale; None downscales with bicubic.
        noise: pool, which the sensor is fitted to.
        jpeg: pool; None compresses nothing.
        draw_kernels: how a kernel is drawn in training; in evaluation (``eval()``) always uniformly.
        without: parts that are left out, for ablations: some of :data:`realsr.degradation.development.PARTS`.

    Raises:
        InputError: there is no noise pool, or ``without`` names no part.
    """

    rim, drawn = RIM, ("kernels", "jpeg")

    def __init__(
        self,
        scale: int = 4,
        kernels: KernelPool | None = None,
        noise: NoisePool | None = None,
        jpeg: JpegPool | None = None,
        draw_kernels: KernelDraw = KernelDraw(),  # noqa: B008  (frozen)
        without: Sequence[str] = (),
    ) -> None:
        super().__init__(scale, None, noise, None if "jpeg" in without else jpeg, draw_kernels)
        if unknown := set(without) - set(PARTS):
            raise InputError(f"degradation.without={sorted(unknown)}: give some of {', '.join(PARTS)}")
        if noise is None:
            raise InputError("degradation=camera reads the sensor off a noise pool; give data.pools.noise_dir")
        self.noisy = "noise" not in without
        self.development = fit_development(noise, self.jpeg, without)
        if kernels is not None and "kernel" not in without:
            self.kernels = lens_kernels(kernels, scale, self.development.response())
        log.info("camera: %s", self.development)

    def downscaled(self, hr: Tensor, generator: torch.Generator, margin: int) -> Tensor:
        """Light on the sensor, without the margin."""
        return super().downscaled(self.development.light(hr), generator, margin)

    def picture(self, lr: Tensor, generator: torch.Generator) -> Tensor:
        """The camera's picture of this light, of 256 levels; noise is as strong as in one of its photos."""
        field = None
        if self.noisy:
            photos = torch.tensor(self.development.photos)
            drawn = photos[torch.randint(len(photos), (len(lr),), generator=generator)]
            field = to_device(
                torch.randn(lr.shape, generator=generator) * (drawn / 2).exp()[:, None, None, None], lr.device
            )
        return quantize(self.development.picture(lr.clamp(0, 1), field))
