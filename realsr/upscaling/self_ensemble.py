"""Geometric self-ensemble (EDSR, section 3.4)."""

from __future__ import annotations

from torch import Tensor

from realsr.imaging.symmetries import TURNS, turned, unturned
from realsr.upscaling.backends import Network


class Ensemble:
    """Mean of a network's outputs on a tile in all eight orientations, transformed back (EDSR, section 3.4).

    Args:
        network: that is applied eight times.

    >>> from realsr.upscaling.backends.graphs import GraphNetwork
    >>> Ensemble(GraphNetwork(lambda lr: lr.repeat(2, 2).repeat(2, 3), "nearest"))(Tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1., 1., 2., 2.],
              [1., 1., 2., 2.]]]])
    """

    def __init__(self, network: Network) -> None:
        self.network, self.scale, self.device = network, network.scale, network.device
        self.overlap, self.aligned = network.overlap, network.aligned
        self.bytes_per_pixel = network.bytes_per_pixel

    def __call__(self, lr: Tensor) -> Tensor:
        """``lr (N, 3, h, w)`` to ``sr (N, 3, scale*h, scale*w)``."""
        total = self.network(lr)
        for index in TURNS[1:]:
            total = total + unturned(self.network(turned(lr, index).contiguous()), index)
        return total / len(TURNS)
