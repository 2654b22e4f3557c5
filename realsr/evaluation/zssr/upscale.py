"""From one photo to the same photo two or four times as large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from realsr.estimation.kernels import Kernel
from realsr.evaluation.zssr.module import ZSSR
from realsr.evaluation.zssr.pairs import kept_turns, shrunk
from realsr.imaging.resample import imresize
from realsr.imaging.symmetries import TURNS, turned, unturned
from realsr.networks.tiling import upscale_tiled
from realsr.runtime.errors import InputError
from realsr.runtime.single_photo import fit_photo, one_thread

TILE = 128  # pixels of the enlarged photo that the network works on at a time


def zero_shot(
    lr: Tensor,
    scale: int,
    module: Callable[[], ZSSR],
    kernels: Mapping[int, Kernel] | None = None,
    accelerator: str = "auto",
) -> Tensor:
    """Enlarge a photo by what it teaches itself. The result depends on the photo and the settings alone.

    x4 is x2 twice. The first doubling undoes the x2 kernel, the second one the kernel of :func:`second_kernel`.

    Args:
        lr: ``(3, h, w)`` in [0, 1], on any device.
        scale: 2 or 4.
        module: builds the module to train, e.g. ``functools.partial(ZSSR, iterations=500)``.
        kernels: correlation kernels by scale, as :class:`realsr.estimation.KernelEstimate` has them; None: bicubic.
        accelerator: Lightning's name of the device.

    Returns:
        ``(3, scale*h, scale*w)`` in [0, 1], float32, on the CPU.

    Raises:
        InputError: the photo is none, or too small; there is no such scale, kernel or accelerator.
    """
    check_zero_shot_scale(scale)
    _check(lr)
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
    """Raise InputError if ZSSR has no such scale."""
    if scale not in (2, 4):
        raise InputError(f"scale={scale}: ZSSR doubles photos, once or twice; take 2 or 4")


def second_kernel(two: Kernel, four: Kernel) -> Tensor | None:
    """What the second doubling has to undo so that both undo the x4 kernel: the x2 kernel once more, or bicubic.

    KernelGAN says that x4 is x2 twice (:func:`realsr.estimation.kernels.x4_from_x2`): the x2 kernel once more. Patch
    matching says that a camera blurs once, as wide in its own pixels at x4 as at x2: what is between is a sharp
    picture, and bicubic does it. Which of the two a x4 kernel means is seen by what each pair makes of white noise.

    Returns:
        ``(K, K)``, or None for bicubic.
    """
    noise = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    kernel = torch.from_numpy(two).float()
    wanted = shrunk(noise, 4, torch.from_numpy(four).float())
    errors = [float((shrunk(shrunk(noise, 2, k), 2, kernel) - wanted).square().mean()) for k in (kernel, None)]
    return kernel if errors[0] <= errors[1] else None


def _doubled(lr: Tensor, kernel: Tensor | None, module: ZSSR, accelerator: str, again: bool = False) -> Tensor:
    """Train on ``lr``, then apply the network turn by turn."""
    fit_photo(module, module.pairs(lr, kernel, again), accelerator)
    network, times = module.to(module.place), module.back_projections

    def enlarged(image: Tensor) -> Tensor:
        # as many layers as pixels that an output looks far, so that tiles meet without a seam
        return upscale_tiled(network, imresize(image, 2)[None].to(network.device), 1, TILE, network.layers)[0]

    outputs = self_ensemble(enlarged, lr, kept_turns(kernel))
    if not bool(torch.isfinite(outputs).all()):
        raise InputError("ZSSR's training diverged: lower zssr.learning_rate")
    outputs = torch.stack([back_projected(sr, lr, 2, kernel, times) for sr in outputs])
    return back_projected(median(outputs), lr, 2, kernel, times).clamp(0, 1)


def back_projected(sr: Tensor, lr: Tensor, scale: int, kernel: Tensor | None = None, times: int = 1) -> Tensor:
    """Correct ``sr`` so that, shrunk, it comes closer to ``lr`` (Irani and Peleg, 1991).

    Args:
        sr: ``(3, s*H, s*W)``.
        lr: ``(3, H, W)``.
        scale: between them.
        kernel: that ``lr`` was made with, ``(K, K)``; None: bicubic.
        times: each adds the difference, enlarged by bicubic.
    """
    for _ in range(times):
        sr = sr + imresize(lr - shrunk(sr, scale, kernel), scale)
    return sr


def self_ensemble(network: Callable[[Tensor], Tensor], image: Tensor, turns: Iterable[int] = TURNS) -> Tensor:
    """What a network makes of an image ``(3, H, W)`` in each of ``turns``, turned back: ``(T, 3, H', W')``."""
    return torch.stack([unturned(network(turned(image, turn)), turn) for turn in turns])


def median(images: Tensor) -> Tensor:
    """Of ``(T, ...)`` over the first axis: of an even number the mean of the two in the middle."""
    low, high = (len(images) + 1) // 2, len(images) // 2 + 1
    return (images.kthvalue(low, 0).values + images.kthvalue(high, 0).values) / 2


def _check(lr: Tensor) -> None:
    if lr.ndim != 3 or lr.shape[0] != 3 or not lr.is_floating_point():
        raise InputError(f"{lr.dtype} of shape {tuple(lr.shape)} is no photo: give a float tensor (3, H, W) in [0, 1]")
    if not bool(torch.isfinite(lr).all()):
        raise InputError("the photo has NaN or infinite pixels")
    if not (lr.min() >= 0 and lr.max() <= 1):
        raise InputError(f"the photo has pixels from {lr.min():g} to {lr.max():g}, must be in [0, 1]")
