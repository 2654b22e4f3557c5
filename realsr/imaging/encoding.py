"""Pictures written band by band through libvips, in the memory of some rows; WebP and BMP from one copy in memory.

libvips writes, and reads WebP, in threads of its own. A process that was forked from one that has written lacks them
and waits for ever: such processes write pictures by :func:`realsr.reports.pictures.save`.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyvips
from PIL import Image

from realsr.imaging.tags import add_exif
from realsr.runtime.errors import InputError
from realsr.runtime.files import atomic_write

if TYPE_CHECKING:
    from realsr.imaging import Photo

Bands = Iterable[npt.NDArray[Any]]
_PIECE = 1 << 20  # bytes that are handed to libvips at once
_MOST_IN_ICCP = 2**20  # bytes of a profile in PNG: Pillow refuses more, and so do we
_MOST_IN_TIFF = 4.2e9  # bytes before packing; classic TIFF has 2^32, and packed noise is a little longer
_USUAL = 72 / 25.4  # pixels a millimetre if the photo states none: EXIF's default


class Format(NamedTuple):
    """What a file format holds, and how libvips writes it."""

    name: str
    most_side: int  # pixels
    most_bytes: float = float("inf")  # of all pixels
    alpha: bool = True
    deep: bool = False  # 16 bits a channel
    options: Mapping[str, Any] = {}


_PACKED = {"compression": "deflate", "level": 3, "predictor": "horizontal"}
_TILED = {"tile": True, "tile_width": 256, "tile_height": 256}
_PNG = Format("PNG", 2**31 - 1, deep=True, options={"compression": 3, "filter": "paeth"})
_TIFF = Format("TIFF", 2**32 - 1, deep=True, options=_PACKED | _TILED)
_JPEG = Format("JPEG", 65500, alpha=False, options={"subsample_mode": "on"})
_BMP = Format("BMP", 2**31 - 1, most_bytes=2**32 - 1024, alpha=False)
_WEBP = Format("WEBP", 16383)
FORMATS = {".png": _PNG, ".jpg": _JPEG, ".jpeg": _JPEG, ".webp": _WEBP, ".tif": _TIFF, ".tiff": _TIFF, ".bmp": _BMP}


def check_writes(path: str | Path, height: int, width: int) -> Format:
    """The format named by a file's suffix, if it holds a picture of that size; to be called before the work.

    >>> check_writes("large.jpg", 65_500, 100).name
    'JPEG'

    Raises:
        InputError: the suffix names no format that can be written, or the picture is too large for it.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: cannot write {suffix or 'a file without suffix'}; use one of {' '.join(FORMATS)}")
    kind = FORMATS[suffix]
    if (wide := max(height, width) > kind.most_side) or 3 * height * width > kind.most_bytes:
        bound = f"{kind.most_side} pixels a side" if wide else f"{kind.most_bytes / 2**30:.0f} GB"
        size = f"{width} x {height} pixels"
        raise InputError(f"{path}: {size} are more than {kind.name} holds, {bound}; use .png or .tif")
    return kind


def check_quality(quality: int) -> None:
    """Raise InputError unless a quality of JPEG and WebP is from 1 to 100."""
    if not 1 <= quality <= 100:
        raise InputError(f"quality={quality}: give 1 to 100")


