"""The formats that other programs take a network in, and how each is opened without the code that made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from realsr.networks.community import CommunityNetwork
from realsr.networks.names import State
from realsr.networks.onnx_graph import onnx_graph
from realsr.networks.weights import load_generator
from realsr.runtime.errors import InputError

Opened = Callable[[Tensor], Tensor]


class Export(NamedTuple):
    """A kind of file.

    Attributes:
        suffix: of its name.
        write: a network, whether in float16, with what to say of it, to a file.
        open: the network of such a file: ``(N, 3, h, w)`` to ``(N, 3, scale*h, scale*w)``, float32 on the CPU.
        instead: what carries networks that this does not.
        weights: whether it holds the weights alone, so that readers have to know the network.
        half: whether it has float16 alone.
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
    """The weights, by the names of BasicSR, which ours are; every reader of RRDBNets knows these."""
    inner = network.network if isinstance(network, CommunityNetwork) else network
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in inner.state_dict().items()}
    return {key: value.half() if half and value.is_floating_point() else value for key, value in weights.items()}


def _write_safetensors(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    save_file(_state(network, half), file, dict(about))


def _write_pth(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    """Under the one key of RealESRGAN_x4plus.pth: its own program asks for it, ComfyUI takes one key off and no more.

    Tensors alone, so that ``weights_only`` opens it.
    """
    torch.save({"params_ema": _state(network, half)}, file)


def _write_onnx(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    _onnxruntime()  # or the file could not be compared
    file.write_bytes(onnx_graph(network, half, about))


def _open_onnx(path: Path) -> Opened:
    options = _onnxruntime().SessionOptions()
    options.log_severity_level = 4  # what fails is said by us
    session = _onnxruntime().InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda lr: torch.from_numpy(session.run(None, {"lr": lr.numpy()})[0])


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as e:
        raise InputError("ONNX files are compared by ONNX Runtime: pip install 'realsr[onnx]'") from e
    return onnxruntime


def _write_ncnn(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    """The two files of ncnn; about: it has no place for that."""
    from realsr.upscaling.backends.ncnn_net import translated

    graph = translated(onnx_graph(network), half)
    file.write_text(graph.layers)
    file.with_suffix(".bin").write_bytes(graph.weights)


def _open_ncnn(path: Path) -> Opened:
    from realsr.upscaling.backends.ncnn_net import opened

    run = opened(path)
    return lambda lr: torch.cat([torch.from_numpy(run(one[None].numpy())) for one in lr])


EXPORTS = {
    "safetensors": Export(".safetensors", _write_safetensors, load_generator, "format=onnx", True),
    "pth": Export(".pth", _write_pth, load_generator, "format=safetensors, which says how its network is built", True),
    "onnx": Export(".onnx", _write_onnx, _open_onnx, "format=safetensors"),
    "ncnn": Export(".param", _write_ncnn, _open_ncnn, "format=onnx", half=True, twin=".bin"),
}
