"""Measures of a photo without ground truth: NIQE, the noise that is left, the width of edges.

None of them sees whether the picture is true: they tell how it looks, not whether the scene looked like that.
"""

from __future__ import annotations

import logging
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from realsr.estimation.flatness import without_plane
from realsr.estimation.patch_statistics import EDGE_REACH, EDGE_STEP, edge_widths
from realsr.imaging import quantize
from realsr.imaging.colour import luma
from realsr.networks.weights import read_checkpoint
from realsr.runtime.errors import InputError, first_line, package

log = logging.getLogger(__name__)

BLOCK = 16  # side of the blocks whose noise is measured: four pixels of LR at scale 4, the grain of its noise
CALM = 0.05  # share of the blocks whose detail is taken for noise
NIQE_BLOCK = 96  # side of NIQE's blocks in its first scale
NIQE_EXACT = 2**22  # pixels up to which it is computed in float64, in 1.8 GB
NOISE_REACH = 6.0  # standard deviations of noise that an edge must rise more: pure noise spans about 4 of them


class NIQE:
    """Natural Image Quality Evaluator (Mittal et al., IEEE SPL 2013) by the ``deepinv`` package; lower is better.

    The distance of the statistics of 96x96 blocks from those of pristine photos: 2 to 4 for good photos, 7 and more for
    blurred or noisy ones. As in the original program nothing is shaved, gray is MATLAB's ``rgb2gray`` rounded to 8
    bits, and incomplete blocks at the right and the bottom are left out. Blocks without any structure (a clipped sky)
    are left out, where the original's value explodes. Above 4 megapixels it is computed in float32, which takes 0.1 GB
    a megapixel in place of 0.4 and moves such large pictures by 0.0005.

    Args:
        weights: a file with the pristine photos' statistics: deepinv's ``niqe_weights.pt`` or BasicSR's
            ``niqe_pris_params.npz``; None downloads deepinv's into torch's cache.

    Raises:
        InputError: deepinv is not installed; the weights can be neither downloaded nor read.
    """

    def __init__(self, weights: str | None = None) -> None:
        deepinv = package("deepinv.loss.metric", "NIQE", "niqe")
        if weights is None:
            try:
                offered = deepinv.NIQE("download", dtype=torch.float64)
            except (OSError, RuntimeError) as e:
                said = f"cannot download NIQE's weights ({first_line(e)}); give metrics.niqe.weights=FILE"
                raise InputError(said) from e
        mean, covariance = (offered.mu_p, offered.cov_p) if weights is None else read_pristine(Path(weights))
        self.metrics = {}
        for dtype in (torch.float64, torch.float32):
            metric = self.metrics[dtype] = deepinv.NIQE(None, round_tensor=True, dtype=dtype)
            metric.mu_p, metric.cov_p = mean.to(dtype), covariance.to(dtype)

    def __call__(self, sr: Tensor) -> float:
        """NIQE of ``(1, 3, H, W)`` in [0, 1], rounded to 8 bits here; NaN with structure in fewer than two blocks.

        Raises:
            InputError: the picture holds fewer than two blocks.
        """
        height, width = sr.shape[-2:]
        if not fits_niqe(height, width):
            least = f"{NIQE_BLOCK}x{2 * NIQE_BLOCK}"
            raise InputError(f"{width}x{height} pixels are too few for NIQE: give pictures of {least} or more")
        dtype = torch.float64 if height * width <= NIQE_EXACT else torch.float32
        try:
            with torch.no_grad():
                return float(self.metrics[dtype](255 * quantize(sr.cpu().to(dtype))))
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # a covariance of fewer than two blocks
            return math.nan


