"""Image files opened by libvips: headers are read and checked, pixels are decoded later, as 8 or 16 bit gray or RGB.

Files come from strangers: only the loaders named here are tried, and sizes are checked before pixels are decoded.
libvips decodes in the thread that asks for rows, so forked workers can read everything but WebP.
"""

from __future__ import annotations

import contextlib
import io
import logging
import mmap
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyvips
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import TiffImageFile

from realsr.imaging import profiles
from realsr.imaging.damage import check_pixels, naming_damage
from realsr.imaging.rows import DTYPES, Pixels, decoded
from realsr.imaging.tags import Directory, Tags, clean_exif, photo_page, resolution, value
from realsr.runtime.errors import InputError

MOST_PIXELS = 500_000_000  # of an image, 1.5 GB once decoded; a small file may claim any number
MOST_PROFILE = 8 << 20  # bytes; those of printers have one or two million, a JPEG has room for 16
_LOADERS = {  # by how files begin
    rb"\x89PNG": "pngload",
    rb"\xff\xd8": "jpegload",
    rb"RIFF....WEBP": "webpload",
    rb"II[*+]\0|MM\0[*+]": "tiffload",
    rb"GIF8": "gifload",
    rb"....ftypavi[fs]": "heifload",
}
_PARTS = (b"ns.google.com/photos", b"hdr-gain-map")  # in XMP, which points to further pictures in its file

pyvips.cache_set_max(0)  # the cache would return a file's content from before it was rewritten
logging.getLogger("pyvips").setLevel(logging.CRITICAL + 1)  # our own error lines say what is wrong


@dataclass(frozen=True)
class Opened:
    """An image file whose pixels are not decoded yet.

    ``decode`` gives the upright pixels, ``(H, W, C)`` uint8 or uint16; C is 1 for gray, 3 for RGB, 1 more with alpha.
    """

    size: tuple[int, int]  # height and width of the upright photo
    decode: Callable[[], Pixels]
    notes: dict[str, Any]  # :func:`notes_of`
    image: Any = None  # libvips' as it is stored, not upright; None where another library reads the file
    orientation: int = 1  # by EXIF, of `image`


def open_image(
    path: Path, most_pixels: int = MOST_PIXELS, access: str = "sequential", content: bytes | None = None
) -> Opened:
    """Open a file, or ``content`` in its place, of up to ``most_pixels`` by libvips.

    ``access="sequential"`` decodes rows from top to bottom as they are read; ``random`` allows any order.

    Raises:
        InputError: the file is missing, no image, too large, damaged, of an unsupported kind, or holds several images.
    """
    with naming_damage(path), path.open("rb") if content is None else io.BytesIO(content) as file:
        head = file.read(16)
        if not head:
            raise InputError(f"{path}: is empty; copy it again")
        loader = next((loader for start, loader in _LOADERS.items() if re.match(start, head, re.DOTALL)), "")
        tags = Tags(file if loader == "tiffload" else b"")
        place, page = photo_page(path, tags)
        if head.startswith(b"BM") or (
            value(page, Base.PhotometricInterpretation) == 8 and value(page, Base.BitsPerSample) == (8, 8, 8)
        ):
            reader = BmpImageFile if head.startswith(b"BM") else TiffImageFile
            return open_image(path, most_pixels, access, _by_pillow(path, file, reader, most_pixels))
        if not loader:
            kinds = "PNG, JPEG, WebP, TIFF, GIF, AVIF, BMP"
            raise InputError(f"{path}: its content is no image that can be read ({kinds})")
        source = path if content is None else content
        vips = _load(source, loader, access=access, fail_on="error", **place)
        check_pixels(path, vips.height, vips.width, most_pixels)
        chunks = _png_chunks(file) if loader == "pngload" else _avif_code_points(file) if loader == "heifload" else {}
        if loader != "tiffload":
            if (pictures := int.from_bytes(chunks.get(b"acTL", b"")[:4], "big") or vips.get_n_pages()) > 1:
                kind = f"holds {pictures} pictures, an animation"
                raise InputError(f"{path}: {kind}; save the one that is meant as a file of its own")
            tags = Tags(chunks.get(b"eXIf") or _field(vips, "exif-data") or b"")
            page = tags.main if loader != "heifload" else Directory()  # libvips has applied the rotation of AVIF
        if loader == "jpegload" and not _is_ended(file):
            file.seek(0)
            vips = _load(file.read() + b"\xff\xd9", loader, access=access, fail_on="warning")
        image = _gray_or_rgb(path, vips, value(page, Base.ExtraSamples, 1))
        gray, icc = image.bands < 3, _field(vips, "icc-profile-data")
        if image.interpretation not in (vips.interpretation, "multiband"):
            icc = None  # converted to sRGB
        elif not icc or len(icc) > MOST_PROFILE or icc[36:40] != b"acsp":
            icc = profiles.of_png(path, chunks, gray) or profiles.of_tags(tags, page, gray)
        elif icc[16:20] != (b"GRAY" if gray else b"RGB "):
            icc = None
        notes = notes_of(tags, icc, _field(vips, "xmp-data"))
        if vips.xres > 0 and vips.yres > 0 and (vips.xres, vips.yres) != (1, 1):  # libvips' default
            notes["resolution"] = vips.xres, vips.yres
        found = value(page, Base.Orientation, 1)
        orientation = found if found in range(1, 9) else 1
        size = (image.height, image.width) if orientation < 5 else (image.width, image.height)
        return Opened(size, lambda: decoded(image, orientation), notes, image, orientation)


