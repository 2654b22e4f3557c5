"""Whether a network that was adapted to a camera is better there than the one that it started from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from realsr.data.datasets import Pair
from realsr.evaluation.no_reference import photo_metrics
from realsr.evaluation.tables import MEASURES
from realsr.imaging.metrics import image_metrics
from realsr.networks.perceptual import LPIPSLoss
from realsr.networks.tiling import upscale_tiled


@torch.inference_mode()
def validation_means(
    network: Callable[[Tensor], Tensor],
    scale: int,
    pairs: Sequence[Pair],
    photos: Sequence[Pair],
    lpips: LPIPSLoss | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Means of the metrics, over pairs with ground truth and over photos without.

    Args:
        network: ``(1, 3, H, W)`` in [0, 1] to ``(1, 3, s*H, s*W)``, on ``device``.
        scale: s.
        pairs: of validation.
        photos: of the camera, of which only ``lr`` is there.
        lpips: a metric, or None.
        device: of the network.
    """
    found: list[dict[str, float]] = []
    for pair in [*pairs, *photos]:
        sr = upscale_tiled(network, pair.lr[None].to(device), scale)
        found.append(photo_metrics(sr) if pair.hr is None else image_metrics(sr, pair.hr[None], scale, lpips))
    # a photo may have no edges or no flat region to measure: NaN
    values = {name: [row[name] for row in found if not math.isnan(row.get(name, math.nan))] for name in MEASURES}
    return {name: float(np.mean(each)) for name, each in values.items() if each}


def verdict(start: dict[str, float], adapted: dict[str, float]) -> str:
    """One line: both networks' means, and which is better by those that tell."""
    shown: list[str] = []
    better: list[str] = []
    worse: list[str] = []
    for name, metric in MEASURES.items():
        if name in start and name in adapted:
            shown.append(f"{metric.name} {metric.written(start[name])} -> {metric.written(adapted[name])}")
            gain = metric.better * (adapted[name] - start[name])
            if metric.better and name in ("psnr", "lpips", "niqe"):
                (better if gain > 0 else worse).append(metric.name)
    if not better and not worse:
        judgement = "neither is better by these"
    elif not worse:
        judgement = f"the adapted network is better by {' and '.join(better)}"
    elif not better:
        judgement = f"the start is better by {' and '.join(worse)}; more photos or steps may help, or take the start"
    else:
        judgement = f"the adapted network is better by {' and '.join(better)}, the start by {' and '.join(worse)}"
    return f"start -> adapted: {', '.join(shown)}; {judgement}"