def fits_niqe(height: int, width: int) -> bool:
    """Whether a picture holds the two blocks that NIQE needs at least."""
    return (height // NIQE_BLOCK) * (width // NIQE_BLOCK) >= 2


def read_pristine(file: Path) -> tuple[Tensor, Tensor]:
    """Mean ``(36,)`` and covariance ``(36, 36)`` of the features of pristine photos, float64.

    The file is BasicSR's ``.npz`` (``mu_pris_param``, ``cov_pris_param``), or PyTorch's as deepinv's (``mu``, ``cov``).

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file of NIQE weights")
    names = ("mu_pris_param", "cov_pris_param") if file.suffix == ".npz" else ("mu", "cov")
    try:
        content: dict[str, Any] = dict(np.load(file)) if file.suffix == ".npz" else read_checkpoint(file)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise InputError(f"{file}: is no .npz file that can be read ({e})") from e
    found = [content.get(name) for name in names]
    arrays = [torch.as_tensor(array).double() for array in found if isinstance(array, Tensor | np.ndarray)]
    if [array.numel() for array in arrays] != [36, 36 * 36] or not all(array.isfinite().all() for array in arrays):
        shapes = "36 means and 36x36 covariances, all finite"
        raise InputError(f"{file}: holds no NIQE weights, which are the arrays {' and '.join(names)}: {shapes}")
    return arrays[0].flatten(), arrays[1].view(36, 36)


def load_niqe(weights: str | None = None) -> NIQE | None:
    """NIQE, or None and a line in the log if it cannot be had; with ``weights`` that raises InputError."""
    try:
        return NIQE(weights)
    except InputError as e:
        if weights is not None:
            raise
        log.warning("NIQE is left out: %s", e)
        return None


def noise_left(sr: Tensor) -> float:
    """Standard deviation in the flattest blocks of ``(1, 3, H, W)`` in [0, 1], in 8-bit levels, mean of the channels.

    Blocks are 16x16 without their least-squares plane; blocks with a pixel at 0 or 255, where noise is clipped, are
    left out, and the flattest twentieth counts. NaN where there is no block. White noise is found to 5 %, grain that
    was upscaled by 4 to three quarters. It ranks results of one photo rather than measuring its camera: a camera's
    noise depends on the brightness, and a picture without a flat block (a wall of bricks has 3 levels) has texture in
    place of noise.

    >>> noise = 5 / 255 * torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    >>> round(noise_left(0.5 + noise))
    5
    """
    found = [np.zeros(0)]
    for strip in torch.split(sr[0], 16 * BLOCK, 1):  # for the memory
        rows, columns = (side // BLOCK for side in strip.shape[1:])
        levels = 255 * strip[:, : rows * BLOCK, : columns * BLOCK].cpu().double().numpy()
        blocks = levels.reshape(3, rows, BLOCK, columns, BLOCK).swapaxes(2, 3)
        inside = ((blocks.min((-1, -2)) > 0) & (blocks.max((-1, -2)) < 255)).all(0)
        found.append((without_plane(blocks) ** 2).mean((0, -1, -2))[inside])
    variances = np.sort(np.concatenate(found)) * BLOCK**2 / (BLOCK**2 - 3)
    return float(variances[: math.ceil(CALM * len(variances))].mean()) ** 0.5 if len(variances) else math.nan


def edge_width(sr: Tensor, noise: float = 0.0) -> float:
    """Median width of the edges of ``(1, 3, H, W)`` in [0, 1], in its pixels; NaN where there is none.

    By :func:`realsr.estimation.patch_statistics.edge_widths`: 2.5 sigma for a step that a Gaussian blurred; 1.6 to 2.6
    in good photos, 4.4 to 5.8 in their bicubic x4 upscaling. Halos, jagged and invented edges lower it as true
    sharpness does. Noise makes slopes steeper, so edges must rise by 40 levels and 6 times ``noise`` (levels) more.
    """
    if min(sr.shape[-2:]) < 2 * EDGE_REACH + 2:
        return math.nan
    widths = edge_widths(255 * luma(sr).cpu(), EDGE_STEP + NOISE_REACH * noise)
    return float(np.median(widths)) if len(widths) else math.nan


def photo_metrics(sr: Tensor, niqe: NIQE | None = None) -> dict[str, float]:
    """``niqe`` (unless None), ``noise`` (:func:`noise_left`) and ``edges`` (:func:`edge_width`) of ``(1, 3, H, W)``.

    The picture, in [0, 1], is rounded to 8 bits here. NaN where there is nothing to measure. Raises InputError if it is
    too small for NIQE.
    """
    sr = quantize(sr)
    values, noise = {} if niqe is None else {"niqe": niqe(sr)}, noise_left(sr)
    return {**values, "noise": noise, "edges": edge_width(sr, 0.0 if math.isnan(noise) else noise)}
