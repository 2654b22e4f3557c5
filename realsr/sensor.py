"""Noise of a camera's sensor as its processing leaves it in a picture: back to raw, noise there, forward again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from realsr.transfer import sent

Bounds = tuple[float, float]

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


@dataclass(frozen=True)
class Camera:
    """What a picture is taken with, on the CPU.

    Attributes:
        matrix: ``(3, 3)``, camera's white-balanced RGB from linear sRGB; white stays white.
        gains: ``(3,)`` of red, green and blue, white balance and exposure in one.
        shot: variance of the noise for each unit of raw signal in [0, 1].
        read: variance of the noise in the dark.
    """

    matrix: Tensor
    gains: Tensor
    shot: float
    read: float

    @classmethod
    def draw(cls, rng: np.random.Generator, exposure: Bounds, gains: Bounds, shot: Bounds) -> Camera:
        """Draw a camera.

        The matrix is a random weighted mean of known ones. Shot noise is log-uniform and read noise goes with it, as
        Brooks et al. found on real cameras ("Unprocessing images for learned raw denoising", CVPR 2019, section 3.1).

        Args:
            rng: to draw from.
            exposure: bounds of the gain of all colours in stops.
            gains: bounds of the gains of red and of blue.
            shot: bounds of the shot noise.
        """
        weights = torch.from_numpy(rng.dirichlet(np.ones(len(CAMERA_FROM_XYZ)))).float()
        matrix = torch.tensordot(weights, CAMERA_FROM_XYZ, 1) @ XYZ_FROM_SRGB
        balance = torch.tensor([rng.uniform(*gains), 1.0, rng.uniform(*gains)]) * 2 ** rng.uniform(*exposure)
        log_shot = rng.uniform(*np.log(shot))
        log_read = rng.normal(2.18 * log_shot + 1.20, 0.26)
        return cls(matrix / matrix.sum(1, keepdim=True), balance.float(), math.exp(log_shot), math.exp(log_read))


def photographed(images: Tensor, camera: Camera, field: Tensor) -> Tensor:
    """Pictures as a camera would have made them of the same scenes (BSRGAN, section 3.3).

    Back: gamma, tone curve, colours to the camera's, one colour a pixel (Bayer, RGGB), exposure and white balance.
    Then noise. Forward: exposure and white balance, demosaicing, colours to sRGB, tone curve, gamma. Balanced before
    demosaicing, as raw converters and Brooks et al. do; the paper names it after, where the filters, which carry edges
    from one colour to another, leave fringes.

    Args:
        images: ``(N, 3, H, W)`` sRGB in [0, 1], at least 3 pixels on a side.
        camera: that takes them.
        field: ``(N, 1, H, W)`` of independent normal numbers.

    Returns:
        ``(N, 3, H, W)`` sRGB in [0, 1]. Raw values are neither rounded nor clipped: white would not stay white.
    """
    matrix, back = (sent(m, images.device) for m in (camera.matrix, torch.linalg.inv(camera.matrix)))
    gains = mosaic(sent(camera.gains, images.device)[:, None, None].expand(images.shape))
    raw = mosaic(mixed(untoned(degamma(images)), matrix)) / gains
    raw = raw + field * (camera.shot * raw.clamp(min=0) + camera.read).sqrt()
    return gamma(toned(mixed(demosaic(raw * gains), back).clamp(0, 1)))


def mixed(images: Tensor, matrix: Tensor) -> Tensor:
    """``(N, 3, H, W)``, the colours of each pixel times a matrix ``(3, 3)``."""
    return (matrix @ images.flatten(2)).view(images.shape)


def mosaic(images: Tensor) -> Tensor:
    """What a Bayer sensor sees of ``(N, 3, H, W)``: ``(N, 1, H, W)``, red at even rows and columns, blue at odd."""
    raw = images[:, 1:2].clone()
    raw[..., ::2, ::2] = images[:, 0:1, ::2, ::2]
    raw[..., 1::2, 1::2] = images[:, 2:3, 1::2, 1::2]
    return raw


def demosaic(raw: Tensor) -> Tensor:
    """``(N, 1, H, W)`` of :func:`mosaic` to ``(N, 3, H, W)``, by Malvar, He and Cutler's linear filters."""
    filters = sent(torch.tensor([GREEN, BESIDE, ABOVE, ACROSS], dtype=raw.dtype)[:, None] / 16, raw.device)
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
    """:func:`demosaic` by the means of the nearest pixels that have the colour."""
    height, width = raw.shape[-2:]
    colours = sent(COLOURS, raw.device).to(raw.dtype).repeat(1, height // 2 + 2, width // 2 + 2)[None]
    known = F.pad(raw, [1] * 4, mode="reflect") * colours[..., 1 : height + 3, 1 : width + 3]
    filters = sent(torch.tensor([CORNERS, CROSS, CORNERS])[:, None] / 4, raw.device).to(raw.dtype)
    return F.conv2d(known, filters, groups=3)


def gamma(linear: Tensor) -> Tensor:
    """The curve of sRGB (IEC 61966-2-1), [0, 1] to [0, 1]."""
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-8) ** (1 / 2.4) - 0.055)


def degamma(encoded: Tensor) -> Tensor:
    """Inverse of :func:`gamma`."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def toned(linear: Tensor) -> Tensor:
    """A tone curve with the S of most cameras', ``3 x^2 - 2 x^3`` (Brooks et al., section 3.5); [0, 1] to [0, 1]."""
    return linear**2 * (3 - 2 * linear)


def untoned(toned: Tensor) -> Tensor:
    """Inverse of :func:`toned`."""
    return 0.5 - torch.sin(torch.asin(1 - 2 * toned) / 3)
