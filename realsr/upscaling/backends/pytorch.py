"""A generator by PyTorch itself."""

from __future__ import annotations

import logging
import timeit

import torch
from torch import Tensor, nn

from realsr.networks.community import CommunityNetwork, scale_of
from realsr.networks.rrdb import RRDBNet
from realsr.networks.sizes import sizes_of
from realsr.networks.tiling import BYTES_PER_PIXEL
from realsr.runtime.errors import InputError

DTYPES = {"32-true": torch.float32, "bf16-true": torch.bfloat16, "16-true": torch.float16}
log = logging.getLogger(__name__)

STRIP = 32  # rows of an RRDBNet's last layers at a time; measured to be no slower than all at once


class TorchNetwork:
    """A generator of :mod:`realsr.networks` or spandrel's in eval mode, moved to a device and converted in place.

    ``precision`` is a key of :data:`DTYPES`; ``compile`` compiles it at the first call, for any size of tiles.

    Raises:
        InputError: the device or the network lacks the precision.

    >>> from realsr.networks.edsr import EDSR
    >>> network = TorchNetwork(EDSR(features=4, blocks=1), torch.device("cpu"))
    >>> network.scale, network(torch.rand(1, 3, 8, 6)).shape
    (4, torch.Size([1, 3, 32, 24]))
    """

    def __init__(
        self, generator: nn.Module, device: torch.device, precision: str = "32-true", compile: bool = False
    ) -> None:
        if precision == "16-true" and device.type == "cpu":  # 7 times slower by measurement
            raise InputError("precision=16-true: CPUs compute it slower than 32-true; take that, or bf16-true")
        if isinstance(generator, CommunityNetwork) and precision != "32-true":
            known = generator.descriptor
            if not (known.supports_half if precision == "16-true" else known.supports_bfloat16):
                raise InputError(f"precision={precision}: {known.architecture.name} is not exact enough in it")
        if precision == "bf16-true" and device.type == "cpu" and (ratio := _bfloat16_to_float32()) > 1.5:
            log.warning("precision=bf16-true: this CPU takes %.0f times as long with it; leave it out", ratio)
        self.scale = scale_of(generator)
        self.overlap, self.aligned, *_ = sizes_of(generator)
        self.bytes_per_pixel = BYTES_PER_PIXEL
        self.device = device
        self.dtype = DTYPES[precision]
        # by measurement 1.3 to 1.5 times as fast on CPUs, and what tensor cores take
        self.memory_format = torch.contiguous_format if device.type == "mps" else torch.channels_last
        self.network = generator.eval().requires_grad_(False)
        if precision == "bf16-true" and device.type == "cpu" and isinstance(generator, RRDBNet):
            # the blocks are nearly all of the work; their sum stays in float32: 0.24 levels of error in place of 0.59
            generator.body.to(self.dtype)
            self.dtype = torch.float32
        else:
            self.network.to(device, self.dtype)
        self.network.to(memory_format=self.memory_format)
        if compile:
            self.network.compile(dynamic=True)
        elif isinstance(generator, RRDBNet):
            generator.strip = STRIP

    @torch.inference_mode()
    def __call__(self, lr: Tensor) -> Tensor:
        """``lr (N, 3, h, w)`` in [0, 1] to ``sr (N, 3, scale*h, scale*w)``, not clamped; float32 on ``device``.

        Raises:
            InputError: PyTorch finds no compiler to compile it.
        """
        try:
            return self.network(lr.to(self.device, self.dtype, memory_format=self.memory_format)).float()
        except RuntimeError as e:
            if not type(e).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = " ".join(str(e).split("\n\n")[0].split())[:200]
            raise InputError(
                f"compile=true: PyTorch cannot compile here ({reason}); install a C++ compiler, or leave it out"
            ) from e


@torch.inference_mode()
def _bfloat16_to_float32() -> float:
    """Time of a convolution in bfloat16 over that in float32 on this CPU: about nine without instructions for it."""

    def seconds(dtype: torch.dtype) -> float:
        conv, image = nn.Conv2d(64, 64, 3, padding=1).to(dtype), torch.rand(1, 64, 48, 48).to(dtype)
        return min(timeit.repeat(lambda: conv(image), number=1, repeat=4))

    return seconds(torch.bfloat16) / seconds(torch.float32)
