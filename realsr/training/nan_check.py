"""Losses and weights that are not finite: found without making a GPU wait, so that no step is made with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from realsr.runtime.errors import InputError

MEND = "go on with ckpt=auto and a lower model.optimizer.lr, model.clip_norm=1 or trainer.precision=32-true"


class FiniteCheck:
    """Which of some losses are NaN or infinite.

    Begun before the backward pass and asked after it: the host then waits for the losses alone, while the GPU has the
    gradients to compute. A look at them (``.item()``) in between would leave it idle.

    Args:
        losses: scalars on one device, by name.
        reduce: makes flags those of all processes, that all decide alike: the elementwise maximum.
    """

    def __init__(self, losses: Mapping[str, Tensor], reduce: Callable[[Tensor], Tensor]) -> None:
        self.names = list(losses)
        flags = reduce(~torch.stack([loss.detach().float() for loss in losses.values()]).isfinite() * 1.0)
        self.flags = flags.to("cpu", non_blocking=flags.is_cuda)
        self.copied = torch.cuda.Event() if flags.is_cuda else None  # type: ignore[no-untyped-call]
        if self.copied is not None:
            self.copied.record()

    def found(self) -> list[str]:
        """Their names."""
        if self.copied is not None:
            self.copied.synchronize()
        return [name for name, flag in zip(self.names, self.flags.tolist(), strict=True) if flag]


def of_all_processes(files: list[str]) -> str:
    """The files in the batches of all processes, each once: a loss over them all does not tell whose it was."""
    gathered: list[Any] = [files]
    if dist.is_available() and dist.is_initialized():
        gathered = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, files)
    return ", ".join(dict.fromkeys(file for part in gathered for file in part))


def require_finite(network: nn.Module) -> None:
    """Raise InputError if a parameter is not finite."""
    if not torch.stack([p.isfinite().all() for p in network.parameters()]).all():  # a device is asked once
        raise InputError(
            f"the network's weights are not finite, so no checkpoint is written and the last good one is kept; {MEND}"
        )
