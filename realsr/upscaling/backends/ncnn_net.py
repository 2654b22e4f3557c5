"""A network by ncnn: Winograd convolutions on CPUs, which need fewer multiplications; Vulkan on GPUs of any make."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from realsr.runtime.errors import InputError
from realsr.upscaling.backends.graphs import Run, missing
from realsr.upscaling.backends.ncnn_graph import INPUT, OUTPUT, Graph, ncnn_graph

HALF_OPTIONS = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic")
INEXACT = ("use_bf16_storage", "use_int8_inference")


def ncnn_net(graph: bytes, gpu: int | None = None, half: bool = False) -> Run:
    """What computes an ONNX graph image by image.

    Args:
        graph: the content of an ``.onnx`` file.
        gpu: which of Vulkan's devices; None: the CPU, in float32, with as many threads as PyTorch has.
        half: whether a GPU computes in float16.

    Raises:
        InputError: ncnn or a GPU is missing, or the graph has a layer that is not translated.
    """
    layers, weights = translated(graph)
    with tempfile.TemporaryDirectory() as folder:  # it reads weights from memory only where they stay
        file = Path(folder, "net.param")
        file.write_text(layers)
        file.with_suffix(".bin").write_bytes(weights)
        return opened(file, gpu, half)


def translated(graph: bytes, half: bool = False) -> Graph:
    """An ONNX graph in ncnn's two files; see :func:`realsr.upscaling.backends.ncnn_graph.ncnn_graph`.

    Raises:
        InputError: ncnn is missing, or the graph has a layer that is not translated.
    """
    try:
        import ncnn  # noqa: F401  (or nothing could open it)
        import onnx
    except ImportError as e:
        raise missing("ncnn", e) from e
    return ncnn_graph(onnx.load_from_string(graph), half)


def opened(file: Path, gpu: int | None = None, half: bool = False) -> Run:
    """What computes a ``.param`` with its ``.bin`` beside it, ``(1, 3, h, w)`` to ``(1, 3, scale*h, scale*w)``.

    Raises:
        InputError: there is no such GPU.
        RuntimeError: ncnn refuses the files.
    """
    import ncnn

    net: Any = ncnn.Net()
    for option in (*HALF_OPTIONS, *INEXACT):
        setattr(net.opt, option, half and option in HALF_OPTIONS)
    if gpu is not None:
        if gpu >= ncnn.get_gpu_count():
            raise InputError("accelerator=gpu: there is no GPU that ncnn can use (by Vulkan); take accelerator=cpu")
        net.opt.use_vulkan_compute = True
        net.set_vulkan_device(gpu)
    net.opt.num_threads = torch.get_num_threads()
    if net.load_param(str(file)) or net.load_model(str(file.with_suffix(".bin"))):
        raise RuntimeError(f"ncnn refuses {file.name}")

    def run(lr: NDArray[np.float32]) -> NDArray[np.float32]:
        extractor = net.create_extractor()
        extractor.input(INPUT, ncnn.Mat(lr[0]).clone())  # its own memory: layers may write where they read
        status, sr = extractor.extract(OUTPUT)
        if status:
            raise MemoryError(f"ncnn: status {status}")
        return sr.numpy()[None].copy()

    return run
