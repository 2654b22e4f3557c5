"""Resampling: MATLAB-like bicubic, and blur with a kernel per image followed by subsampling.

Phase convention. Pixel ``i`` of an image that is ``s`` times smaller covers pixels ``s*i .. s*i + s-1`` of the
large one, so its centre lies at ``s*i + (s-1)/2``: the grid of bicubic resizing in MATLAB, Pillow and OpenCV.
Kernels are applied by correlation, ``lr[i] = sum_j k[j] * hr[s*i + j - K//2]``, so a kernel of size ``K`` moves
nothing when its centre of mass lies at index ``K//2 + (s-1)/2`` on both axes
(:func:`realsr.estimation.kernels.recentre` puts it there). That is also how the files of the KernelGAN
program are meant, so pools interchange.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

from realsr.runtime.errors import InputError
from realsr.runtime.hardware import to_device

PIECE = 2**18  # pixels that a CPU works on at a time: 12 megapixels all at once take four times as long
LARGEST_BAND = 2**23  # pixels of a resized picture that are handed on at once


def imresize(image: Tensor, scale: float) -> Tensor:
    """Bicubic resize as MATLAB's ``imresize`` does it: cubic a = -0.5, widened by 1/scale when it shrinks.

    Borders are mirrored with the edge pixel repeated. Differentiable, on any device.

    >>> imresize(torch.arange(8.0).expand(1, 8, 8), 1 / 2)[0, 0]
    tensor([0.4492, 2.4883, 4.5117, 6.5508])

    Args:
        image: ``(..., H, W)`` floating point, any range.
        scale: output size over input size, e.g. 1/4 or 2.

    Returns:
        ``(..., ceil(H*scale), ceil(W*scale))``, not clamped: bicubic overshoots.
    """
    for axis in (-2, -1):
        image = _weighted(image, axis, *_taps(image.shape[axis], scale))
    return image


def resized_length(length: int, scale: float) -> int:
    """The length of a side after :func:`imresize`.

    >>> resized_length(37, 1 / 3)
    13
    """
    return math.ceil(length * scale - 1e-9)


def blur_subsample(hr: Tensor, kernels: Tensor, scale: int, margin: int = 0) -> Tensor:
    """Correlate every image with its own kernel, computed only at the pixels that subsampling keeps.

    >>> kernel = torch.zeros(1, 3, 3)
    >>> kernel[0, 1, 2] = 1  # takes the right neighbour of every kept pixel
    >>> blur_subsample(torch.arange(8.0).expand(1, 1, 2, 8), kernel, scale=2)
    tensor([[[[1., 3., 5., 7.]]]])

    Args:
        hr: ``(N, C, H + 2*margin, W + 2*margin)``, any range; H and W multiples of ``scale``.
        kernels: ``(N, K, K)``, one per image, or ``(1, K, K)`` for all; placed by the module's phase convention.
        scale: integer factor.
        margin: pixels of the picture around the H x W; beyond them it is mirrored with the edge pixel repeated.

    Returns:
        ``(N, C, H/scale, W/scale)``.
    """
    n = hr.shape[0]
    height, width = hr.shape[-2] - 2 * margin, hr.shape[-1] - 2 * margin
    if height % scale or width % scale:
        raise ValueError(f"hr of {height}x{width} (margin {margin} left out) is no multiple of scale {scale}")
    size = kernels.shape[-1]
    # taps of the last kept pixel end `scale - 1` short of the border, so that much less is needed there
    before, after = size // 2, max(size - size // 2 - scale, 0)
    hr = _framed(hr, before - margin, after - margin)
    # colours as the batch, images as the groups: one grouped convolution with a kernel for each image
    kernels = kernels.expand(n, size, size).to(hr.dtype)
    lr = F.conv2d(hr.transpose(0, 1), kernels[:, None], stride=scale, groups=n)
    return lr[..., : height // scale, : width // scale].transpose(0, 1).contiguous()


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate every image with its own kernel, borders mirrored with the edge pixel repeated.

    It uses the FFT, which is several times as fast on a CPU as a convolution with 21 x 21 taps.

    >>> blur(torch.ones(1, 3, 8, 8), torch.full((1, 5, 5), 1 / 25)).allclose(torch.ones(1, 3, 8, 8))
    True

    Args:
        images: ``(N, C, H, W)`` on any device.
        kernels: ``(N, K, K)`` on the CPU, K odd, with their middle at ``K//2`` (the phase of a scale of 1).
    """
    reach, size = kernels.shape[-1] // 2, images.shape[-2:]
    images = _framed(images, reach, reach)
    padded = [next_fast_len(side + 2 * reach, real=True) for side in size]
    spectrum = torch.fft.rfft2(to_device(kernels, images.device), padded).conj()[:, None]
    return torch.fft.irfft2(torch.fft.rfft2(images, padded) * spectrum, padded)[..., : size[0], : size[1]]


