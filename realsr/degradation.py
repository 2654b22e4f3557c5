"""How the camera makes lr out of hr: blur with a pooled kernel, subsample, add pooled noise, compress."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from realsr.draws import KernelDraw, NoiseDraw
from realsr.errors import InputError
from realsr.images import quantize
from realsr.jpeg import jpeg
from realsr.jpeg_pool import JpegPool
from realsr.pools import KernelPool, NoisePool
from realsr.resample import blur_subsample, imresize


class Degradation(nn.Module):
    """``lr = (hr * k) subsampled by s + n`` (RealSR, Eq. 1), for a whole batch on its device, in float32.

    Every image draws its own kernel and its own noise patch: in training as ``draw_kernels`` and ``draw_noise`` say, in
    evaluation (``eval()``) always uniformly, so that validation is the same however a run draws. The blurred image is
    rounded to 8 bits before the noise is added, as it was saved to files by the authors; the sum is clamped to [0, 1].
    The rows of the paper's ablation are the four combinations of the two pools.

    JPEG, which the paper has not, comes last, as in the camera: LR is to look like its files, compressed at their own
    pixels. Tiles of noise cut from JPEG files hold what compression left of the noise, and are then compressed twice.
    In flat regions of files with noise of 8 levels, that changes its standard deviation by -8 to -4 % at qualities 60
    and 75, where over 0.3 cycles a pixel 30 to 45 % of the noise's power are lost, and by 0 to 6 % at 90 and 97. Noise
    alone is right there, but shows none of compression's ringing at edges. So with strong compression take noise from
    files of high quality, or leave JPEG out.

    Args:
        scale: integer subsampling factor.
        kernels: pool of this scale; None downscales with bicubic.
        noise: pool; None adds nothing.
        jpeg: pool; None compresses nothing.
        draw_kernels: how a kernel is drawn in training.
        draw_noise: how noise is drawn in training.
    """

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
        self.draw_kernels, self.draw_noise = draw_kernels, draw_noise
        self.scale, self.kernels, self.noise, self.jpeg = scale, kernels, noise, jpeg

    @property
    def margin(self) -> int:
        """Pixels around an HR crop that the blur reads, a multiple of the scale: crop that much more."""
        reach = 2 * self.scale
        if self.kernels is not None:
            size = self.kernels.kernels.shape[-1]
            reach = size // 2 + self.draw_kernels.grow(size, self.scale)
        return -(-reach // self.scale) * self.scale

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
        self._follow(hr.device)
        with torch.autocast(hr.device.type, enabled=False):
            hr = hr.float()
            if self.kernels is None:
                cut = margin // self.scale
                lr = imresize(hr, 1 / self.scale)
                lr = lr[..., cut : lr.shape[-2] - cut, cut : lr.shape[-1] - cut]
            else:
                draw = self.draw_kernels if self.training else KernelDraw()
                kernels = draw.sample(self.kernels, len(hr), self.scale, generator)
                lr = blur_subsample(hr, kernels, self.scale, margin)
        lr = quantize(lr)
        if self.noise is not None:
            how = self.draw_noise if self.training else NoiseDraw()
            size = lr.shape[-2], lr.shape[-1]
            lr = lr + self.noise.sample(len(lr), size, generator, lr, how.nearest, how.detrend)
        lr = lr.clamp(0, 1)
        if self.jpeg is not None:
            with torch.autocast(lr.device.type, enabled=False):
                lr = jpeg(lr, *self.jpeg.sample(len(lr), generator, cut=margin > 0))
        return lr

    def _follow(self, device: torch.device) -> None:
        """Pools are no parameters, so they move with the data, once."""
        if self.kernels is not None and self.kernels.kernels.device != device:
            self.kernels = self.kernels.to(device)
        if self.noise is not None and self.noise.tiles.device != device:
            self.noise = self.noise.to(device)
        if self.jpeg is not None and self.jpeg.tables.device != device:
            self.jpeg = self.jpeg.to(device)


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
                f"degradation={name} draws from no pools; give data.{option}=null and data.val_{option}=null, and to "
                "validate on the camera's pairs data.val_hr=DIR data.val_lr=DIR"
            )
