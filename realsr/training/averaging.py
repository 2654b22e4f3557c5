"""The moving average of the generator's weights, which is smoother than any of its steps."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """``average = d * average + (1 - d) * network`` for every weight; buffers are copied.

    ``d = min(decay, (1 + step) / (10 + step))``, so that the start of a run is soon forgotten. Written with neither
    AveragedModel, which asks the device in every step whether it is the first, nor Lightning's callback, which counts
    the steps of both optimisers and averages the discriminator too.

    Args:
        average: a copy of ``network``.
        network: after its step.
        decay: 0 to 1.
        step: number of it, from 0.
    """
    average_fn = get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))  # type: ignore[no-untyped-call]
    average_fn(list(average.parameters()), list(network.parameters()), None)
    for mine, its in zip(average.buffers(), network.buffers(), strict=True):
        mine.copy_(its)
