"""Weights from files: our checkpoints, and the published ones under each of their key names."""

from __future__ import annotations

import contextlib
import importlib
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from realsr.errors import InputError
from realsr.networks.rrdb import RRDBNet

State = dict[str, Tensor]

# ESRGAN's and RealSR's program -> BasicSR's names, which ours are.
_NEW_ARCH = [
    (r"^RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2."),
    (r"^trunk_conv\.", "conv_body."),
    (r"^upconv(\d)\.", r"conv_up\1."),
    (r"^HRconv\.", "conv_hr."),
    # spectral norm as PyTorch once wrote it, in Real-ESRGAN's discriminator
    (r"\.weight_orig$", ".parametrizations.weight.original"),
    (r"\.weight_([uv])$", r".parametrizations.weight.0._\1"),
]
# The first ESRGAN release, numbered by nested Sequentials; the trunk's last convolution is the plain `sub.N`.
_OLD_ARCH = [
    (r"^model\.0\.", "conv_first."),
    (r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3."),
    (r"^model\.1\.sub\.\d+\.(weight|bias)$", r"conv_body.\1"),
    (r"^model\.3\.", "conv_up1."),
    (r"^model\.6\.", "conv_up2."),
    (r"^model\.8\.", "conv_hr."),
    (r"^model\.10\.", "conv_last."),
]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a ``.safetensors`` or PyTorch file; code in it is never run (``weights_only``).

    Raises:
        InputError: the file is missing, damaged, or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a damaged or foreign file can trip the unpickler in any way
        reason = (str(e) or type(e).__name__).splitlines()[0]
        if isinstance(e, pickle.UnpicklingError | KeyError | IndexError):
            unsafe = "unsupported global" in str(e).lower()  # torch's words
            reason = "it holds Python objects beside tensors, which could run code" if unsafe else "damaged or foreign"
        elif isinstance(e, EOFError) or "PytorchStreamReader" in reason:
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


def our_names(state: State) -> State:
    """RRDBNet keys of any of the three published spellings, and old spectral norms, to ours; other keys stay."""
    rules = _OLD_ARCH if any(k.startswith("model.1.sub.") for k in state) else _NEW_ARCH
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key, hits = re.subn(pattern, replacement, key)
            if hits:
                break
        renamed[key] = value
    return renamed


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
    state = our_names(find_state(read_checkpoint(path), prefixes))
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
    network.load_state_dict({k: v.to(mine[k].dtype) for k, v in state.items()})


def load_generator(path: str | Path, ema: bool = True) -> nn.Module:
    """The generator of a checkpoint, ready to upscale.

    Our checkpoints say how theirs is built; the architecture of published RRDBNets is read off their shapes.

    Args:
        path: of the checkpoint.
        ema: whether to take the averaged weights, where there are some, or the raw ones.

    Raises:
        InputError: no such file, no checkpoint, or of an architecture that is not ours.
    """
    content, prefixes = read_checkpoint(path), ("generator_ema.", "generator.") if ema else ("generator.",)
    spec: Any = content
    for name in ("config", "model", "generator"):
        spec = spec.get(name) if isinstance(spec, Mapping) else None
    state = our_names(find_state(content, prefixes))
    if spec is not None:
        generator = _build(spec, path)
    elif "conv_first.weight" in state and "body.0.rdb1.conv1.weight" in state:
        blocks = len({key.split(".")[1] for key in state if key.startswith("body.")})
        growth, features = state["body.0.rdb1.conv1.weight"].shape[:2]
        generator = RRDBNet(features, blocks, growth)
    else:
        some = ", ".join(list(state)[:2]) or "none"
        raise InputError(f"{path}: holds no generator of realsr and no RRDBNet (its keys: {some} ...)")
    load_weights(generator, path, prefixes)
    return generator.eval()


def _build(spec: Any, path: str | Path) -> nn.Module:
    """The network that a checkpoint's config names.

    A checkpoint may come from anyone and Hydra's `instantiate` calls whatever it is told to, so the class is looked
    up here: a network defined in realsr.networks, with plain values as options.
    """
    target = str(spec.get("_target_")) if isinstance(spec, Mapping) else str(spec)
    module, _, name = target.rpartition(".")
    network = None
    if module.startswith("realsr.networks."):
        with contextlib.suppress(ImportError):
            network = getattr(importlib.import_module(module), name, None)
    if not (isinstance(network, type) and issubclass(network, nn.Module) and network.__module__ == module):
        raise InputError(f"{path}: its generator {target!r} is none of realsr.networks")
    try:
        return network(**{k: v for k, v in spec.items() if k != "_target_"})
    except (TypeError, ValueError, RuntimeError) as e:
        reason = str(e).splitlines()[0]
        raise InputError(f"{path}: its generator {target} cannot be built as its config says ({reason})") from e