def content_of(image: Image.Image) -> bytes:
    """The bytes of a file with an open Pillow image, for :func:`open_image`.

    Raises:
        InputError: the image has no 8 or 16 bit RGB, or no pixels.
    """
    if image.mode in ("F", "I"):
        raise InputError(f"{image.mode!r} images have no 8 or 16 bit range; convert it first")
    if 0 in image.size:
        raise InputError("the image has no pixels")
    kind = "TIFF" if image.mode == "CMYK" else "PNG"
    notes = {key: image.info[key] for key in ("exif", "icc_profile", "dpi", "transparency") if image.info.get(key)}
    if image.mode not in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA", "CMYK"):
        mode = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(image.mode, "RGB")
        image = image.convert("I;16" if image.mode.startswith("I;16") else mode)
    file = io.BytesIO()
    image.save(file, kind, **({"compress_level": 0} if kind == "PNG" else {}), **notes)
    return file.getvalue()


def notes_of(tags: Tags, icc: bytes | None = None, xmp: bytes | None = None) -> dict[str, Any]:
    """What :class:`realsr.imaging.Photo` holds beside pixels; XMP is upright, or left out if it needs further parts."""
    if xmp:
        lacks = any(part in xmp for part in _PARTS)
        xmp = None if lacks else re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", xmp)
    return {"icc_profile": icc, "exif": clean_exif(tags), "xmp": xmp or None, "resolution": resolution(tags)}


def _by_pillow(path: Path, file: IO[bytes], kind: Callable[[IO[bytes]], Image.Image], most_pixels: int) -> bytes:
    """A BMP, or a TIFF of 8-bit LAB, which libvips does not read, as a file that it does."""
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = kind(file)
        check_pixels(path, image.height, image.width, most_pixels)
        return content_of(image)


def _load(source: Path | bytes, loader: str, **options: Any) -> Any:
    if isinstance(source, bytes):
        return getattr(pyvips.Image, f"{loader}_buffer")(source, **options)
    with source.open("rb") as file:  # opened anew: descriptors share their position
        return getattr(pyvips.Image, f"{loader}_source")(pyvips.Source.new_from_descriptor(file.fileno()), **options)


def _field(image: Any, name: str) -> Any:
    return image.get(name) if image.get_typeof(name) else None


def _gray_or_rgb(path: Path, image: Any, extra: Any) -> Any:
    """Gray or RGB of 8 or 16 bits with alpha; ``extra`` is the kind of the further bands (TIFF 6.0, ExtraSamples)."""
    kind = image.interpretation
    count = min({"cmyk": 4, "b-w": 1, "grey16": 1}.get(kind, 3), image.bands) if image.bands != 2 else 1
    colours = image.extract_band(0, n=count)
    if kind == "cmyk":
        colours = _from_cmyk(colours)
    elif kind in ("lab", "labs"):  # of D50
        colours = colours.icc_export(output_profile="srgb", depth=16)
    elif kind == "scrgb":
        colours = colours.colourspace("rgb16")
    if colours.format not in DTYPES:
        raise InputError(f"{path}: its {image.format} values have no 8 or 16 bit range; convert it first")
    for band, sample in enumerate(np.atleast_1d(extra).tolist(), count):
        if sample in (1, 2) and band < image.bands:
            alpha = image.extract_band(band)
            alpha = alpha if alpha.format == colours.format else (alpha * np.iinfo(DTYPES[colours.format]).max).rint()
            return colours.bandjoin(alpha.cast(colours.format))
    return colours


def _from_cmyk(image: Any) -> Any:
    deep, icc = image.format == "ushort", _field(image, "icc-profile-data") or b""
    if icc[16:20] == b"CMYK":
        with contextlib.suppress(pyvips.Error):  # a broken profile: convert as without one
            return image.icc_transform("srgb", embedded=True, intent="perceptual", depth=16 if deep else 8)
    top = 65535 if deep else 255
    light = (top - image.extract_band(0, n=3)) * (top - image.extract_band(3)) / top
    return light.rint().cast(image.format).copy(interpretation="rgb16" if deep else "srgb")


def _avif_code_points(file: IO[bytes]) -> dict[bytes, bytes]:
    """The code points of an AVIF file's colours (nclx) as the cICP chunk of a PNG."""
    file.seek(0)
    found = re.search(rb"colrnclx.(.).(.)", file.read(1 << 16), re.DOTALL)
    return {b"cICP": found[1] + found[2] + b"\0\1"} if found else {}


def _is_ended(file: IO[bytes]) -> bool:
    """Whether a JPEG has its end mark, behind its last scan."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data[-2:] == b"\xff\xd9" or data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def _png_chunks(file: IO[bytes]) -> dict[bytes, bytes]:
    """The first of each small chunk of a PNG; it may stand behind the pixels."""
    chunks: dict[bytes, bytes] = {}
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] in (b"eXIf", b"acTL", b"cICP", b"sRGB", b"gAMA", b"cHRM") and length < 1 << 20:
            chunks.setdefault(head[4:], file.read(length))
            length = 0
        file.seek(length + 4, os.SEEK_CUR)
    return chunks
