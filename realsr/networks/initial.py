"""The initialisation of generators that start without weights."""

from __future__ import annotations

import torch
from torch import nn

LINEAR = 0.5  # slope of PReLU below zero: half of a negative signal is kept
SMALL = 0.1  # of He's initialisation


@torch.no_grad()
def pass_through(network: nn.Module) -> None:
    """Initialise, in place, every convolution with as many outputs as inputs to the identity and a little noise.

    For plain stacks without skips, such as Real-ESRGAN's compact network. PyTorch's own initialisation halves the
    signal in each layer: through seventeen layers nothing is left of it, and L1 learns nearest-neighbour upscaling for
    thousands of steps. He's initialisation keeps the signal, but was no quicker. With this one the network is better
    than bicubic within 300 steps, at learning rates of up to 2e-4. PReLUs are initialised too.
    """
    draws = torch.Generator().manual_seed(torch.initial_seed() % 2**62)  # independent of networks built before
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight, a=0.25, generator=draws)
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)
        if convolution.in_channels == convolution.out_channels and convolution.groups == 1:
            convolution.weight.mul_(SMALL).add_(nn.init.dirac_(torch.empty_like(convolution.weight)))
    convolutions[-1].weight.mul_(SMALL)
    for module in network.modules():
        if isinstance(module, nn.PReLU):
            nn.init.constant_(module.weight, LINEAR)
