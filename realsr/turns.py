"""The eight turns of a picture, and a network that is asked in each of them."""

from __future__ import annotations

import torch
from torch import Tensor

from realsr.backends import Network

TURNS = range(8)  # four rotations, and those of the mirrored picture


def turned(image: Tensor, turn: int) -> Tensor:
    """``(..., H, W)`` rotated by ``turn % 4`` right angles counter-clockwise; from 4 on it is first mirrored."""
    return torch.rot90(image.flip(-1) if turn >= 4 else image, turn % 4, (-2, -1))


def unturned(image: Tensor, turn: int) -> Tensor:
    """The inverse of :func:`turned`."""
    image = torch.rot90(image, -(turn % 4), (-2, -1))
    return image.flip(-1) if turn >= 4 else image


class Ensemble:
    """A network asked for a tile in all eight turns; the answer is their mean (EDSR, section 3.4).

    Args:
        network: to ask.
    """

    def __init__(self, network: Network) -> None:
        self.network, self.scale, self.device = network, network.scale, network.device
        self.overlap, self.aligned = network.overlap, network.aligned

    def __call__(self, lr: Tensor) -> Tensor:
        """``lr (N, 3, h, w)`` to ``sr (N, 3, scale*h, scale*w)``."""
        total = self.network(lr)
        for turn in TURNS[1:]:
            total = total + unturned(self.network(turned(lr, turn).contiguous()), turn)
        return total / len(TURNS)
