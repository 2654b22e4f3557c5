"""LR as a camera makes it: blurred in linear light, seen through a mosaic, noisy, developed and compressed.

The paper blurs display values and adds noise to them. A camera does neither: light is blurred before the tone curve,
noise falls on one colour a pixel and is smoothed and sharpened with the picture, and no kernel changes edges as the
mosaic does. :class:`CameraDegradation` has all these parts in the camera's order, as strong as the pools show.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from realsr.degradation.base import Degradation, Parameters, downscaled
from realsr.degradation.camera_fit import fit_development
from realsr.degradation.development import PARTS, RIM, Development, Part
from realsr.estimation.kernels import Kernel, developed, gaussian_like, gaussian_of, inverse, of_eigenvalues
from realsr.imaging import quantize
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool, NoisePool
from realsr.pools.sampling import KernelDraw
from realsr.runtime.errors import InputError
from realsr.runtime.files import info_once


def lens_kernels(kernels: KernelPool, scale: int, response: Kernel) -> KernelPool:
    """Take the camera's development off the kernels, so that those of the lens and the pixels' area are left.

    Kernels are divided by its ``response`` (:meth:`realsr.degradation.development.Development.response`). One that is
    then narrower than a pixel's area (a variance of ``scale**2 / 12``) becomes a Gaussian as wide as that.
    """
    undone, made = inverse(response), []
    for kernel in kernels.kernels.double().numpy():
        blur = gaussian_like(kernel, 0.1 / scale) - scale**2 * gaussian_like(response, 0.1)
        if np.linalg.eigvalsh(blur)[0] < scale**2 / 12:
            made.append(gaussian_of(len(kernel), of_eigenvalues(blur, lambda of: of.clip(scale**2 / 12)), scale))
        else:
            made.append(developed(kernel, undone, scale))
    return KernelPool(torch.from_numpy(np.stack(made)).float(), kernels.photos, kernels.confidence)


class CameraDegradation(Degradation):
    """A camera's parts in their order, for a whole batch on its device, in float32.

    HR becomes linear light, is blurred by the lens' kernel (pooled), subsampled, seen through a Bayer mosaic with shot
    and read noise, demosaicked, toned, sharpened and compressed by the photos' tables. The sensor and its development
    are fitted to the noise pool by :func:`realsr.degradation.camera_fit.fit_development`: noise passes all that the
    picture passes, so its spectrum and the correlation of its colours show it. Kernels estimated from photos contain
    the development's blur, which :func:`lens_kernels` takes off, else it would be applied twice.

    Args:
        scale: integer subsampling factor.
        kernels: pool of this scale; None downscales with bicubic.
        noise: pool that the sensor is fitted to; it is not kept.
        jpeg: pool; None compresses nothing.
        draw_kernels: how a kernel is drawn in training; in evaluation (``eval()``) always uniformly.
        without: parts that are left out, for ablations: some of :data:`realsr.degradation.development.PARTS`.
        development: of this camera, where it is fitted already (:attr:`fitted`); None: fitted to ``noise``.

    >>> camera = CameraDegradation(4, development=Development("bilinear", sharpening=0.4))
    >>> camera(torch.rand(2, 3, 64, 64), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 16, 16])

    Raises:
        InputError: there is no noise pool, or ``without`` names no part.
    """

    rim = RIM

    def __init__(
        self,
        scale: int = 4,
        kernels: KernelPool | None = None,
        noise: NoisePool | None = None,
        jpeg: JpegPool | None = None,
        draw_kernels: KernelDraw = KernelDraw(),  # noqa: B008  (frozen)
        without: Sequence[Part] = (),
        development: Development | None = None,
    ) -> None:
        super().__init__(scale, None, None if "jpeg" in without else jpeg, draw_kernels)
        if unknown := set(without) - set(PARTS):
            raise InputError(f"degradation.without={sorted(unknown)}: give some of {', '.join(PARTS)}")
        if development is None:
            self.check_pools(kernels, noise, jpeg)
            assert noise is not None
            development = fit_development(noise, self.jpeg, without)
        self.noisy, self.development, self.fitted = "noise" not in without, development, {"development": development}
        if kernels is not None and "kernel" not in without:
            self.kernels = lens_kernels(kernels, scale, self.development.response())
        info_once(f"camera, by its noise: {self.development}")

    @classmethod
    def check_pools(cls, kernels: object, noise: object, jpeg: object) -> None:
        """Raise InputError where there is no noise pool."""
        if noise is None:
            raise InputError(
                "degradation=camera needs a noise pool; give data.pools.noise_dir and data.validation.noise_dir"
            )

    def uncompressed(self, hr: Tensor, drawn: Parameters, margin: int) -> Tensor:
        """The camera's picture of this scene, of 256 levels."""
        light = downscaled(self.development.light(hr), drawn.kernels, self.scale, margin)
        return quantize(self.development.develop(light.clamp(0, 1), drawn.noise))

    def sample_noise(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor | None:
        """Normal numbers, for each image as strong as in one of the camera's photos."""
        if not self.noisy:
            return None
        photos = torch.tensor(self.development.photos)
        strength = (photos[torch.randint(len(photos), (count,), generator=generator)] / 2).exp()
        return torch.randn(count, 3, *size, generator=generator) * strength[:, None, None, None]
