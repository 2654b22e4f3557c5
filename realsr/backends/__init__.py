"""A network from a file, ready to upscale: by PyTorch, ONNX Runtime, OpenVINO or ncnn, all behind one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from realsr.checks import nearest
from realsr.errors import InputError
from realsr.hardware import pick_device

Backend = Literal["auto", "torch", "onnxruntime", "openvino", "ncnn"]
Precision = Literal["32-true", "bf16-true", "16-true"]


class Network(Protocol):
    """What enlarges a tile; precision, memory format and compilation are its own affair.

    Attributes:
        scale: by which it enlarges.
        device: on which it takes and gives tensors.
    """

    scale: int
    device: torch.device

    def __call__(self, lr: Tensor) -> Tensor:
        """``lr (N, 3, h, w)`` in [0, 1] to ``sr (N, 3, scale*h, scale*w)``, not clamped; float32 on ``device``."""
        ...


def load_model(
    ckpt: str | Path,
    backend: Backend = "auto",
    accelerator: str | torch.device = "auto",
    precision: Precision = "32-true",
    compile: bool = False,
    ema: bool = True,
) -> Network:
    """The network of a checkpoint or of an ``.onnx`` file.

    Args:
        ckpt: the file; of any kind that :func:`realsr.networks.weights.load_generator` takes, or ``.onnx``.
        backend: what computes it. ``auto``: PyTorch for checkpoints, ONNX Runtime for ``.onnx``.
        accelerator: ``auto``, ``cpu`` or ``gpu``, or a device.
        precision: of weights and activations, by Lightning's names; ``32-true`` is exact.
        compile: whether PyTorch compiles the network first, which takes a minute and then saves some of each.
        ema: whether to take the averaged weights, where there are some.

    Raises:
        InputError: no such file or none that can be read, or something that this backend or machine does not have.
    """
    for name, value, known in (("backend", backend, get_args(Backend)), ("precision", precision, get_args(Precision))):
        if value not in known:
            raise InputError(f"{name}={value}: choose {', '.join(known)}{nearest(str(value), known)}")
    from realsr.backends.pytorch import TorchNetwork
    from realsr.networks.weights import load_generator

    device = accelerator if isinstance(accelerator, torch.device) else pick_device(accelerator)
    return TorchNetwork(load_generator(ckpt, ema), device, precision, compile)
