"""Kernel maths: Gaussians, centring, clean-up after KernelGAN, x4 from x2, and how right a kernel is.

A kernel is a square float64 array ``(K, K)`` that sums to one and is applied by correlation in the phase convention of
:mod:`realsr.imaging.resample`. KernelGAN is Bell-Kligler et al., NeurIPS 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage, signal

from realsr.imaging.resample import cubic

Kernel = npt.NDArray[np.float64]
Array = npt.NDArray[np.float64]
GRID, TAPS = 64, 11  # sides of the frequency grid on which a response is computed, and of the response
DIVISION = 0.01  # squared gain under which a frequency counts as lost and is not restored
HR_BLUR = 0.25  # variance in HR pixels of the blur of sharp photographs themselves, see bench_kernel_accuracy.py


def centre_index(size: int, scale: int) -> float:
    """Index of the centre of mass, on both axes, of a kernel that does not shift the image.

    >>> centre_index(17, scale=2), centre_index(33, scale=4)
    (8.5, 17.5)
    """
    return size // 2 + (scale - 1) / 2


def centre_of_mass(kernel: Kernel) -> Array:
    """``(row, column)`` of the centre of mass, in indices (the centre of element 0 is 0)."""
    return np.array(ndimage.center_of_mass(kernel))


def gaussian_kernel(size: int, sigmas: tuple[float, float], angle: float, scale: int) -> Kernel:
    """Anisotropic Gaussian ``(size, size)``, centred for subsampling by ``scale``; 1 centres it on ``size // 2``.

    Args:
        size: side in pixels.
        sigmas: standard deviations along the two axes, in pixels of the large image; raises ValueError unless positive.
        angle: of the first axis against the x axis, in radians, counter-clockwise with y up.
        scale: subsampling factor.

    >>> gaussian_kernel(5, (1.0, 0.5), 0.0, scale=1)[2].round(3)
    array([0.043, 0.192, 0.317, 0.192, 0.043])
    """
    if min(sigmas) <= 0:
        raise ValueError(f"sigmas are {sigmas}, must be positive")
    offset = np.arange(size) - centre_index(size, scale)
    x, y = offset[None, :], -offset[:, None]
    along = x * math.cos(angle) + y * math.sin(angle)
    across = -x * math.sin(angle) + y * math.cos(angle)
    return normalise(np.exp(-0.5 * ((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2)))


def gaussian_of(size: int, covariance: Array, scale: int) -> Kernel:
    """Gaussian of a covariance ``[[xx, xy], [xy, yy]]`` in squared pixels, y down; see :func:`gaussian_kernel`."""
    values, vectors = np.linalg.eigh(covariance)
    angle = math.atan2(-vectors[1, 1], vectors[0, 1])
    return gaussian_kernel(size, (math.sqrt(values[1]), math.sqrt(values[0])), angle, scale)


def of_eigenvalues(matrices: Array, function: Callable[[Array], Array]) -> Array:
    """Apply a function to the eigenvalues of symmetric matrices ``(..., n, n)``."""
    values, vectors = np.linalg.eigh(matrices)
    return np.asarray((vectors * function(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2))


def kernel_of_blur(blur: Array, scale: int, size: int) -> Kernel:
    """The kernel ``(size, size)`` that gives sharp HR images a Gaussian blur when they are downscaled by ``scale``.

    ``blur`` is the covariance ``[[xx, xy], [xy, yy]]`` of the photo's blur in squared LR pixels, y down.
    """
    own = blur * scale**2 - HR_BLUR * np.eye(2)
    # a sampled Gaussian narrower than a third of a pixel is a single point
    return gaussian_of(size, of_eigenvalues(own, lambda values: values.clip(0.1)), scale)


def frequencies(side: int) -> Array:
    """Magnitude of the frequencies of ``fft2`` in cycles per pixel, ``(side, side)``."""
    along = np.fft.fftfreq(side)
    return np.hypot(along[:, None], along)


def kernel_of_gains(gains: Array) -> Kernel:
    """The kernel ``(11, 11)`` that multiplies :func:`frequencies` by real gains ``(64, 64)``."""
    inner = slice(GRID // 2 - TAPS // 2, GRID // 2 + TAPS // 2 + 1)
    return normalise(np.fft.fftshift(np.fft.ifft2(gains).real)[inner, inner])


def inverse(response: Kernel) -> Kernel:
    """Wiener filter ``(11, 11)`` that inverts a symmetric kernel, except at frequencies that it has suppressed."""
    size = len(response)
    gains = np.fft.fft2(np.roll(np.pad(response, (0, GRID - size)), (-(size // 2),) * 2, (0, 1))).real
    return kernel_of_gains(gains / (gains**2 + DIVISION))


def developed(kernel: Kernel, response: Kernel, scale: int) -> Kernel:
    """A kernel followed by a response that is applied after subsampling by ``scale``; of the kernel's size."""
    spread = np.zeros((scale * (len(response) - 1) + 1,) * 2)
    spread[::scale, ::scale] = response
    return normalise(signal.convolve(kernel, spread, mode="same"))


