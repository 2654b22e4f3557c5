"""Learning rates for parts of a network: fine-tuning moves its first layers slowly, or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from realsr.runtime.errors import InputError


def parameter_groups(network: nn.Module, lr_scale: Mapping[str, float]) -> list[tuple[float, list[nn.Parameter]]]:
    """A network's parameters by the factor of their learning rate; those with factor 0 are frozen here and left out.

    Args:
        network: whose modules are named.
        lr_scale: factor by a module's name, which holds for all that is in it: ``{"conv_first": 0, "body.0": 0.1}``.

    Returns:
        Pairs of factor and parameters, that of all others (1) first.

    Raises:
        InputError: no module has that name, a factor is no number from 0 on, or nothing is left to train.
    """
    names = [name for name, _ in network.named_modules() if name]
    for name, factor in lr_scale.items():
        if name not in names:
            short = [n for n in names if "." not in n]
            raise InputError(f"model.lr_scale: the generator has no part {name!r}; it has {', '.join(short)}")
        if not (isinstance(factor, int | float) and 0 <= factor < math.inf):
            raise InputError(f"model.lr_scale: {name}={factor}: give 0 (frozen) or more")
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in network.named_parameters():
        inside = [part for part in lr_scale if name.startswith(f"{part}.")]
        factor = float(lr_scale[max(inside, key=len)]) if inside else 1.0
        if factor == 0:
            parameter.requires_grad_(False)
        else:
            groups.setdefault(factor, []).append(parameter)
    trained = [(factor, parameters) for factor, parameters in groups.items() if parameters]
    if not trained:
        raise InputError("model.lr_scale: all of the generator is frozen, so there is nothing to train")
    return trained
