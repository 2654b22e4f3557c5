"""A network by ncnn: Winograd convolutions on CPUs, which need fewer multiplications; Vulkan on GPUs of any make."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from realsr.runtime.errors import InputError, package
from realsr.upscaling.backends.graphs import Run
from realsr.upscaling.backends.ncnn_graph import INPUT, OUTPUT, ncnn_graph

HALF_OPTIONS = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic")
INEXACT = ("use_bf16_storage", "use_int8_inference")


def ncnn_net(graph: bytes, gpu: int | None = None, half: bool = False) -> Run:
    """A network that computes an ONNX graph image by image.

    ``gpu`` is the index of Vulkan's device, which may compute in float16 (``half``); None is the CPU, in float32, with
    as many threads as PyTorch.

    Raises:
        InputError: ncnn or a GPU is missing, or the graph has a layer that is not translated.
    """
    layers, weights = ncnn_graph(graph)
    with tempfile.TemporaryDirectory() as folder:  # weights in memory would have to stay there
        file = Path(folder, "net.param")
        file.write_text(layers)
        file.with_suffix(".bin").write_bytes(weights)
        return load_ncnn(file, gpu, half)


def load_ncnn(file: Path, gpu: int | None = None, half: bool = False) -> Run:
    """The network of a ``.param`` with its ``.bin`` beside it, ``(1, 3, h, w)`` to ``(1, 3, scale*h, scale*w)``.

    Raises:
        InputError: ncnn is missing, or there is no such GPU.
        RuntimeError: ncnn refuses the files.
    """
    ncnn = package("ncnn", "backend=ncnn", "ncnn")
    net = ncnn.Net()
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
        extractor.input(INPUT, ncnn.Mat(lr[0]).clone())  # layers may work in place
        status, sr = extractor.extract(OUTPUT)
        if status:
            raise MemoryError(f"ncnn: status {status}")
        return sr.numpy()[None].copy()

    return run
