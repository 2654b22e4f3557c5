"""Translates an ONNX graph to ncnn's two files: a text of layers, and their weights one after another.

ncnn's own converter, pnnx, needs more than 20 GB for RRDBNet's 23 blocks, and a generator has few kinds of layers.
Their options: https://github.com/Tencent/ncnn/wiki/operation-param-weight-table
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from realsr.networks.ncnn_files import FLOAT, HALF, MAGIC
from realsr.networks.onnx_graph import tidy
from realsr.runtime.errors import InputError, package

Array = NDArray[Any]

BINARY = {"Add": 0, "Sub": 1, "Mul": 2, "Div": 3}
REVERSED = {"Sub": 7, "Div": 8}  # with a number on the left
RESIZE = {("nearest", "asymmetric"): 1, ("linear", "half_pixel"): 2, ("linear", "pytorch_half_pixel"): 2}
SHUFFLE = {"CRD": 0, "DCR": 1}
INPUT, OUTPUT = "data", "output"  # as Upscayl and realesrgan-ncnn-vulkan ask for them


class _Node(NamedTuple):
    """ONNX's: names of inputs and output, and attributes by name."""

    kind: str
    inputs: list[str]
    output: str
    options: dict[str, Any]


class _Layer(NamedTuple):
    """ncnn's: options by number, and weights as in the file."""

    kind: str
    options: dict[int, Any]
    weights: bytes = b""


def ncnn_graph(content: bytes, half: bool = False) -> tuple[str, bytes]:
    """A network as the contents of its ``.param`` and ``.bin``, from blob :data:`INPUT` to blob :data:`OUTPUT`.

    Args:
        content: of an ``.onnx`` file with convolutions, activations, arithmetic, concatenations and enlargements.
        half: whether the weights of convolutions are written in float16; ncnn's CPU computes in float32 all the same.

    Raises:
        InputError: onnx is missing, or the network has another operator.
    """
    onnx = package("onnx", "backend=ncnn", "ncnn")
    graph = onnx.load_from_string(content).graph
    tidy(graph)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [_Node(n.op_type, list(n.input), n.output[0], _options(onnx, n)) for n in graph.node]
    source, result = graph.input[0].name, graph.output[0].name
    readers = Counter(name for node in nodes for name in node.inputs) + Counter([result])
    layers: list[str] = []
    weights, blobs = bytearray(), 0
    copies: dict[str, list[str]] = {}  # unread blobs by value: in ncnn each blob has one reader

    def write(layer: _Layer, inputs: list[str], value: str, outputs: int) -> list[str]:
        nonlocal blobs
        numbers = [str(blobs + index) for index in range(outputs)] if layers else [INPUT]
        if value == result and outputs == readers[result]:
            numbers[0] = OUTPUT
        options = [f"{number}={_text(option)}" for number, option in layer.options.items()]
        head = f"{layer.kind} layer{len(layers)} {len(inputs)} {outputs}"
        layers.append(" ".join([head, *inputs, *numbers, *options]))
        weights.extend(layer.weights)
        blobs += outputs
        return numbers

    for node in [_Node("Input", [], source, {}), *_fused(nodes, readers)]:
        inputs = [copies[name].pop() for name in node.inputs if name and name not in constants]
        copies[node.output] = write(_layer(node, constants, half), inputs, node.output, 1)
        if readers[node.output] > 1:
            copies[node.output] = write(_Layer("Split", {}), copies[node.output], node.output, readers[node.output])
    return "\n".join([MAGIC, f"{len(layers)} {blobs}", *layers, ""]), bytes(weights)


def _options(onnx: Any, node: Any) -> dict[str, Any]:
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _fused(nodes: list[_Node], readers: Mapping[str, int]) -> list[_Node]:
    """Activations become part of a convolution that only they read."""
    fused: dict[str, _Node] = {}
    for node in nodes:
        before = fused.get(node.inputs[0]) if node.inputs else None
        if node.kind in ("Relu", "LeakyRelu") and before and before.kind == "Conv" and readers[before.output] == 1:
            del fused[before.output]
            slope = node.options.get("alpha", 0.01) if node.kind == "LeakyRelu" else 0.0
            node = before._replace(output=node.output, options={**before.options, "slope": slope})
        fused[node.output] = node
    return list(fused.values())


