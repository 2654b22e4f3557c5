"""PatchGAN discriminator (Isola et al., CVPR 2017), with a logit for each patch of 70x70 pixels."""

from __future__ import annotations

from torch import Tensor, nn

from realsr.runtime.errors import at_least


class PatchDiscriminator(nn.Module):
    """4x4 convolutions: ``features`` with stride 2, doubled twice with stride 2, doubled with stride 1, to 1.

    BatchNorm on the inner three, LeakyReLU 0.2. RealSR (section 3.3) has 64 features. Each logit sees 70x70 pixels.

    >>> import torch
    >>> PatchDiscriminator(features=8)(torch.rand(1, 3, 128, 128)).shape
    torch.Size([1, 1, 14, 14])

    Args:
        features: channels of the first convolution.
        layers: convolutions of stride 2.
    """

    def __init__(self, features: int = 64, layers: int = 3) -> None:
        super().__init__()
        at_least(1, "model.discriminator.", features=features, layers=layers)
        width = features
        model: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for layer in range(1, layers + 1):
            wider = features * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            model += [
                nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        self.model = nn.Sequential(*model, nn.Conv2d(width, 1, 4, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1] to a map of logits ``(N, 1, H', W')``."""
        return self.model(image)
