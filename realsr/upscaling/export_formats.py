"""The formats in which other programs take a network, and how each is opened without our code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from realsr.networks.community import CommunityNetwork
from realsr.networks.names import State
from realsr.networks.onnx_graph import onnx_graph
from realsr.networks.weights import load_generator
from realsr.upscaling.backends.graphs import package
from realsr.upscaling.backends.ncnn_graph import ncnn_graph
from realsr.upscaling.backends.ncnn_net import opened
from realsr.upscaling.backends.onnx_runtime import onnx_runtime

Opened = Callable[[Tensor], Tensor]


class Export(NamedTuple):
    """A format.

    Attributes:
        suffix: of the file.
        write: writes a network, in float16 or not, and its description to a file.
        open: opens such a file as ``(N, 3, h, w)`` to ``(N, 3, scale*h, scale*w)``, float32 on the CPU.
        instead: advice for networks that this format cannot hold.
        weights: whether the file holds weights alone, so that readers have to know the architecture.
        half: whether the format is always float16.
        twin: suffix of a second file that belongs to it.
    """

    suffix: str
    write: Callable[[nn.Module, bool, Mapping[str, str], Path], Any]
    open: Callable[[Path], Opened]
    instead: str
    weights: bool = False
    half: bool = False
    twin: str | None = None


def _state(network: nn.Module, half: bool) -> State:
    """The weights by the names of BasicSR, which ours are; every reader of RRDBNets knows them."""
    inner = network.network if isinstance(network, CommunityNetwork) else network
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in inner.state_dict().items()}
    return {key: value.half() if half and value.is_floating_point() else value for key, value in weights.items()}


def _write_safetensors(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    save_file(_state(network, half), file, dict(about))


def _write_pth(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    """Tensors alone, for ``weights_only``, under the key of RealESRGAN_x4plus.pth, which its own program expects."""
    torch.save({"params_ema": _state(network, half)}, file)


def _write_onnx(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    package("onnxruntime", "format=onnx", "onnx")  # to compare the file
    file.write_bytes(onnx_graph(network, half, about))


def _open_onnx(path: Path) -> Opened:
    run = onnx_runtime(path.read_bytes(), "cpu")
    return lambda lr: torch.from_numpy(run(lr.numpy()))


def _write_ncnn(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    """The two files of ncnn, which have no place for the description."""
    package("ncnn", "format=ncnn", "ncnn")  # to compare the file
    graph = ncnn_graph(onnx_graph(network), half)
    file.write_text(graph.layers)
    file.with_suffix(".bin").write_bytes(graph.weights)


def _open_ncnn(path: Path) -> Opened:
    run = opened(path)
    return lambda lr: torch.cat([torch.from_numpy(run(one[None].numpy())) for one in lr])


EXPORTS = {
    "safetensors": Export(".safetensors", _write_safetensors, load_generator, "format=onnx", True),
    "pth": Export(".pth", _write_pth, load_generator, "format=safetensors, which says how its network is built", True),
    "onnx": Export(".onnx", _write_onnx, _open_onnx, "format=safetensors"),
    "ncnn": Export(".param", _write_ncnn, _open_ncnn, "format=onnx", half=True, twin=".bin"),
}
