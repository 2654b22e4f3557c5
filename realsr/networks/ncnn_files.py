"""ncnn's two files, a ``.param`` of layers and a ``.bin`` of weights, as an RRDBNet or Real-ESRGAN's compact network.

Upscayl, realesrgan-ncnn-vulkan, realsr-ncnn-vulkan and chaiNNer run such files. How they are written:
https://github.com/Tencent/ncnn/wiki/operation-param-weight-table
"""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from realsr.networks.foreign import State
from realsr.runtime.errors import InputError

MAGIC = "7767517"  # the first line of a .param
HALF, FLOAT = 0x01306B47, 0  # what stands before weights of float16, padded to 4 bytes, and of float32
CONVOLUTION = ("Convolution", 3, 1, 1, 1)  # 3x3, padding, stride and dilation of one


class _Layer(NamedTuple):
    """One line of a .param: its kind, and its options by number; arrays have numbers under -23300."""

    kind: str
    options: dict[int, list[float]]

    def get(self, number: int, default: float) -> float:
        return self.options.get(number, [default])[0]


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
        operations = Counter(operation for layer in layers for operation in _operations(layer))
    except (ValueError, IndexError, OverflowError) as e:
        raise damaged from e
    convolutions = operations[CONVOLUTION]
    if operations == _of_rrdbnet(blocks := (convolutions - 6) // 15):
        dense = [f"body.{index // 15}.rdb{index // 5 % 3 + 1}.conv{index % 5 + 1}" for index in range(15 * blocks)]
        names = ["conv_first", *dense, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    elif operations in [_of_compact(convolutions, scale) for scale in (2, 3, 4)]:
        names = [f"body.{index}" for index in range(2 * convolutions - 1)]
    else:
        kinds = sorted({layer.kind for layer in layers} - {"Input", "Split"})
        raise InputError(
            f"{path}: ncnn's graph ({', '.join(kinds)[:150]}) is neither RRDBNet x4 nor Real-ESRGAN's compact network; "
            "take the .pth or .safetensors that it was made from"
        )
    try:
        parts = list(zip(names, _tensors(layers, weights.read_bytes()), strict=True))
    except (ValueError, KeyError, IndexError, OverflowError, RuntimeError, struct.error) as e:
        raise damaged from e
    return {f"{name}.{part}": tensor for name, layer in parts for part, tensor in layer.items()}


def _layers(text: str) -> list[_Layer]:
    magic, _, *lines = [line.split() for line in text.splitlines() if line.strip()]
    if magic != [MAGIC]:
        raise ValueError(magic)
    layers = []
    for kind, _, inputs, outputs, *rest in lines:
        options = [word.split("=") for word in rest[int(inputs) + int(outputs) :]]
        arrays = {int(key): [float(value) for value in values.split(",")] for key, values in options}
        layers.append(_Layer(kind, {key: values[key <= -23300 :] for key, values in arrays.items()}))
    return layers


def _tensors(layers: list[_Layer], content: bytes) -> list[dict[str, Tensor]]:
    """Weight and bias of each layer that has some, in their order."""
    tensors, at = [], 0

    def take(count: int, kind: str = "<f4") -> Tensor:
        nonlocal at
        values = np.frombuffer(content, kind, count, at).astype(np.float32)
        at += -(-values.size * np.dtype(kind).itemsize // 4) * 4
        return torch.from_numpy(values)

    for layer in layers:
        if layer.kind == "PReLU":
            tensors.append({"weight": take(int(layer.get(0, 0)))})
        elif layer.kind == "Convolution":
            outputs, width = int(layer.get(0, 0)), int(layer.get(1, 0))
            (flag,) = struct.unpack_from("<I", content, at)
            at += 4
            weight = take(int(layer.get(6, 0)), {HALF: "<f2", FLOAT: "<f4"}[flag])
            tensors.append({"weight": weight.view(outputs, -1, int(layer.get(11, width)), width)})
            if layer.get(5, 0):
                tensors[-1]["bias"] = take(outputs)
    if at != len(content):
        raise ValueError(f"{len(content)} bytes, of which {at} are known")
    return tensors


def _operations(layer: _Layer) -> list[tuple[Any, ...]]:
    """What a layer computes, however it is put into layers; sums and products one by one."""
    match layer.kind:
        case "Input" | "Split" | "Noop":
            return []
        case "Convolution":
            sides = [{layer.get(number, 1), layer.get(number + 10, layer.get(number, 1))} for number in (1, 3, 2)]
            sides.insert(1, {layer.get(number, layer.get(4, 0)) for number in (4, 14, 15, 16)})
            shape = [values.pop() if len(values) == 1 else -1 for values in sides]  # kernel, padding, stride, dilation
            active = {0: [], 1: [("ReLU", 0.0)], 2: [("ReLU", round(layer.get(-23310, 0), 6))]}
            return [("Convolution", *shape), *active.get(int(layer.get(9, 0)), [("activation",)])]
        case "Clip" if (layer.get(0, 0), layer.get(1, 0)) == (0, 1):
            return []  # as everyone does with the result
        case "ReLU":
            return [("ReLU", round(layer.get(0, 0), 6))]
        case "PReLU":
            return [("PReLU",)]
        case "Concat":
            return [("Concat", layer.get(0, 0))]
        case "Eltwise" if layer.get(0, 0) == 1:
            factors = [round(factor, 6) for factor in layer.options.get(-23301, [])]
            return [("add",), *(("times", factor) for factor in factors if factor != 1)]
        case "BinaryOp" if layer.get(0, 0) == 0 and not layer.get(1, 0):
            return [("add",)]
        case "BinaryOp" if layer.get(0, 0) == 2 and layer.get(1, 0):
            return [("times", round(layer.get(2, 0), 6))]
        case "Interp":
            return [("Interp", *(layer.get(number, 0) for number in (0, 1, 2)))]
        case "PixelShuffle":
            return [("PixelShuffle", layer.get(0, 1), layer.get(1, 0))]
    return [(layer.kind,)]


def _of_rrdbnet(blocks: int) -> Counter[tuple[Any, ...]]:
    """What an RRDBNet x4 computes: each RRDB of three dense blocks of five convolutions."""
    counts = {CONVOLUTION: 15 * blocks + 6, ("ReLU", 0.2): 12 * blocks + 3, ("Concat", 0): 12 * blocks}
    return Counter({**counts, ("times", 0.2): 4 * blocks, ("add",): 4 * blocks + 1, ("Interp", 1, 2, 2): 2})


def _of_compact(convolutions: int, scale: int) -> Counter[tuple[Any, ...]]:
    counts = {CONVOLUTION: convolutions, ("PReLU",): convolutions - 1, ("PixelShuffle", scale, 0): 1}
    return Counter({**counts, ("Interp", 1, scale, scale): 1, ("add",): 1})
