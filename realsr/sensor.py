"""Noise of a camera's sensor as its processing leaves it in a picture: back to raw, noise there, forward again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from realsr.transfer import sent

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
    """What each picture of a batch is taken with.

    Attributes:
        matrix: ``(N, 3, 3)``, camera's white-balanced RGB from linear sRGB; white stays white.
        gains: ``(N, 3)`` of red, green and blue, white balance and exposure in one.
        shot: ``(N,)`` variance of the noise for each unit of raw signal in [0, 1].
        read: ``(N,)`` variance of the noise in the dark.
    """

    matrix: Tensor
    gains: Tensor
    shot: Tensor
    read: Tensor

    @classmethod
    def draw(
        cls,
        count: int,
        exposure: tuple[float, float],
        gains: tuple[float, float],
        shot: tuple[float, float],
        generator: torch.Generator,
    ) -> Camera:
        """Draw ``count`` cameras, on the CPU.

        Matrices are random weighted means of known ones. Shot noise is log-uniform and read noise goes with it, as
        Brooks et al. found on real cameras ("Unprocessing images for learned raw denoising", CVPR 2019, section 3.1).

        Args:
            count: number of pictures.
            exposure: bounds of the gain of all colours in stops.
            gains: bounds of the gains of red and of blue.
            shot: bounds of the shot noise.
            generator: the CPU's.
        """
        weights = torch.rand(count, len(CAMERA_FROM_XYZ), generator=generator)
        matrix = torch.einsum("nk,kij->nij", weights / weights.sum(1, keepdim=True), CAMERA_FROM_XYZ) @ XYZ_FROM_SRGB
        balance = gains[0] + (gains[1] - gains[0]) * torch.rand(count, 3, generator=generator)
        balance[:, 1] = 1
        stops = exposure[0] + (exposure[1] - exposure[0]) * torch.rand(count, 1, generator=generator)
        log_shot = math.log(shot[0]) + math.log(shot[1] / shot[0]) * torch.rand(count, generator=generator)
        log_read = 2.18 * log_shot + 1.20 + 0.26 * torch.randn(count, generator=generator)
        return cls(matrix / matrix.sum(2, keepdim=True), balance * 2**stops, log_shot.exp(), log_read.exp())

    def of(self, members: list[int], device: torch.device) -> Camera:
        """Those of some of the pictures, on a device."""
        return Camera(*(sent(t[members], device) for t in (self.matrix, self.gains, self.shot, self.read)))


def photographed(images: Tensor, camera: Camera, field: Tensor) -> Tensor:
    """Pictures as cameras would have made them of the same scenes (BSRGAN, section 3.3).

    Back: gamma, tone curve, colours to the camera's, one colour a pixel (Bayer, RGGB), exposure and white balance.
    Then noise. Forward: exposure and white balance, demosaicing, colours to sRGB, tone curve, gamma. Balanced before
    demosaicing, as raw converters and Brooks et al. do; the paper names it after, where the filters, which carry edges
    from one colour to another, leave fringes.

    Args:
        images: ``(N, 3, H, W)`` sRGB in [0, 1], at least 3 pixels on a side.
        camera: one for each image, on its device.
        field: ``(N, 1, H, W)`` of independent normal numbers.

    Returns:
        ``(N, 3, H, W)`` sRGB in [0, 1]. Raw values are neither rounded nor clipped: white would not stay white.
    """
    gains = mosaic(camera.gains[:, :, None, None].expand(images.shape))
    raw = mosaic(_coloured(untoned(degamma(images)), camera.matrix)) / gains
    shot, read = (t[:, None, None, None] for t in (camera.shot, camera.read))
    raw = raw + field * (shot * raw.clamp(min=0) + read).sqrt()
    back = torch.linalg.inv_ex(camera.matrix).inverse  # `inv` waits for the device
    linear = _coloured(demosaic(raw * gains), back)
    return gamma(toned(linear.clamp(0, 1)))


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


def _coloured(images: Tensor, matrix: Tensor) -> Tensor:
    return (matrix @ images.flatten(2)).view(images.shape)
