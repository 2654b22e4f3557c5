"""Weights by name: those of one network in a checkpoint, and keys changed by rules, which lie beside each network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

State = dict[str, Tensor]


def renamed(state: State, rules: Sequence[tuple[str, str]]) -> State:
    """The weights with their keys changed by the first rule (regular expression, replacement) that fits.

    >>> renamed({"head.0.bias": 1, "mean": 2}, [("^head.0.", "conv_first.")])
    {'conv_first.bias': 1, 'mean': 2}
    """

    def new_name(key: str) -> str:
        return next((re.sub(pattern, new, key) for pattern, new in rules if re.search(pattern, key)), key)

    return {new_name(key): value for key, value in state.items()}


def find_state(content: Mapping[str, Any], prefixes: Sequence[str] = ("generator_ema.", "generator.")) -> State:
    """The tensors of one network in a checkpoint's content.

    Looks into ``params_ema``, ``params`` (BasicSR) and ``state_dict`` (Lightning; there the keys under the first of
    ``prefixes`` that it has) and strips DataParallel's ``module.``. Averaged weights come before raw ones, unless
    ``prefixes`` names the raw ones alone.

    >>> find_state({"state_dict": {"generator.a": Tensor(), "discriminator.b": Tensor()}})
    {'a': tensor([])}
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


def has_convolutions(state: State, *names: str) -> bool:
    """Whether there are convolutions of these names."""
    return all(f"{name}.weight" in state and state[f"{name}.weight"].ndim == 4 for name in names)


def count_blocks(state: State) -> int:
    """The number of modules in the sequence ``body``."""
    return len({key.split(".")[1] for key in state if key.startswith("body.")})
