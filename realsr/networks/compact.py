"""A small x4 generator for people who have only a CPU: RRDBNet with few blocks and a skip around everything."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from realsr.networks.rrdb import RRDBNet


class CompactRRDBNet(RRDBNet):
    """RRDBNet with a thin tail, whose output is added to the bilinearly enlarged LR.

    The last convolution starts at zero, so training starts from bilinear upscaling. The tail works at high
    resolution, in few channels: by measurement a pixel-shuffle tail shows a checkerboard once the GAN starts.

    Args:
        features: channels of the trunk, at low resolution.
        blocks: number of RRDBs.
        growth: channels that each dense convolution adds.
        tail: channels of the convolutions after the first enlargement.
    """

    def __init__(self, features: int = 32, blocks: int = 1, growth: int = 16, tail: int = 16) -> None:
        super().__init__(features, blocks, growth)
        self.conv_up1 = nn.Conv2d(features, tail, 3, padding=1)
        self.conv_up2 = nn.Conv2d(tail, tail, 3, padding=1)
        self.conv_hr = nn.Conv2d(tail, tail, 3, padding=1)
        self.conv_last = nn.Conv2d(tail, 3, 3, padding=1)
        for conv in (self.conv_up1, self.conv_up2, self.conv_hr):
            nn.init.kaiming_normal_(conv.weight, a=0.2)
        nn.init.zeros_(self.conv_last.weight)
        nn.init.zeros_(self.conv_last.bias)  # type: ignore[arg-type]

    def forward(self, lr: Tensor) -> Tensor:
        """``lr (N, 3, H, W)`` in [0, 1] to ``sr (N, 3, 4H, 4W)``, not clamped."""
        enlarged = F.interpolate(lr, scale_factor=4.0, mode="bilinear", align_corners=False)
        return enlarged + super().forward(lr)
