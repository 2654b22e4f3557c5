"""Losses that are not finite: found without making a GPU wait, so that no step is made with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from realsr.errors import InputError

Policy = Literal["stop", "skip"]
PATIENCE = 20  # steps in a row that are skipped before a run is given up


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
        self.copied = None
        if flags.is_cuda:
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.copied.record()

    def found(self) -> list[str]:
        """Their names."""
        if self.copied is not None:
            self.copied.synchronize()
        return [name for name, flag in zip(self.names, self.flags.tolist(), strict=True) if flag]


class NonFinite:
    """What happens at a loss that is not finite.

    Args:
        policy: ``stop`` ends the run; ``skip`` leaves the step out, and ends it after ``PATIENCE`` in a row.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy, self.skipped, self.in_a_row, self.now = policy, 0, 0, False

    def skip(self, step: int, losses: list[str], files: list[str]) -> str:
        """Count an optimiser's step that is left out, and say why.

        Raises:
            InputError: it is not to be left out.
        """
        self.now = True
        line = f"step {step}: {' and '.join(losses)} not finite, in a batch from {', '.join(dict.fromkeys(files))}"
        if self.policy == "skip" and self.in_a_row + 1 < PATIENCE:
            return f"{line}; the step is skipped"
        more = f"{PATIENCE} in a row" if self.policy == "skip" else "model.non_finite=skip leaves such steps out"
        raise InputError(
            f"{line}; the last good checkpoint is kept: go on with ckpt=auto and a lower model.optimizer.lr, "
            f"model.clip_norm=1 or trainer.precision=32-true ({more})"
        )

    def end_step(self) -> None:
        """A training step is over, made or left out."""
        self.skipped += self.now
        self.in_a_row = self.in_a_row + 1 if self.now else 0
        self.now = False


def of_all_processes(files: list[str]) -> list[str]:
    """The files in the batches of all processes: a loss over them all does not tell whose it was."""
    if not (dist.is_available() and dist.is_initialized()):
        return files
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, files)
    return [file for part in gathered for file in part]


def require_finite(network: nn.Module, name: str) -> None:
    """Raise InputError if a parameter is not finite."""
    if not torch.stack([p.isfinite().all() for p in network.parameters()]).all():  # a device is asked once
        raise InputError(
            f"the {name}'s weights are not finite, so no checkpoint is written and the last good one is kept; go on "
            "with ckpt=auto and a lower model.optimizer.lr, model.clip_norm=1 or trainer.precision=32-true"
        )