def _layer(node: _Node, constants: Mapping[str, Array], half: bool) -> _Layer:
    """The layer of a node."""
    fixed, given = [constants.get(name) for name in node.inputs], node.options
    plain = given.get("group", 1) == 1 and given.get("auto_pad", "NOTSET") == "NOTSET"
    values = [value for value in fixed if value is not None]
    if node.kind == "Conv" and plain and len(values) == len(fixed) - 1:
        return _convolution(values[0], values[1] if len(values) > 1 else None, given, half)
    if node.kind in BINARY and len(node.inputs) == 2:
        return _arithmetic(node, fixed)
    match node.kind:
        case "Concat" if given["axis"] in (1, -3) and not values:
            return _Layer("Concat", {0: 0})
        case "LeakyRelu" | "Relu":
            return _Layer("ReLU", {0: given.get("alpha", 0.01) if node.kind == "LeakyRelu" else 0.0})
        case "PRelu" if fixed[1] is not None:
            return _Layer("PReLU", {0: fixed[1].size}, _floats(fixed[1]))
        case "Clip" if len(fixed) == 3 and fixed[1] is not None and fixed[2] is not None:
            return _Layer("Clip", {0: float(fixed[1]), 1: float(fixed[2])})
        case "DepthToSpace":
            return _Layer("PixelShuffle", {0: given["blocksize"], 1: SHUFFLE[given.get("mode", "DCR")]})
        case "Resize" if len(fixed) == 3 and fixed[2] is not None:
            how = given.get("mode", "nearest"), given.get("coordinate_transformation_mode", "half_pixel")
            floors = how[0] != "nearest" or given.get("nearest_mode") == "floor"
            if how in RESIZE and floors and (fixed[2][:2] == 1).all():
                return _Layer("Interp", {0: RESIZE[how], 1: float(fixed[2][2]), 2: float(fixed[2][3])})
        case "Identity":
            return _Layer("Noop", {})
        case "Input" | "Sigmoid":
            return _Layer(node.kind, {})
    raise InputError(f"backend=ncnn: its networks have no {node.kind} such as this one's; take another backend")


def _convolution(weight: Array, bias: Array | None, given: Mapping[str, Any], half: bool) -> _Layer:
    outputs, _, height, width = weight.shape
    (down, right), (top, left, bottom, after) = given.get("strides", (1, 1)), given.get("pads", (0, 0, 0, 0))
    rows, columns = given.get("dilations", (1, 1))
    options: dict[int, Any] = {0: outputs, 1: width, 11: height, 2: columns, 12: rows, 3: right, 13: down}
    options |= {4: left, 14: top, 15: after, 16: bottom, 5: int(bias is not None), 6: weight.size}
    if "slope" in given:  # ReLU, or leaky ReLU with its slope in an array of one
        options |= {9: 2, -23310: [given["slope"]]} if given["slope"] else {9: 1}
    values = np.ascontiguousarray(weight, "<f2").tobytes() if half else _floats(weight)
    values = struct.pack("<I", HALF if half else FLOAT) + values + bytes(-len(values) % 4)
    return _Layer("Convolution", options, values + (b"" if bias is None else _floats(bias)))


def _arithmetic(node: _Node, fixed: list[Array | None]) -> _Layer:
    left, right = fixed
    if left is None and right is None:
        return _Layer("BinaryOp", {0: BINARY[node.kind]})
    number = right if left is None else left
    assert number is not None
    if number.size == 1:
        kind = BINARY[node.kind] if left is None else REVERSED.get(node.kind, BINARY[node.kind])
        return _Layer("BinaryOp", {0: kind, 1: 1, 2: float(number.item())})
    if number.ndim < 3 or number.shape[-3] != number.size or (left is not None and node.kind in REVERSED):
        raise InputError(f"backend=ncnn: {node.kind} with values of shape {number.shape}; take another backend")
    factor, summand = np.ones(number.size), np.zeros(number.size)  # by channel
    match node.kind:
        case "Mul" | "Div":
            factor = number.ravel() if node.kind == "Mul" else 1 / number.astype(np.float64).ravel()
        case "Add" | "Sub":
            summand = number.ravel() * (1 if node.kind == "Add" else -1)
    return _Layer("Scale", {0: number.size, 1: 1}, _floats(factor) + _floats(summand))


def _text(value: float | list[float]) -> str:
    """An option in a .param: ncnn before 2026-10 reads 15 characters of a number, which hold float32 exactly."""
    if isinstance(value, list):
        return ",".join([str(len(value)), *map(_text, value)])
    return f"{value:.8e}" if isinstance(value, float) else str(value)


def _floats(values: Array) -> bytes:
    return np.ascontiguousarray(values, "<f4").tobytes()