def _framed(image: Tensor, before: int, after: int) -> Tensor:
    """Both axes longer by ``before`` and ``after`` mirrored pixels, or cropped where the numbers are negative."""
    for axis in (-2, -1):
        size = image.shape[axis]
        if max(before, after) <= 0:
            image = image.narrow(axis, -before, size + before + after)
        else:
            image = image.index_select(axis, to_device(mirror(torch.arange(-before, size + after), size), image.device))
    return image


def mirror(index: Tensor, size: int) -> Tensor:
    """Fold any index into ``0 .. size-1`` by mirroring with the edge pixel repeated: b a | a b c | c b.

    >>> mirror(torch.arange(-2, 5), 3)
    tensor([1, 0, 0, 1, 2, 2, 1])
    """
    index = index % (2 * size)
    return torch.where(index < size, index, 2 * size - 1 - index)


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5.

    >>> cubic(torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]))
    tensor([ 1.0000,  0.5625,  0.0000, -0.0625,  0.0000])
    """
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


def resize_bands(bands: Iterable[Tensor], height: int, scale: float) -> Iterator[Tensor]:
    """:func:`imresize` of an image that comes in bands of rows; only rows that are still needed are kept.

    >>> bands = torch.rand(3, 40, 30).split(16, dim=1)
    >>> sum(band.shape[1] for band in resize_bands(bands, 40, 1 / 4))
    10

    Args:
        bands: ``(C, h, W)`` each, top to bottom.
        height: of all bands together.
        scale: as for :func:`imresize`.

    Yields:
        ``(C, h', W')``, top to bottom.
    """
    index, weight = _taps(height, scale)
    last = index.amax(1).cummax(0).values  # the last row that each row of the result needs
    done, first, kept = 0, 0, None
    for band in bands:
        band = _weighted(band, -1, *_taps(band.shape[-1], scale))
        kept = band if kept is None else torch.cat((kept, band), 1)
        ready = int(torch.searchsorted(last, first + kept.shape[1]))
        step = max(LARGEST_BAND // band.shape[-1], 1)
        for start in range(done, ready, step):
            end = min(start + step, ready)
            yield _weighted(kept, 1, index[start:end] - first, weight[start:end])
        if ready > done:
            done = ready
            if done < len(index):
                needed = int(index[done:].min())
                kept, first = kept[:, needed - first :], needed


def _taps(size: int, scale: float) -> tuple[Tensor, Tensor]:
    """The pixels of an axis that make up each pixel of the result, and their weights; both ``(out, taps)``."""
    stretch = min(scale, 1.0)
    taps = math.ceil(4 / stretch) + 2
    centre = (torch.arange(resized_length(size, scale), dtype=torch.float64) + 0.5) / scale - 0.5
    index = torch.floor(centre - 2 / stretch).long()[:, None] + torch.arange(taps)
    weight = cubic((centre[:, None] - index) * stretch)
    weight = weight / weight.sum(1, keepdim=True)
    used = [tap for tap, is_used in enumerate(weight.any(0).tolist()) if is_used]  # a mask would wait for a device
    return mirror(index[:, used], size), weight[:, used]


def _weighted(image: Tensor, axis: int, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of the pixels of an axis, as :func:`_taps` names them."""
    index, weight = to_device(index, image.device), to_device(weight.to(image.dtype), image.device)
    shape = [1] * image.ndim
    shape[axis] = -1
    step = max(PIECE * image.shape[axis] // image.numel(), 1) if image.device.type == "cpu" else len(index)
    pieces = []
    for index_part, weight_part in zip(torch.split(index, step), torch.split(weight, step), strict=True):
        out = torch.zeros((), dtype=image.dtype, device=image.device)
        for tap in range(index.shape[1]):
            out = out + image.index_select(axis, index_part[:, tap]) * weight_part[:, tap].view(shape)
        pieces.append(out)
    return torch.cat(pieces, axis)


def crop_to_multiple(image: Tensor, scale: int) -> Tensor:
    """Cut rows and columns off the end until H and W of ``(..., H, W)`` are multiples of ``scale``.

    >>> crop_to_multiple(torch.rand(3, 7, 9), 4).shape
    torch.Size([3, 4, 8])

    Raises:
        InputError: nothing would be left.
    """
    height, width = image.shape[-2] // scale * scale, image.shape[-1] // scale * scale
    if not height or not width:
        raise InputError(f"an image of {image.shape[-2]}x{image.shape[-1]} is smaller than the scale {scale}")
    return image[..., :height, :width]
