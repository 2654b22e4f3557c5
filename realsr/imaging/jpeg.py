"""JPEG (ITU-T T.81, JFIF): the tables in a file's header, and saving and reading as an operation on tensors."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from realsr.imaging.colour import luma
from realsr.imaging.damage import naming_damage
from realsr.imaging.opening import open_image
from realsr.runtime.errors import InputError
from realsr.runtime.hardware import to_device

BLOCK = 8


@dataclass(frozen=True)
class Compression:
    """The compression of a JPEG file, for its upright photo.

    Attributes:
        tables: ``(2, 8, 8)`` int32 quantisation tables of luma and chroma, ``[., v, u]`` for vertical and horizontal
            frequency (natural order, not the zigzag one of the file). A gray file's table stands for both.
        subsampling: chroma's factors down and across, 1 or 2: ``(1, 1)`` is 4:4:4, ``(1, 2)`` 4:2:2, ``(2, 2)`` 4:2:0.
    """

    tables: npt.NDArray[np.int32]
    subsampling: tuple[int, int]


def read_compression(path: str | Path) -> Compression:
    """Read the header of a JPEG file; the pixels are not decoded.

    Raises:
        InputError: the file cannot be read, is no JPEG, or not of the gray and YCbCr kinds that cameras write.
    """
    path = Path(path)
    opened = open_image(path)
    if not (loader := opened.image.get("vips-loader")).startswith("jpeg"):
        kind = loader.split("load")[0].upper()
        raise InputError(f"{path}: is no JPEG file but {kind}, which has no quantisation tables")
    with naming_damage(path), JpegImageFile(io.BytesIO(_without_notes(path.read_bytes()))) as image:
        assert isinstance(image, JpegImageFile)
        layers = image.layer  # of each channel: name, samples across, samples down, table
        rgb = image.info.get("adobe_transform") == 0 or [name for name, *_ in layers] == list(b"RGB")
        if len(layers) == 4 or (len(layers) == 3 and rgb):
            raise InputError(f"{path}: is a JPEG file of {'CMYK' if len(layers) == 4 else 'RGB'}, cameras write YCbCr")
        (_, across, down, luma), (_, chroma_across, chroma_down, chroma) = layers[0], layers[-1]
        factors = (down / chroma_down, across / chroma_across)
        if not set(factors) <= {1, 2}:
            raise InputError(f"{path}: has chroma subsampled {factors[0]:g}x down, {factors[1]:g}x across, not 1 or 2")
        tables = np.array([image.quantization[luma], image.quantization[chroma]], np.int32).reshape(2, BLOCK, BLOCK)
    vertical, horizontal = (int(factor) for factor in factors)
    if opened.orientation >= 5:  # the photo lies on its side in the file
        return Compression(tables.transpose(0, 2, 1).copy(), (horizontal, vertical))
    return Compression(tables, (vertical, horizontal))


def _without_notes(data: bytes) -> bytes:
    """The header of a JPEG file without EXIF and other segments that may be damaged and are not needed."""
    kept, at = data[:2], 2
    while (mark := data[at + 1 : at + 2]) and mark != b"\xda":
        size = 1 if mark == b"\xff" else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        kept += b"" if b"\xe1" <= mark <= b"\xed" or size == 1 else data[at : at + size]
        at += size
    return kept + data[at : at + 64]


def standard_tables(quality: Tensor) -> Tensor:
    """The tables of libjpeg, and so of most programs, for qualities ``(N,)`` from 1 to 100; ``(N, 2, 8, 8)`` float32.

    >>> standard_tables(torch.tensor([50]))[0, :, 0, :4]  # ITU-T T.81, tables K.1 and K.2
    tensor([[16., 11., 10., 16.],
            [17., 18., 24., 47.]])
    """
    return torch.stack([_tables_of(int(one)) for one in quality])


@functools.cache
def _tables_of(quality: int) -> Tensor:
    file = io.BytesIO()
    Image.new("RGB", (BLOCK, BLOCK)).save(file, "JPEG", quality=quality)
    file.seek(0)
    written = JpegImageFile(file).quantization
    return torch.tensor([written[0], written[1]], dtype=torch.float32).view(2, BLOCK, BLOCK)


def jpeg(images: Tensor, tables: Tensor, subsampling: Tensor, phase: Tensor | None = None) -> Tensor:
    """Save as JPEG and read again as libjpeg does by default, each image with tables of its own.

    The steps are libjpeg's. Its integer DCT is not copied in full, so a few coefficients are rounded to the other side.

    >>> image, tables = torch.rand(1, 3, 16, 16), standard_tables(torch.tensor([90]))
    >>> jpeg(image, tables, subsampling=torch.tensor([[2, 2]])).shape
    torch.Size([1, 3, 16, 16])

    Args:
        images: ``(N, 3, H, W)`` RGB in [0, 1]; rounded to 8 bits first.
        tables: ``(N, 2, 8, 8)`` for luma and chroma as in :class:`Compression`, on the images' device.
        subsampling: ``(N, 2)`` factors of chroma down and across, 1 or 2, on the CPU.
        phase: ``(N, 2)`` rows and columns of the first block that lie above and left of each image, a crop of a photo,
            modulo the block; None for whole photos.

    Returns:
        ``(N, 3, H, W)`` float32 of 256 levels in [0, 1].
    """
    levels = images.float().clamp(0, 1).mul(255).round()
    red, _, blue = levels.unbind(1)
    y = luma(levels)
    chroma = torch.stack([(blue - y) / 1.772, (red - y) / 1.402], 1).round().clamp(max=127)
    tables = tables.float()
    phase = to_device(torch.zeros_like(subsampling) if phase is None else phase, images.device)
    y = _coded(y.round()[:, None] - 128, tables[:, :1], phase, (1, 1))[:, 0] + 128
    for down, across in sorted(set(map(tuple, subsampling.tolist()))):  # four kinds at most
        mine = to_device((subsampling == torch.tensor([down, across])).all(1).nonzero()[:, 0], images.device)
        chroma = chroma.index_copy(0, mine, _coded(chroma[mine], tables[mine, 1:], phase[mine], (down, across)))
    cb, cr = chroma.unbind(1)
    green = y - (0.344136 * cb + 0.714136 * cr).round()
    return torch.stack([y + (1.402 * cr).round(), green, y + (1.772 * cb).round()], 1).clamp(0, 255) / 255


def _coded(planes: Tensor, table: Tensor, phase: Tensor, factors: tuple[int, int]) -> Tensor:
    """Channels ``(N, C, H, W)`` of integers, -128 to 127, subsampled, quantised by ``(N, 1, 8, 8)``, and back."""
    down, across = factors
    height, width = planes.shape[2:]
    top, left = (phase[:, axis, None] % (BLOCK * factors[axis]) for axis in (0, 1))
    # libjpeg repeats the last column before it averages, but the last row after
    planes = _pick(planes, _edges_repeated(left, width, across, group=1), 3)
    planes = _pick(planes, _edges_repeated(top, height, down, group=down), 2)
    planes = _quantised(_averaged(planes, down, across), table)
    return _interpolated(planes, top, left, (height, width), factors)


def _edges_repeated(start: Tensor, length: int, factor: int, group: int) -> Tensor:
    """``(N, L)``, the index of the pixel, of ``length``, at each place of whole blocks; edges are ``group`` wide."""
    block = BLOCK * factor
    place = torch.arange(-(-(length + block - 1) // block) * block, device=start.device)
    nearest = (place // group).clamp(start // group, (start + length - 1) // group)
    return (nearest * group + place % group - start).clamp(0, length - 1)


def _averaged(planes: Tensor, down: int, across: int) -> Tensor:
    """Means of ``down`` x ``across`` pixels; halves go down in even columns and up in odd ones, as in libjpeg."""
    if down == across == 1:
        return planes
    n, c, height, width = planes.shape
    sums = planes.reshape(n, c, height // down, down, width // across, across).sum((3, 5))
    odd = torch.arange(sums.shape[3], device=sums.device) % 2
    return ((sums + (down - 1) + (across - 1) * odd) / (down * across)).floor()


def _interpolated(planes: Tensor, top: Tensor, left: Tensor, size: tuple[int, int], factors: tuple[int, int]) -> Tensor:
    """Cut out the images; where subsampled, 3/4 of the nearest sample and 1/4 of the next one, along each axis."""
    bias: Tensor | float = 0.0
    for dim, start, length, factor in zip((2, 3), (top, left), size, factors, strict=True):
        place = start + torch.arange(length, device=start.device)
        near = place // factor
        if factor == 1:
            planes = _pick(planes, near, dim)
        else:
            odd = place % 2
            far = (near + 2 * odd - 1).clamp(start // 2, (start + length - 1) // 2)
            planes = 3 * _pick(planes, near, dim) + _pick(planes, far, dim)
            # libjpeg's rounding of halves: up in odd pixels, but in even ones where both axes are subsampled
            halves = (8 - odd if factors == (2, 2) else 1 + odd)[:, None]
            bias = halves[..., None] if dim == 2 else halves[..., None, :]
    return ((planes + bias) / (factors[0] * factors[1]) ** 2).floor()


def _quantised(planes: Tensor, table: Tensor) -> Tensor:
    """DCT of the 8x8 blocks, rounded to multiples of the table (halves away from zero), and back to -128 ... 127."""
    basis = _dct(planes.device)
    n, c, height, width = planes.shape
    blocks = planes.reshape(n, c, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    steps = table.reshape(n, 1, 1, 1, BLOCK**2)
    eighths = (blocks.reshape(*blocks.shape[:4], BLOCK**2) @ (8 * basis.T)).round()  # libjpeg's DCT gives integers
    levels = eighths.sign() * (eighths.abs() / (8 * steps) + 0.5).floor()
    decoded = (levels * steps @ basis).round().clamp(-128, 127)
    return decoded.view(blocks.shape).transpose(3, 4).reshape(n, c, height, width)


@functools.lru_cache
def _dct(device: torch.device) -> Tensor:
    """Orthonormal 8x8 DCT-II, ``(64, 64)``: ``basis @ block`` are coefficients, ``coefficients @ basis`` is the block.

    Both products are with integers below 2048, which TF32 holds.
    """
    frequency, place = torch.arange(BLOCK, dtype=torch.float64)[:, None], torch.arange(BLOCK, dtype=torch.float64)
    rows = torch.cos((2 * place + 1) * frequency * torch.pi / (2 * BLOCK)) / 2
    rows[0] /= 2**0.5
    return torch.kron(rows, rows).float().to(device)


def _pick(planes: Tensor, index: Tensor, dim: int) -> Tensor:
    """Rows (``dim`` 2) or columns (3) of each image, by ``(N, L)`` indices of its own."""
    if dim == 3:
        return _pick(planes.mT, index, 2).mT
    n, c, size, across = planes.shape
    start = size * torch.arange(n * c, device=index.device).view(n, c, 1)  # whole rows are copied, not each pixel
    rows = planes.reshape(n * c * size, across).index_select(0, (start + index[:, None]).flatten())
    return rows.view(n, c, -1, across)
