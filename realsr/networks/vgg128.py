"""The discriminator of SRGAN and ESRGAN, with one logit for a crop: RealSR's ablation of the PatchGAN."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from realsr.runtime.errors import InputError


class VGGDiscriminator(nn.Module):
    """Five stages of a 3x3 and a 4x4 stride-2 convolution with BatchNorm, then two linear layers to one logit.

    >>> import torch
    >>> VGGDiscriminator(features=4, input_size=32)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 1])

    Args:
        features: channels of the first stage (64); doubled up to eight times that.
        input_size: side of the square crops, a multiple of 32. 128 gives the published network ("VGG-128").
    """

    def __init__(self, features: int = 64, input_size: int = 128) -> None:
        super().__init__()
        if input_size < 32 or input_size % 32:
            raise InputError(f"disc=vgg128 takes crops that are a multiple of 32, not {input_size}; set data.crop_size")
        self.input_size = input_size
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        before = 3
        for stage in range(5):
            width = features * min(2**stage, 8)
            layers[f"conv{stage}_0"] = nn.Conv2d(before, width, 3, padding=1, bias=stage == 0)
            if stage > 0:
                layers[f"bn{stage}_0"] = nn.BatchNorm2d(width)
            layers[f"act{stage}_0"] = nn.LeakyReLU(0.2)
            layers[f"conv{stage}_1"] = nn.Conv2d(width, width, 4, stride=2, padding=1, bias=False)
            layers[f"bn{stage}_1"] = nn.BatchNorm2d(width)
            layers[f"act{stage}_1"] = nn.LeakyReLU(0.2)
            before = width
        self.features = nn.Sequential(layers)
        self.linear1 = nn.Linear(before * (input_size // 32) ** 2, 100)
        self.linear2 = nn.Linear(100, 1)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, image: Tensor) -> Tensor:
        """``(N, 3, input_size, input_size)`` in [0, 1] to logits ``(N, 1)``."""
        if image.shape[-1] != self.input_size or image.shape[-2] != self.input_size:
            raise ValueError(f"got crops of {tuple(image.shape[-2:])}, was built for {self.input_size}")
        return self.linear2(self.act(self.linear1(self.features(image).flatten(1))))
