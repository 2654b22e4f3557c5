"""RRDBNet, the generator of ESRGAN (Wang et al., ECCVW 2018), with the key names of BasicSR."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realsr.networks.names import State, count_blocks, has_convolutions, renamed
from realsr.runtime.errors import at_least

REACH = 2  # rows at low resolution that the convolutions after the trunk see on either side: 1/2 + 3/4, and whole
_ESRGAN = [  # key names of the ESRGAN and RealSR programs
    (r"^RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2."),
    (r"^trunk_conv\.", "conv_body."),
    (r"^upconv(\d)\.", r"conv_up\1."),
    (r"^HRconv\.", "conv_hr."),
]
_FIRST_ESRGAN = [  # the first release numbers nested Sequentials; the trunk's last convolution is the plain `sub.N`
    (r"^model\.0\.", "conv_first."),
    (r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3."),
    (r"^model\.1\.sub\.\d+\.(weight|bias)$", r"conv_body.\1"),
    (r"^model\.3\.", "conv_up1."),
    (r"^model\.6\.", "conv_up2."),
    (r"^model\.8\.", "conv_hr."),
    (r"^model\.10\.", "conv_last."),
]


def leaky(x: Tensor) -> Tensor:
    """LeakyReLU in place, for outputs of convolutions that nothing else reads: a third less memory at the peak."""
    return F.leaky_relu(x, 0.2, inplace=True)


class ResidualDenseBlock(nn.Module):
    """Five 3x3 convolutions, each fed with all outputs before it; the residual is scaled by 0.2 (section 3.1)."""

    def __init__(self, features: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(features + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            # a tenth of He's initialisation keeps a deep stack of residual blocks close to identity
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data.mul_(0.1)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """``(N, features, H, W)`` to the same shape and type; the convolutions may be in half precision."""
        short = self.conv1.weight.dtype
        x0 = x if short == torch.float32 else x.to(short)  # under autocast x is the shorter one
        x1 = leaky(self.conv1(x0))
        x2 = leaky(self.conv2(torch.cat((x0, x1), 1)))
        x3 = leaky(self.conv3(torch.cat((x0, x1, x2), 1)))
        x4 = leaky(self.conv4(torch.cat((x0, x1, x2, x3), 1)))
        return x + 0.2 * self.conv5(torch.cat((x0, x1, x2, x3, x4), 1))


class RRDB(nn.Module):
    """Residual in residual: three dense blocks and one more scaled skip around them."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(features, growth)
        self.rdb2 = ResidualDenseBlock(features, growth)
        self.rdb3 = ResidualDenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, features, H, W)`` to the same shape."""
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    """The x4 generator: a trunk of RRDBs at low resolution, then two nearest-neighbour x2 steps with convolutions.

    >>> RRDBNet(features=8, blocks=1, growth=4)(torch.rand(1, 3, 10, 12)).shape
    torch.Size([1, 3, 40, 48])

    Args:
        features: channels of the trunk (paper: 64).
        blocks: number of RRDBs (paper: 23).
        growth: channels that each dense convolution adds (paper: 32).

    Attributes:
        strip: rows of the trunk's output that are enlarged at a time, 0 for all. Without gradients, strips of 32 need
            less than a third of the memory for the same result, since high resolution takes most of it.
    """

    scale = 4
    strip = 0

    def __init__(self, features: int = 64, blocks: int = 23, growth: int = 32) -> None:
        super().__init__()
        at_least(1, "model.generator.", features=features, blocks=blocks, growth=growth)
        self.growth = growth
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        """``lr (N, 3, H, W)`` in [0, 1] to ``sr (N, 3, 4H, 4W)``, not clamped."""
        x = self.conv_first(lr)
        x = x + self.conv_body(self.body(x))
        if not self.strip:
            return self._enlarged(x)
        height, parts = x.shape[2], []
        for top in range(0, height, self.strip):
            start, bottom = max(top - REACH, 0), min(top + self.strip, height)
            seen = self._enlarged(x[:, :, start : bottom + REACH])
            parts.append(seen[:, :, 4 * (top - start) : 4 * (bottom - start)])
        return torch.cat(parts, 2)

    @staticmethod
    def our_names(state: State) -> State:
        """Weights in any published spelling of RRDBNet under our names."""
        return renamed(state, _FIRST_ESRGAN if any(key.startswith("model.1.sub.") for key in state) else _ESRGAN)

    @staticmethod
    def options_of(state: State) -> dict[str, int] | None:
        """The options of the RRDBNet with these weights, under our names; None for another network's."""
        if not has_convolutions(state, "conv_first", "conv_last", "body.0.rdb1.conv1", "conv_up1", "conv_up2"):
            return None
        if "conv_up3.weight" in state or any("conv1x1" in key for key in state):  # x8; ESRGAN+
            return None
        features, inputs = state["conv_first.weight"].shape[:2]
        if inputs != 3 or state["conv_up1.weight"].shape[0] != features:
            return None
        return {
            "features": features,
            "blocks": count_blocks(state),
            "growth": state["body.0.rdb1.conv1.weight"].shape[0],
        }

    def _enlarged(self, x: Tensor) -> Tensor:
        x = leaky(self.conv_up1(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        x = leaky(self.conv_up2(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        return self.conv_last(leaky(self.conv_hr(x)))
