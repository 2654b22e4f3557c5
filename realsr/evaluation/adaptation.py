"""A network that was adapted to a camera, compared there with the network that it started from."""

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
from realsr.networks.tiling import upscale_tiled


@torch.inference_mode()
def validation_means(
    network: Callable[[Tensor], Tensor],
    scale: int,
    pairs: Sequence[Pair],
    photos: Sequence[Pair],
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Means of the metrics over validation pairs and over the camera's photos, which have no ground truth.

    The network maps ``(1, 3, H, W)`` in [0, 1] to ``(1, 3, s*H, s*W)``, on ``device``.
    """
    found: list[dict[str, float]] = []
    for pair in [*pairs, *photos]:
        sr = upscale_tiled(network, pair.lr[None].to(device), scale)
        found.append(photo_metrics(sr) if pair.hr is None else image_metrics(sr, pair.hr[None], scale, lpips))
    # a photo may have no edges or no flat region to measure: NaN
    values = {name: [row[name] for row in found if not math.isnan(row.get(name, math.nan))] for name in MEASURES}
    return {name: float(np.mean(each)) for name, each in values.items() if each}


def compare_means(start: dict[str, float], adapted: dict[str, float]) -> str:
    """One line: both networks' means, and which network is better by PSNR, LPIPS and NIQE.

    >>> print(compare_means({"psnr": 28.0, "lpips": 0.25}, {"psnr": 29.0, "lpips": 0.2}))
    start -> adapted: PSNR 28.00 -> 29.00, LPIPS 0.2500 -> 0.2000; the adapted network is better by PSNR and LPIPS
    """
    both = [(name, metric) for name, metric in MEASURES.items() if name in start and name in adapted]
    shown = [f"{m.name} {m.written(start[name])} -> {m.written(adapted[name])}" for name, m in both]
    gains = {m.name: m.better * (adapted[n] - start[n]) for n, m in both if n in ("psnr", "lpips", "niqe")}
    better, worse = ([name for name, gain in gains.items() if (gain > 0) == wanted] for wanted in (True, False))
    sides = {"the adapted network": better, "the start": worse}
    told = ", ".join(f"{side} by {' and '.join(names)}" for side, names in sides.items() if names)
    result = told.replace(" by", " is better by", 1) or "neither is better by these"
    if worse and not better:
        result += "; more photos or steps may help, or take the start"
    return f"start -> adapted: {', '.join(shown)}; {result}"
