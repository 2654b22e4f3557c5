"""PSNR, SSIM and LPIPS as the field measures them: on rounded 8-bit images, the border shaved, mean of images."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from realsr.errors import InputError
from realsr.images import quantize
from realsr.losses.perceptual import BACKBONES, LPIPSLoss

log = logging.getLogger(__name__)

SSIM_WINDOW = 11
SSIM_STRIP = 2**22  # pixels that SSIM sees at a time


@dataclass(frozen=True)
class Metric:
    """How a metric is written. ``better`` is 1 where higher is better, -1 where lower is, and 0 where neither is."""

    name: str
    digits: int
    better: int
    unit: str = ""

    @property
    def heading(self) -> str:
        """Name, unit, and which values are the better ones."""
        better = {1: ", higher is better", -1: ", lower is better", 0: ""}[self.better]
        return self.name + (f" in {self.unit}" if self.unit else "") + better

    def written(self, value: float | None, sign: str = "") -> str:
        """A value, with its ``sign="+"`` if asked for; a dash where it is missing, ∞ for the PSNR of equal images."""
        if value is None:
            return "–"
        if math.isnan(value):
            return "NaN"
        rounded = round(value, self.digits) + 0.0  # without the sign of a zero
        return f"{rounded:{sign}.{self.digits}f}".replace("inf", "∞").replace("-", "−")


MEASURES = {  # in the order of tables; the last three are of photos without ground truth (realsr.no_reference)
    "psnr": Metric("PSNR", 2, 1, "dB"),
    "psnr_y": Metric("PSNR-Y", 2, 1, "dB"),
    "ssim": Metric("SSIM", 4, 1),
    "ssim_y": Metric("SSIM-Y", 4, 1),
    "lpips": Metric("LPIPS", 4, -1),
    "niqe": Metric("NIQE", 2, -1),
    "noise": Metric("noise left", 2, 0, "levels"),
    "edges": Metric("width of edges", 2, 0, "pixels"),
}


def luma(image: Tensor) -> Tensor:
    """``(N, 3, H, W)`` RGB in [0, 1] to ``(N, 1, H, W)`` luma of BT.601 studio range, [16/255, 235/255].

    That of MATLAB's ``rgb2ycbcr``, without rounding, on which SR papers measure "Y".
    """
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=image.dtype, device=image.device) / 255
    return 16 / 255 + (image * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def shave(image: Tensor, border: int) -> Tensor:
    """Cut ``border`` pixels off every side of ``(..., H, W)``."""
    return image[..., border : image.shape[-2] - border, border : image.shape[-1] - border] if border else image


def psnr(sr: Tensor, hr: Tensor) -> Tensor:
    """PSNR in dB of each image of two ``(N, C, H, W)`` batches in [0, 1]; ``(N,)``. Mean over channels and pixels.

    Infinite for equal images. (Not by torchmetrics, which takes the logarithm's base in float32: 1e-6 dB off.)
    """
    return -10 * (sr - hr).square().mean((1, 2, 3)).log10()


def ssim(sr: Tensor, hr: Tensor) -> Tensor:
    """SSIM of each image of two ``(N, C, H, W)`` batches in [0, 1], mean over channels; ``(N,)`` float64.

    11x11 Gaussian window of sigma 1.5, valid region only (Wang et al., TIP 2004, section III C). The window is
    separable, and filtered so: torchmetrics' dense one takes 50 times as long and 15 GB for a picture of 2K
    (``tests/benchmarks/bench_metrics.py``).
    """
    values = [[_ssim(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(sr, hr, strict=True)]
    return torch.tensor(values, dtype=torch.float64).mean(1)


def _ssim(sr: Tensor, hr: Tensor) -> float:
    """Of two channels ``(H, W)``, in strips: of 48 megapixels at once it would take 4 GB."""
    a, b = (channel.detach().cpu().double().numpy() for channel in (sr, hr))
    rows, columns = (side - SSIM_WINDOW + 1 for side in a.shape)
    step = max(SSIM_STRIP // a.shape[1], 1)
    strips = (slice(top, top + step + SSIM_WINDOW - 1) for top in range(0, rows, step))
    return sum(float(_similarity(a[strip], b[strip]).sum()) for strip in strips) / (rows * columns)


def _similarity(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SSIM in every window inside ``(H, W)``."""
    mean_a, mean_b, square_a, square_b, product = map(_windowed, (a, b, a * a, b * b, a * b))
    means, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance, variances = product - means, square_a + square_b - squares
    c1, c2 = 0.01**2, 0.03**2
    similarity: npt.NDArray[np.float64] = (2 * means + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return similarity


def _windowed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weighted means in the windows that lie inside ``(H, W)``."""
    place = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-(place**2) / (2 * 1.5**2))
    weights /= weights.sum()
    inside = slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2))
    down = ndimage.correlate1d(values, weights, axis=0, mode="constant")[inside]
    return ndimage.correlate1d(down, weights, axis=1, mode="constant")[:, inside]


def least_side(border: int) -> int:
    """Pixels that an image needs on a side for SSIM, where ``border`` of them are shaved off each."""
    return SSIM_WINDOW + 2 * border


def image_metrics(sr: Tensor, hr: Tensor, border: int, lpips: LPIPSLoss | None = None) -> dict[str, float]:
    """All metrics of one pair.

    Args:
        sr: ``(1, 3, H, W)``; rounded to 8 bits here.
        hr: the same shape, in [0, 1].
        border: shaved for PSNR and SSIM (the scale, by custom); LPIPS sees the whole image.
        lpips: None leaves LPIPS out.

    Returns:
        ``psnr`` and ``psnr_y`` in dB, ``ssim`` and ``ssim_y``, ``lpips``.

    Raises:
        InputError: the two differ in size, or are too small for SSIM's window.
    """
    if sr.shape != hr.shape:
        raise InputError(f"sr is {sr.shape[-1]}x{sr.shape[-2]} pixels, hr {hr.shape[-1]}x{hr.shape[-2]}")
    if min(hr.shape[-2:]) < least_side(border):
        raise InputError(
            f"{hr.shape[-1]}x{hr.shape[-2]} pixels are too few for SSIM's window of {SSIM_WINDOW}: give images of "
            f"{least_side(border)} or more on a side, since {border} are left out at every border"
        )
    sr, hr = quantize(sr.double()), quantize(hr.double())
    values = {}
    for suffix, a, b in (("", sr, hr), ("_y", luma(sr), luma(hr))):
        a, b = shave(a, border), shave(b, border)
        values[f"psnr{suffix}"] = float(psnr(a, b))
        values[f"ssim{suffix}"] = float(ssim(a, b))
    if lpips is not None:
        with torch.no_grad():
            values["lpips"] = float(lpips(sr.float(), hr.float()))
    return values


def load_lpips(net: str, backbone: str | None = None) -> LPIPSLoss | None:
    """LPIPS if its backbone is to be had; else None, and one line in the log that says why.

    Raises:
        InputError: a backbone file was given and is wrong, or ``net`` is unknown.
    """
    try:
        return LPIPSLoss(net, backbone)
    except InputError as e:
        if backbone is not None or net not in BACKBONES:
            raise
        log.warning("LPIPS is left out: %s", e)
        return None
