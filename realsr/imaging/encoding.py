"""Pictures written band by band through libvips, in the memory of some rows; BMP and WebP from one copy in memory.

libvips starts threads to write and to read WebP. A process that was forked from one that has written lacks them and
waits for ever: there, pictures are written by :func:`realsr.reports.pictures.save`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyvips
from PIL import Image

from realsr.imaging.stream import Stream, png
from realsr.imaging.tags import add_exif, sized_exif
from realsr.runtime.errors import InputError
from realsr.runtime.files import atomic_write

if TYPE_CHECKING:
    from realsr.imaging import Photo

_MOST_IN_ICCP = 2**20  # bytes, for Pillow and so for us
_MOST_IN_TIFF = 4.2e9  # bytes before packing, which can make noise a little longer, of the 2^32 of the classic format
_USUAL = 72 / 25.4  # pixels a millimetre where none are told, as EXIF has it


@dataclass(frozen=True)
class Format:
    """What a file format holds: pixels a side, bytes of pixels, alpha, 16 bits a channel; and how libvips writes it."""

    name: str
    most_side: int
    most_bytes: float = float("inf")
    alpha: bool = True
    deep: bool = False


_PNG = Format("PNG", 2**31 - 1, deep=True)
_TIFF = Format("TIFF", 2**32 - 1, deep=True)
_JPEG = Format("JPEG", 65500, alpha=False)
_BMP = Format("BMP", 2**31 - 1, most_bytes=2**32 - 1024, alpha=False)
_WEBP = Format("WEBP", 16383)
FORMATS = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _WEBP,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": _BMP,
}


def check_writes(path: str | Path, height: int, width: int, channels: int = 3) -> Format:
    """The format that the suffix names, if it holds a picture of that size: ask before the work, not after it.

    Raises:
        InputError: the suffix names no format that can be written, or the picture is too large for it.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: cannot write {suffix or 'a file without suffix'}; use one of {' '.join(FORMATS)}")
    kind = FORMATS[suffix]
    bound = ""
    if max(height, width) > kind.most_side:
        bound = f"{kind.most_side} pixels a side"
    elif channels * height * width > kind.most_bytes:
        bound = f"{kind.most_bytes / 2**30:.0f} GB"
    if bound:
        size = f"{width} x {height} pixels"
        raise InputError(f"{path}: {size} are more than {kind.name} holds, {bound}; use .png or .tif")
    return kind


def check_quality(quality: int) -> None:
    """Raise InputError for a quality of JPEG and WebP that is none."""
    if not 1 <= quality <= 100:
        raise InputError(f"quality={quality}: give 1 to 100")


def write_rows(
    path: str | Path, rows: Iterable[npt.NDArray[Any]], height: int, width: int, like: Photo, quality: int = 95
) -> None:
    """Write a picture atomically, in the format that the suffix names, from bands of rows as they come.

    PNG, TIFF and JPEG take the memory of some rows, whatever the picture's height; WebP and BMP that of the picture in
    8 bits. 16 bits are kept in PNG and TIFF and rounded to 8 elsewhere; formats without alpha (JPEG, BMP) drop it, and
    BMP drops profile, EXIF, XMP and resolution.

    Args:
        path: of the file; missing folders are made.
        rows: bands from top to bottom, each ``(h, width, C)`` of uint8 or uint16, where C is 1 for gray, 2 for gray
            and alpha, 3 for RGB, 4 for RGBA, the same in all bands.
        height: rows of all bands together.
        width: pixels a row.
        like: whose colour profile, EXIF (with the sizes of this picture), XMP and resolution the file gets.
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        InputError: the suffix names no format that can be written, the picture is too large for it, or quality is none.
        ValueError: the bands are not such a picture.
        OSError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    check_quality(quality)
    kind = check_writes(path, height, width, 1)
    bands = (_fitting(band, kind) for band in _checked(rows, height, width))
    first = next(bands)
    check_writes(path, height, width, first.shape[2])
    space = b"GRAY" if first.shape[2] < 3 and kind is not _WEBP else b"RGB "  # that profiles say (ICC.1, section 7.2)
    icc = like.icc_profile if like.icc_profile and like.icc_profile[16:20] == space else None
    if kind is _PNG and icc and len(icc) > _MOST_IN_ICCP:
        raise InputError(f"{path}: a colour profile of {len(icc) / 1e6:.1f} MB is more than programs read; use .tif")
    with atomic_write(path) as file:
        if kind is _BMP:
            gathered(itertools.chain([first], bands), height, width).save(file, "BMP")
            return
        exif = sized_exif(like.exif, height, width) if like.exif else b""
        stream = Stream(png(itertools.chain([first], bands), height, width, first.shape[2], 8 * first.itemsize, exif))
        try:
            image = pyvips.Image.pngload_source(stream.source, access="sequential", unlimited=True, fail_on="error")
            _save(_described(image, like, icc), file, kind, quality, "all" if exif or kind is not _PNG else "icc|xmp")
        except pyvips.Error as e:
            if stream.error:
                raise stream.error from None
            file.write(b"\0")  # the disk's own error, if it is full
            file.flush()
            raise OSError(f"{path}: cannot be written ({e.detail.strip()})") from e
        if kind is _TIFF and exif:
            with os.fdopen(os.dup(file.fileno()), "r+b") as written:
                add_exif(written, exif, height, width)


def gathered(bands: Iterable[npt.NDArray[Any]], height: int, width: int) -> Image.Image:
    """Bands of uint8, at least one, as one image of Pillow's."""
    picture: npt.NDArray[Any] | None = None
    top = 0
    for band in bands:
        picture = np.empty((height, width, band.shape[2]), np.uint8) if picture is None else picture
        picture[top : top + len(band)] = band
        top += len(band)
    if picture is None:
        raise ValueError("no bands came")
    return Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)


