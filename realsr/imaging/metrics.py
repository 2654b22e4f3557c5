"""PSNR, SSIM and LPIPS as SR papers measure them: on rounded 8-bit images, the border shaved, mean over images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torchmetrics
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
from torchmetrics.wrappers import LambdaInputTransformer

from realsr.imaging import quantize
from realsr.imaging.colour import luma
from realsr.runtime.errors import InputError

SSIM_WINDOW = 11
SSIM_STRIP = 2**18  # pixels that SSIM sees at a time


def shave(image: Tensor, border: int) -> Tensor:
    """Cut ``border`` pixels off every side of ``(..., H, W)``.

    >>> shave(torch.rand(3, 20, 30), 4).shape
    torch.Size([3, 12, 22])
    """
    return image[..., border : image.shape[-2] - border, border : image.shape[-1] - border]


def rgb_view(image: Tensor, border: int) -> Tensor:
    """``(N, 3, H, W)`` in [0, 1] as it is measured: rounded to 8 bits, the border cut off."""
    return shave(quantize(image), border)


def y_view(image: Tensor, border: int) -> Tensor:
    """The luma ``(N, 1, H, W)`` of :func:`rgb_view` in studio range, [16/255, 235/255], not rounded again.

    It is the Y of MATLAB's ``rgb2ycbcr``, on which SR papers measure.
    """
    return (16 + 219 * luma(rgb_view(image, border))[:, None]) / 255


def ssim(sr: Tensor, hr: Tensor) -> Tensor:
    """SSIM of each image of two ``(N, C, H, W)`` batches in [0, 1], mean over channels; ``(N,)`` float64.

    11x11 Gaussian window of sigma 1.5, valid region only (Wang et al., TIP 2004, section III C), by torchmetrics in
    float32: 1e-5 from float64 on photos, 4e-4 on nearly white ones. Strips take 0.2 GB in place of 1.9 for a picture of
    2K. It runs on the CPU: a GPU may sum squares in TF32, whose 10 bits leave nothing of a variance.

    >>> image = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    >>> ssim(image, image)
    tensor([1.], dtype=torch.float64)
    """
    sr, hr = sr.detach().cpu().float(), hr.detach().cpu().float()
    rows, columns = (side - SSIM_WINDOW + 1 for side in hr.shape[-2:])
    step = max(SSIM_STRIP // hr.shape[-1], 1)
    total = torch.zeros(hr.shape[:2], dtype=torch.float64)
    for top in range(0, rows, step):
        a, b = (image[..., top : top + step + SSIM_WINDOW - 1, :] for image in (sr, hr))
        _, similarity = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
        total += shave(similarity, SSIM_WINDOW // 2).double().sum((2, 3))
    return total.mean(1) / (rows * columns)


class ValidSSIM(StructuralSimilarityIndexMeasure):
    """Mean of :func:`ssim` over images; torchmetrics' own also counts windows that reach over the border."""

    similarity: Tensor
    total: Tensor

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch to the mean."""
        self.similarity += ssim(preds, target).sum().to(self.similarity)
        self.total += len(preds)


def metric_objects(border: int, prefix: str = "") -> MetricCollection:
    """PSNR in dB and SSIM, of RGB and of luma, as metric objects whose value is the mean over images.

    >>> sorted(metric_objects(4, "val/"))
    ['val/psnr', 'val/psnr_y', 'val/ssim', 'val/ssim_y']
    """
    metrics: dict[str, torchmetrics.Metric | MetricCollection] = {}
    for suffix, view in (("", rgb_view), ("_y", y_view)):
        seen = partial(view, border=border)
        metrics[f"psnr{suffix}"] = LambdaInputTransformer(PeakSignalNoiseRatio(1.0, dim=(1, 2, 3)), seen, seen)
        metrics[f"ssim{suffix}"] = LambdaInputTransformer(ValidSSIM(data_range=1.0), seen, seen)
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)  # groups would merge PSNR and PSNR-Y


def least_side(border: int) -> int:
    """The least side in pixels for SSIM with a border shaved off.

    >>> least_side(4)
    19
    """
    return SSIM_WINDOW + 2 * border


def image_metrics(
    sr: Tensor, hr: Tensor, border: int, lpips: Callable[[Tensor, Tensor], Tensor] | None = None
) -> dict[str, float]:
    """All metrics of one pair.

    Args:
        sr: ``(1, 3, H, W)`` in [0, 1]; rounded to 8 bits here.
        hr: the same shape and range.
        border: pixels shaved for PSNR and SSIM, by custom the scale; LPIPS sees the whole image.
        lpips: the metric on two batches; None leaves it out.

    Returns:
        ``psnr`` and ``psnr_y`` in dB, ``ssim`` and ``ssim_y``, ``lpips``.

    Raises:
        InputError: the images differ in size, or are too small for SSIM's window.
    """
    if sr.shape != hr.shape:
        raise InputError(f"sr is {sr.shape[-1]}x{sr.shape[-2]} pixels, hr {hr.shape[-1]}x{hr.shape[-2]}")
    if min(hr.shape[-2:]) < least_side(border):
        raise InputError(
            f"{hr.shape[-1]}x{hr.shape[-2]} pixels are too few for SSIM's window of {SSIM_WINDOW}: give images of "
            f"{least_side(border)} or more on a side, since {border} are left out at every border"
        )
    values = {key: float(value) for key, value in metric_objects(border)(sr, hr).items()}
    if lpips is not None:
        with torch.no_grad():
            values["lpips"] = float(lpips(quantize(sr).float(), quantize(hr).float()))
    return values