def write_rows(path: str | Path, rows: Bands, height: int, width: int, like: Photo, quality: int = 95) -> None:
    """Write a picture atomically from bands of rows as they come, in the format that the suffix names.

    PNG, TIFF and JPEG take the memory of some rows whatever the picture's height; WebP and BMP take that of the picture
    in 8 bits. 16 bits are kept in PNG and TIFF and rounded to 8 elsewhere. JPEG and BMP drop alpha; BMP drops profile,
    EXIF, XMP and resolution.

    Args:
        path: of the file; missing folders are made.
        rows: bands from top to bottom, each ``(h, width, C)`` of uint8 or uint16, where C is 1 for gray, 2 for gray
            and alpha, 3 for RGB, 4 for RGBA, the same in all bands.
        height: rows of all bands together.
        width: pixels a row.
        like: the photo whose colour profile, EXIF (with this picture's size), XMP and resolution the file gets.
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        InputError: the suffix names no format that can be written, the picture is too large for it, or the quality is
            out of range.
        ValueError: the bands do not make up such a picture.
        OSError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    check_quality(quality)
    kind = check_writes(path, height, width)
    held = (_as_held(band, kind) for band in rows)
    first = next(held, np.empty((0, width, 3), np.uint8))
    bands, channels = itertools.chain([first], held), first.shape[2]
    space = b"GRAY" if channels < 3 and kind is not _WEBP else b"RGB "  # as in profiles (ICC.1, section 7.2)
    icc = like.icc_profile if like.icc_profile and like.icc_profile[16:20] == space else None
    if kind is _PNG and icc and len(icc) > _MOST_IN_ICCP:
        raise InputError(f"{path}: a colour profile of {len(icc) / 1e6:.1f} MB is more than programs read; use .tif")
    with atomic_write(path) as file:
        if kind is _BMP:
            gathered(bands, height, width).save(file, "BMP")
            return
        exif = like.exif or b""  # libvips adds the picture's size
        stream = _Stream(_unpacked_png(bands, height, width, channels, first.dtype, exif))
        try:
            image = pyvips.Image.pngload_source(stream.source, access="sequential", unlimited=True, fail_on="error")
            save = getattr(_described(image, like, icc), f"{kind.name.lower()}save_target")
            # libvips would add EXIF to a PNG for its resolution
            options = {"Q": quality, "keep": "all" if exif or kind is not _PNG else "icc|xmp", **kind.options}
            if kind is _TIFF:
                options["bigtiff"] = height * width * channels * first.dtype.itemsize > _MOST_IN_TIFF
            save(pyvips.Target.new_to_descriptor(file.fileno()), **options)
        except pyvips.Error as e:
            if stream.error:
                raise stream.error from None
            file.write(b"\0")  # raises the disk's own error if it is full
            file.flush()
            raise OSError(f"{path}: cannot be written ({e.detail.strip()})") from e
        if kind is _TIFF and exif:
            with os.fdopen(os.dup(file.fileno()), "r+b") as written:
                add_exif(written, exif, height, width)


def gathered(bands: Bands, height: int, width: int) -> Image.Image:
    """Bands of uint8 ``(h, width, C)``, together ``height`` rows, as one Pillow image."""
    picture, top = np.empty((0, 0, 0), np.uint8), 0
    for band in bands:
        picture = picture if top else np.empty((height, width, band.shape[2]), np.uint8)
        picture[top : top + len(band)] = band
        top += len(band)
    if top != height:
        raise ValueError(f"{top} rows came, not {height}")
    return Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)


def eight_bit(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Pixels of 8 or 16 bits in any shape, those of 16 rounded to 8.

    >>> eight_bit(np.array([0, 128, 129, 65535], np.uint16))
    array([  0,   0,   1, 255], dtype=uint8)
    """
    return array if array.dtype == np.uint8 else ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


class _Stream:
    """Pieces of a file as a libvips source; ``error`` is the exception that ended them too early."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.error: BaseException | None = None
        self._pieces, self._rest = pieces, memoryview(b"")
        self.source = pyvips.SourceCustom()
        self.source.on_read(self._read)

    def _read(self, size: int) -> memoryview:
        try:
            if not len(self._rest):
                self._rest = memoryview(next(self._pieces, b""))
        except BaseException as e:  # libvips would only print it
            self.error = e
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def _unpacked_png(bands: Bands, height: int, width: int, channels: int, dtype: Any, exif: bytes) -> Iterator[bytes]:
    """The bands as an uncompressed PNG, piece by piece: libvips streams no pixels from Python but those of a file."""
    depth, colour_type = 8 * dtype.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    yield b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + (_chunk(b"eXIf", exif) if exif else b"")
    packer, step, left = zlib.compressobj(0), max(1, _PIECE // (width * channels * dtype.itemsize)), height
    for band in bands:
        left -= len(band)
        if band.shape[1:] != (width, channels) or band.dtype != dtype or left < 0:
            raise ValueError(f"a band of {band.dtype} {band.shape} is no part of {dtype} {height, width, channels}")
        for top in range(0, len(band), step):
            rows = np.ascontiguousarray(band[top : top + step], dtype.newbyteorder(">")).view(np.uint8)
            unfiltered = np.pad(rows.reshape(len(rows), -1), ((0, 0), (1, 0)))
            yield _chunk(b"IDAT", packer.compress(unfiltered.data))
    if left:
        raise ValueError(f"{height - left} rows came, not {height}")
    yield _chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _described(image: Any, like: Photo, icc: bytes | None) -> Any:
    across, down = like.resolution or (_USUAL, _USUAL)
    image = image.copy(xres=across * (1 + 1e-9), yres=down * (1 + 1e-9))  # libvips cuts off decimals
    for name, content in (("icc-profile-data", icc), ("xmp-data", like.xmp)):
        if content:
            image.set_type(pyvips.GValue.blob_type, name, content)
    if not icc:
        image.set_type(pyvips.GValue.gstr_type, "exif-ifd2-ColorSpace", "1")  # sRGB; libvips would write "unknown"
    return image


def _as_held(band: npt.NDArray[Any], kind: Format) -> npt.NDArray[Any]:
    """A band in the depth and channels of the format."""
    band = band if kind.deep else eight_bit(band)
    if kind is _TIFF and band.shape[2] == 2 and band.dtype == np.uint16:
        return band[..., [0, 0, 0, 1]]  # as programs for photos read it
    return band if kind.alpha or band.shape[2] in (1, 3) else band[..., :-1]
