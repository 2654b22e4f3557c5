"""A network as ONNX: a file that ONNX Runtime, OpenVINO and TensorRT open without Python and without us."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from realsr import __version__
from realsr.errors import InputError
from realsr.networks.community import CommunityNetwork

OPSET = 18  # of 2022: the least that torch writes, so the most that readers know
IR_VERSION = 8  # that came with it; torch would mark its files as newer ones, which older readers refuse


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
    version).

    Args:
        network: from :func:`realsr.networks.weights.load_generator`, on any device.
        half: whether it computes in float16 inside, which halves the file.
        about: more to say in ``metadata_props``.

    Raises:
        InputError: the packages for it are not installed, or the network holds what ONNX cannot express.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch writes with it)
    except ImportError as e:
        raise InputError(f"ONNX files need the package {e.name}: pip install 'realsr[onnx]'") from e
    model: Any = _export(standalone(network, half), architecture(network))
    model.ir_version = IR_VERSION
    model.graph.name, model.producer_name, model.producer_version = "realsr", "realsr", __version__
    # what torch leaves of its own: the lines of source that each node is from, with folders of this machine
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    says = {"scale": str(network.scale), "architecture": architecture(network), "realsr": __version__}
    onnx.helper.set_model_props(model, {**says, "precision": "float16" if half else "float32", **(about or {})})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _export(network: nn.Module, name: str) -> Any:
    """The ModelProto, by `torch.export`; torch's older way through TorchScript is to be removed."""
    lr = torch.zeros(2, 3, 24, 20)  # a size of 1 would be taken for a constant
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # torch prints what it fails at
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (lr,),
                input_names=["lr"],
                output_names=["sr"],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
                external_data=False,
                verbose=False,
            )
    except Exception as e:  # whatever in a network the tracer or the translation does not know
        raise InputError(f"{name} cannot be written as ONNX ({first_reason(e)})") from e
    finally:
        logging.disable(logging.NOTSET)
    return program.model_proto  # type: ignore[union-attr]


def first_reason(error: BaseException) -> str:
    """The first line of what an error came from in the end."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:150] if lines else type(error).__name__
