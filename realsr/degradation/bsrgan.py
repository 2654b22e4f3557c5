"""Blurs, a resize, noise, JPEG and a camera's noise in random order: Zhang et al., ICCV 2021 ("BSRGAN")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from realsr.degradation.base import Bounds, Degradation, Parameters, Step, check_bounds, downscaled, through
from realsr.degradation.development import Development, large_to_device
from realsr.degradation.sensor import degamma, gamma, mixed, toned, untoned
from realsr.estimation.kernels import Kernel, framed, gaussian_kernel
from realsr.imaging.jpeg import BLOCK, jpeg, standard_tables
from realsr.imaging.resample import blur
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool, NoisePool
from realsr.runtime.errors import InputError
from realsr.runtime.hardware import to_device

Resize = Literal["nearest", "bilinear", "bicubic", "area", "down_up"]

STEPS = ("isotropic", "anisotropic", "resize", "noise", "jpeg", "sensor")
WAYS = ("bilinear", "bicubic")  # of halving, and of down_up
NEAREST_TAPS = 21  # of the blur before nearest-neighbour (section 3.2)


class BSRGANDegradation(Degradation):
    """The degradation model of Zhang, Liang, Van Gool and Timofte (ICCV 2021), section 3.

    Each image goes through two Gaussian blurs, one resize, Gaussian noise, JPEG and sensor noise in an order of its
    own, then through a last JPEG. The ranges are so wide that most cameras lie in them. ``eval()`` changes nothing.

    Departures from the paper: interpolations are antialiased where they shrink. All cameras share one tone curve and
    one colour matrix, the mean of known ones (:mod:`realsr.degradation.sensor`), and balance white before
    demosaicking, as raw converters do; the authors fitted curves to five cameras. Where the paper leaves a choice
    open: chroma is halved on both axes, libjpeg's default; ``noise_level`` is the root mean square over the colours;
    covariances have a uniformly random basis, and variances uniform but for that.

    Args:
        scale: integer factor.
        kernel_sizes: bounds of the side of the blurs' kernels in pixels, odd (section 3.1).
        isotropic: bounds of one blur's standard deviation in pixels (section 3.1).
        anisotropic: bounds of the other's variances in squared pixels (section 3.1: lengths, too large for deviations).
        resizes: ways of resizing, of which one is drawn (section 3.2). ``down_up`` resizes twice.
        nearest_blur: bounds of the blur before ``nearest``, the upper one as a multiple of the factor (section 3.2).
        up_least: least second factor of ``down_up``; the largest is the scale (section 3.2).
        halve: share of the images that are halved first and then treated as for half the scale; of scale 4 alone.
        noise_level: bounds of the Gaussian noise's standard deviation in 8-bit levels (section 3.3).
        noise_kinds: shares of noise with any covariance of the colours, of white noise, of gray noise (section 3.3).
        quality: bounds of both JPEG qualities (section 3.3).
        jpeg_share: share of the images with JPEG among the steps (section 3.3).
        sensor_share: share with sensor noise (section 3.3).
        exposure: bounds of the camera's gain in stops (section 3.3).
        gains: bounds of its gain of red and of blue (section 3.3).
        shot: bounds of its shot noise's variance for each unit of raw signal, drawn by its logarithm.
        kernels: None; no pool is drawn from.
        noise: None as well.
        jpeg: None as well.

    Raises:
        InputError: a pool is given, or bounds make no sense.
    """

    without_pools = "bsrgan"

    def __init__(
        self,
        scale: int,
        kernel_sizes: tuple[int, int],
        isotropic: Bounds,
        anisotropic: Bounds,
        resizes: Sequence[Resize],
        nearest_blur: Bounds,
        up_least: float,
        halve: float,
        noise_level: Bounds,
        noise_kinds: tuple[float, float, float],
        quality: tuple[int, int],
        jpeg_share: float,
        sensor_share: float,
        exposure: Bounds,
        gains: Bounds,
        shot: Bounds,
        kernels: KernelPool | None = None,
        noise: NoisePool | None = None,
        jpeg: JpegPool | None = None,
    ) -> None:
        super().__init__(scale)
        self.check_pools(kernels, noise, jpeg)
        shares, endless = {"halve": halve, "jpeg_share": jpeg_share, "sensor_share": sensor_share}, math.inf
        check_bounds(
            ("kernel_sizes", kernel_sizes, 1, endless), ("noise_level", noise_level, 0, 255),
            ("isotropic", isotropic, 0.01, endless), ("anisotropic", anisotropic, 0.01, endless),
            ("nearest_blur", nearest_blur, 0.01, endless), ("up_least", (up_least,), 0.01, scale),
            ("noise_kinds", sorted(noise_kinds), 0, 1), *((name, (share,), 0, 1) for name, share in shares.items()),
            ("quality", quality, 1, 100), ("gains", gains, 0.01, endless), ("shot", shot, 1e-9, 1),
        )  # fmt: skip
        if not resizes or not any(noise_kinds) or kernel_sizes[0] % 2 == 0 or kernel_sizes[1] % 2 == 0:
            raise InputError("data.degradation: give some resizes, some noise_kinds over 0, and odd kernel_sizes")
        self.kernel_sizes, self.isotropic, self.anisotropic = kernel_sizes, isotropic, anisotropic
        self.resizes, self.nearest_blur, self.up_least = resizes, nearest_blur, up_least
        self.noise_level, self.noise_kinds, self.quality = noise_level, noise_kinds, quality
        self.shares = {"halve": halve if scale == 4 else 0.0, "jpeg": jpeg_share, "sensor": sensor_share}
        self.exposure, self.gains, self.shot = exposure, gains, shot

    @property
    def margin(self) -> int:
        """Pixels around an HR crop that two blurs and then the resize read; blurs after it see a mirrored border."""
        reach = self.kernel_sizes[1] - 1 + max(2 * self.scale, NEAREST_TAPS // 2)
        return math.ceil(reach / self.scale) * self.scale

    def draw(self, count: int, size: Sequence[int], generator: torch.Generator, margin: int = 0) -> Parameters:
        """Draw for each image its steps, by a random generator of its own, and the last JPEG."""
        seeds = torch.randint(2**62, (count,), generator=generator).tolist()
        rngs = [np.random.default_rng(seed) for seed in seeds]
        steps = [self.steps(self.order(rng), size, rng, cut=margin > 0) for rng in rngs]
        quality = torch.randint(self.quality[0], self.quality[1] + 1, (count,), generator=generator)
        phase = torch.randint(2 * BLOCK if margin else 1, (count, 2), generator=generator)
        return Parameters(coding=(standard_tables(quality), torch.full((count, 2), 2), phase), steps=steps)

    def uncompressed(self, hr: Tensor, drawn: Parameters, margin: int) -> Tensor:
        """Each image through its own steps."""
        lr, cut = through(hr, drawn.steps), margin // self.scale
        return lr[..., cut : lr.shape[-2] - cut, cut : lr.shape[-1] - cut]

    def order(self, rng: np.random.Generator) -> list[str]:
        """Draw the names of an image's steps: some of :data:`STEPS`, or ``halve`` and these."""
        taken = [str(step) for step in rng.permutation(STEPS) if rng.random() < self.shares.get(str(step), 1)]
        return ["halve", *taken] if rng.random() < self.shares["halve"] else taken

    def steps(self, order: Sequence[str], size: Sequence[int], rng: np.random.Generator, cut: bool) -> list[Step]:
        """Draw the parameters of the steps of an image.

        Args:
            order: names of the steps.
            size: height and width of the image that the first step is given.
            rng: to draw from.
            cut: whether the image is a cut from a photo, so that JPEG's blocks start anywhere in it.
        """
        factor = self.scale // 2 if "halve" in order else self.scale
        steps: list[Step] = []
        for name in order:
            if name == "halve":
                size = _divided(size, 2)
                steps.append(partial(interpolated, size=size, way=rng.choice(WAYS)))
            elif name == "isotropic":
                steps.append(self._blur([rng.uniform(*self.isotropic)] * 2, rng))
            elif name == "anisotropic":
                steps.append(self._blur((rng.uniform(*self.anisotropic, 2) ** 0.5).tolist(), rng))
            elif name == "resize":
                steps.append(self._resize(size, factor, rng))
                size = _divided(size, factor)
            elif name == "noise":
                mixing = noise_mixing(rng.uniform(*self.noise_level) / 255, self.noise_kinds, rng)
                steps.append(partial(noisy, mixing=mixing, field=_field(size, rng)))
            elif name == "jpeg":
                tables = standard_tables(torch.tensor([rng.integers(*self.quality, endpoint=True)]))
                phase = torch.from_numpy(rng.integers(2 * BLOCK if cut else 1, size=(1, 2)))
                steps.append(partial(compressed, tables=tables, phase=phase))
            else:
                steps.append(partial(photographed, camera=self._camera(rng), field=_field(size, rng)))
        return steps

    def _camera(self, rng: np.random.Generator) -> Development:
        """Draw a camera as Brooks et al. found real ones ("Unprocessing images for raw denoising", CVPR 2019, 3.1)."""
        log_shot = rng.uniform(*np.log(self.shot))
        read = math.exp(rng.normal(2.18 * log_shot + 1.20, 0.26))
        gains = 2 ** rng.uniform(*self.exposure) * np.array([rng.uniform(*self.gains), 1, rng.uniform(*self.gains)])
        return Development(crosstalk=1.0, noise=Development.sensor_noise(math.exp(log_shot), read, gains))

    def _blur(self, sigmas: Sequence[float], rng: np.random.Generator) -> Step:
        """Blur by a Gaussian of two standard deviations in pixels, in any direction, cut off at any size."""
        low, high = self.kernel_sizes
        size = 2 * int(rng.integers(low // 2, high // 2, endpoint=True)) + 1
        kernel = gaussian_kernel(size, (sigmas[0], sigmas[1]), rng.uniform(0, math.pi), 1)
        return partial(blur, kernels=torch.from_numpy(kernel).float()[None])

    def _resize(self, size: Sequence[int], factor: int, rng: np.random.Generator) -> Step:
        """Shrink by the factor, in one of the ways of resizing."""
        way, small = rng.choice(self.resizes), _divided(size, factor)
        if way == "nearest":
            kernel = moved_gaussian(rng.uniform(self.nearest_blur[0], self.nearest_blur[1] * factor), factor)
            return partial(downscaled, kernels=torch.from_numpy(kernel).float()[None], scale=factor, margin=0)
        if way != "down_up":
            return partial(interpolated, size=small, way=way)
        up, last, first = rng.uniform(self.up_least, factor), rng.choice(WAYS), rng.choice(WAYS)
        middle = [max(round(side * up), 1) for side in small]
        return lambda image: interpolated(interpolated(image, size=middle, way=first), size=small, way=last)


def noisy(image: Tensor, mixing: Tensor, field: Tensor) -> Tensor:
    """Add noise to ``(1, 3, h, w)``: normal numbers of this shape, their colours mixed by ``(3, 3)``."""
    return image + mixed(large_to_device(field, image.device), to_device(mixing, image.device))


def compressed(image: Tensor, tables: Tensor, phase: Tensor) -> Tensor:
    """Save ``(1, 3, h, w)`` as JPEG with its chroma halved, and read it again."""
    return jpeg(image, to_device(tables, image.device), torch.tensor([[2, 2]]), phase)


def photographed(image: Tensor, camera: Development, field: Tensor) -> Tensor:
    """Undo the display curves of ``(1, 3, h, w)``, and let a camera photograph it, its noise from normal numbers."""
    return gamma(toned(degamma(camera.develop(untoned(degamma(image)), field))))


def interpolated(image: Tensor, size: Sequence[int], way: str) -> Tensor:
    """Resize ``(N, C, H, W)`` by ``bilinear``, ``bicubic`` or ``area`` interpolation, antialiased."""
    if way == "area":
        return F.interpolate(image, size, mode="area")
    return F.interpolate(image, size, mode=way, antialias=True, align_corners=False)


def moved_gaussian(sigma: float, factor: int) -> Kernel:
    """The Gaussian before every ``factor``-th pixel is taken, centred by linear interpolation (section 3.2)."""
    kernel = framed(gaussian_kernel(NEAREST_TAPS, (sigma, sigma), 0.0, 1), NEAREST_TAPS + factor // 2 * 2)
    return np.asarray(ndimage.shift(kernel, (factor - 1) / 2, order=1))


def noise_mixing(sigma: float, kinds: Sequence[float], rng: np.random.Generator) -> Tensor:
    """Draw a square root ``(3, 3)`` of the colours' covariance; normal numbers times it are the noise.

    Args:
        sigma: root mean square of the colours' standard deviations.
        kinds: weights of any covariance, of white noise (each colour its own), of gray noise (all the same).
        rng: to draw from.
    """
    kind = rng.choice(3, p=np.array(kinds) / sum(kinds))
    if kind == 0:
        variances = rng.random(3)
        root = np.linalg.qr(rng.standard_normal((3, 3)))[0] * np.sqrt(3 * variances / variances.sum())
    else:
        root = np.eye(3) if kind == 1 else np.array([[1.0, 0, 0]] * 3)
    return torch.from_numpy(sigma * root).float()


def _field(size: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Independent normal numbers ``(1, 3, *size)``."""
    return torch.from_numpy(rng.standard_normal((1, 3, *size), np.float32))


def _divided(size: Sequence[int], factor: int) -> list[int]:
    return [side // factor for side in size]