def eight_bit(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Pixels of 8 or 16 bits, those of 16 rounded to 8; the shape is kept."""
    return array if array.dtype == np.uint8 else ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _described(image: Any, like: Photo, icc: bytes | None) -> Any:
    across, down = like.resolution or (_USUAL, _USUAL)
    image = image.copy(xres=across * (1 + 1e-9), yres=down * (1 + 1e-9))  # libvips cuts off decimals
    for name, content in (("icc-profile-data", icc), ("xmp-data", like.xmp)):
        if content:
            image.set_type(pyvips.GValue.blob_type, name, content)
    if not icc:
        image.set_type(pyvips.GValue.gstr_type, "exif-ifd2-ColorSpace", "1")  # sRGB, where libvips would say unknown
    return image


def _save(image: Any, file: IO[bytes], kind: Format, quality: int, keep: str) -> None:
    """``keep`` leaves out EXIF that PNG does not need for its resolution."""
    target = pyvips.Target.new_to_descriptor(file.fileno())
    if kind is _PNG:
        image.pngsave_target(target, compression=3, filter="paeth", keep=keep)
    elif kind is _TIFF:
        big = image.width * image.height * image.bands * (2 if image.format == "ushort" else 1) > _MOST_IN_TIFF
        tiles = {"tile": True, "tile_width": 256, "tile_height": 256}
        image.tiffsave_target(target, compression="deflate", level=3, predictor="horizontal", bigtiff=big, **tiles)
    elif kind is _JPEG:
        image.jpegsave_target(target, Q=quality, subsample_mode="on", keep=keep)
    else:
        image.webpsave_target(target, Q=quality, keep=keep)


def _checked(rows: Iterable[npt.NDArray[Any]], height: int, width: int) -> Iterator[npt.NDArray[Any]]:
    """The bands, as long as they are those of one picture of that size."""
    done, looks = 0, None
    for band in rows:
        looks = looks or (band.shape[1:], band.dtype)
        if band.ndim != 3 or band.shape[1] != width or not 1 <= band.shape[2] <= 4 or band.dtype not in ("u1", "u2"):
            raise ValueError(f"a band of {band.dtype} {band.shape} is no (h, {width}, 1 to 4) of uint8 or uint16")
        if looks != (band.shape[1:], band.dtype):
            raise ValueError(f"a band of {band.dtype} {band.shape} follows one of {looks[1]} (h, {looks[0]})")
        done += len(band)
        if len(band):
            yield band
    if done != height or not done:
        raise ValueError(f"{done} rows came, not {height}")


def _fitting(band: npt.NDArray[Any], kind: Format) -> npt.NDArray[Any]:
    """A band as the format holds it."""
    band = band if kind.deep else eight_bit(band)
    if kind is _TIFF and band.shape[2] == 2 and band.dtype == np.uint16:
        return band[..., [0, 0, 0, 1]]  # as programs for photos read it
    return band if kind.alpha or band.shape[2] in (1, 3) else band[..., :-1]
