"""The base class of degradations: draws parameters for a batch, and makes LR with them on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from realsr.imaging import quantize
from realsr.imaging.jpeg import jpeg
from realsr.imaging.resample import blur_subsample, imresize
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool
from realsr.pools.sampling import KernelDraw
from realsr.runtime.errors import InputError
from realsr.runtime.hardware import to_device

Bounds = tuple[float, float]
Coding = tuple[Tensor, Tensor, Tensor | None]  # tables, subsampling and phase, as `realsr.imaging.jpeg.jpeg` takes them
Step = Callable[[Tensor], Tensor]  # of one image, (1, 3, h, w) in [0, 1]


class Parameters(NamedTuple):
    """Random parameters of the degradation of N images, drawn before the images are known.

    Attributes:
        kernels: ``(N, K, K)`` of sum one, for correlation; None: bicubic.
        noise: of the paper's degradation, tiles and their places by :meth:`realsr.pools.sampling.NoiseDraw.draw`; of a
            camera, independent normal numbers ``(N, 3, h, w)``; None: no noise.
        coding: of the JPEG compression; None: none.
        steps: for each image the steps that make its LR, where each has its own camera or order.
    """

    kernels: Tensor | None = None
    noise: Tensor | None = None
    coding: Coding | None = None
    steps: Sequence[Sequence[Step]] = ()


class Degradation(nn.Module):
    """LR from HR for a whole batch on its device, in float32: blurred with pooled kernels, subsampled, compressed.

    ``forward`` draws parameters (:meth:`draw`) and applies them (:meth:`degrade`). Every image draws its own kernel: in
    training as ``draw_kernels`` says, in evaluation (``eval()``) always uniformly, so that validation is the same
    however a run draws. Subclasses add noise (:meth:`sample_noise`, :meth:`uncompressed`), or draw all otherwise.

    Args:
        scale: integer subsampling factor.
        kernels: pool of this scale; None downscales with bicubic.
        jpeg: pool; None compresses nothing.
        draw_kernels: how a kernel is drawn in training.

    >>> degradation, hr, generator = Degradation(scale=4), torch.rand(2, 3, 64, 64), torch.Generator().manual_seed(0)
    >>> drawn = degradation.draw(2, (64, 64), generator)
    >>> lr = degradation.degrade(hr, drawn)  # both at once: degradation(hr, generator)
    >>> lr.shape
    torch.Size([2, 3, 16, 16])
    """

    rim = 0  # LR pixels around a crop that are made with it, and then cut off
    without_pools = ""  # the value of degradation= of a class that draws from no pool
    fitted: Mapping[str, Any] = {}  # keywords with which the same camera is made again without fitting it anew

    def __init__(
        self,
        scale: int = 4,
        kernels: KernelPool | None = None,
        jpeg: JpegPool | None = None,
        draw_kernels: KernelDraw = KernelDraw(),  # noqa: B008  (frozen)
    ) -> None:
        super().__init__()
        self.scale, self.kernels, self.jpeg, self.draw_kernels = scale, kernels, jpeg, draw_kernels

    @classmethod
    def check_pools(cls, kernels: object, noise: object, jpeg: object) -> None:
        """Raise InputError if a pool, or the folder that will hold it, is missing (None) or of no use."""
        for pool, given in {"kernel": kernels, "noise": noise, "jpeg": jpeg}.items():
            if cls.without_pools and given is not None:
                raise InputError(
                    f"degradation={cls.without_pools} draws from no pools; give data.pools.{pool}_dir=null and "
                    f"data.validation.{pool}_dir=null, and to validate on the camera's pairs data.validation.hr=DIR "
                    "data.validation.lr=DIR"
                )

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
        """Degrade a batch by parameters that are drawn for it.

        Args:
            hr: ``(N, 3, H + 2*margin, W + 2*margin)`` RGB in [0, 1]; H and W multiples of the scale.
            generator: the CPU's, whatever the device, so that the draws are the same everywhere.
            margin: real pixels around the wanted H x W, a multiple of the scale; mirrored where too few. An image that
                has some is a cut, and JPEG's grid of blocks starts anywhere in it; else it starts with the image.

        Returns:
            ``(N, 3, H/scale, W/scale)`` in [0, 1].
        """
        self.to(hr.device)  # a DataModule holds it, which Lightning does not move
        return self.degrade(hr, self.draw(len(hr), hr.shape[-2:], generator, margin), margin)

    def draw(self, count: int, size: Sequence[int], generator: torch.Generator, margin: int = 0) -> Parameters:
        """Draw the parameters for ``count`` images of ``size``, height and width in HR pixels with the margin.

        See :meth:`forward` for ``generator`` and ``margin``.
        """
        how = self.draw_kernels if self.training else KernelDraw()
        kernels = None if self.kernels is None else how.sample(self.kernels, count, self.scale, generator)
        noise = self.sample_noise(count, self.lr_size(size, margin), generator)
        coding = None if self.jpeg is None else self.jpeg.sample(count, generator, cut=margin > 0)
        return Parameters(kernels, noise, coding)

    def sample_noise(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor | None:
        """Draw :attr:`Parameters.noise` for ``count`` LR images of ``size``, height and width with the rim."""
        return None

    @torch.no_grad()
    def degrade(self, hr: Tensor, drawn: Parameters, margin: int = 0) -> Tensor:
        """Degrade a batch by drawn parameters; see :meth:`forward` for ``hr``, ``margin`` and the result."""
        rim = self._rim(margin)
        with torch.autocast(hr.device.type, enabled=False):
            lr = self.uncompressed(hr.float(), drawn, margin - rim * self.scale)
            lr = lr[..., rim : lr.shape[-2] - rim, rim : lr.shape[-1] - rim]
            if drawn.coding is None:
                return lr
            tables, subsampling, phase = drawn.coding
            return jpeg(lr, to_device(tables, lr.device), subsampling, phase)

    def uncompressed(self, hr: Tensor, drawn: Parameters, margin: int) -> Tensor:
        """LR before compression, in [0, 1], without the margin; here blurred and subsampled, of 256 levels."""
        return quantize(downscaled(hr, drawn.kernels, self.scale, margin))

    def lr_size(self, size: Sequence[int], margin: int) -> tuple[int, int]:
        """Height and width of LR with the rim, of HR with the margin."""
        height, width = (-(-(side - 2 * margin) // self.scale) + 2 * self._rim(margin) for side in size)
        return height, width

    def _rim(self, margin: int) -> int:
        return min(self.rim, margin // self.scale)


def downscaled(hr: Tensor, kernels: Tensor | None, scale: int, margin: int) -> Tensor:
    """Blur and subsample each of ``(N, 3, H, W)`` with its kernel, None: bicubic; without the margin."""
    if kernels is not None:
        return blur_subsample(hr, to_device(kernels, hr.device), scale, margin)
    cut, lr = margin // scale, imresize(hr, 1 / scale)
    return lr[..., cut : lr.shape[-2] - cut, cut : lr.shape[-1] - cut]


def through(images: Tensor, steps: Sequence[Sequence[Step]]) -> Tensor:
    """Take each of ``(N, 3, h, w)`` images through its own steps, in [0, 1] after every one."""
    made = []
    for image, own in zip(torch.split(images, 1), steps, strict=True):
        for step in own:
            image = step(image).clamp(0, 1)
        made.append(image)
    return torch.cat(made)


def check_bounds(*options: tuple[str, Sequence[float], float, float]) -> None:
    """Raise InputError unless the values of each option, ``(name, values, low, high)``, rise from low to high at most.

    >>> check_bounds(("quality", (30, 95), 1, 100))
    """
    for name, values, low, high in options:
        if not low <= values[0] <= values[-1] <= high:
            bounds = f"{values[0]:g}" if len(values) == 1 else f"[{values[0]:g},{values[-1]:g}]"
            raise InputError(f"data.degradation.{name}={bounds}: give {low:g} to {high:g}, the smaller first")
