"""EDSR (Lim et al., CVPR Workshops 2017), the generator without a GAN, with the key names of BasicSR."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realsr.networks.names import State, count_blocks, has_convolutions, renamed
from realsr.runtime.errors import InputError, at_least

LEVELS = 255.0  # the published weights are for images in [0, 255]
MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K's training images in [0, 1], red, green, blue
_PROGRAM = [  # key names of the EDSR program; the body's last convolution is the plain `body.N`
    (r"^head\.0\.", "conv_first."),
    (r"^body\.(\d+)\.body\.0\.", r"body.\1.conv1."),
    (r"^body\.(\d+)\.body\.2\.", r"body.\1.conv2."),
    (r"^body\.\d+\.(weight|bias)$", r"conv_after_body.\1"),
    (r"^tail\.0\.(\d)\.", r"upsample.\1."),
    (r"^tail\.1\.", "conv_last."),
]
_SHIFT = {  # weights for the mean in published files; our EDSR subtracts the same mean without weights
    "sub_mean.weight": torch.eye(3).view(3, 3, 1, 1),
    "sub_mean.bias": -LEVELS * torch.tensor(MEAN),
    "add_mean.weight": torch.eye(3).view(3, 3, 1, 1),
    "add_mean.bias": LEVELS * torch.tensor(MEAN),
    "mean": torch.tensor(MEAN).view(1, 3, 1, 1),
}


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

    >>> EDSR(features=8, blocks=2)(torch.rand(1, 3, 10, 12)).shape
    torch.Size([1, 3, 40, 48])

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

    @staticmethod
    def our_names(state: State) -> State:
        """Weights in any published spelling of EDSR under our names, without DIV2K's mean."""
        state = {key: value for key, value in state.items() if not _is_shift(key, value)}
        return renamed(state, _PROGRAM) if "body.0.body.0.weight" in state else state

    @staticmethod
    def options_of(state: State) -> dict[str, float] | None:
        """The options of the EDSR with these weights, under our names; None for another network's.

        Files do not hold the residual scale: it is 0.1 with the paper's 256 features, 1 with any other number.

        Raises:
            InputError: they are of an EDSR for another scale.
        """
        names = ("conv_first", "conv_last", "body.0.conv1", "conv_after_body", "upsample.0")
        if not has_convolutions(state, *names) or state["conv_first.weight"].shape[1] != 3:
            return None
        features = state["conv_first.weight"].shape[0]
        steps = sum(f"upsample.{index}.weight" in state for index in (0, 2, 4))
        scale = 3 if state["upsample.0.weight"].shape[0] == 9 * features else 2**steps
        if scale != EDSR.scale:
            raise InputError(f"holds an EDSR for x{scale}; only those for x{EDSR.scale} are taken")
        return {"features": features, "blocks": count_blocks(state), "residual_scale": 0.1 if features == 256 else 1.0}


def _is_shift(key: str, value: Tensor) -> bool:
    """Whether a weight is EDSR's shift by the mean, up to the rounding of half precision."""
    wanted = _SHIFT.get(key)
    return wanted is not None and wanted.shape == value.shape and torch.allclose(value.float(), wanted, 1e-3, 1e-3)
