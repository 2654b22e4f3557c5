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

from realsr.estimation.crops import Map
from realsr.estimation.kernelgan.module import KernelGAN
from realsr.estimation.kernels import Kernel
from realsr.estimation.noise_model import NoiseModel
from realsr.estimation.patch_matching import PatchMatching
from realsr.imaging import to_float
from realsr.imaging.detail import detailed_window
from realsr.runtime.errors import InputError
from realsr.runtime.single_photo import fit_photo, one_thread

Estimator = KernelGAN | PatchMatching
MAX_SIDE = 2048  # pixels of a photo that are looked at, on both sides


@dataclass(frozen=True)
class KernelEstimate:
    """The estimate of one photo.

    Attributes:
        scale: the requested scale.
        kernels: by scale, for all scales of the estimator.
        confidence: in [0, 1].
        reasons: why the confidence is low; empty if it is not.
        window: rows and columns of the part of the photo that was used.
        density: of the crops in the window, ``(H, W)``, mean one.
        losses: last value of every loss, unweighted.
        iterations: number of iterations.
        blur: covariance ``(2, 2)`` of the lens' blur in squared pixels of the photo, for
            :func:`realsr.estimation.shrinkage.shrunk_blurs`; None if it is no Gaussian or is not to be shrunk.
        response: kernel ``(T, T)`` of the camera's development on small details, which the kernels contain.
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
        """The kernel of ``scale``, ``(K, K)``."""
        return self.kernels[self.scale]


def estimate_kernel(
    image: Tensor | npt.ArrayLike,
    scale: int = 2,
    estimator: Callable[[], Estimator] = PatchMatching,
    accelerator: str = "auto",
    noise: NoiseModel | None = None,
) -> KernelEstimate:
    """Estimate the kernel that makes sharp HR images as blurred as the photo when they are downscaled.

    A photo of more than 2048 pixels a side is cut to the window of that size with most edges. The result depends on
    the photo and the estimator's settings alone.

    Args:
        image: ``(3, H, W)`` RGB or ``(1, H, W)`` gray in [0, 1]; or an array ``(H, W, 3)`` of 8 or 16 bits, or a
            Pillow image in RGB.
        scale: subsampling factor of the kernel.
        estimator: builds the module to train, e.g. ``functools.partial(KernelGAN, iterations=1500)``.
        accelerator: Lightning's name of the device.
        noise: the camera's; None measures it in the photo's flat tiles, or takes it for white if there are none.

    Raises:
        InputError: the photo is too small, has no edges, or is no image; the estimator does not give kernels of this
            scale; or there is no such accelerator.

    >>> from functools import partial
    >>> photo = torch.rand(3, 80, 80, generator=torch.Generator().manual_seed(0))
    >>> found = estimate_kernel(photo, 2, partial(PatchMatching, iterations=2, crops_per_part=1), "cpu")
    >>> found.kernel.shape, sorted(found.kernels), found.reasons[0]
    ((17, 17), [2, 3, 4], '86% of the detail is noise')
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
    """Raise InputError for a scale of which the estimator gives no kernels."""
    if scale not in module.scales:
        offered = ", ".join(f"x{scale}" for scale in module.scales)
        other = f"; with estimator.scale={scale} for x{scale}" if isinstance(module, KernelGAN) else ""
        raise InputError(f"scale={scale}: {type(module).__name__} gives kernels for {offered} only{other}")


def _part(image: Tensor | npt.NDArray[Any]) -> tuple[Tensor, tuple[slice, slice]]:
    """The part of the photo to use, ``(3, H, W)`` in [0, 1], and its rows and columns."""
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
    if (most := float(part.max())) > 2:  # noise may exceed 1 a little
        raise InputError(f"the photo has pixels of {most:g}, must be in [0, 1]")
    return part.float().expand(3, -1, -1), window
