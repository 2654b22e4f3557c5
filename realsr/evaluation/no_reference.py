"""What can be measured of a photo without ground truth: NIQE, the noise left, the width of edges.

None of them sees whether the picture is true: they tell how it looks, not whether the scene looked like that.
"""

from __future__ import annotations

import logging
import math
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from realsr.estimation.patch_statistics import EDGE_REACH, EDGE_STEP, edge_widths
from realsr.imaging import quantize
from realsr.imaging.colour import luma
from realsr.networks.weights import read_checkpoint
from realsr.runtime.errors import InputError

log = logging.getLogger(__name__)

BLOCK = 16  # side of the places in which noise is looked for: four pixels of LR at scale 4, the grain of its noise
CALM = 0.05  # share of the places whose detail is taken for noise
NIQE_BLOCK = 96  # the side of NIQE's blocks in its first scale
NIQE_EXACT = 2**22  # pixels up to which it is computed in float64, in 1.8 GB
NOISE_REACH = 6.0  # standard deviations of noise that an edge rises more: pure noise spans about 4 of them


class NIQE:
    """Natural Image Quality Evaluator (Mittal et al., IEEE SPL 2013) by the ``deepinv`` package; lower is better.

    How far the statistics of 96x96 blocks lie from those of pristine photos: 2 to 4 for good photos, 7 and more for
    blurred or noisy ones. As the original program: the whole picture, nothing shaved, gray by MATLAB's ``rgb2gray``
    rounded to 8 bits; what is left over of the blocks at the right and the bottom is not seen. PIRM 2018's
    "perceptual index" instead takes luma of studio range and shaves 4 pixels, which moved single photos by up to 0.6;
    the report of NTIRE 2020 does not say which it took, so compare with its table only roughly. Blocks without any
    structure (a clipped sky) are left out, where the original program's value explodes. In float64 up to 4 megapixels;
    beyond in float32, which takes 0.1 GB a megapixel in place of 0.4 and moves such large pictures by 0.0005.

    Args:
        weights: a file with the pristine photos' statistics: deepinv's ``niqe_weights.pt`` or BasicSR's
            ``niqe_pris_params.npz``; None downloads deepinv's into torch's cache.

    Raises:
        InputError: deepinv is not installed; the weights can be neither downloaded nor read.
    """

    def __init__(self, weights: str | None = None) -> None:
        try:
            from deepinv.loss.metric import NIQE as DeepinvNIQE  # noqa: N811
        except ImportError as e:
            raise InputError('NIQE needs the package deepinv: pip install "realsr[niqe]"') from e
        if weights is None:
            try:
                offered = DeepinvNIQE("download", dtype=torch.float64)
            except (OSError, RuntimeError) as e:
                reason = str(e).splitlines()[0]
                raise InputError(
                    f"cannot download NIQE's weights ({reason}); give them as metrics.niqe.weights=FILE"
                ) from e
            mean, covariance = offered.mu_p, offered.cov_p
        else:
            mean, covariance = read_pristine(weights)
        self.metrics = {}
        for dtype in (torch.float64, torch.float32):
            metric = self.metrics[dtype] = DeepinvNIQE(None, round_tensor=True, dtype=dtype)
            metric.mu_p, metric.cov_p = mean.to(dtype), covariance.to(dtype)

    def __call__(self, sr: Tensor) -> float:
        """NIQE of ``(1, 3, H, W)`` in [0, 1], rounded to 8 bits here; NaN with structure in fewer than two blocks.

        Raises:
            InputError: the picture holds fewer than two blocks.
        """
        height, width = sr.shape[-2:]
        if not fits_niqe(height, width):
            raise InputError(
                f"{width}x{height} pixels are too few for NIQE, which compares blocks of {NIQE_BLOCK}x{NIQE_BLOCK}: "
                f"give pictures of {NIQE_BLOCK}x{2 * NIQE_BLOCK} or more"
            )
        dtype = torch.float64 if height * width <= NIQE_EXACT else torch.float32
        try:
            with torch.no_grad():
                return float(self.metrics[dtype](255 * quantize(sr.cpu().to(dtype))))
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # a covariance of fewer than two blocks
            return math.nan


