"""A generator by PyTorch itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from realsr.errors import InputError

DTYPES = {"32-true": torch.float32, "bf16-true": torch.bfloat16, "16-true": torch.float16}


class TorchNetwork:
    """A generator on a device, in eval mode.

    Args:
        generator: of :mod:`realsr.networks`; it is moved and converted in place.
        device: to run on.
        precision: key of :data:`DTYPES`.
        compile: whether to compile it, at the first call for a size of tiles.

    Raises:
        InputError: the device or the network lacks the precision.
    """

    def __init__(
        self, generator: nn.Module, device: torch.device, precision: str = "32-true", compile: bool = False
    ) -> None:
        if precision == "16-true" and device.type == "cpu":
            raise InputError("precision=16-true: CPUs compute it slower than 32-true; take 32-true or bf16-true")
        self.scale: int = generator.scale  # type: ignore[assignment]
        self.device = device
        self.dtype = DTYPES[precision]
        # by measurement 1.3 times as fast on CPUs, and what tensor cores take
        self.memory_format = torch.contiguous_format if device.type == "mps" else torch.channels_last
        self.network = generator.eval().requires_grad_(False)
        self.network.to(device, self.dtype).to(memory_format=self.memory_format)
        if compile:
            self.network.compile()

    @torch.inference_mode()
    def __call__(self, lr: Tensor) -> Tensor:
        """``lr (N, 3, h, w)`` in [0, 1] to ``sr (N, 3, scale*h, scale*w)``, not clamped; float32 on ``device``."""
        return self.network(lr.to(self.device, self.dtype, memory_format=self.memory_format)).float()
