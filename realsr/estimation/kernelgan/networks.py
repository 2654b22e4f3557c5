"""KernelGAN's two networks. The generator is linear, so it is applied as one kernel, not layer by layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 7  # receptive field of the critic in pixels


class LinearGenerator(nn.Module):
    """Convolutions without bias or activation, the last one with stride; applied to each colour separately.

    The filters are composed into one kernel, which costs next to nothing; 64-channel layers on the crop would take
    nearly all of a step. Output and gradients equal those of the layered network up to rounding.

    Args:
        scale: stride of the last filter.
        channels: width of the inner layers.
        sizes: filter sizes; (7, 5, 3, 1, 1, 1) of the paper make a 13x13 kernel.

    >>> generator = LinearGenerator(scale=2, channels=4)
    >>> generator.kernel().shape, generator(torch.rand(1, 3, 64, 64)).shape
    (torch.Size([13, 13]), torch.Size([1, 3, 26, 26]))
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
        """The composed correlation kernel ``(K, K)``, differentiable with respect to the filters.

        Correlation with several filters is correlation with their full convolution, which is a transposed one. The
        chain starts from the last filter, so that it holds a single image.
        """
        kernel = self.filters[-1]
        for weight in reversed(list(self.filters)[:-1]):
            if kernel.shape[-1] == 1:  # a matrix product is several times faster
                kernel = (kernel.flatten(1) @ weight.flatten(1)).view(1, *weight.shape[1:])
            else:
                kernel = F.conv_transpose2d(kernel, weight)
        return kernel[0, 0]

    def forward(self, crop: Tensor, kernel: Tensor | None = None) -> Tensor:
        """Correlate ``(N, 3, H, W)`` and subsample: ``(N, 3, ceil((H-K+1)/scale), ceil((W-K+1)/scale))``.

        ``kernel`` is the result of :meth:`kernel`, if it is known already.
        """
        kernel = self.kernel() if kernel is None else kernel
        planes = crop.flatten(0, 1)[:, None]
        small = F.conv2d(planes, kernel[None, None], stride=self.scale)
        return small.view(*crop.shape[:2], *small.shape[-2:])


class PatchCritic(nn.Module):
    """A 7x7 convolution and 1x1 convolutions: a score in [0, 1] for every 7x7 patch of a crop.

    Spectral norm everywhere; batch normalisation and ReLU on the inner layers; no padding. Each crop is normalised by
    itself. Running statistics, and biases before a normalisation, have no effect and are left out. Nothing lies between
    the first two of the ``layers`` (three or more), so their filters are composed and applied as one.

    >>> PatchCritic(channels=4)(torch.rand(1, 3, 26, 26), torch.rand(2, 3, 26, 26)).shape
    torch.Size([3, 400])
    """

    def __init__(self, channels: int = 64, layers: int = 7) -> None:
        super().__init__()
        self.first = SpectralMatrices(1, channels, 3 * PATCH**2)
        self.inner = SpectralMatrices(layers - 2, channels, channels)
        self.gain = nn.Parameter(torch.empty(layers - 2, channels).normal_(1.0, 0.02))
        self.shift = nn.Parameter(torch.zeros(layers - 2, channels))
        self.last = nn.Parameter(_start(1, channels))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, for_generator: Tensor, for_critic: Tensor) -> Tensor:
        """Score the crops that train the generator and those that train the critic in one pass.

        Crops are ``(M, 3, H, W)`` and ``(N, 3, H, W)`` in [-1, 1], scores ``(M+N, (H-6)*(W-6))`` in [0, 1]; 1 is real.
        Gradients of the scores on ``for_generator`` go to the crops alone, those on ``for_critic`` to the critic alone.
        Each crop, in the order of the output, takes a power iteration, as if it were the only one.
        """
        counts = len(for_generator), len(for_critic)
        weights, norms = self.inner.weight, self.inner.norms(*counts)
        filters = (weights[0] @ self.first.weight[0]).view(-1, 3, PATCH, PATCH)
        x = torch.cat([F.conv2d(for_generator, filters.detach()), F.conv2d(for_critic.detach(), filters)]).flatten(2)
        x = x / (norms[0] * self.first.norms(*counts)[0])
        gains, shifts = _copies(self.gain, *counts).unbind(), _copies(self.shift, *counts).unbind()
        x = _normalise(x, gains[0], shifts[0])
        matrices = (_copies(weights[1:], *counts) / norms[1:]).unbind()
        for matrix, gain, shift in zip(matrices, gains[1:], shifts[1:], strict=True):
            x = _normalise(matrix @ x, gain, shift)
        # the spectral norm of a single row is its length
        last, bias = _copies(F.normalize(self.last)[None], *counts)[0], _copies(self.bias, *counts)[0]
        return torch.sigmoid((last @ x)[:, 0] + bias[:, None])


class SpectralMatrices(nn.Module):
    """Matrices ``weight (count, rows, columns)`` whose spectral norms are estimated by power iterations.

    As :func:`torch.nn.utils.parametrizations.spectral_norm`, for several matrices and several uses at once.
    """

    def __init__(self, count: int, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_start(count, rows, columns))
        self.v: Tensor
        self.register_buffer("v", torch.randn(count, columns, 1))
        self.norms(15, 0)

    def norms(self, frozen: int, free: int) -> Tensor:
        """Norms after a power iteration per use, ``(count, frozen + free, 1, 1)``; the first have no gradient."""
        weight, v, us = self.weight.detach(), self.v, []
        for _ in range(frozen + free):
            u = weight @ v
            us.append(u / u.norm(dim=1, keepdim=True))
            v = weight.mT @ us[-1]
        self.v.copy_(v)
        norms = (torch.cat(us, 2).mT @ self.weight).norm(dim=2)  # |W'u| = u'Wv with v = W'u / |W'u|
        return torch.cat([norms[:, :frozen].detach(), norms[:, frozen:]], 1)[..., None, None]


def _start(*shape: int) -> Tensor:
    """Uniform initial weights, as PyTorch's convolutions have; the last axis is the fan-in."""
    return torch.empty(shape).uniform_(-(shape[-1] ** -0.5), shape[-1] ** -0.5)


def _copies(layers: Tensor, frozen: int, free: int) -> Tensor:
    """``(L, ...)`` to ``(L, frozen + free, ...)``: a copy for each crop, the first ``frozen`` without gradient."""
    once, shape = layers[:, None], layers.shape[1:]
    return torch.cat([once.detach().expand(-1, frozen, *shape), once.expand(-1, free, *shape)], 1)


def _normalise(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Batch normalisation of each crop and channel of ``(N, C, P)`` by itself, then ReLU."""
    rows = x.shape[0] * x.shape[1]  # each a group: the fastest of torch's ways to the same numbers
    return F.relu_(F.group_norm(x.reshape(1, rows, -1), rows, gain.flatten(), shift.flatten())).view_as(x)
