"""The formats that other programs take a network in, and how each is opened without the code that made it."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from realsr.errors import InputError
from realsr.networks.community import CommunityNetwork
from realsr.networks.foreign import State
from realsr.networks.onnx_graph import architecture, first_reason, onnx_graph, standalone
from realsr.networks.weights import load_generator

Opened = Callable[[Tensor], Tensor]


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        suffix: of its name.
        write: from a network, whether in float16, and what to say of it, to the content of the file.
        open: the network of such a file: ``(N, 3, h, w)`` to ``(N, 3, scale*h, scale*w)``, float32 on the CPU.
        instead: what carries networks that this does not.
        weights: whether it holds the weights alone, so that readers have to know the network.
    """

    suffix: str
    write: Callable[[nn.Module, bool, Mapping[str, str]], bytes]
    open: Callable[[Path], Opened]
    instead: str
    weights: bool


def _state(network: nn.Module, half: bool) -> State:
    """The weights, by the names of BasicSR, which ours are; every reader of RRDBNets knows these."""
    inner = network.network if isinstance(network, CommunityNetwork) else network
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in inner.state_dict().items()}
    return {key: value.half() if half and value.is_floating_point() else value for key, value in weights.items()}


def _write_safetensors(network: nn.Module, half: bool, about: Mapping[str, str]) -> bytes:
    return save(_state(network, half), dict(about))


def _write_pth(network: nn.Module, half: bool, about: Mapping[str, str]) -> bytes:
    """Under the one key of RealESRGAN_x4plus.pth: its own program asks for it, ComfyUI takes one key off and no more.

    Tensors alone, so that ``weights_only`` opens it.
    """
    buffer = io.BytesIO()
    torch.save({"params_ema": _state(network, half)}, buffer)
    return buffer.getvalue()


def _write_onnx(network: nn.Module, half: bool, about: Mapping[str, str]) -> bytes:
    _onnxruntime()  # or the file could not be compared
    return onnx_graph(network, half, about)


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


def _write_torchscript(network: nn.Module, half: bool, about: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.jit, which torch calls deprecated
            alone, lr = standalone(network, half), torch.zeros(1, 3, 24, 20)
            traced = torch.jit.trace(alone, lr, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, buffer, _extra_files={"about.json": json.dumps(dict(about))})
    except Exception as e:  # whatever in a network the tracer does not know
        raise InputError(f"{architecture(network)} cannot be written as TorchScript ({first_reason(e)})") from e
    return _without_sources(buffer)


def _without_sources(file: io.BytesIO) -> bytes:
    """A TorchScript file without the lines of source that its operations are from, with folders of this machine."""
    lean = io.BytesIO()
    with zipfile.ZipFile(file) as full, zipfile.ZipFile(lean, "w") as kept:
        for entry in full.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(entry, full.read(entry))
    return lean.getvalue()


def _open_torchscript(path: Path) -> Opened:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]


FORMATS = {
    "safetensors": Format(".safetensors", _write_safetensors, load_generator, "format=onnx", True),
    "pth": Format(".pth", _write_pth, load_generator, "format=safetensors, which says how its network is built", True),
    "onnx": Format(".onnx", _write_onnx, _open_onnx, "format=safetensors", False),
    "torchscript": Format(".pt", _write_torchscript, _open_torchscript, "format=safetensors", False),
}
