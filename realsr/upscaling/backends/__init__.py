"""A network from a file, ready to upscale: by PyTorch, ONNX Runtime or ncnn, all behind one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from realsr.runtime.config_check import nearest
from realsr.runtime.errors import InputError
from realsr.runtime.hardware import pick_device

Accelerator = Literal["auto", "cpu", "gpu"]
Backend = Literal["auto", "torch", "onnxruntime", "ncnn"]
Precision = Literal["32-true", "bf16-true", "16-true"]

PRECISIONS: dict[str, tuple[str, ...]] = {
    "torch": get_args(Precision),
    "onnxruntime": ("32-true", "16-true"),
    "ncnn": ("32-true", "16-true"),
}


class Network(Protocol):
    """What enlarges a tile; precision, memory format and compilation are its own affair.

    Attributes:
        scale: by which it enlarges.
        device: on which it takes and gives tensors.
        overlap: LR pixels that a tile has to see around it.
        aligned: of what the starts of tiles have to be multiples.
    """

    scale: int
    device: torch.device
    overlap: int
    aligned: int

    def __call__(self, lr: Tensor) -> Tensor:
        """``lr (N, 3, h, w)`` in [0, 1] to ``sr (N, 3, scale*h, scale*w)``, not clamped; float32 on ``device``."""
        ...


def load_model(
    ckpt: str | Path,
    backend: Backend = "auto",
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
    compile: bool = False,
    ema: bool = True,
    index: int = 0,
) -> Network:
    """The network of a checkpoint or of an ``.onnx`` file.

    Args:
        ckpt: anything that :func:`realsr.networks.weights.load_generator` takes, or an ``.onnx`` file.
        backend: what computes it. ``auto``: PyTorch for checkpoints, ONNX Runtime for ``.onnx``.
        accelerator: ``auto``, ``cpu`` or ``gpu``; ncnn takes GPUs, by Vulkan, when told ``gpu``.
        precision: of weights and activations, by Lightning's names; ``32-true`` is exact, but that on GPUs of Nvidia's
            PyTorch convolves in TF32 unless ``torch.backends.cudnn.allow_tf32`` is off.
        compile: whether PyTorch compiles the network first, which takes a minute and then saves some of each.
        ema: whether to take the averaged weights, where there are some.
        index: which of several GPUs.

    Raises:
        InputError: no such file or none that can be read, or something that this backend or machine does not have.
    """
    choices = (("backend", backend, Backend), ("accelerator", accelerator, Accelerator))
    for name, value, hint in (*choices, ("precision", precision, Precision)):
        if value not in (known := get_args(hint)):
            raise InputError(f"{name}={value}: choose {', '.join(known)}{nearest(str(value), known)}")
    is_graph = Path(ckpt).suffix.lower() == ".onnx"
    if backend == "auto":
        backend = "onnxruntime" if is_graph else "torch"
    _check_combination(backend, accelerator, precision, compile, is_graph)
    if backend != "torch":
        return _graph_network(ckpt, backend, accelerator, precision, ema, index)
    from realsr.networks.weights import load_generator
    from realsr.upscaling.backends.pytorch import TorchNetwork

    return TorchNetwork(load_generator(ckpt, ema), pick_device(accelerator, index), precision, compile)


def _check_combination(backend: str, accelerator: str, precision: str, compile: bool, is_graph: bool) -> None:
    if is_graph and backend == "torch":
        raise InputError("backend=torch: opens no .onnx files; take backend=onnxruntime or ncnn")
    if compile and backend != "torch":
        raise InputError(f"compile=true: is PyTorch's; backend={backend} has a compiler of its own, leave it out")
    if precision not in PRECISIONS[backend]:
        raise InputError(f"precision={precision}: backend={backend} has {', '.join(PRECISIONS[backend])}")
    if precision == "16-true" and backend != "torch":
        if accelerator != "gpu":
            raise InputError("precision=16-true: CPUs compute it slower than 32-true; take that, or accelerator=gpu")
        if is_graph and backend == "onnxruntime":
            raise InputError("precision=16-true: an .onnx file has its precision inside; export it with half=true")


def _graph_network(ckpt: str | Path, backend: str, accelerator: str, precision: str, ema: bool, index: int) -> Network:
    """A network by a runtime that takes ONNX."""
    from realsr.upscaling.backends.graphs import GraphNetwork, brief, read_onnx

    if Path(ckpt).suffix.lower() == ".onnx":
        graph, batches, sizes = read_onnx(ckpt)
    else:
        from realsr.networks.onnx_graph import onnx_graph
        from realsr.networks.sizes import sizes_of
        from realsr.networks.weights import load_generator

        generator = load_generator(ckpt, ema)
        graph, batches = onnx_graph(generator, half=precision == "16-true" and backend == "onnxruntime"), True
        sizes = sizes_of(generator)
    try:
        if backend == "onnxruntime":
            from realsr.upscaling.backends.onnx_runtime import onnx_runtime

            run = onnx_runtime(graph, accelerator, index)
        else:
            from realsr.upscaling.backends.ncnn_net import ncnn_net

            run = ncnn_net(graph, index if accelerator == "gpu" else None, precision == "16-true")
            batches = False
        return GraphNetwork(run, ckpt, batches, sizes)
    except InputError:
        raise
    except Exception as e:  # each runtime has exceptions of its own
        raise InputError(f"{ckpt}: backend={backend} cannot take it ({brief(e)})") from e
