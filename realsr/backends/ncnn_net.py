"""A network by ncnn, whose Winograd convolutions need fewer multiplications."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from realsr.backends.graphs import Run, missing
from realsr.backends.ncnn_graph import ncnn_graph

INEXACT = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_int8_inference")


def ncnn_net(graph: bytes) -> Run:
    """What computes an ONNX graph in float32 on the CPU, image by image, with as many threads as PyTorch has.

    Args:
        graph: the content of an ``.onnx`` file.

    Raises:
        InputError: ncnn is missing, or the graph has a layer that is not translated.
    """
    try:
        import ncnn
        import onnx
    except ImportError as e:
        raise missing("ncnn", e) from e
    translated = ncnn_graph(onnx.load_from_string(graph))
    net: Any = ncnn.Net()
    for option in INEXACT:
        setattr(net.opt, option, False)
    net.opt.num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:  # it reads weights from memory only where they stay
        layers, weights = Path(folder, "net.param"), Path(folder, "net.bin")
        layers.write_text(translated.layers)
        weights.write_bytes(translated.weights)
        if net.load_param(str(layers)) or net.load_model(str(weights)):
            raise RuntimeError("ncnn refuses what we wrote for it")

    def run(lr: NDArray[np.float32]) -> NDArray[np.float32]:
        extractor = net.create_extractor()
        extractor.input("0", ncnn.Mat(lr[0]).clone())  # its own memory: layers may write where they read
        status, sr = extractor.extract(translated.output)
        if status:
            raise MemoryError(f"ncnn: status {status}")
        return sr.numpy()[None].copy()

    return run
