"""Pictures written band by band: PNG and TIFF as the rows come, the other formats from one copy in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from realsr.errors import InputError
from realsr.files import atomic_write
from realsr.images.exif import mended_exif
from realsr.images.png import png_pieces
from realsr.images.tiff import write_tiff

if TYPE_CHECKING:
    from realsr.images import Photo

_BAND = 1 << 20  # bytes that are packed at once
_MOST_IN_TIFF = 4.2e9  # bytes before packing, which can make noise a little longer, of the 2^32 of the classic format
_MOST_IN_ICCP = 2**20  # bytes, for Pillow and so for us
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Format:
    """What a file format holds: pixels a side, bytes of pixels, alpha, 16 bits a channel, colour profile and EXIF."""

    name: str
    most_side: int
    most_bytes: float = float("inf")
    alpha: bool = True
    deep: bool = False
    described: bool = True


_PNG = Format("PNG", 2**31 - 1, deep=True)
_TIFF = Format("TIFF", 2**32 - 1, deep=True)
_JPEG = Format("JPEG", 65500, alpha=False)
_BMP = Format("BMP", 2**31 - 1, most_bytes=2**32 - 1024, alpha=False, described=False)
FORMATS = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format("WEBP", 16383),
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
    """Raise InputError for a quality of JPEG and WebP that is none: Pillow takes any number, for another."""
    if not 1 <= quality <= 100:
        raise InputError(f"quality={quality}: give 1 to 100")


def write_rows(
    path: str | Path, rows: Iterable[npt.NDArray[Any]], height: int, width: int, like: Photo, quality: int = 95
) -> None:
    """Write a picture atomically, in the format that the suffix names, from bands of rows as they come.

    PNG and TIFF take the memory of one band, whatever the picture's height; JPEG, WebP and BMP that of the picture
    in 8 bits. 16 bits are kept in PNG and TIFF (gray with alpha as RGBA in TIFF) and rounded to 8 elsewhere; formats
    without alpha (JPEG, BMP) drop it, and BMP drops profile and EXIF.

    Args:
        path: of the file; missing folders are made.
        rows: bands from top to bottom, each ``(h, width, C)`` of uint8 or uint16, where C is 1 for gray, 2 for gray
            and alpha, 3 for RGB, 4 for RGBA, the same in all bands.
        height: rows of all bands together.
        width: pixels a row.
        like: whose colour profile and EXIF the file gets, with the sizes of this picture.
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
    channels, bits = first.shape[2], 8 * first.itemsize
    check_writes(path, height, width, channels)
    step = max(1, _BAND // (width * channels * first.itemsize))
    icc, exif = (like.icc_profile, like.exif) if kind.described else (None, None)
    if icc and channels > 2 and icc[16:20] == b"GRAY":  # the space that a profile says it is of (ICC.1, section 7.2)
        icc = None
    if kind is _PNG and icc and len(icc) > _MOST_IN_ICCP:
        raise InputError(f"{path}: a colour profile of {len(icc) / 1e6:.1f} MB is more than programs read; use .tif")
    with atomic_write(path) as file:
        pieces = _cut(itertools.chain([first], bands), step)
        if kind is _TIFF:
            big = height * width * channels * bits / 8 > _MOST_IN_TIFF
            write_tiff(file, pieces, height, width, channels, bits, step, icc, exif, big)
            return
        exif = mended_exif(exif, height, width) if exif else None
        if kind is _PNG:
            file.writelines(png_pieces(pieces, height, width, channels, bits, icc, exif))
        else:
            _write_whole(file, pieces, height, width, kind, icc, exif, quality)


def gathered(bands: Iterable[npt.NDArray[Any]], height: int, width: int) -> Image.Image:
    """Bands of uint8, at least one, as one image of Pillow's."""
    image, top = None, 0
    for band in bands:
        image = image or Image.new(_MODES[band.shape[2]], (width, height))
        image.paste(Image.fromarray(band[..., 0] if band.shape[2] == 1 else np.ascontiguousarray(band)), (0, top))
        top += len(band)
    if image is None:
        raise ValueError("no bands came")
    return image


def eight_bit(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Pixels of 8 or 16 bits, those of 16 rounded to 8; the shape is kept."""
    return array if array.dtype == np.uint8 else ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _checked(rows: Iterable[npt.NDArray[Any]], height: int, width: int) -> Iterator[npt.NDArray[Any]]:
    """The bands, as long as they are those of one picture of that size."""
    done, looks = 0, None
    for band in rows:
        looks = looks or (band.shape[1:], band.dtype)
        if band.ndim != 3 or band.shape[1] != width or band.shape[2] not in _MODES or band.dtype not in ("u1", "u2"):
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
    channels = band.shape[2]
    if not kind.deep:
        band = eight_bit(band)
    if not kind.alpha and channels in (2, 4):
        return band[..., : channels - 1]
    if kind is _TIFF and channels == 2 and band.dtype == np.uint16:
        return band[..., [0, 0, 0, 1]]  # as programs for photos read it
    return band


def _cut(bands: Iterable[npt.NDArray[Any]], step: int) -> Iterator[npt.NDArray[Any]]:
    """The same rows in bands of ``step``, the last of what is left."""
    rest: npt.NDArray[Any] | None = None
    for band in bands:
        if rest is not None:  # which takes few rows, so that the band is not copied
            lacking = step - len(rest)
            rest, band = np.concatenate([rest, band[:lacking]]), band[lacking:]
            if len(rest) < step:
                continue
            yield rest
        cut = len(band) - len(band) % step
        for top in range(0, cut, step):
            yield band[top : top + step]
        rest = band[cut:].copy() if cut < len(band) else None
    if rest is not None:
        yield rest


def _write_whole(
    file: IO[bytes],
    bands: Iterable[npt.NDArray[Any]],
    height: int,
    width: int,
    kind: Format,
    icc: bytes | None,
    exif: bytes | None,
    quality: int,
) -> None:
    """Gather the bands in one image and write it by Pillow."""
    image = gathered(bands, height, width)
    options: dict[str, Any] = {} if kind is _BMP else {"quality": quality}
    if icc:
        options["icc_profile"] = icc
    if exif:
        options["exif"] = b"Exif\0\0" + exif
    image.save(file, kind.name, **options)
