"""A network as ONNX: a file that ONNX Runtime and TensorRT open without Python and without us."""

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
from realsr.runtime.errors import InputError

OPSET = 18  # of 2022: readers of several years know it


class _Half(nn.Module):
    """float32 in and out, half precision between."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, lr: Tensor) -> Tensor:
        return self.network(lr.half()).float()


class _Clamped(nn.Module):
    """spandrel's network with what its descriptor does around it, but for the padding."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor) -> Tensor:
        return self.network(lr).clamp(0, 1)


def standalone(network: nn.Module, half: bool = False) -> nn.Module:
    """A copy on the CPU that can be traced, float32 ``(N, 3, h, w)`` to float32 ``(N, 3, scale*h, scale*w)``.

    Args:
        network: from :func:`realsr.networks.weights.load_generator`; stays as it is.
        half: whether the copy computes in float16.
    """
    alone = copy.deepcopy(network.network if isinstance(network, CommunityNetwork) else network)
    alone = alone.cpu().float().eval().requires_grad_(False)
    if isinstance(alone, RRDBNet):
        alone.strip = 0  # a trace would keep the number of strips
    if isinstance(network, CommunityNetwork):
        alone = _Clamped(alone)
    return (_Half(alone) if half else alone).eval()


def architecture(network: nn.Module) -> str:
    """The name of a network's architecture, as people know it."""
    return (
        str(network.descriptor.architecture.name) if isinstance(network, CommunityNetwork) else type(network).__name__
    )


def onnx_graph(network: nn.Module, half: bool = False, about: Mapping[str, str] | None = None) -> bytes:
    """ONNX of a generator, with dynamic batch, height and width.

    Its input ``lr (batch, 3, height, width)`` is RGB in [0, 1], its output ``sr (batch, 3, scale*height, scale*width)``
    is not clamped; both are float32. ``metadata_props`` has ``scale``, ``architecture``, ``precision``, ``realsr`` (our
    version), and what it asks of images and tiles (:class:`realsr.networks.sizes.Sizes`).

    Args:
        network: from :func:`realsr.networks.weights.load_generator`, on any device.
        half: whether it computes in float16 inside, which halves the file.
        about: more to say in ``metadata_props``.

    Raises:
        InputError: the packages for it are not installed, or the network holds what ONNX cannot express.
    """
    try:
        import onnx
    except ImportError as e:
        raise InputError("ONNX files are written with the package onnx: pip install 'realsr[onnx]'") from e
    scale, name = scale_of(network), architecture(network)
    model = onnx.load_from_string(_export(standalone(network, half), scale, name))
    _tidy(model.graph)
    model.graph.name, model.producer_name, model.producer_version = "realsr", "realsr", __version__
    says = {"scale": str(scale), "architecture": name, "realsr": __version__}
    says |= {key: str(value) for key, value in sizes_of(network)._asdict().items()}
    onnx.helper.set_model_props(model, {**says, "precision": "float16" if half else "float32", **(about or {})})
    return bytes(model.SerializeToString())


def _export(network: nn.Module, scale: int, name: str) -> bytes:
    """The graph of a network, by torch's exporter through TorchScript.

    By measurement the one through `torch.export`, which is to replace it, writes the same: outputs are equal to the bit
    in ONNX Runtime, speeds too. But it takes 13 s for the full RRDBNet in place of 1.5, one package more, and crashes
    the process at spandrel's SPAN.
    """
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is deprecated
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


def _tidy(graph: Any) -> None:
    """Values that stand in nodes of their own go where the weights are, and what is equal is named once."""
    fixed = {tensor.name for tensor in graph.initializer}
    same: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in fixed:
            same[node.output[0]] = node.input[0]
        elif node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            node.input[:] = [same.get(name, name) for name in node.input]
            nodes.append(node)
    kept = [copy.deepcopy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def first_reason(error: BaseException) -> str:
    """The first line of what an error came from in the end."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:150] if lines else type(error).__name__
