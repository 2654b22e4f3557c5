"""Weights from files: our checkpoints, the published ones under each of their key names, and the community's."""

from __future__ import annotations

import contextlib
import importlib
import json
import pickle
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
from realsr.networks.foreign import State, our_names, spec_of_state
from realsr.networks.ncnn_files import is_ncnn, read_ncnn
from realsr.runtime.errors import InputError

HEADER = "__metadata__"  # safetensors' own name for what its files say in strings


def checkpoint_file(path: str | Path) -> Path:
    """The file that ``ckpt=`` means: a run's last checkpoint for its folder, of ncnn's two files the weights."""
    last, weights = Path(path) / "checkpoints" / "last.ckpt", Path(path).with_suffix(".bin")
    if Path(path).suffix == ".param" and weights.is_file():
        return weights
    return last if last.is_file() else Path(path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a ``.safetensors``, PyTorch or ncnn file, or of a run's last checkpoint (:func:`checkpoint_file`).

    Code in it is never run (``weights_only``). What a ``.safetensors`` file says in its header is under :data:`HEADER`.

    Raises:
        InputError: the file is missing, damaged, or not a checkpoint.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
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
        reason = (str(e) or type(e).__name__).splitlines()[0]
        if path.suffix == ".onnx" or "TorchScript" in reason:
            reason = "a network in a program of its own; take the .safetensors or .ckpt that it was exported from"
        elif isinstance(e, pickle.UnpicklingError | KeyError | IndexError):
            unsafe = "unsupported global" in str(e).lower()  # torch's words
            reason = "it holds Python objects beside tensors, which could run code" if unsafe else "damaged or foreign"
        elif isinstance(e, EOFError) or "PytorchStreamReader" in reason or "not fully covered" in reason:
            reason = "damaged, or not written to its end"
        raise InputError(f"{path}: is no checkpoint that can be read ({reason})") from e
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: is no checkpoint, it holds a {type(content).__name__}")
    return dict(content)


def find_state(content: Mapping[str, Any], prefixes: Sequence[str] = ("generator_ema.", "generator.")) -> State:
    """The tensors of one network in a checkpoint's content.

    Looks into ``params_ema``, ``params`` (BasicSR), ``state_dict`` (Lightning; there the keys under the first of
    ``prefixes`` that it has) and strips DataParallel's ``module.``. Averaged weights come before raw ones, unless
    ``prefixes`` name the raw ones alone.
    """
    averaged = "generator_ema." in prefixes
    for name in (*(("params_ema",) if averaged else ()), "params", "params_ema", "state_dict"):
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    state = {k.removeprefix("module."): v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    for prefix in prefixes:
        if inner := {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}:
            return inner
    return state


def load_weights(
    network: nn.Module, path: str | Path, prefixes: Sequence[str] = ("generator_ema.", "generator.")
) -> None:
    """Fill ``network`` from a file, whatever the spelling of its keys.

    Args:
        network: to fill.
        path: of the file.
        prefixes: of its keys in our own checkpoints, see :func:`find_state`.

    Raises:
        InputError: no such file, no checkpoint, or of another architecture: says what differs.
    """
    state = find_state(read_checkpoint(path), prefixes)
    if not is_community(network):
        state = our_names(state)
    elif state.keys() != network.state_dict().keys():  # spandrel has names of its own for RRDBNets, too
        state = load_community(state, path).network.state_dict()
    _check_shapes(network, state, path)
    _fill(network, state, path)


def _check_shapes(network: nn.Module, state: State, path: str | Path) -> None:
    if not state:
        raise InputError(f"{path}: holds no weights")
    mine = network.state_dict()
    problems = [
        *(f"it lacks {k}" for k in mine if k not in state),
        *(f"{k} is of no use here" for k in state if k not in mine),
        *(
            f"{k} is {tuple(state[k].shape)}, {type(network).__name__} needs {tuple(v.shape)}"
            for k, v in mine.items()
            if k in state and state[k].shape != v.shape
        ),
    ]
    if problems:
        more = f" and {len(problems) - 2} more" if len(problems) > 2 else ""
        raise InputError(
            f"{path}: holds another architecture than model={type(network).__name__}: {'; '.join(problems[:2])}{more}"
        )


def _fill(network: nn.Module, state: State, path: str | Path) -> None:
    """With weights of the right shapes, if they are numbers that a network can compute with."""
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
    """The generator of a checkpoint, ready to upscale by its ``scale``.

    Our checkpoints say how theirs is built; the architecture of published RRDBNets and EDSRs is read off their shapes
    (:func:`realsr.networks.foreign.spec_of_state`), and that of all others by :mod:`realsr.networks.community`.

    Args:
        path: of the checkpoint, or of a run's folder.
        ema: whether to take the averaged weights, where there are some, or the raw ones.

    Raises:
        InputError: no such file, no checkpoint, or of an architecture that is not known.
    """
    return generator_of(read_checkpoint(path), path, ema)


def generator_of(content: Mapping[str, Any], path: str | Path, ema: bool = True) -> nn.Module:
    """The same of a checkpoint that was read from ``path``."""
    prefixes = ("generator_ema.", "generator.") if ema else ("generator.",)
    spec, foreign = spec_of(content), find_state(content, prefixes)
    state = our_names(foreign)
    if spec is not None and not state:
        raise InputError(f"{path}: holds no weights")
    if spec is None:
        spec = spec_of_state(state, path)
    if spec is None or _target(spec).startswith(COMMUNITY):
        return load_community(foreign or content, path).eval()
    with torch.device("meta"):  # without memory, of which the network of a stranger's file may claim any amount
        outline = _build(spec, state, path)
    _check_shapes(outline, state, path)
    generator = _build(spec, state, path)
    _fill(generator, state, path)
    return generator.eval()


def generator_spec(path: str | Path) -> dict[str, Any]:
    """How the generator of a file is built, to be trained further: ``_target_`` and its options.

    Raises:
        InputError: as by :func:`load_generator`.
    """
    content = read_checkpoint(path)
    generator = generator_of(content, path)
    if isinstance(generator, CommunityNetwork):
        return generator.spec()
    spec = spec_of(content) or spec_of_state(our_names(find_state(content)), path)
    assert spec is not None
    return dict(spec)


def spec_of(content: Mapping[str, Any]) -> Any:
    """How the generator of a checkpoint of ours is built: ``_target_`` and options; None in other files."""
    if (spec := inside(content, "config", "model", "generator")) is not None:
        return spec
    try:
        spec = json.loads(inside(content, HEADER, "generator") or "null")  # of a file that realsr.export wrote
    except (ValueError, RecursionError):  # another program's word for something else
        return None
    return spec if isinstance(spec, Mapping) and "_target_" in spec else None


def inside(content: Any, *names: str) -> Any:
    """What a checkpoint has under names within names; None if it has not."""
    for name in names:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def _target(spec: Any) -> str:
    return str(spec.get("_target_")) if isinstance(spec, Mapping) else str(spec)


def _build(spec: Any, state: State, path: str | Path) -> nn.Module:
    """The network that a checkpoint's config names, for its weights ``state``.

    A checkpoint may come from anyone and Hydra's `instantiate` calls whatever it is told to, so the class is looked
    up here: a network defined in realsr.networks, with plain values as options.
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
        reason = str(e).splitlines()[0]
        raise InputError(f"{path}: its generator {target} cannot be built as its config says ({reason})") from e