def normalise(kernel: npt.NDArray[np.floating]) -> Kernel:
    """Scale to a sum of one; raises ValueError if the sum is zero, negative or not finite."""
    total = float(kernel.sum())
    if not math.isfinite(total) or total <= 0:
        raise ValueError(f"kernel sums to {total}, cannot be normalised")
    return np.asarray(kernel, dtype=np.float64) / total


def framed(kernel: Kernel, size: int) -> Kernel:
    """Pad with zeros or crop to ``(size, size)``; index ``K//2`` becomes ``size//2``."""
    start = size + kernel.shape[0] // 2 - size // 2
    return np.pad(kernel, size)[start : start + size, start : start + size]


def recentre(kernel: Kernel, scale: int) -> Kernel:
    """Move the centre of mass to :func:`centre_index`, in a larger frame.

    The frame grows on every side by the whole pixels of the shift and one more, so that nothing is cut off (13 x 13
    becomes 17 x 17 after KernelGAN). Cubic-spline interpolation, as in the KernelGAN program.

    >>> centre_of_mass(recentre(gaussian_kernel(13, (1.5, 1.0), 0.5, scale=1), scale=2)).round(3)
    array([8.5, 8.5])
    """
    shift = centre_index(kernel.shape[0], scale) - centre_of_mass(kernel)
    grow = math.ceil(float(np.abs(shift).max())) + 1
    return normalise(ndimage.shift(np.pad(kernel, grow), shift))


def suppress_small(kernel: npt.NDArray[np.floating], count: int = 40) -> Kernel:
    """Subtract 0.75 x the ``count + 1``-th largest value, clip at zero, normalise (KernelGAN, supplementary)."""
    threshold = 0.75 * np.sort(kernel, axis=None)[-count - 1]
    return normalise(np.clip(kernel - threshold, 0, None))


