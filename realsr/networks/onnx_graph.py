"""A network as ONNX, which ONNX Runtime and TensorRT open without Python and without this package."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from realsr import __version__
from realsr.networks.community import CommunityNetwork, scale_of
from realsr.networks.rrdb import RRDBNet
from realsr.networks.sizes import sizes_of
from realsr.runtime.errors import InputError, first_line, package

OPSET = 18  # of 2022: readers of several years know it


class _Standalone(nn.Module):
    """A network that takes and returns float32, computes in half precision if asked, and clamps if it is spandrel's."""

    def __init__(self, network: nn.Module, half: bool, clamps: bool) -> None:
        super().__init__()
        self.network, self.half_inside, self.clamps = network.half() if half else network, half, clamps

    def forward(self, lr: Tensor) -> Tensor:
        sr = self.network(lr.half()).float() if self.half_inside else self.network(lr)
        return sr.clamp(0, 1) if self.clamps else sr


def architecture(network: nn.Module) -> str:
    """The name of a network's architecture: of its class, or spandrel's name for it."""
    if isinstance(network, CommunityNetwork):
        return str(network.descriptor.architecture.name)
    return type(network).__name__


def onnx_graph(network: nn.Module, half: bool = False, about: Mapping[str, str] | None = None) -> bytes:
    """A generator as ONNX, with dynamic batch, height and width.

    Its input ``lr (batch, 3, height, width)`` is RGB in [0, 1], its output ``sr (batch, 3, scale*height, scale*width)``
    is not clamped; both are float32. ``metadata_props`` holds ``scale``, ``architecture``, ``precision``, ``realsr``
    (our version) and the fields of :class:`realsr.networks.sizes.Sizes`.

    Args:
        network: from :func:`realsr.networks.weights.load_generator`, on any device.
        half: whether the graph computes in float16, which halves the file.
        about: further ``metadata_props``.

    Raises:
        InputError: the packages for it are not installed, or ONNX cannot express the network.
    """
    onnx = package("onnx", "writing ONNX", "onnx")
    scale, name, community = scale_of(network), architecture(network), isinstance(network, CommunityNetwork)
    alone = copy.deepcopy(network.network if isinstance(network, CommunityNetwork) else network).cpu().float()
    if isinstance(alone, RRDBNet):
        alone.strip = 0  # a trace would keep the number of strips
    traced = _Standalone(alone, half, community).eval().requires_grad_(False)
    model = onnx.load_from_string(_export(traced, scale, name))
    tidy(model.graph)
    model.graph.name, model.producer_name, model.producer_version = "realsr", "realsr", __version__
    properties = {"scale": str(scale), "architecture": name, "realsr": __version__}
    properties |= {key: str(value) for key, value in sizes_of(network)._asdict().items()}
    onnx.helper.set_model_props(model, {**properties, "precision": "float16" if half else "float32", **(about or {})})
    return bytes(model.SerializeToString())


def _export(network: nn.Module, scale: int, name: str) -> bytes:
    """The graph of a network, by torch's exporter through TorchScript.

    The exporter through `torch.export`, which is to replace it, writes graphs with bitwise equal outputs and the same
    speed in ONNX Runtime, but takes 13 s for the full RRDBNet in place of 1.5, needs one more package, and crashes the
    process at spandrel's SPAN.
    """
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations
            torch.onnx.export(
                network,
                (torch.zeros(1, 3, 24, 20),),
                buffer,  # type: ignore[arg-type]
                input_names=["lr"],
                output_names=["sr"],
                opset_version=OPSET,
                dynamic_axes={
                    "lr": {0: "batch", 2: "height", 3: "width"},
                    "sr": {0: "batch", 2: f"{scale}*height", 3: f"{scale}*width"},
                },
                dynamo=False,
            )
    except Exception as e:  # whatever in a network the tracer or the translation does not know
        raise InputError(f"{name} cannot be written as ONNX ({first_reason(e)})") from e
    return buffer.getvalue()


def tidy(graph: Any) -> None:
    """Move constants from nodes to the initializers, where weights are, and drop nodes that only rename."""
    names: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.output[0] != graph.output[0].name:
            names[node.output[0]] = node.input[0]
        elif node.op_type == "Constant" and node.attribute[0].name == "value":
            node.attribute[0].t.name = node.output[0]
            graph.initializer.append(node.attribute[0].t)
        else:
            nodes.append(copy.deepcopy(node))
    del graph.node[:]
    graph.node.extend(nodes)


def first_reason(error: BaseException) -> str:
    """The first line of the error that caused this one."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return first_line(error).strip()[:150]
