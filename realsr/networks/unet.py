"""U-Net discriminator with spectral normalisation (Real-ESRGAN, Wang et al., ICCVW 2021, section 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from realsr.networks.names import State, renamed
from realsr.runtime.errors import at_least

_SPECTRAL_NORM = [  # as PyTorch once named its weights, and Real-ESRGAN's files still do
    (r"\.weight_orig$", ".parametrizations.weight.original"),
    (r"\.weight_([uv])$", r".parametrizations.weight.0._\1"),
]


class UNetDiscriminator(nn.Module):
    """A logit for every pixel: three steps down (4x4, stride 2), three up (bilinear, 3x3) with skips added.

    Spectral norm (Miyato et al., ICLR 2018) on all convolutions but the first and the last, LeakyReLU 0.2, no
    BatchNorm. Layers are named as in the published weights.

    >>> import torch
    >>> UNetDiscriminator(features=4)(torch.rand(1, 3, 16, 24)).shape
    torch.Size([1, 1, 16, 24])

    Args:
        features: channels of the first convolution (64); doubled three times.
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        at_least(1, "model.discriminator.", features=features)
        n = features
        self.conv0 = nn.Conv2d(3, n, 3, padding=1)
        self.conv1 = _normed(n, 2 * n, 4, stride=2)
        self.conv2 = _normed(2 * n, 4 * n, 4, stride=2)
        self.conv3 = _normed(4 * n, 8 * n, 4, stride=2)
        self.conv4 = _normed(8 * n, 4 * n, 3)
        self.conv5 = _normed(4 * n, 2 * n, 3)
        self.conv6 = _normed(2 * n, n, 3)
        self.conv7 = _normed(n, n, 3)
        self.conv8 = _normed(n, n, 3)
        self.conv9 = nn.Conv2d(n, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1], sides multiples of 8, to logits ``(N, 1, H, W)``."""
        if image.shape[-1] % 8 or image.shape[-2] % 8:
            raise ValueError(f"got crops of {tuple(image.shape[-2:])}, which are no multiples of 8")
        x0 = F.leaky_relu(self.conv0(image), 0.2)
        x1 = F.leaky_relu(self.conv1(x0), 0.2)
        x2 = F.leaky_relu(self.conv2(x1), 0.2)
        x3 = F.leaky_relu(self.conv3(x2), 0.2)
        x = F.leaky_relu(self.conv4(_twice(x3)), 0.2) + x2
        x = F.leaky_relu(self.conv5(_twice(x)), 0.2) + x1
        x = F.leaky_relu(self.conv6(_twice(x)), 0.2) + x0
        x = F.leaky_relu(self.conv8(F.leaky_relu(self.conv7(x), 0.2)), 0.2)
        return self.conv9(x)

    @staticmethod
    def our_names(state: State) -> State:
        """Published weights under our names."""
        return renamed(state, _SPECTRAL_NORM)


def _normed(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, size, stride, padding=1, bias=False))


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
