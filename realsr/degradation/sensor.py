"""Sensors and their colours: known colour matrices, the mosaic and its demosaicking, tone curves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from realsr.runtime.hardware import to_device

# XYZ (D65) of linear sRGB (IEC 61966-2-1)
XYZ_FROM_SRGB = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

# ColorMatrix tags of DNG files (D65), camera from XYZ: Canon EOS 5D Mark III, Sony ILCE-7R, Olympus E-P5
CAMERA_FROM_XYZ = torch.tensor([
    [[0.6722, -0.0635, -0.0963], [-0.4287, 1.2460, 0.2028], [-0.0908, 0.2162, 0.5668]],
    [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
    [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
])  # fmt: skip

# their mean, white-balanced: white stays white. Averaged backwards, as pictures are developed
_BALANCED = CAMERA_FROM_XYZ @ XYZ_FROM_SRGB / (CAMERA_FROM_XYZ @ XYZ_FROM_SRGB).sum(2, keepdim=True)
CAMERA_FROM_SRGB = torch.linalg.inv(torch.linalg.inv(_BALANCED).mean(0))

# Malvar, He and Cutler, "High-quality linear interpolation for demosaicing", ICASSP 2004, figure 2, in sixteenths:
# green where it is missing; red or blue on green, neighbours left and right; the same above and below; the last one
GREEN = [[0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0]]
BESIDE = [[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]]
ABOVE = [list(row) for row in zip(*BESIDE, strict=True)]
ACROSS = [[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]]

# the pixels that have red, green and blue; of these, which make up a colour where it is missing, in quarters
COLOURS = torch.tensor([[[1.0, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 1]]])
CORNERS, CROSS = [[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], [[0.0, 1, 0], [1, 4, 1], [0, 1, 0]]


def mixed(images: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the colours of each pixel of ``(N, 3, H, W)`` by a matrix ``(3, 3)``."""
    return (matrix @ images.flatten(2)).view(images.shape)


def mosaic(images: Tensor) -> Tensor:
    """Raw image ``(N, 1, H, W)`` of a Bayer sensor for ``(N, 3, H, W)``: red at even rows and columns, blue at odd.

    >>> mosaic(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2))[0, 0]
    tensor([[1., 2.],
            [2., 3.]])
    """
    raw = images[:, 1:2].clone()
    raw[..., ::2, ::2] = images[:, 0:1, ::2, ::2]
    raw[..., 1::2, 1::2] = images[:, 2:3, 1::2, 1::2]
    return raw


def demosaic(raw: Tensor) -> Tensor:
    """Colours ``(N, 3, H, W)`` for a raw image of :func:`mosaic`, by the linear filters of Malvar, He and Cutler."""
    filters = to_device(torch.tensor([GREEN, BESIDE, ABOVE, ACROSS], dtype=raw.dtype)[:, None] / 16, raw.device)
    green, beside, above, across = F.conv2d(F.pad(raw, [2] * 4, mode="reflect"), filters).unbind(1)
    image = raw.repeat(1, 3, 1, 1)
    image[:, 1, ::2, ::2] = green[..., ::2, ::2]
    image[:, 1, 1::2, 1::2] = green[..., 1::2, 1::2]
    for colour, row in ((0, 0), (2, 1)):  # its own rows and columns are those of this parity
        other = 1 - row
        image[:, colour, row::2, other::2] = beside[..., row::2, other::2]
        image[:, colour, other::2, row::2] = above[..., other::2, row::2]
        image[:, colour, other::2, other::2] = across[..., other::2, other::2]
    return image


def bilinear(raw: Tensor) -> Tensor:
    """Colours for a raw image as :func:`demosaic`, but by the mean of the nearest pixels that have the colour."""
    height, width = raw.shape[-2:]
    colours = to_device(COLOURS, raw.device).to(raw.dtype).repeat(1, height // 2 + 2, width // 2 + 2)[None]
    known = F.pad(raw, [1] * 4, mode="reflect") * colours[..., 1 : height + 3, 1 : width + 3]
    filters = to_device(torch.tensor([CORNERS, CROSS, CORNERS])[:, None] / 4, raw.device).to(raw.dtype)
    return F.conv2d(known, filters, groups=3)


def gamma(linear: Tensor) -> Tensor:
    """Display values of linear light by the curve of sRGB (IEC 61966-2-1), [0, 1] to [0, 1].

    >>> gamma(torch.tensor([0.0, 0.18, 1.0]))
    tensor([0.0000, 0.4614, 1.0000])
    """
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-8) ** (1 / 2.4) - 0.055)


def degamma(encoded: Tensor) -> Tensor:
    """Inverse of :func:`gamma`."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def toned(linear: Tensor, amount: float = 1.0) -> Tensor:
    """A tone curve with the S of most cameras', ``3 x^2 - 2 x^3`` (Brooks et al., section 3.5); [0, 1] to [0, 1].

    Args:
        linear: light in [0, 1].
        amount: share of the S against a straight line, 0 to 1.
    """
    if not amount:
        return linear
    return (1 - amount) * linear + amount * linear**2 * (3 - 2 * linear)


def untoned(toned: Tensor, amount: float = 1.0) -> Tensor:
    """Inverse of :func:`toned`, by the trigonometric solution of a cubic.

    >>> untoned(toned(torch.tensor([0.25, 0.9]), 0.4), 0.4)
    tensor([0.2500, 0.9000])
    """
    if not amount:
        return toned
    third = (1 / amount + 0.5) / 6
    sine = (toned - 0.5) / (4 * amount * third**1.5)
    return 0.5 + 2 * third**0.5 * torch.sin(torch.asin(sine.clamp(-1, 1)) / 3)
