"""Other programs' names for the weights of our networks, and the network that a file's shapes are of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realsr.networks.edsr import EDSR, LEVELS, MEAN
from realsr.runtime.errors import InputError

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
# EDSR's program; the body's last convolution is the plain `body.N`.
_EDSR = [
    (r"^head\.0\.", "conv_first."),
    (r"^body\.(\d+)\.body\.0\.", r"body.\1.conv1."),
    (r"^body\.(\d+)\.body\.2\.", r"body.\1.conv2."),
    (r"^body\.\d+\.(weight|bias)$", r"conv_after_body.\1"),
    (r"^tail\.0\.(\d)\.", r"upsample.\1."),
    (r"^tail\.1\.", "conv_last."),
]
# What EDSR's program keeps beside its weights, and our EDSR does by itself; another range or mean is not ours.
_SHIFT = {
    "sub_mean.weight": torch.eye(3).view(3, 3, 1, 1),
    "sub_mean.bias": -LEVELS * torch.tensor(MEAN),
    "add_mean.weight": torch.eye(3).view(3, 3, 1, 1),
    "add_mean.bias": LEVELS * torch.tensor(MEAN),
    "mean": torch.tensor(MEAN).view(1, 3, 1, 1),
}


def our_names(state: State) -> State:
    """Keys of any published spelling of RRDBNet and EDSR, and old spectral norms, to ours; other keys stay.

    EDSR's mean of DIV2K is left out where it is the one that our EDSR has.
    """
    if any(k.startswith("model.1.sub.") for k in state):
        rules = _OLD_ARCH
    elif "body.0.body.0.weight" in state:
        rules = _EDSR
    else:
        rules = _NEW_ARCH
    renamed = {}
    for key, value in state.items():
        if _is_shift(key, value):
            continue
        for pattern, replacement in rules:
            key, hits = re.subn(pattern, replacement, key)
            if hits:
                break
        renamed[key] = value
    return renamed


def _is_shift(key: str, value: Tensor) -> bool:
    """Whether this is EDSR's shift by the mean, up to the rounding of half precision."""
    wanted = _SHIFT.get(key)
    return wanted is not None and wanted.shape == value.shape and torch.allclose(value.float(), wanted, 1e-3, 1e-3)


def spec_of_state(state: State, path: str | Path) -> dict[str, Any] | None:
    """How to build the x4 generator of ours whose weights, under our names, these are; None if of another network.

    EDSR's residual scale is not in its files: it is 0.1 with the paper's 256 features, 1 with any other number.

    Raises:
        InputError: they are those of an EDSR for another scale; names the file, ``path``.
    """
    if not _has_convolutions(state, "conv_first", "conv_last") or state["conv_first.weight"].shape[1] != 3:
        return None
    features = state["conv_first.weight"].shape[0]
    blocks = len({key.split(".")[1] for key in state if key.startswith("body.")})
    if _has_convolutions(state, "body.0.rdb1.conv1", "conv_up1", "conv_up2"):
        growth, tail = (state[f"{name}.weight"].shape[0] for name in ("body.0.rdb1.conv1", "conv_up1"))
        if "conv_up3.weight" in state or any("conv1x1" in key for key in state):  # x8; ESRGAN+
            return None
        if tail != features:
            return None
        return {"_target_": "realsr.networks.rrdb.RRDBNet", "features": features, "blocks": blocks, "growth": growth}
    if _has_convolutions(state, "body.0.conv1", "conv_after_body", "upsample.0"):
        steps = sum(f"upsample.{index}.weight" in state for index in (0, 2, 4))
        scale = 3 if state["upsample.0.weight"].shape[0] == 9 * features else 2**steps
        if scale != EDSR.scale:
            raise InputError(f"{path}: holds an EDSR for x{scale}; only those for x{EDSR.scale} are taken")
        scaling = 0.1 if features == 256 else 1.0
        target = "realsr.networks.edsr.EDSR"
        return {"_target_": target, "features": features, "blocks": blocks, "residual_scale": scaling}
    return None


def _has_convolutions(state: State, *names: str) -> bool:
    return all(f"{name}.weight" in state and state[f"{name}.weight"].ndim == 4 for name in names)
