"""How the camera makes lr out of hr: blur with a pooled kernel, subsample, add pooled noise, compress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from realsr.imaging import quantize
from realsr.imaging.jpeg import jpeg
from realsr.imaging.resample import blur_subsample, imresize
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool, NoisePool
from realsr.pools.sampling import KernelDraw, NoiseDraw
from realsr.runtime.errors import InputError

Bounds = tuple[float, float]
Coding = tuple[Tensor, Tensor, Tensor | None]  # tables, subsampling and phase, as `realsr.imaging.jpeg.jpeg` takes them


class Degradation(nn.Module):
    """``lr = (hr * k) subsampled by s + n`` (RealSR, Eq. 1), for a whole batch on its device, in float32.

    Every image draws its own kernel and its own noise patch: in training as ``draw_kernels`` and ``draw_noise`` say, in
    evaluation (``eval()``) always uniformly, so that validation is the same however a run draws. The blurred image is
    rounded to 8 bits before the noise is added, as it was saved to files by the authors; the sum is clamped to [0, 1].
    The rows of the paper's ablation are the four combinations of the two pools.

    JPEG, which the paper has not, comes last, as in the camera. Tiles of noise cut from JPEG files are then compressed
    twice: in flat regions of files with noise of 8 levels, that changes its standard deviation by -8 to -4 % at
    qualities 60 and 75, where over 0.3 cycles a pixel 30 to 45 % of the noise's power are lost, and by 0 to 6 % at 90
    and 97. So with strong compression take noise from files of high quality, or leave JPEG out.

    Other degradations are subclasses, with steps of their own in place of ``downscaled``, ``picture`` and ``coding``.

    Args:
        scale: integer subsampling factor.
        kernels: pool of this scale; None downscales with bicubic.
        noise: pool; None adds nothing.
        jpeg: pool; None compresses nothing.
        draw_kernels: how a kernel is drawn in training.
        draw_noise: how noise is drawn in training.
    """

    rim = 0  # LR pixels around a crop that are made with it, and then cut off
    drawn: ClassVar[tuple[str, ...]] = ("kernels", "noise", "jpeg")  # pools that an image draws from

    def __init__(
        self,
        scale: int = 4,
        kernels: KernelPool | None = None,
        noise: NoisePool | None = None,
        jpeg: JpegPool | None = None,
        draw_kernels: KernelDraw = KernelDraw(),  # noqa: B008  (frozen)
        draw_noise: NoiseDraw = NoiseDraw(),  # noqa: B008
    ) -> None:
        super().__init__()
        self.scale, self.kernels, self.noise, self.jpeg = scale, kernels, noise, jpeg
        self.draw_kernels, self.draw_noise = draw_kernels, draw_noise
        self.place = torch.device("cpu")

    @property
    def margin(self) -> int:
        """Pixels around an HR crop that are read, a multiple of the scale: crop that much more."""
        reach = 2 * self.scale
        if self.kernels is not None:
            size = self.kernels.kernels.shape[-1]
            reach = size // 2 + self.draw_kernels.grow(size, self.scale)
        return (-(-reach // self.scale) + self.rim) * self.scale

    @torch.no_grad()
    def forward(self, hr: Tensor, generator: torch.Generator, margin: int = 0) -> Tensor:
        """Degrade a batch.

        Args:
            hr: ``(N, 3, H + 2*margin, W + 2*margin)`` RGB in [0, 1]; H and W multiples of the scale.
            generator: the CPU's, whatever the device, so that the draws are the same everywhere.
            margin: real pixels around the wanted H x W, a multiple of the scale; mirrored where too few. An image that
                has some is a cut, and JPEG's grid of blocks starts anywhere in it; else it starts with the image.

        Returns:
            ``(N, 3, H/scale, W/scale)`` in [0, 1].
        """
        if hr.device != self.place:  # pools are no parameters, so they move with the data, once
            self.place = hr.device
            for name in self.drawn:
                pool = getattr(self, name)
                setattr(self, name, None if pool is None else pool.to(hr.device))
        with torch.autocast(hr.device.type, enabled=False):
            rim = min(self.rim, margin // self.scale)
            lr = self.picture(self.downscaled(hr.float(), generator, margin - rim * self.scale), generator)
            lr = lr[..., rim : lr.shape[-2] - rim, rim : lr.shape[-1] - rim]
            coding = self.coding(len(lr), generator, cut=margin > 0)
            return lr if coding is None else jpeg(lr, *coding)

    def downscaled(self, hr: Tensor, generator: torch.Generator, margin: int) -> Tensor:
        """Blurred and subsampled, without the margin."""
        if self.kernels is None:
            cut = margin // self.scale
            lr = imresize(hr, 1 / self.scale)
            return lr[..., cut : lr.shape[-2] - cut, cut : lr.shape[-1] - cut]
        draw = self.draw_kernels if self.training else KernelDraw()
        return blur_subsample(hr, draw.sample(self.kernels, len(hr), self.scale, generator), self.scale, margin)

    def picture(self, lr: Tensor, generator: torch.Generator) -> Tensor:
        """With noise, in [0, 1]."""
        lr = quantize(lr)
        if self.noise is not None:
            how = self.draw_noise if self.training else NoiseDraw()
            size = lr.shape[-2], lr.shape[-1]
            lr = lr + self.noise.sample(len(lr), size, generator, lr, how.nearest, how.detrend)
        return lr.clamp(0, 1)

    def coding(self, count: int, generator: torch.Generator, cut: bool) -> Coding | None:
        """How so many images are compressed; ``cut`` as in :meth:`forward`, where there is a margin."""
        return None if self.jpeg is None else self.jpeg.sample(count, generator, cut)


def check_bounds(name: str, given: Sequence[float], low: float, high: float) -> None:
    """Raise InputError unless what is given for a degradation's option goes up, within these bounds."""
    if not low <= given[0] <= given[-1] <= high:
        bounds = f"{given[0]:g}" if len(given) == 1 else f"[{given[0]:g},{given[-1]:g}]"
        raise InputError(f"data.degradation.{name}={bounds}: give {low:g} to {high:g}, the smaller first")


def refuse_pools(name: str, **pools: object) -> None:
    """Raise InputError if a pool is given to the degradation of that name, which draws from none."""
    for pool, given in pools.items():
        if given is not None:
            option = f"{'kernel' if pool == 'kernels' else pool}_dir"
            raise InputError(
                f"degradation={name} draws from no pools; give data.pools.{option}=null and data.validation.{option}="
                "null, and to validate on the camera's pairs data.validation.hr=DIR data.validation.lr=DIR"
            )
