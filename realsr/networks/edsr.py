"""EDSR (Lim et al., CVPR Workshops 2017), the generator without a GAN, with the key names of BasicSR."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realsr.runtime.errors import at_least

LEVELS = 255.0  # the published weights are for images in [0, 255]
MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K's training images in [0, 1], red, green, blue


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a ReLU between them, no BatchNorm (section 3.1)."""

    def __init__(self, features: int, residual_scale: float) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, features, H, W)`` to the same shape."""
        return x + self.residual_scale * self.conv2(F.relu(self.conv1(x)))


class EDSR(nn.Module):
    """The x4 generator: residual blocks at low resolution, then two x2 steps of a convolution and a pixel shuffle.

    Args:
        features: channels of the body (paper: 256; baseline: 64).
        blocks: number of residual blocks (paper: 32; baseline: 16).
        residual_scale: factor of each block's residual (paper: 0.1, else 256 features are not stable; baseline: 1).
    """

    scale = 4
    mean: Tensor

    def __init__(self, features: int = 64, blocks: int = 16, residual_scale: float = 1.0) -> None:
        super().__init__()
        at_least(1, "model.generator.", features=features, blocks=blocks)
        at_least(0, "model.generator.", residual_scale=residual_scale)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(features, residual_scale) for _ in range(blocks)))
        self.conv_after_body = nn.Conv2d(features, features, 3, padding=1)
        self.upsample = nn.Sequential(
            nn.Conv2d(features, 4 * features, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(features, 4 * features, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        """``lr (N, 3, H, W)`` in [0, 1] to ``sr (N, 3, 4H, 4W)``, not clamped."""
        x = self.conv_first((lr - self.mean) * LEVELS)
        x = x + self.conv_after_body(self.body(x))
        return self.conv_last(self.upsample(x)) / LEVELS + self.mean
