"""TIFF written as its rows come, 8 or 16 bits a channel, in the memory of one strip; BigTIFF too."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from realsr.images.exif import Directories, exif_directories, placed
from realsr.images.tags import LONG, LONG8, SHORT, UNDEFINED, Layout, Tag, directory

_DEFLATE, _DIFFERENCES, _STRAIGHT_ALPHA = 8, 2, 2  # compression, predictor, extra sample


def write_tiff(
    file: IO[bytes],
    strips: Iterable[npt.NDArray[Any]],
    height: int,
    width: int,
    channels: int,
    bits: int,
    strip_rows: int,
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
    big: bool = False,
) -> None:
    """Write strips as they come, each packed as differences of neighbours, and their directory behind them.

    Args:
        file: new, and able to seek.
        strips: from top to bottom as ``(strip_rows, width, channels)``, the last with what rows are left;
            uint8 or uint16 as ``bits`` says.
        height: of all strips together.
        width: of each.
        channels: 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA.
        bits: 8 or 16.
        strip_rows: rows of a strip.
        icc_profile: to embed, or None.
        exif: block of :func:`realsr.images.exif.clean_exif`, or None.
        big: whether to write BigTIFF, as files of 4 GB and more must be.
    """
    layout, described = exif_directories(exif, height, width) if exif else (Layout("<"), {0: {}})
    layout = Layout(layout.order, big)
    file.write(layout.header(0))
    starts, sizes = [], []
    at = len(layout.header(0))
    for strip in strips:
        data = _packed(strip, f"{layout.order}u{bits // 8}")
        file.write(data + bytes(len(data) % 2))
        starts.append(at)
        sizes.append(len(data))
        at += len(data) + len(data) % 2
    tags = _structure(layout, height, width, channels, bits, strip_rows, starts, sizes)
    if icc_profile:
        tags[34675] = Tag(UNDEFINED, icc_profile)
    directories: Directories = {**described, 0: described[0] | tags}
    inner = placed(directories, layout, at)
    first = at + len(inner)
    file.write(inner + directory(directories[0], layout, first))
    file.seek(0)
    file.write(layout.header(first))


def _structure(
    layout: Layout, height: int, width: int, channels: int, bits: int, rows: int, starts: list[int], sizes: list[int]
) -> dict[int, Tag]:
    """The tags that say how to decode the strips (TIFF 6.0, sections 8, 14, 18; Deflate by Adobe's supplement)."""
    offsets = LONG8 if layout.big else LONG
    numbers: dict[int, tuple[int, ...]] = {
        256: (LONG, width),
        257: (LONG, height),
        258: (SHORT, *[bits] * channels),
        259: (SHORT, _DEFLATE),
        262: (SHORT, 1 if channels < 3 else 2),  # gray of which 0 is black, or RGB
        273: (offsets, *starts),
        277: (SHORT, channels),
        278: (LONG, rows),
        279: (offsets, *sizes),
        284: (SHORT, 1),  # channels side by side
        317: (SHORT, _DIFFERENCES),
    }
    if channels in (2, 4):
        numbers[338] = (SHORT, _STRAIGHT_ALPHA)
    return {number: Tag(kind, layout.pack(kind, *values)) for number, (kind, *values) in numbers.items()}


def _packed(strip: npt.NDArray[Any], dtype: str) -> bytes:
    differences = strip.copy()
    differences[:, 1:] -= strip[:, :-1]  # modulo 2^bits, as the format has it
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return packer.compress(np.ascontiguousarray(differences, dtype).data) + packer.flush()
