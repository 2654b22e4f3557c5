"""The initialisation of plain stacks of convolutions."""

from __future__ import annotations

import torch
from spandrel.architectures.Compact import Compact

from realsr.networks.initial import pass_through


def test_what_goes_in_comes_out_where_pytorchs_own_lets_nothing_through():
    """Of two pictures that differ, the residuals over nearest-neighbour upscaling do, too."""
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    told = {}
    for name in ("own", "pass_through"):
        torch.manual_seed(0)
        network = Compact(num_feat=32, num_conv=16, upscale=4)
        if name == "pass_through":
            pass_through(network)
        with torch.no_grad():
            first, second = network(pictures) - torch.nn.functional.interpolate(pictures, scale_factor=4)
        told[name] = float((first - second).std())
    assert told["own"] < 1e-4 < 1e-2 < told["pass_through"] < 0.5
