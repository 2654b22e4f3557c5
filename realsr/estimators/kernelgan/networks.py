"""The two players. The generator is linear, so it *is* a kernel: it is applied as one, not layer by layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class LinearGenerator(nn.Module):
    """Convolutions without bias or activation, the last one with stride; applied to each colour separately.

    Composing the filters into one kernel costs the same for every crop size and applying that kernel costs next
    to nothing, where running 64-channel layers over the crop is nearly all of a step. Output and gradients are
    those of the layered network up to rounding.

    Args:
        scale: stride of the last filter.
        channels: width of the inner layers.
        sizes: filter sizes; (7, 5, 3, 1, 1, 1) of the paper make a 13x13 kernel.
    """

    def __init__(self, scale: int = 2, channels: int = 64, sizes: tuple[int, ...] = (7, 5, 3, 1, 1, 1)) -> None:
        super().__init__()
        self.scale = scale
        widths = [1, *[channels] * (len(sizes) - 1), 1]
        self.filters = nn.ParameterList(
            nn.init.xavier_normal_(nn.Conv2d(a, b, size, bias=False).weight.detach(), gain=0.1)
            for a, b, size in zip(widths[:-1], widths[1:], sizes, strict=True)
        )
        self.kernel_size = sum(sizes) - len(sizes) + 1

    def kernel(self) -> Tensor:
        """The composed correlation kernel ``(K, K)``, differentiable by the filters.

        Correlating with one filter after another is correlating with their full convolution. Starting from the
        last filter keeps a single "image" in the chain; the transposed convolution is the full one.
        """
        kernel = self.filters[-1]
        for weight in reversed(list(self.filters)[:-1]):
            kernel = F.conv_transpose2d(kernel, weight)
        return kernel[0, 0]

    def forward(self, crop: Tensor, kernel: Tensor | None = None) -> Tensor:
        """Correlate and subsample, without padding.

        Args:
            crop: ``(N, 3, H, W)``.
            kernel: the result of :meth:`kernel`, if it is at hand already.

        Returns:
            ``(N, 3, ceil((H-K+1)/scale), ceil((W-K+1)/scale))``.
        """
        kernel = self.kernel() if kernel is None else kernel
        planes = crop.flatten(0, 1)[:, None]
        small = F.conv2d(planes, kernel[None, None], stride=self.scale)
        return small.view(*crop.shape[:2], *small.shape[-2:])


class PatchCritic(nn.Module):
    """A 7x7 convolution and 1x1 ones: a verdict in [0, 1] on every 7x7 patch of the crop.

    Spectral norm everywhere; BatchNorm and ReLU on the inner layers; no padding.
    """

    def __init__(self, channels: int = 64, layers: int = 7) -> None:
        super().__init__()
        inner: list[nn.Module] = []
        for _ in range(layers - 2):
            inner += [spectral_norm(nn.Conv2d(channels, channels, 1)), nn.BatchNorm2d(channels), nn.ReLU()]
        self.model = nn.Sequential(
            spectral_norm(nn.Conv2d(3, channels, 7)),
            *inner,
            spectral_norm(nn.Conv2d(channels, 1, 1)),
            nn.Sigmoid(),
        )
        for module in self.model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, crop: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [-1, 1] to ``(N, 1, H-6, W-6)`` in [0, 1]; 1 is real."""
        verdict: Tensor = self.model(crop)
        return verdict
