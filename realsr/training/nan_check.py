"""Losses and weights that are NaN or infinite end the run, before they reach a step or a checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from realsr.runtime.errors import InputError

MEND = "go on with ckpt=auto and a lower model.optimizer.lr, model.clip_norm=1 or trainer.precision=32-true"


class FiniteCheck:
    """Finds the losses, scalars on one device by their names, that are NaN or infinite.

    The check begins before the backward pass and is read after it. The host then waits for the losses only, while the
    GPU computes gradients; reading a loss (``.item()``) in between would leave the GPU idle. ``reduce`` is the
    elementwise maximum over all processes, so that all of them decide alike.

    >>> losses = {"pixel": torch.tensor(0.5), "adversarial": torch.tensor(torch.nan)}
    >>> FiniteCheck(losses, reduce=lambda flags: flags).found()
    ['adversarial']
    """

    def __init__(self, losses: Mapping[str, Tensor], reduce: Callable[[Tensor], Tensor]) -> None:
        self.names = list(losses)
        flags = reduce(~torch.stack([loss.detach().float() for loss in losses.values()]).isfinite() * 1.0)
        self.flags = flags.to("cpu", non_blocking=flags.is_cuda)
        self.copied = torch.cuda.Event() if flags.is_cuda else None  # type: ignore[no-untyped-call]
        if self.copied is not None:
            self.copied.record()

    def found(self) -> list[str]:
        """Names of the losses that are not finite."""
        if self.copied is not None:
            self.copied.synchronize()
        return [name for name, flag in zip(self.names, self.flags.tolist(), strict=True) if flag]


def not_finite(losses: list[str], step: int, files: list[str]) -> InputError:
    """The error that names losses, step and the photos of the batch; to be called in all processes."""
    return InputError(
        f"step {step}: {' and '.join(losses)} not finite, in a batch from {of_all_processes(files)}; the last good "
        f"checkpoint is kept: {MEND}"
    )


def of_all_processes(files: list[str]) -> str:
    """The files in the batches of all processes, each once."""
    gathered: list[Any] = [files]
    if dist.is_available() and dist.is_initialized():
        gathered = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, files)
    return ", ".join(dict.fromkeys(file for part in gathered for file in part))


def require_finite(network: nn.Module) -> None:
    """Raise InputError if a weight is NaN or infinite: before weights are saved."""
    if not torch.stack([p.isfinite().all() for p in network.parameters()]).all():  # one wait for the device
        raise InputError(
            f"the network's weights are not finite, so no checkpoint is written and the last good one is kept; {MEND}"
        )