def fits_niqe(height: int, width: int) -> bool:
    """Whether a picture of this size holds the two blocks that NIQE needs at least."""
    return (height // NIQE_BLOCK) * (width // NIQE_BLOCK) >= 2


def read_pristine(file: str) -> tuple[Tensor, Tensor]:
    """Mean ``(36,)`` and covariance ``(36, 36)`` of the features of pristine photos, float64.

    Args:
        file: BasicSR's ``.npz`` (``mu_pris_param``, ``cov_pris_param``), or PyTorch's as deepinv's (``mu``, ``cov``).

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    if not Path(file).is_file():
        raise InputError(f"{file}: no such file of NIQE weights")
    if Path(file).suffix == ".npz":
        names = "mu_pris_param", "cov_pris_param"
        try:
            with np.load(file) as arrays:
                content = {name: torch.as_tensor(arrays[name]) for name in names if name in arrays}
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as e:
            raise InputError(f"{file}: is no .npz file that can be read ({e})") from e
    else:
        names, content = ("mu", "cov"), read_checkpoint(file)
    mean, covariance = (content.get(name) for name in names)
    if not isinstance(mean, Tensor) or not isinstance(covariance, Tensor):
        raise InputError(f"{file}: holds no NIQE weights, which are the arrays {names[0]} and {names[1]}")
    mean, covariance = mean.double().flatten(), covariance.double()
    if mean.shape != (36,) or covariance.shape != (36, 36) or not (mean.isfinite().all() & covariance.isfinite().all()):
        raise InputError(f"{file}: NIQE weights are 36 means and 36x36 covariances, all finite; these are not")
    return mean, covariance


def load_niqe(weights: str | None = None) -> NIQE | None:
    """NIQE if it is to be had; else None, and one line in the log that says why.

    Raises:
        InputError: a file was given and is wrong, or cannot be used.
    """
    try:
        return NIQE(weights)
    except InputError as e:
        if weights is not None:
            raise
        log.warning("NIQE is left out: %s", e)
        return None


def noise_left(sr: Tensor) -> float:
    """Standard deviation in the calmest places of ``(1, 3, H, W)`` in [0, 1], in levels of 8 bits, mean of channels.

    The places are 16x16 blocks without what rises or falls evenly in them; the calmest twentieth counts, without blocks
    that touch 0 or 255, where noise is clipped. NaN where there is no such block. White noise is found to 5 %; of
    grain as wide as 4 pixels (noise that was upscaled) about three quarters are. A camera's noise changes with the
    brightness and the calmest places have least of it: 0.4 to 0.8 of the photo's mean. So it ranks results of the
    same photo rather than measuring its camera.

    What it cannot tell: noise from fine texture, true or invented, in a picture without a flat place (a wall of
    bricks reads 3 levels); noise that is left in the detail alone; and a picture that was smoothed to death reads 0.
    """
    height, width = (side // BLOCK * BLOCK for side in sr.shape[-2:])
    if not height or not width:
        return math.nan
    ramp = torch.linspace(-1, 1, BLOCK, dtype=torch.float64, device=sr.device)
    ramp = ramp / (ramp**2).mean().sqrt()
    found = []
    for top in range(0, height, 16 * BLOCK):  # in strips, for the memory
        levels = 255 * sr[..., top : min(top + 16 * BLOCK, height), :width].double()
        across = ramp.repeat(width // BLOCK)
        down = ramp.repeat(levels.shape[2] // BLOCK)[:, None]
        flat, right, lower, power = (
            F.avg_pool2d(x, BLOCK) for x in (levels, levels * across, levels * down, levels**2)
        )
        rest = power - flat**2 - right**2 - lower**2  # a plane fitted by least squares, its parts orthogonal
        inside = (F.max_pool2d(levels, BLOCK) < 255) & (F.max_pool2d(-levels, BLOCK) < 0)
        found.append(rest.mean(1)[inside.all(1)])
    variances = torch.cat(found).clamp(min=0).sort().values * BLOCK**2 / (BLOCK**2 - 3)
    if not len(variances):
        return math.nan
    return float(variances[: math.ceil(CALM * len(variances))].mean()) ** 0.5


def edge_width(sr: Tensor, noise: float = 0.0) -> float:
    """Median width of the edges of ``(1, 3, H, W)`` in [0, 1], in its pixels; NaN where there is none.

    See :func:`realsr.estimation.patch_statistics.edge_widths`: the step over the steepest slope, so sigma * 2.5 for a
    step that a Gaussian blurred; 1.6 to 2.6 in good photos, 4.4 to 5.8 in their bicubic x4 upscaling. Up to about 6
    pixels it grows with the blur as it should, beyond more slowly, since it looks 5 pixels to each side.

    What it cannot tell: halos of a sharpening filter, jagged and invented edges make it smaller as true sharpness does.
    Strong noise makes slopes steeper: edges must rise by 40 levels, and 6 times ``noise`` (levels) more.
    """
    if min(sr.shape[-2:]) < 2 * EDGE_REACH + 2:
        return math.nan
    widths = edge_widths(255 * luma(sr).cpu(), EDGE_STEP + NOISE_REACH * noise)
    return float(np.median(widths)) if len(widths) else math.nan


def photo_metrics(sr: Tensor, niqe: NIQE | None = None) -> dict[str, float]:
    """All metrics of one photo without ground truth.

    Args:
        sr: ``(1, 3, H, W)`` in [0, 1]; rounded to 8 bits here.
        niqe: None leaves NIQE out.

    Returns:
        ``niqe``; ``noise``, see :func:`noise_left`; ``edges``, see :func:`edge_width`. NaN where there is nothing to
        measure.

    Raises:
        InputError: too small for NIQE.
    """
    sr = quantize(sr)
    noise = noise_left(sr)
    values = {} if niqe is None else {"niqe": niqe(sr)}
    return {**values, "noise": noise, "edges": edge_width(sr, 0.0 if math.isnan(noise) else noise)}
