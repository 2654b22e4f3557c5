"""Blurs, a resize, noise, JPEG and a camera's noise in random order: Zhang et al., ICCV 2021 ("BSRGAN")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from realsr.degradation import check_bounds, refuse_pools
from realsr.errors import InputError
from realsr.jpeg import BLOCK, jpeg, standard_tables
from realsr.jpeg_pool import JpegPool
from realsr.kernels import framed, gaussian_kernel
from realsr.pools import KernelPool, NoisePool
from realsr.resample import blur, nearest_matrix, resize_matrix
from realsr.sensor import Camera, photographed
from realsr.transfer import sent

Resize = Literal["nearest", "bilinear", "bicubic", "area", "down_up"]

STEPS = ("isotropic", "anisotropic", "resize", "noise", "jpeg", "sensor")
WAYS = ("bilinear", "bicubic")  # of halving, and of down_up
NEAREST_TAPS = 21  # of the blur before nearest-neighbour (section 3.2)


@dataclass(frozen=True)
class Plan:
    """What happens to each of N images, drawn before any of it does; on the CPU.

    Attributes:
        order: of each image, the steps that it goes through, :data:`STEPS` or ``halve``.
        halve: of each image, how it is halved.
        factor: of each image, what ``resize`` divides its sides by.
        kernels: by step, ``(N, K, K)`` of a blur.
        resize: of each image, how it is resized.
        nearest: of each image, the standard deviation in pixels of the blur before ``nearest``.
        up: of each image, the second factor of ``down_up``.
        ways: of each image, the two interpolations of ``down_up``.
        mixing: ``(N, 3, 3)``, from independent normal numbers to the colours' noise.
        tables: ``(2, N, 2, 8, 8)``, of the JPEG among the steps and of the last one.
        phase: ``(2, N, 2)``, likewise.
        camera: of the sensor noise.
        seeds: of each image, that of the Gaussian and that of the sensor noise.
    """

    order: list[list[str]]
    halve: list[str]
    factor: list[int]
    kernels: dict[str, Tensor]
    resize: list[str]
    nearest: list[float]
    up: list[float]
    ways: list[list[str]]
    mixing: Tensor
    tables: Tensor
    phase: Tensor
    camera: Camera
    seeds: list[list[int]]


class BSRGANDegradation(nn.Module):
    """The degradation model of Zhang, Liang, Van Gool and Timofte (ICCV 2021), section 3.

    Two Gaussian blurs, one resize, Gaussian noise, JPEG and sensor noise, in an order of each image's own, then a last
    JPEG. No camera is looked at: the ranges are so wide that most lie somewhere in them. ``eval()`` changes nothing.

    Where it departs from the paper: interpolations are widened where they shrink, as everywhere in this project. All
    cameras share one tone curve, and have other colour matrices (:mod:`realsr.sensor`); the authors fitted curves to
    five cameras. What the paper leaves open: chroma is halved on both axes, libjpeg's default; ``noise_level`` is the
    root mean square over the colours; covariances have a uniformly random basis, and variances uniform but for that.

    ``margin`` covers both blurs and the resize where the blurs come first. Blurs of an image that is already small
    reach further, up to 20 of its own pixels: there the rim is mirrored.

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
        shot: bounds of its shot noise, see :class:`realsr.sensor.Camera`.
        kernels: None, as ``noise`` and ``jpeg``: nothing is drawn from pools.
        noise: None.
        jpeg: None.

    Raises:
        InputError: a pool is given, or bounds make no sense.
    """

    def __init__(
        self,
        scale: int,
        kernel_sizes: tuple[int, int],
        isotropic: tuple[float, float],
        anisotropic: tuple[float, float],
        resizes: Sequence[Resize],
        nearest_blur: tuple[float, float],
        up_least: float,
        halve: float,
        noise_level: tuple[float, float],
        noise_kinds: tuple[float, float, float],
        quality: tuple[int, int],
        jpeg_share: float,
        sensor_share: float,
        exposure: tuple[float, float],
        gains: tuple[float, float],
        shot: tuple[float, float],
        kernels: KernelPool | None = None,
        noise: NoisePool | None = None,
        jpeg: JpegPool | None = None,
    ) -> None:
        super().__init__()
        refuse_pools("bsrgan", kernels=kernels, noise=noise, jpeg=jpeg)
        shares, endless = {"halve": halve, "jpeg_share": jpeg_share, "sensor_share": sensor_share}, math.inf
        for name, given, low, high in (
            ("kernel_sizes", kernel_sizes, 1, endless), ("noise_level", noise_level, 0, 255),
            ("isotropic", isotropic, 0.01, endless), ("anisotropic", anisotropic, 0.01, endless),
            ("nearest_blur", nearest_blur, 0.01, endless), ("up_least", (up_least,), 0.01, scale),
            ("noise_kinds", sorted(noise_kinds), 0, 1), *((name, (share,), 0, 1) for name, share in shares.items()),
            ("quality", quality, 1, 100), ("gains", gains, 0.01, endless), ("shot", shot, 1e-9, 1),
        ):  # fmt: skip
            check_bounds(name, given, low, high)
        if not resizes or not any(noise_kinds) or kernel_sizes[0] % 2 == 0 or kernel_sizes[1] % 2 == 0:
            raise InputError("data.degradation: give some resizes, some noise_kinds over 0, and odd kernel_sizes")
        self.scale, self.kernel_sizes = scale, kernel_sizes
        self.isotropic, self.anisotropic = isotropic, anisotropic
        self.resizes, self.nearest_blur, self.up_least = resizes, nearest_blur, up_least
        self.halve = halve if scale == 4 else 0.0
        self.noise_level, self.noise_kinds = noise_level, noise_kinds
        self.quality, self.jpeg_share, self.sensor_share = quality, jpeg_share, sensor_share
        self.exposure, self.gains, self.shot = exposure, gains, shot

    @property
    def margin(self) -> int:
        """Pixels around an HR crop to crop as well, a multiple of the scale."""
        reach = self.kernel_sizes[1] - 1 + max(2 * self.scale, NEAREST_TAPS // 2)
        return math.ceil(reach / self.scale) * self.scale

    @torch.no_grad()
    def forward(self, hr: Tensor, generator: torch.Generator, margin: int = 0) -> Tensor:
        """Degrade a batch. An image's LR depends on no other image of the batch.

        Args:
            hr: ``(N, 3, H + 2*margin, W + 2*margin)`` RGB in [0, 1]; H and W multiples of the scale.
            generator: the CPU's, whatever the device, so that the draws are the same everywhere.
            margin: real pixels around the wanted H x W, a multiple of the scale. An image that has some is a cut, and
                JPEG's grids of blocks start anywhere in it; else they start with the image.

        Returns:
            ``(N, 3, H/scale, W/scale)`` of 256 levels in [0, 1].
        """
        with torch.autocast(hr.device.type, enabled=False):
            plan = self.draw(len(hr), generator, cut=margin > 0)
            lr = shuffled(hr.float(), plan)
            cut = margin // self.scale
            lr = lr[..., cut : lr.shape[-2] - cut, cut : lr.shape[-1] - cut]
            return _compressed(lr, plan, list(range(len(lr))), 1)

    def draw(self, count: int, generator: torch.Generator, cut: bool) -> Plan:
        """Draw what happens to each of ``count`` images; ``cut`` as in :meth:`forward`, where there is a margin."""

        def uniform(low: float, high: float | Tensor, *more: int) -> Tensor:
            return low + (high - low) * torch.rand(count, *more, generator=generator)

        def chosen(options: Sequence[str], times: int = 1) -> list[list[str]]:
            picks = torch.randint(len(options), (count, times), generator=generator)
            return [[options[i] for i in row] for row in picks.tolist()]

        def blurs(sigmas: Tensor) -> Tensor:
            low, high = self.kernel_sizes
            sizes = 1 + 2 * torch.randint(low // 2, high // 2 + 1, (count,), generator=generator)
            drawn = zip(sizes.tolist(), sigmas.tolist(), uniform(0, math.pi).tolist(), strict=True)
            kernels = [framed(gaussian_kernel(size, (a, b), angle, 1), high) for size, (a, b), angle in drawn]
            return torch.from_numpy(np.stack(kernels)).float()

        share = {"jpeg": self.jpeg_share, "sensor": self.sensor_share}
        happens = uniform(0, 1, len(STEPS)) < torch.tensor([share.get(step, 1.0) for step in STEPS])
        places = uniform(0, 1, len(STEPS)).argsort(1)
        halves = uniform(0, 1) < self.halve
        factor = torch.where(halves, self.scale // 2, self.scale)
        order = [
            ["halve"] * half + [STEPS[i] for i in row if does[i]]
            for row, does, half in zip(places.tolist(), happens.tolist(), halves.tolist(), strict=True)
        ]
        one, two = uniform(*self.isotropic, 1).expand(-1, 2), uniform(*self.anisotropic, 2).sqrt()
        quality = torch.randint(self.quality[0], self.quality[1] + 1, (2 * count,), generator=generator)
        return Plan(
            order,
            [way for [way] in chosen(WAYS)],
            factor.tolist(),
            {"isotropic": blurs(one), "anisotropic": blurs(two)},
            [way for [way] in chosen(self.resizes)],
            uniform(self.nearest_blur[0], self.nearest_blur[1] * factor).tolist(),
            uniform(self.up_least, factor).tolist(),
            chosen(WAYS, 2),
            noise_mixing(uniform(*self.noise_level) / 255, self.noise_kinds, generator),
            standard_tables(quality).view(2, count, 2, BLOCK, BLOCK),
            torch.randint(2 * BLOCK if cut else 1, (2, count, 2), generator=generator),
            Camera.draw(count, self.exposure, self.gains, self.shot, generator),
            torch.randint(2**62, (count, 2), generator=generator).tolist(),
        )


def shuffled(hr: Tensor, plan: Plan) -> Tensor:
    """All of a plan but the last JPEG, ``(N, 3, H, W)`` to ``(N, 3, H/scale, W/scale)``, both in [0, 1].

    Images that have the same size and come to the same step take it together.
    """
    images = list(hr)
    for turn in range(max(map(len, plan.order))):
        groups: dict[tuple[str, int], list[int]] = {}
        for i, steps in enumerate(plan.order):
            for step in steps[turn : turn + 1]:
                groups.setdefault((step, images[i].shape[-1]), []).append(i)
        for (step, _), members in groups.items():
            batch = torch.stack([images[i] for i in members])
            for i, image in zip(members, _step(step, batch, plan, members).clamp(0, 1), strict=True):
                images[i] = image
    return torch.stack(images)


def _step(step: str, batch: Tensor, plan: Plan, members: list[int]) -> Tensor:
    """One step of the images ``members``, ``(n, 3, h, w)``."""
    if step in plan.kernels:
        return blur(batch, plan.kernels[step][members])
    if step == "noise":
        field = _fields(batch, [plan.seeds[i][0] for i in members])
        return batch + (sent(plan.mixing[members], batch.device) @ field.flatten(2)).view(batch.shape)
    if step == "jpeg":
        return _compressed(batch, plan, members, 0)
    if step == "sensor":
        field = _fields(batch[:, :1], [plan.seeds[i][1] for i in members])
        return photographed(batch, plan.camera.of(members, batch.device), field)
    sides = {side: torch.stack([_axis(step, side, plan, i) for i in members]) for side in batch.shape[2:]}
    rows, columns = (sent(sides[side][:, None], batch.device) for side in batch.shape[2:])
    return rows @ batch @ columns.mT


def noise_mixing(sigma: Tensor, kinds: Sequence[float], generator: torch.Generator) -> Tensor:
    """Draw square roots of covariances of the colours, ``(N, 3, 3)``: times normal numbers they are the noise.

    Args:
        sigma: ``(N,)`` root mean square of the colours' standard deviations.
        kinds: weights of noise with any covariance, of white noise (each colour its own), of gray noise (all one).
        generator: the CPU's.
    """
    count = len(sigma)
    basis = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator))[0]
    variances = torch.rand(count, 3, generator=generator)
    correlated = basis * (3 * variances / variances.sum(1, keepdim=True)).sqrt()[:, None]
    white, gray = torch.eye(3), torch.tensor([[1.0, 0, 0]] * 3)
    kind = torch.multinomial(torch.tensor(kinds), count, replacement=True, generator=generator)[:, None, None]
    return sigma[:, None, None] * torch.where(kind == 0, correlated, torch.where(kind == 1, white, gray))


def _fields(like: Tensor, seeds: list[int]) -> Tensor:
    """Independent normal numbers, drawn on the CPU, each image's from its own seed."""
    field = torch.empty(like.shape, pin_memory=like.is_cuda)  # large: else the copy waits for the device
    for plane, seed in zip(field, seeds, strict=True):
        plane.normal_(generator=torch.Generator().manual_seed(seed))
    return sent(field, like.device)


def _axis(step: str, side: int, plan: Plan, i: int) -> Tensor:
    """How image ``i`` is resized along an axis of ``side`` pixels, as a matrix."""
    if step == "halve":
        return resize_matrix(side, side // 2, plan.halve[i])
    way, after = plan.resize[i], side // plan.factor[i]
    if way == "nearest":
        return nearest_matrix(side, plan.factor[i], plan.nearest[i], NEAREST_TAPS)
    if way == "down_up":
        between = max(round(after * plan.up[i]), 1)
        return resize_matrix(between, after, plan.ways[i][1]) @ resize_matrix(side, between, plan.ways[i][0])
    return resize_matrix(side, after, way)


def _compressed(batch: Tensor, plan: Plan, members: list[int], which: int) -> Tensor:
    tables = sent(plan.tables[which, members], batch.device)
    return jpeg(batch, tables, torch.full((len(members), 2), 2), plan.phase[which, members])
