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

NCNN_BYTES = 50_000  # most memory for each LR pixel: its fast convolutions take 47,000 in an RRDBNet
PRECISIONS: dict[str, tuple[str, ...]] = {
    "torch": get_args(Precision),
    "onnxruntime": ("32-true", "16-true"),
    "ncnn": ("32-true", "16-true"),
}


class Network(Protocol):
    """A network that enlarges tiles, in whatever precision and memory format.

    Attributes:
        scale: of SR against LR.
        device: of its input and output.
        overlap: LR pixels around a tile that it has to see.
        aligned: tiles start at multiples of this.
        bytes_per_pixel: most memory that it takes for each LR pixel.
    """

    scale: int
    device: torch.device
    overlap: int
    aligned: int
    bytes_per_pixel: int

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
        backend: ``torch``, ``onnxruntime`` or ``ncnn``; ``auto`` is ONNX Runtime for ``.onnx``, else PyTorch.
        accelerator: ``auto``, ``cpu`` or ``gpu``; ncnn uses GPUs, by Vulkan, with ``gpu`` alone.
        precision: of weights and activations, by Lightning's names; ``32-true`` is exact, except that PyTorch convolves
            in TF32 on Nvidia GPUs unless ``torch.backends.cudnn.allow_tf32`` is off.
        compile: whether PyTorch compiles the network first, which takes a minute.
        ema: whether to take the averaged weights, if there are some.
        index: of several GPUs.

    Raises:
        InputError: the file cannot be read, or the backend or machine lacks what is asked for.
    """
    choices = (("backend", backend, Backend), ("accelerator", accelerator, Accelerator))
    for name, value, hint in (*choices, ("precision", precision, Precision)):
        if value not in (known := get_args(hint)):
            raise InputError(f"{name}={value}: choose {', '.join(known)}{nearest(str(value), known)}")
    backend, is_graph, half = backend_of(ckpt, backend), _is_graph(ckpt), precision == "16-true"
    if is_graph and backend == "torch":
        raise InputError("backend=torch: opens no .onnx files; take backend=onnxruntime or ncnn")
    if compile and backend != "torch":
        raise InputError(f"compile=true: is PyTorch's; backend={backend} has a compiler of its own, leave it out")
    if precision not in PRECISIONS[backend]:
        raise InputError(f"precision={precision}: backend={backend} has {', '.join(PRECISIONS[backend])}")
    if half and backend != "torch" and accelerator != "gpu":
        raise InputError("precision=16-true: CPUs compute it slower than 32-true; take that, or accelerator=gpu")
    if half and backend == "onnxruntime" and is_graph:
        raise InputError("precision=16-true: an .onnx file has its precision inside; export it with half=true")
    if backend != "torch":
        return _graph_network(ckpt, backend, accelerator, half, ema, index)
    from realsr.networks.weights import load_generator
    from realsr.upscaling.backends.pytorch import TorchNetwork

    return TorchNetwork(load_generator(ckpt, ema), pick_device(accelerator, index), precision, compile)


def backend_of(ckpt: str | Path, backend: Backend) -> Backend:
    """What computes a file where ``backend`` is asked for."""
    return ("onnxruntime" if _is_graph(ckpt) else "torch") if backend == "auto" else backend


def _is_graph(ckpt: str | Path) -> bool:
    return Path(ckpt).suffix.lower() == ".onnx"


def _graph_network(ckpt: str | Path, backend: str, accelerator: str, half: bool, ema: bool, index: int) -> Network:
    """A network by ONNX Runtime or ncnn."""
    from realsr.networks.onnx_graph import onnx_graph
    from realsr.networks.sizes import sizes_of
    from realsr.networks.weights import load_generator
    from realsr.upscaling.backends.graphs import GraphNetwork, brief, read_onnx
    from realsr.upscaling.backends.ncnn_net import ncnn_net
    from realsr.upscaling.backends.onnx_runtime import onnx_runtime

    if _is_graph(ckpt):
        graph, sizes = read_onnx(ckpt)
    else:
        generator = load_generator(ckpt, ema)
        graph, sizes = onnx_graph(generator, half and backend == "onnxruntime"), sizes_of(generator)
    try:
        if backend == "onnxruntime":
            return GraphNetwork(onnx_runtime(graph, accelerator, index), ckpt, sizes)
        network = GraphNetwork(ncnn_net(graph, index if accelerator == "gpu" else None, half), ckpt, sizes)
        network.bytes_per_pixel = NCNN_BYTES
        return network
    except InputError:
        raise
    except Exception as e:  # each runtime has its own exceptions
        raise InputError(f"{ckpt}: backend={backend} cannot take it ({brief(e)})") from e
