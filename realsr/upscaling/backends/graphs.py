"""Networks that ONNX Runtime or ncnn computes from an ONNX graph: reading, checking and running them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realsr.networks.content import check_content
from realsr.networks.sizes import Sizes, overlap_of, padded
from realsr.networks.tiling import BYTES_PER_PIXEL
from realsr.runtime.errors import InputError, package
from realsr.runtime.hardware import is_out_of_memory

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
UNKNOWN = Sizes(multiple=0)

MULTIPLES = (1, 2, 4, 8, 16, 32, 64)  # tried for the sides of images, in this order
WINDOW = 16  # where sides must be multiples, tiles start at multiples of this too, for windows of 8 and 16


class GraphNetwork:
    """A network of the file ``name`` whose tensors are on the CPU, whatever computes it.

    ``run`` takes ``(1, 3, h, w)``, C-contiguous, to ``(1, 3, scale*h, scale*w)``. ``sizes`` are the network's
    requirements on tiles; a multiple of 0 is found by trial.

    Raises:
        InputError: the network does not enlarge RGB images.

    >>> GraphNetwork(lambda lr: lr.repeat(3, 2).repeat(3, 3), "nearest.onnx").scale
    3
    """

    def __init__(self, run: Run, name: str | Path, sizes: Sizes = UNKNOWN) -> None:
        self.run, self.name, self.sizes = run, name, sizes
        self.device = torch.device("cpu")
        lr, sr = self._tried([sizes.multiple] if sizes.multiple else MULTIPLES)
        self.scale = sr[-1] // lr[-1] if len(sr) == 4 else 0
        if self.scale < 2 or sr != (*lr[:2], *(self.scale * side for side in lr[2:])):
            raise InputError(f"{name}: gives {sr} of an image of {lr}; only networks that enlarge photos are taken")
        self.overlap, self.aligned, self.bytes_per_pixel = self.sizes.overlap, self.sizes.aligned, BYTES_PER_PIXEL

    def _tried(self, multiples: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of a trial image, whose sides are odd numbers of the first multiple that works, and of its result."""
        multiple, *larger = multiples
        least = -(-max(self.sizes.minimum, 16) // multiple) // 2 * 2 + 1
        shape = (1, 3, multiple * least, multiple * (least + 2))
        try:
            sr = self._run(torch.zeros(shape))
        except InputError:
            if larger:
                return self._tried(larger)
            raise
        window = 1 if self.sizes.multiple or multiple == 1 else WINDOW
        self.sizes = self.sizes._replace(multiple=multiple, aligned=lcm(multiple, self.sizes.aligned, window))
        return shape, tuple(sr.shape)

    def __call__(self, lr: Tensor) -> Tensor:
        """``lr (N, 3, h, w)`` in [0, 1] to ``sr (N, 3, scale*h, scale*w)``, not clamped; float32 on the CPU.

        Raises:
            InputError: the network fails at this size.
            MemoryError: there is no memory for it.
        """
        sr = torch.cat([self._run(one[None]) for one in padded(lr, self.sizes)])
        return sr[..., : self.scale * lr.shape[-2], : self.scale * lr.shape[-1]]

    def _run(self, lr: Tensor) -> Tensor:
        images = np.ascontiguousarray(lr.detach().to("cpu", torch.float32).numpy())
        try:
            result = torch.from_numpy(self.run(images))
            if not result.is_floating_point():
                raise TypeError(f"it gives {result.dtype}, not numbers from 0 to 1")
            return result
        except MemoryError:
            raise
        except Exception as e:  # each runtime has its own exceptions
            reason = brief(e)
            if is_out_of_memory(RuntimeError(str(e))) or "bad_alloc" in str(e):
                raise MemoryError(reason) from e
            height, width = lr.shape[-2:]
            raise InputError(f"{self.name}: fails at an image of {width}x{height} ({reason})") from e


def brief(error: Exception) -> str:
    """A runtime's message without the places in its source."""
    return " ".join(str(error).split()).rpartition(" : ")[2][:200] or type(error).__name__


def _tensors(graph: Any) -> Iterator[Any]:
    """All tensors of an ONNX graph, including those of nodes and of subgraphs."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs) if attribute.type in (attribute.GRAPH, attribute.GRAPHS) else ():
            yield from _tensors(inner)


def read_onnx(path: str | Path) -> tuple[bytes, Sizes]:
    """The content of an ``.onnx`` file, and its requirements on tiles.

    Raises:
        InputError: it is missing, damaged or in several files, or does not map an RGB image to another.
    """
    onnx = package("onnx", "an .onnx file", "onnxruntime")
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    check_content(path)
    content = path.read_bytes()
    try:
        model = onnx.load_from_string(content)
    except Exception as e:  # protobuf's, which depends on its version
        raise InputError(f"{path}: is no ONNX file that can be read (damaged or foreign)") from e
    graph = model.graph
    if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in _tensors(graph)):
        raise InputError(f"{path}: has its weights in other files, which are not opened; export it as one file")
    fixed = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in fixed]
    if len(inputs) != 1 or len(graph.output) != 1:
        counts = f"{len(inputs)} inputs and {len(graph.output)} outputs"
        raise InputError(f"{path}: has {counts}; a network with one of each is needed")
    kind: Any = inputs[0].type.tensor_type
    sides = [side.dim_value for side in kind.shape.dim]  # 0 where any size may be
    if kind.elem_type != onnx.TensorProto.FLOAT or len(sides) != 4 or sides[1] not in (0, 3):
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise InputError(f"{path}: takes {name} of shape {sides}; float of shape (N, 3, height, width) is needed")
    if sides[2] or sides[3]:
        size = f"{sides[3]}x{sides[2]}"
        raise InputError(f"{path}: takes images of {size} alone; export it with dynamic height and width")
    return content, sizes_of_graph(model)


def sizes_of_graph(model: Any) -> Sizes:
    """Requirements on tiles: from the metadata that realsr.export writes, else from the convolutions."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if all(re.fullmatch(r"[1-9]\d{0,3}", metadata.get(name, "")) for name in Sizes._fields):
        return Sizes(*(int(metadata[name]) for name in Sizes._fields))
    kernels = [a.ints for node in model.graph.node for a in node.attribute if a.name == "kernel_shape"]
    return UNKNOWN._replace(overlap=overlap_of(kernels))
