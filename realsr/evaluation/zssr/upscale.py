"""From one photo to the same photo two or four times as large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from realsr.estimation.kernels import Kernel
from realsr.evaluation.zssr.module import ZSSR
from realsr.evaluation.zssr.pairs import kernel_symmetries, shrunk
from realsr.imaging.resample import imresize
from realsr.imaging.symmetries import TURNS, turned, unturned
from realsr.networks.tiling import upscale_tiled
from realsr.runtime.errors import InputError
from realsr.runtime.single_photo import fit_photo, one_thread

TILE = 128  # side in pixels of the tiles of the enlarged photo


def zero_shot(
    lr: Tensor,
    scale: int,
    module: Callable[[], ZSSR],
    kernels: Mapping[int, Kernel] | None = None,
    accelerator: str = "auto",
) -> Tensor:
    """Enlarge a photo by a network trained on it. The result depends on the photo and the settings alone.

    x4 is x2 twice: the first doubling inverts the x2 kernel, the second one the kernel of :func:`second_kernel`.

    Args:
        lr: ``(3, h, w)`` in [0, 1], on any device.
        scale: 2 or 4.
        module: builds the module to train, e.g. ``functools.partial(ZSSR, iterations=500)``.
        kernels: correlation kernels by scale, as in :class:`realsr.estimation.KernelEstimate`; None is bicubic.
        accelerator: Lightning's name of the device.

    Returns:
        ``(3, scale*h, scale*w)`` in [0, 1], float32, on the CPU.

    Raises:
        InputError: ``lr`` is too small; there is no such scale, kernel or accelerator.

    >>> from functools import partial
    >>> zero_shot(torch.rand(3, 16, 16), 2, partial(ZSSR, iterations=1, channels=4, layers=2, crop=8)).shape
    torch.Size([3, 32, 32])
    """
    check_zero_shot_scale(scale)
    network, photo, first = module(), lr.detach().cpu().float(), None
    if kernels is not None:
        if missing := [size for size in (2, 4) if size <= scale and size not in kernels]:
            raise InputError(f"there is no kernel for x{missing[0]}, which ZSSR needs for x{scale}")
        first = torch.from_numpy(kernels[2]).float()
    with one_thread():
        sr = _doubled(photo, first, network, accelerator)
        if scale == 2:
            return sr
        second = None if kernels is None else second_kernel(kernels[2], kernels[4])
        return _doubled(sr, second, network, accelerator, again=True)


def check_zero_shot_scale(scale: int) -> None:
    """Raise InputError if the scale is neither 2 nor 4."""
    if scale not in (2, 4):
        raise InputError(f"scale={scale}: ZSSR doubles photos, once or twice; take 2 or 4")


def second_kernel(two: Kernel, four: Kernel) -> Tensor | None:
    """The kernel that the second doubling inverts, so that both invert the x4 kernel: the x2 kernel, or bicubic (None).

    KernelGAN's x4 kernel is x2 twice (:func:`realsr.estimation.kernels.x4_from_x2`). Patch matching's camera blurs
    once, as wide in its own pixels at x4 as at x2, so the intermediate image is sharp and bicubic makes it. Which of
    the two a x4 kernel means is decided on white noise.
    """
    noise = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    kernel = torch.from_numpy(two).float()
    wanted = shrunk(noise, 4, torch.from_numpy(four).float())
    errors = [float((shrunk(shrunk(noise, 2, k), 2, kernel) - wanted).square().mean()) for k in (kernel, None)]
    return kernel if errors[0] <= errors[1] else None


def _doubled(lr: Tensor, kernel: Tensor | None, module: ZSSR, accelerator: str, again: bool = False) -> Tensor:
    """Train on ``lr``, then apply the network in all orientations that keep the kernel."""
    fit_photo(module, module.pairs(lr, kernel, again), accelerator)
    network, times = module.to(module.place), module.back_projections

    def enlarged(image: Tensor) -> Tensor:
        # a 3x3 layer sees one pixel further, so tiles with this overlap have no seams
        return upscale_tiled(network, imresize(image, 2)[None].to(network.device), 1, TILE, network.layers)[0]

    outputs = self_ensemble(enlarged, lr, kernel_symmetries(kernel))
    if not bool(torch.isfinite(outputs).all()):
        raise InputError("ZSSR's training diverged: lower zssr.learning_rate")
    outputs = torch.stack([back_projected(sr, lr, 2, kernel, times) for sr in outputs])
    median = torch.from_numpy(np.median(outputs.numpy(), 0))
    return back_projected(median, lr, 2, kernel, times).clamp(0, 1)


def back_projected(sr: Tensor, lr: Tensor, scale: int, kernel: Tensor | None = None, times: int = 1) -> Tensor:
    """Correct ``sr (3, s*H, s*W)`` so that its downscaled version comes closer to ``lr`` (Irani and Peleg, 1991).

    Each of the steps adds the difference, enlarged by bicubic; ``kernel (K, K)`` is that of ``lr``, None is bicubic.
    """
    for _ in range(times):
        sr = sr + imresize(lr - shrunk(sr, scale, kernel), scale)
    return sr


def self_ensemble(network: Callable[[Tensor], Tensor], image: Tensor, symmetries: Iterable[int] = TURNS) -> Tensor:
    """A network's outputs on an image ``(3, H, W)`` in some orientations, transformed back: ``(T, 3, H', W')``."""
    return torch.stack([unturned(network(turned(image, index)), index) for index in symmetries])
