"""Learning rates for parts of a network: fine-tuning slows its first layers down, or freezes them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from realsr.runtime.errors import InputError


def parameter_groups(network: nn.Module, lr_scale: Mapping[str, float]) -> list[tuple[float, list[nn.Parameter]]]:
    """The parameters of a network by the factor of their learning rate; factor 0 freezes and leaves out.

    >>> net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1, bias=False))
    >>> [(factor, len(parameters)) for factor, parameters in parameter_groups(net, {"0": 0.1})]
    [(1.0, 1), (0.1, 2)]

    Args:
        network: to train.
        lr_scale: factor by the name of a module, for all that it contains: ``{"conv_first": 0, "body.0": 0.1}``.

    Returns:
        Pairs of factor and parameters; parameters without a factor (1) come first.

    Raises:
        InputError: no module has that name, a factor is negative or no number, or nothing is left to train.
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
