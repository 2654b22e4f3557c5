"""ncnn's two files, a ``.param`` of layers and a ``.bin`` of weights, as an RRDBNet or Real-ESRGAN's compact network.

Upscayl, realesrgan-ncnn-vulkan, realsr-ncnn-vulkan and chaiNNer run such files. The format:
https://github.com/Tencent/ncnn/wiki/operation-param-weight-table
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from realsr.networks.names import State
from realsr.runtime.errors import InputError

MAGIC = "7767517"  # the first line of a .param
HALF, FLOAT = 0x01306B47, 0  # what stands before weights of float16, padded to 4 bytes, and of float32
_Layer = tuple[str, dict[int, float]]  # a line of a .param: the kind of a layer, and its options by number
# Layers of the two networks; what they compute beside their weights is taken for granted, as in other weight files.
_SHARED = {"Input", "Split", "Noop", "Clip", "Convolution", "Interp", "Eltwise", "BinaryOp"}
_RRDBNET, _COMPACT = {*_SHARED, "Concat", "ReLU"}, {*_SHARED, "PReLU", "PixelShuffle"}


def is_ncnn(path: Path) -> bool:
    """Whether this is one of ncnn's two files; a ``.bin`` without its ``.param`` may as well be PyTorch's."""
    return path.suffix == ".param" or (path.suffix == ".bin" and path.with_suffix(".param").is_file())


def read_ncnn(path: Path) -> State:
    """The weights of a network, under the names of our RRDBNet or of spandrel's compact network, in float32.

    Args:
        path: either file; the other lies beside it.

    Raises:
        InputError: the other file is missing, one of them is damaged, or the graph is of another network.
    """
    graph, weights = path.with_suffix(".param"), path.with_suffix(".bin")
    for file in (graph, weights):
        if not file.is_file():
            raise InputError(f"{path}: ncnn's networks are two files, and {file.name} is not beside it")
    damaged = InputError(f"{path}: ncnn's {graph.name} and {weights.name} do not fit together, or are damaged")
    try:
        layers = _layers(graph.read_text())
    except (ValueError, IndexError) as e:
        raise damaged from e
    kinds, count = {kind for kind, _ in layers}, sum(kind == "Convolution" for kind, _ in layers)
    blocks, rest = divmod(count - 6, 15)
    if {"Concat"} <= kinds <= _RRDBNET and not rest:
        dense = [f"body.{index // 15}.rdb{index // 5 % 3 + 1}.conv{index % 5 + 1}" for index in range(15 * blocks)]
        names = ["conv_first", *dense, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    elif {"PReLU", "PixelShuffle"} <= kinds <= _COMPACT:
        names = [f"body.{index}" for index in range(2 * count - 1)]
    else:
        found = ", ".join(sorted(kinds - {"Input", "Split"}))[:150]
        raise InputError(
            f"{path}: ncnn's graph ({found}) is neither RRDBNet x4 nor Real-ESRGAN's compact network; "
            "take the .pth or .safetensors that it was made from"
        )
    try:
        parts = list(zip(names, _tensors(layers, weights.read_bytes()), strict=True))
    except (ValueError, KeyError, OverflowError, RuntimeError, struct.error) as e:
        raise damaged from e
    return {f"{name}.{part}": tensor for name, layer in parts for part, tensor in layer.items()}


def _layers(text: str) -> list[_Layer]:
    magic, _, *lines = [line.split() for line in text.splitlines() if line.strip()]
    if magic != [MAGIC]:
        raise ValueError(magic)
    layers = []
    for kind, _, inputs, outputs, *rest in lines:
        options = [word.split("=") for word in rest[int(inputs) + int(outputs) :]]
        layers.append((kind, {int(key): float(value) for key, value in options if int(key) >= 0}))  # no arrays
    return layers


def _tensors(layers: list[_Layer], content: bytes) -> list[dict[str, Tensor]]:
    """Weight and bias of each layer that has some, in their order."""
    tensors, at = [], 0

    def take(count: int, kind: str = "<f4") -> Tensor:
        nonlocal at
        values = np.frombuffer(content, kind, count, at).astype(np.float32)
        at += -(-values.size * np.dtype(kind).itemsize // 4) * 4
        return torch.from_numpy(values)

    for kind, options in layers:
        if kind == "PReLU":
            tensors.append({"weight": take(int(options[0]))})
        elif kind == "Convolution":
            outputs, side = int(options[0]), int(options[1])
            (flag,) = struct.unpack_from("<I", content, at)
            at += 4
            weight = take(int(options[6]), {HALF: "<f2", FLOAT: "<f4"}[flag])
            tensors.append({"weight": weight.view(outputs, -1, side, side)})
            if options.get(5):
                tensors[-1]["bias"] = take(outputs)
    if at != len(content):
        raise ValueError(f"{len(content)} bytes, of which {at} are known")
    return tensors
