"""LR from HR as in the paper: blur with a pooled kernel, subsample, add pooled noise; and compress."""

from __future__ import annotations

import torch
from torch import Tensor

from realsr.degradation.base import Degradation, Parameters
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool, NoisePool
from realsr.pools.sampling import KernelDraw, NoiseDraw


class PaperDegradation(Degradation):
    """``lr = (hr * k) subsampled by s + n`` (RealSR, Eq. 1), for a whole batch on its device, in float32.

    Every image draws its own kernel and its own noise patch. The blurred image is rounded to 8 bits before the noise is
    added, as the authors saved it to files; the sum is clamped to [0, 1]. The rows of the paper's ablation are the four
    combinations of the two pools.

    JPEG, which the paper has not, comes last, as in the camera. Tiles of noise cut from JPEG files are then compressed
    twice, which at qualities 60 and 75 loses 30 to 45 % of the noise's power over 0.3 cycles a pixel: for strong
    compression take noise from files of high quality, or leave JPEG out.

    Args:
        scale: integer subsampling factor.
        kernels: pool of this scale; None downscales with bicubic.
        noise: pool; None adds nothing.
        jpeg: pool; None compresses nothing.
        draw_kernels: how a kernel is drawn in training; in evaluation (``eval()``) always uniformly.
        draw_noise: how noise is drawn in training; in evaluation always uniformly, too.

    >>> kernels = KernelPool(torch.full((1, 9, 9), 1 / 81), ["a.jpg"])
    >>> PaperDegradation(4, kernels)(torch.rand(2, 3, 64, 64), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 16, 16])
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
        super().__init__(scale, kernels, jpeg, draw_kernels)
        self.noise, self.draw_noise = noise, draw_noise

    def sample_noise(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor | None:
        """Tiles and where they are cut."""
        how = self.draw_noise if self.training else NoiseDraw()
        return None if self.noise is None else how.draw(self.noise, count, size, generator)

    def uncompressed(self, hr: Tensor, drawn: Parameters, margin: int) -> Tensor:
        """Blurred and subsampled HR, plus noise."""
        lr = super().uncompressed(hr, drawn, margin)
        if self.noise is None or drawn.noise is None:
            return lr
        how = self.draw_noise if self.training else NoiseDraw()
        return (lr + how.noise(self.noise, drawn.noise, lr)).clamp(0, 1)
