"""From one photo to its kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from realsr.estimation.crops import Map, detailed_window
from realsr.estimation.kernelgan.module import KernelGAN
from realsr.estimation.kernels import Kernel
from realsr.estimation.noise_model import NoiseModel
from realsr.estimation.patch_matching import PatchMatching
from realsr.imaging import to_float
from realsr.runtime.errors import InputError
from realsr.runtime.single_photo import fit_photo, one_thread

Estimator = KernelGAN | PatchMatching
MAX_SIDE = 2048  # pixels of a photo that are looked at, on both sides


@dataclass(frozen=True)
class KernelEstimate:
    """What came out for a photo.

    Attributes:
        scale: that was asked for.
        kernels: by scale, all that the estimator gives. Correlation kernels, sum 1, float64.
        confidence: from 0 to 1.
        reasons: what speaks against the kernel; empty if nothing does.
        window: the part of the photo that was looked at, as slices of rows and columns.
        density: of the crops in it, ``(H, W)``, mean one.
        losses: last value of every loss, unweighted.
        iterations: that were run.
        blur: of the lens, covariance in squared pixels of the photo, ``(2, 2)``, for
            :func:`realsr.estimation.shrinkage.shrunk`; None where it is no Gaussian, or is to stay as it is.
        response: what the camera's development makes of small details, which is in the kernels too, ``(T, T)``.
    """

    scale: int
    kernels: dict[int, Kernel]
    confidence: float
    reasons: list[str]
    window: tuple[slice, slice]
    density: Map
    losses: dict[str, float]
    iterations: int
    blur: npt.NDArray[np.float64] | None = None
    response: Kernel | None = None

    @property
    def kernel(self) -> Kernel:
        """The one for ``scale``, ``(K, K)``."""
        return self.kernels[self.scale]


def estimate_kernel(
    image: Tensor | npt.ArrayLike,
    scale: int = 2,
    estimator: Callable[[], Estimator] = PatchMatching,
    accelerator: str = "auto",
    noise: NoiseModel | None = None,
) -> KernelEstimate:
    """Estimate the kernel with which sharp HR images are to be blurred so that they look like the photo.

    Of photos with more than 2048 pixels on a side, the window of that size with most edges is used. The result
    depends on the photo and the estimator's settings alone, not on threads or on what runs beside it.

    Args:
        image: ``(3, H, W)`` RGB or ``(1, H, W)`` gray in [0, 1]; or an array ``(H, W, 3)`` of 8 or 16 bits, or an RGB
            image of Pillow's.
        scale: subsampling factor that the kernel is meant for.
        estimator: builds the module to train, e.g. ``functools.partial(KernelGAN, iterations=1500)``.
        accelerator: Lightning's name of the device.
        noise: of the camera; None: that of the photo's flat tiles, and where it has none, white noise.

    Raises:
        InputError: the photo is too small, has no edges to learn from, or is no image; the estimator does not give
            kernels of this scale; or there is no such accelerator.
    """
    module = estimator()
    check_scale(scale, module)
    with one_thread():
        part, window = _part(image if isinstance(image, Tensor) else np.asarray(image))
        loader = module.crops(part, noise) if isinstance(module, PatchMatching) else module.crops(part)
        fit_photo(module, loader, accelerator)
    final = {name: value.item() for name, value in module.losses.items()}
    try:
        if not all(map(math.isfinite, final.values())):
            raise ValueError(f"losses are {final}")
        kernels, (confidence, reasons) = module.kernels(), module.confidence()
        blur = response = None
        if isinstance(module, PatchMatching):
            blur, response = module.mean_blur() if module.shrink else None, module.response
    except ValueError as e:
        diverged = f"training diverged after {module.iterations_done} iterations: lower estimator.learning_rate"
        raise InputError(diverged) from e
    fit = module.density, final, module.iterations_done
    return KernelEstimate(scale, kernels, confidence, reasons, window, *fit, blur, response)


def check_scale(scale: int, module: Estimator) -> None:
    """Raise InputError for a scale that the estimator gives no kernels for."""
    if scale not in module.scales:
        offered = ", ".join(f"x{scale}" for scale in module.scales)
        other = f"; with estimator.scale={scale} for x{scale}" if isinstance(module, KernelGAN) else ""
        raise InputError(f"scale={scale}: {type(module).__name__} gives kernels for {offered} only{other}")


def _part(image: Tensor | npt.NDArray[Any]) -> tuple[Tensor, tuple[slice, slice]]:
    """What is looked at, ``(3, H, W)`` in [0, 1], and where it lies."""
    kinds = ("torch.float32", "torch.float64") if isinstance(image, Tensor) else ("uint8", "uint16")
    colours = 0 if isinstance(image, Tensor) else -1
    if image.ndim != 3 or image.shape[colours] not in (1, 3) or 0 in image.shape or str(image.dtype) not in kinds:
        raise InputError(
            f"{image.dtype} of shape {tuple(image.shape)} is no photo: give a float tensor (3, H, W) in [0, 1], "
            "or an array (H, W, 3) of 8 or 16 bits"
        )
    pixels = image.detach().cpu().movedim(0, -1).numpy() if isinstance(image, Tensor) else image
    window = detailed_window(pixels, MAX_SIDE)
    part = torch.from_numpy(pixels[window]).movedim(-1, 0) if isinstance(image, Tensor) else to_float(pixels[window])
    if not bool(torch.isfinite(part).all()):
        raise InputError("the photo has NaN or infinite pixels")
    if (most := float(part.max())) > 2:  # noise may lead a little beyond 1
        raise InputError(f"the photo has pixels of {most:g}, must be in [0, 1]")
    return part.float().expand(3, -1, -1), window