def x4_from_x2(kernel: Kernel) -> Kernel:
    """The x4 kernel of two x2 steps with the same kernel (KernelGAN, section 3.3), ``(2K - 1, 2K - 1)``.

    The subsampling by 2 between the two blurs spreads the second kernel: ``k4 = k2 * (k2 with zeros between)``.

    >>> four = x4_from_x2(gaussian_kernel(17, (1.0, 1.0), 0.0, scale=2))
    >>> four.shape, round(widths_and_angle(four)[0], 3)  # sqrt(1 + 4) times as wide
    ((33, 33), 2.236)
    """
    size = kernel.shape[0]
    spread = np.zeros((2 * size - 1, 2 * size - 1))
    spread[::2, ::2] = kernel
    full = signal.convolve2d(kernel, spread)
    cut = 3 * (size // 2) - (2 * size - 1) // 2  # K//2 of both lies at 3 * (K//2) in `full`
    return normalise(full[cut : cut + 2 * size - 1, cut : cut + 2 * size - 1])


def bicubic_kernel(scale: int) -> Kernel:
    """Antialiased bicubic downscaling by ``scale`` as a kernel: the assumption of methods without kernels."""
    reach = math.ceil(2 * scale + (scale - 1) / 2)
    offsets = torch.arange(2 * reach + 1, dtype=torch.float64) - centre_index(2 * reach + 1, scale)
    taps = cubic(offsets / scale).numpy()
    return normalise(np.outer(taps, taps))


def aligned(kernel: Kernel, frame: int) -> Kernel:
    """Move the centre of mass to the middle of a ``frame x frame`` array, padded with zeros or cropped."""
    room = np.pad(np.asarray(kernel, dtype=np.float64), frame)  # for any shift
    start = (room.shape[0] - frame) // 2
    shift = start + (frame - 1) / 2 - centre_of_mass(room)
    return np.asarray(ndimage.shift(room, shift)[start : start + frame, start : start + frame])


def kernel_psnr(kernel: Kernel, truth: Kernel, frame: int = 21) -> float:
    """PSNR in dB (peak 1) of two kernels whose centres of mass were aligned; infinite for equal kernels.

    DIV2KRK's frames are 11 for x2 and 21 for x4. An off-centre kernel only shifts the image.

    >>> truth = gaussian_kernel(21, (2.0, 1.5), 0.3, scale=4)
    >>> round(kernel_psnr(gaussian_kernel(21, (2.2, 1.5), 0.3, scale=4), truth), 1)
    64.1
    """
    error = float(((aligned(kernel, frame) - aligned(truth, frame)) ** 2).mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def max_normalised_correlation(kernel: Kernel, truth: Kernel) -> float:
    """MNC, the kernel similarity of Hu and Yang (ECCV 2012): the largest cross-correlation over all shifts.

    In [-1, 1]; 1 for equal shapes whatever their position and size.

    >>> round(max_normalised_correlation(bicubic_kernel(4), gaussian_kernel(33, (4.0, 2.5), 0.3, scale=4)), 2)
    0.77
    """
    correlation = signal.correlate2d(kernel, truth)
    return float(correlation.max() / (np.linalg.norm(kernel) * np.linalg.norm(truth)))


def covariance(kernel: Kernel) -> Array:
    """Second central moments ``[[yy, yx], [xy, xx]]`` in squared pixels."""
    weight = np.asarray(kernel, dtype=np.float64) / kernel.sum()
    offsets = (np.indices(kernel.shape) - centre_of_mass(weight)[:, None, None]).reshape(2, -1)
    return np.asarray((offsets * weight.ravel()) @ offsets.T)


def gaussian_like(kernel: Kernel, frequency: float) -> Array:
    """Covariance ``[[xx, xy], [xy, yy]]`` of the Gaussian with the kernel's gain at a frequency in cycles per pixel.

    In squared pixels, y down. Moments of a kernel with halos and ripples say little about its width.
    """
    y, x = np.indices(kernel.shape)
    along, across, slanted = (
        -np.log(abs((kernel * np.exp(2j * np.pi * frequency * phase)).sum())) / (2 * np.pi**2 * frequency**2)
        for phase in (x, y, (x + y) / math.sqrt(2))
    )
    mixed = slanted - (along + across) / 2
    return np.array([[along, mixed], [mixed, across]])


def widths_and_angle(kernel: Kernel) -> tuple[float, float, float]:
    """``(wide, narrow, angle)``: standard deviations along the principal axes in pixels, and the wider axis' angle.

    Negative values, the halos of sharpening, are left out. The angle is that of :func:`gaussian_kernel`, in [0, pi].

    >>> [round(value, 3) for value in widths_and_angle(gaussian_kernel(33, (3.0, 1.5), 0.5, scale=4))]
    [3.0, 1.5, 0.5]
    """
    variances, axes = np.linalg.eigh(covariance(kernel.clip(0)))
    narrow, wide = np.sqrt(np.clip(variances, 0, None))
    y, x = axes[:, 1]
    return float(wide), float(narrow), math.atan2(-y, x) % math.pi
