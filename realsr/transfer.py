"""Draws on their way from the CPU to the device."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on a device, without waiting until the device is done with all that it was given before.

    A plain ``.to(device)`` waits for that, in every step, and the device then has nothing to do until it is given more.
    Small tensors need no pinned memory for it: CUDA takes a copy at once. Apple's MPS does not.
    """
    return tensor.to(device, non_blocking=device.type not in ("cpu", "mps"))
