"""The sizes of tiles that a network takes: how far it sees, and where tiles may start and end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import lcm
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from realsr.networks.community import CommunityNetwork

# LR pixels of surroundings with which a tile's result is exact to a level however deep the network: the RRDBNets of
# RealSR and Real-ESRGAN see 345 pixels far, and are wrong by 16 levels with 32 (tests/benchmarks/bench_seams.py)
MOST_OVERLAP = 64


class Sizes(NamedTuple):
    """Sizes in LR pixels.

    Attributes:
        overlap: surroundings that a tile needs on every side.
        aligned: tiles start at multiples of it, for networks with windows or pixel-unshuffle.
        multiple: sides are multiples of it.
        minimum: least side.
    """

    overlap: int = MOST_OVERLAP
    aligned: int = 1
    multiple: int = 1
    minimum: int = 1


def sizes_of(network: nn.Module) -> Sizes:
    """The sizes of a generator, by its convolutions and by spandrel's description of it.

    >>> sizes_of(nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 3, 3)))
    Sizes(overlap=3, aligned=1, multiple=1, minimum=1)
    """
    inner = network.network if isinstance(network, CommunityNetwork) else network
    overlap = overlap_of(
        [m.dilation[i] * (m.kernel_size[i] - 1) + 1 for i in (0, 1)]
        for m in inner.modules()
        if isinstance(m, nn.Conv2d)
    )
    if not isinstance(network, CommunityNetwork):
        return Sizes(overlap)
    options: Any = getattr(inner, "hyperparameters", {})
    windows = [options.get(name) for name in ("window_size", "split_size")]
    sides = [side for window in windows for side in (window if isinstance(window, list | tuple) else [window])]
    needs = network.descriptor.size_requirements
    aligned = lcm(needs.multiple_of, *(side for side in sides if isinstance(side, int) and side > 0))
    shuffle = getattr(inner, "shuffle_factor", None) or 1  # pixels behind it are larger by this factor
    return Sizes(overlap * shuffle, aligned, needs.multiple_of, max(needs.minimum, 1))


def overlap_of(kernels: Iterable[Sequence[int]]) -> int:
    """How many LR pixels far convolutions of these sizes see one after another; at most :data:`MOST_OVERLAP`."""
    return min(sum((max(kernel) - 1) // 2 for kernel in kernels), MOST_OVERLAP)


def padded(lr: Tensor, sizes: Sizes) -> Tensor:
    """``(..., h, w)`` padded to sides that a network takes, by reflection on the right and at the bottom.

    >>> padded(torch.arange(3)[None], Sizes(multiple=4))[0]
    tensor([0, 1, 2, 1])
    """
    for axis in (-2, -1):
        side = lr.shape[axis]
        wanted = -(-max(side, sizes.minimum) // sizes.multiple) * sizes.multiple
        if wanted > side:
            steps = torch.arange(wanted, device=lr.device) % max(2 * side - 2, 1)
            lr = lr.index_select(axis, torch.minimum(steps, 2 * side - 2 - steps).abs())
    return lr
