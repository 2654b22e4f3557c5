"""Weights from files: our checkpoints, published ones in any spelling of their keys, and spandrel's architectures."""

from __future__ import annotations

import contextlib
import importlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from realsr.networks.community import COMMUNITY, CommunityNetwork, is_community, load_community
from realsr.networks.content import check_content
from realsr.networks.edsr import EDSR
from realsr.networks.names import State, find_state
from realsr.networks.ncnn_files import is_ncnn, read_ncnn
from realsr.networks.rrdb import RRDBNet
from realsr.networks.unet import UNetDiscriminator
from realsr.runtime.errors import InputError, first_line

HEADER = "__metadata__"  # the name in safetensors files for their header's strings
GENERATORS = (RRDBNet, EDSR)  # whose published files are recognised by their shapes


def checkpoint_file(path: str | Path) -> Path:
    """The file for ``ckpt=``: a run's last checkpoint for its folder, the ``.bin`` for ncnn's ``.param``."""
    last, weights = Path(path) / "checkpoints" / "last.ckpt", Path(path).with_suffix(".bin")
    if Path(path).suffix == ".param" and weights.is_file():
        return weights
    return last if last.is_file() else Path(path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a ``.safetensors``, PyTorch or ncnn file, or of a run's last checkpoint (:func:`checkpoint_file`).

    Code in the file is never run (``weights_only``). The header of a ``.safetensors`` file is under :data:`HEADER`.

    Raises:
        InputError: the file is missing, damaged, or not a checkpoint.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        folder = " (the folder holds no checkpoints/last.ckpt: give that of a run, or a file)" if path.is_dir() else ""
        raise InputError(f"{path}: no such checkpoint{folder}")
    check_content(path)
    if is_ncnn(path):
        return dict(read_ncnn(path))
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {HEADER: file.metadata() or {}, **load_file(path)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is said in one line
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a damaged or foreign file can trip the unpickler in any way
        reason = first_line(e)
        if path.suffix == ".onnx" or "TorchScript" in reason:
            reason = "a network in a program of its own; take the .safetensors or .ckpt that it was exported from"
        elif "unsupported global" in str(e).lower():  # torch's words
            reason = "it holds Python objects beside tensors, which could run code"
        elif isinstance(e, pickle.UnpicklingError | LookupError | EOFError) or re.search("StreamReader|header", reason):
            reason = "damaged, or not written to its end"
        raise InputError(f"{path}: is no checkpoint that can be read ({reason})") from e
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: is no checkpoint, it holds a {type(content).__name__}")
    return dict(content)


def load_weights(
    network: nn.Module, path: str | Path, prefixes: Sequence[str] = ("generator_ema.", "generator.")
) -> None:
    """Fill a network from a file in any spelling of its keys; ``prefixes`` as for :func:`find_state`.

    Raises:
        InputError: there is no such file, it is no checkpoint, or its architecture differs.
    """
    state = find_state(read_checkpoint(path), prefixes)
    if not is_community(network):
        state = _our_names(network, state)
    elif state.keys() != network.state_dict().keys():  # spandrel has names of its own for RRDBNet, too
        state = load_community(state, path).network.state_dict()
    _check_shapes(network, state, path)
    _fill(network, state, path)


def _our_names(network: nn.Module, state: State) -> State:
    return dict(network.our_names(state)) if isinstance(network, (*GENERATORS, UNetDiscriminator)) else state


def _check_shapes(network: nn.Module, state: State, path: str | Path) -> None:
    if not state:
        raise InputError(f"{path}: holds no weights")
    name, mine = type(network).__name__, {key: tuple(value.shape) for key, value in network.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    problems = [f"it lacks {key}" for key in mine if key not in given]
    problems += [f"{key} is of no use here" for key in given if key not in mine]
    problems += [f"{k} is {given[k]}, {name} needs {mine[k]}" for k in mine if given.get(k, mine[k]) != mine[k]]
    if problems:
        more = f" and {len(problems) - 2} more" if len(problems) > 2 else ""
        raise InputError(f"{path}: holds another architecture than model={name}: {'; '.join(problems[:2])}{more}")


def _fill(network: nn.Module, state: State, path: str | Path) -> None:
    """Copy weights of the right shapes into a network, if all of them are finite numbers."""
    mine = network.state_dict()
    if odd := [key for key, value in state.items() if not _is_sound(value, mine[key].dtype)]:
        raise InputError(
            f"{path}: its weights {odd[0]} are NaN, infinite or no plain numbers; its training failed, or it is damaged"
        )
    network.load_state_dict({k: v.to(mine[k].dtype) for k, v in state.items()})


def _is_sound(weights: Tensor, dtype: torch.dtype) -> bool:
    plain = weights.layout is torch.strided and weights.device.type == "cpu"  # others may be of a file on purpose
    if not plain or weights.is_floating_point() != dtype.is_floating_point:
        return False
    # a single number may claim to be a large tensor
    held = weights.untyped_storage().nbytes() >= weights.numel() * weights.element_size()
    return held and bool(weights.to(dtype).isfinite().all())


def load_generator(path: str | Path, ema: bool = True) -> nn.Module:
    """The generator of a checkpoint in eval mode, with its factor as ``scale``.

    Our checkpoints hold the options of their generator. Published RRDBNets and EDSRs are recognised by the shapes of
    their weights, other architectures by :mod:`realsr.networks.community`.

    Args:
        path: of the checkpoint, or of a run's folder.
        ema: whether to prefer averaged weights to raw ones.

    Raises:
        InputError: there is no such file, it is no checkpoint, or its architecture is unknown.
    """
    return generator_of(read_checkpoint(path), path, ema)


def generator_of(content: Mapping[str, Any], path: str | Path, ema: bool = True) -> nn.Module:
    """:func:`load_generator` of the content that was read from ``path``.

    >>> published = RRDBNet(features=8, blocks=2, growth=4).state_dict()
    >>> generator_of({"params_ema": published}, "net.pth")(torch.rand(1, 3, 5, 6)).shape
    torch.Size([1, 3, 20, 24])
    """
    state = find_state(content, ("generator_ema.", "generator.") if ema else ("generator.",))
    spec = spec_of(content)
    if spec is not None and not state:
        raise InputError(f"{path}: holds no weights")
    spec = _recognised(state, path) if spec is None else spec
    if spec is None or _target(spec).startswith(COMMUNITY):
        return load_community(state or content, path).eval()
    with torch.device("meta"):  # without memory: a stranger's file may claim a network of any size
        outline = _build(spec, state, path)
    state = _our_names(outline, state)
    _check_shapes(outline, state, path)
    generator = _build(spec, state, path)
    _fill(generator, state, path)
    return generator.eval()


def _recognised(state: State, path: str | Path) -> dict[str, Any] | None:
    """``_target_`` and options of our generator with these weights, in any spelling; None for another one's."""
    for kind in GENERATORS:
        try:
            options = kind.options_of(kind.our_names(state))
        except InputError as e:
            raise InputError(f"{path}: {e}") from e
        if options:
            return {"_target_": f"{kind.__module__}.{kind.__name__}", **options}
    return None


def generator_spec(path: str | Path) -> dict[str, Any]:
    """``_target_`` and options of the generator of a file, to train it further.

    Raises:
        InputError: as by :func:`load_generator`.
    """
    content = read_checkpoint(path)
    generator = generator_of(content, path)
    if isinstance(generator, CommunityNetwork):
        return generator.spec()
    return dict(spec_of(content) or _recognised(find_state(content), path) or {})


def spec_of(content: Mapping[str, Any]) -> Any:
    """``_target_`` and options of the generator of a checkpoint of ours; None for other files."""
    if (spec := inside(content, "config", "model", "generator")) is not None:
        return spec
    try:
        spec = json.loads(inside(content, HEADER, "generator") or "null")  # written by realsr.export
    except (ValueError, RecursionError):  # another program's header of that name
        return None
    return spec if isinstance(spec, Mapping) and "_target_" in spec else None


def inside(content: Any, *names: str) -> Any:
    """The value under nested keys of a checkpoint; None if one of them is missing.

    >>> inside({"config": {"scale": 4}}, "config", "scale")
    4
    """
    for name in names:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def _target(spec: Any) -> str:
    return str(spec.get("_target_")) if isinstance(spec, Mapping) else str(spec)


def _build(spec: Any, state: State, path: str | Path) -> nn.Module:
    """The network that a checkpoint's config names, of no more than the size of its weights ``state``.

    A checkpoint may come from anyone, and Hydra's `instantiate` calls any function it names. So the class is looked up
    here: only networks defined in realsr.networks are built, with plain values as options.
    """
    target = _target(spec)
    module, _, name = target.rpartition(".")
    network = None
    if module.startswith("realsr.networks."):
        with contextlib.suppress(ImportError):
            network = getattr(importlib.import_module(module), name, None)
    if not (isinstance(network, type) and issubclass(network, nn.Module) and network.__module__ == module):
        raise InputError(f"{path}: its generator {target!r} is none of realsr.networks, nor of {COMMUNITY[:-1]}")
    options = {k: v for k, v in spec.items() if k != "_target_"}
    most = max(16, len(state), *(side for value in state.values() for side in value.shape))
    try:
        if large := [f"{k}={v}" for k, v in options.items() if isinstance(v, int) and v > most]:
            raise ValueError(f"{large[0]} is more than its weights have")
        if not isinstance(getattr(built := network(**options), "scale", None), int):
            raise ValueError("it enlarges nothing")
        return built
    except (AttributeError, TypeError, ValueError, RuntimeError) as e:
        raise InputError(f"{path}: its generator {target} cannot be built as its config says ({first_line(e)})") from e
