"""LR of a random camera for every image, to train a network that is then adapted to one camera.

The parts are those of :mod:`realsr.degradation.camera`, in the same order. There the strength of each part is fitted to
a camera's photos; here it is drawn from ranges that most cameras lie in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from realsr.degradation.base import Bounds, Degradation, Parameters, check_bounds, downscaled, through
from realsr.degradation.development import RIM, Development
from realsr.degradation.sensor import degamma
from realsr.estimation.kernels import gaussian_kernel
from realsr.imaging.jpeg import BLOCK, standard_tables
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool, NoisePool

DEMOSAICKING: tuple[Literal["malvar", "bilinear", "none"], ...] = ("malvar", "bilinear", "none")


class AnyCamera(Degradation):
    """Each image goes through a random camera: lens, mosaic, noise, development and JPEG.

    ``eval()`` changes nothing. Bounds are inclusive, the smaller first.

    Args:
        scale: integer subsampling factor.
        blur: bounds of the lens' variance along each axis in squared LR pixels, at least a pixel's own 1/12; drawn by
            its logarithm.
        shot: bounds of the noise's variance for each unit of raw signal in [0, 1], drawn by its logarithm.
        read: bounds of the noise's standard deviation in the dark in the same unit, drawn by its logarithm.
        gains: bounds of the white balance of red and of blue, by which their noise is stronger.
        crosstalk: bounds of the distance of the sensor's colours from sRGB's (:class:`Development`).
        reduction: bounds of the smoothing of the noise in LR pixels; half of the cameras have none.
        chroma: bounds of the smoothing of the noise's colours in LR pixels; half of the cameras have none.
        sharpening: bounds of the amount of unsharp masking; a third of the cameras have none.
        radius: bounds of the standard deviation of the blur in it, in LR pixels.
        quality: bounds of JPEG's quality, 1 to 100; half of the images have their chroma halved.
        kernels: None; no pool is drawn from.
        noise: None as well.
        jpeg: None as well.

    Raises:
        InputError: a pool is given, or bounds make no sense.
    """

    rim, without_pools = RIM, "any_camera"

    def __init__(
        self,
        scale: int,
        blur: Bounds,
        shot: Bounds,
        read: Bounds,
        gains: Bounds,
        crosstalk: Bounds,
        reduction: Bounds,
        chroma: Bounds,
        sharpening: Bounds,
        radius: Bounds,
        quality: tuple[int, int],
        kernels: KernelPool | None = None,
        noise: NoisePool | None = None,
        jpeg: JpegPool | None = None,
    ) -> None:
        super().__init__(scale)
        self.check_pools(kernels, noise, jpeg)
        check_bounds(
            ("blur", blur, 1 / 12, 4), ("shot", shot, 1e-9, 1), ("read", read, 1e-9, 1), ("gains", gains, 0.1, 10),
            ("crosstalk", crosstalk, 0, 2), ("reduction", reduction, 0, RIM / 2), ("chroma", chroma, 0, RIM / 2),
            ("sharpening", sharpening, 0, 5), ("radius", radius, 0.1, RIM / 2), ("quality", quality, 1, 100),
        )  # fmt: skip
        self.blur, self.shot, self.read, self.gains = blur, shot, read, gains
        self.crosstalk, self.reduction, self.chroma = crosstalk, reduction, chroma
        self.sharpening, self.radius, self.quality = sharpening, radius, quality
        self.size = 2 * math.ceil(4 * scale * math.sqrt(blur[1])) + 1

    @property
    def margin(self) -> int:
        """Pixels around an HR crop that the blur and the development read, a multiple of the scale."""
        return (math.ceil(self.size / 2 / self.scale) + RIM) * self.scale

    def draw(self, count: int, size: Sequence[int], generator: torch.Generator, margin: int = 0) -> Parameters:
        """Draw for each image a lens, noise, a development, and JPEG of any quality, chroma halved or not."""
        kernels = torch.stack([self.draw_kernel(generator) for _ in range(count)])
        fields = torch.split(torch.randn(count, 3, *self.lr_size(size, margin), generator=generator), 1)
        steps = [[partial(self.draw_development(generator).develop, field=field)] for field in fields]
        quality = torch.randint(self.quality[0], self.quality[1] + 1, (count,), generator=generator)
        factors = torch.randint(1, 3, (count, 1), generator=generator).expand(-1, 2)
        phase = torch.randint(2 * BLOCK if margin else 1, (count, 2), generator=generator)
        return Parameters(kernels, coding=(standard_tables(quality), factors, phase), steps=steps)

    def uncompressed(self, hr: Tensor, drawn: Parameters, margin: int) -> Tensor:
        """Each image by its own lens and development."""
        light = downscaled(degamma(hr), drawn.kernels, self.scale, margin)
        return through(light.clamp(0, 1), drawn.steps)

    def draw_kernel(self, generator: torch.Generator) -> Tensor:
        """Draw the kernel ``(K, K)`` of a lens: a Gaussian in any direction."""
        sigmas = [self.scale * math.sqrt(_logarithmic(self.blur, generator)) for _ in range(2)]
        angle = _uniform((0, math.pi), generator)
        return torch.from_numpy(gaussian_kernel(self.size, (sigmas[0], sigmas[1]), angle, self.scale)).float()

    def draw_development(self, generator: torch.Generator) -> Development:
        """Draw a sensor and its development."""
        shot, read = _logarithmic(self.shot, generator), _logarithmic(self.read, generator)
        gains = _uniform(self.gains, generator), 1.0, _uniform(self.gains, generator)
        return Development(
            demosaicking=DEMOSAICKING[int(torch.multinomial(torch.tensor([2.0, 2.0, 1.0]), 1, generator=generator))],
            crosstalk=_uniform(self.crosstalk, generator),
            reduction=_often(1 / 2, self.reduction, generator),
            chroma=_often(1 / 2, self.chroma, generator),
            sharpening=_often(2 / 3, self.sharpening, generator),
            radius=_uniform(self.radius, generator),
            noise=Development.sensor_noise(shot, read**2, gains),
        )


def _uniform(bounds: Bounds, generator: torch.Generator) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * float(torch.rand((), generator=generator))


def _logarithmic(bounds: Bounds, generator: torch.Generator) -> float:
    return math.exp(_uniform((math.log(bounds[0]), math.log(bounds[1])), generator))


def _often(share: float, bounds: Bounds, generator: torch.Generator) -> float:
    """Uniform in this share of the draws, else 0."""
    drawn = _uniform(bounds, generator)
    return drawn if float(torch.rand((), generator=generator)) < share else 0.0
