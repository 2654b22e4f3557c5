"""Image files opened by libvips: what they are, their pixels not decoded yet, as gray or RGB of 8 or 16 bits.

Files come from strangers: only the loaders that we name are tried, and sizes are checked before pixels are decoded.
libvips decodes in the thread that asks for rows, so workers that were forked may read, except WebP.
"""

from __future__ import annotations

import contextlib
import io
import logging
import mmap
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyvips
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from realsr.imaging import profiles
from realsr.imaging.damage import check_pixels, naming_damage
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
_SILENT = logging.CRITICAL + 1

pyvips.cache_set_max(0)  # it would give what a file was before it was written anew
logging.getLogger("pyvips").setLevel(_SILENT)  # what is wrong, our own lines say


@dataclass(frozen=True)
class Opened:
    """An image file whose pixels are not decoded yet.

    Attributes:
        image: libvips' image as it lies in the file, 1 to 4 bands (gray or RGB, then alpha) of uchar or ushort.
        orientation: 1 to 8, as EXIF has it.
        icc_profile: which describes the colours, or None.
        exif: see :func:`realsr.imaging.tags.clean_exif`.
        xmp: as in the file, but that it is upright, or None.
        resolution: pixels a millimetre across and down, or None.
    """

    image: Any
    orientation: int = 1
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    resolution: tuple[float, float] | None = None


def open_image(
    source: Path | bytes, most_pixels: int = MOST_PIXELS, name: Path | None = None, access: str = "sequential"
) -> Opened:
    """Open a file of up to ``most_pixels``.

    Args:
        source: the file, or its content.
        most_pixels: larger ones are refused.
        name: of the file whose content it is.
        access: ``sequential`` to decode rows as they are asked for, from top to bottom; ``random`` for any order.

    Raises:
        InputError: it is missing, no image, larger, damaged, of a kind that is not read, or holds several pictures.
    """
    path = name or (Path("image") if isinstance(source, bytes) else source)
    with naming_damage(path), io.BytesIO(source) if isinstance(source, bytes) else path.open("rb") as file:
        head = file.read(16)
        if not head:
            raise InputError(f"{path}: is empty; copy it again")
        by_pillow: type[ImageFile] | None = BmpImageFile if head.startswith(b"BM") else None
        loader = next((loader for start, loader in _LOADERS.items() if re.match(start, head, re.DOTALL)), "")
        options: dict[str, Any] = {"access": access, "fail_on": "error"}
        chunks: dict[bytes, bytes] = {}
        extra: Any = 1
        if loader == "tiffload":
            tags = Tags(file)
            place, page = photo_page(path, tags)
            options, extra = options | place, value(page, 338, 1)
            if value(page, 262) == 8 and value(page, 258) == (8, 8, 8):
                by_pillow = TiffImageFile  # LAB of 8 bits, which libvips 8.18 refuses
        if by_pillow:
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = by_pillow(file)
                check_pixels(path, image.height, image.width, most_pixels)
                return open_image(content_of(image), most_pixels, path, access)
        if not loader:
            raise InputError(
                f"{path}: its content is no image that can be read (PNG, JPEG, WebP, TIFF, GIF, AVIF, BMP)"
            )
        vips = _load(source, loader, options)
        if loader != "tiffload":
            chunks = _png_chunks(file) if loader == "pngload" else {}
            tags = Tags(chunks.get(b"eXIf") or _field(vips, "exif-data") or b"")
            page = tags.main if loader != "heifload" else Directory()  # libvips has applied the file's own rotation
            pictures = int.from_bytes(chunks.get(b"acTL", b"")[:4], "big") or vips.get_n_pages()
            if pictures > 1:
                raise InputError(
                    f"{path}: holds {pictures} pictures, an animation; save the one that is meant as a file of its own"
                )
        check_pixels(path, vips.height, vips.width, most_pixels)
        if loader == "jpegload" and not _is_ended(file):
            file.seek(0)
            vips = _load(file.read() + b"\xff\xd9", loader, options | {"fail_on": "warning"})
        image, icc = _colours(path, vips, extra), _field(vips, "icc-profile-data")
        gray, converted = image.bands < 3, image.interpretation not in (vips.interpretation, "multiband")
        if converted or not icc or len(icc) > MOST_PROFILE or icc[36:40] != b"acsp":
            icc = None
        if not icc and not converted:
            told = profiles.of_png(path, chunks, gray) if chunks else None
            points = re.search(rb"colrnclx(..)(..)", _head(file), re.DOTALL) if loader == "heifload" else None
            if points:
                primaries, transfer = (int.from_bytes(two, "big") for two in points.groups())
                told = profiles.of_code_points(path, primaries, transfer, gray)
            icc = told or profiles.of_tags(tags, page, gray)
        elif icc and icc[16:20] != (b"GRAY" if gray else b"RGB "):
            icc = None
        known = vips.xres > 0 and vips.yres > 0 and (vips.xres, vips.yres) != (1, 1)  # libvips has 1 where none is told
        turned = value(page, 274, 1)
        return Opened(
            image,
            turned if turned in range(1, 9) else 1,
            icc,
            clean_exif(tags),
            upright_xmp(_field(vips, "xmp-data")),
            (vips.xres, vips.yres) if known else resolution(tags),
        )


def content_of(image: Image.Image) -> bytes:
    """A file of an image that is open in Pillow, for :func:`open_image`.

    Raises:
        ValueError: it is of a mode that has no 8 or 16 bit RGB.
    """
    if image.mode in ("F", "I"):
        raise InputError(f"{image.mode!r} images have no 8 or 16 bit range; convert it first")
    if 0 in image.size:
        raise InputError("the image has no pixels")
    kind = "TIFF" if image.mode == "CMYK" else "PNG"
    told = {key: image.info[key] for key in ("exif", "icc_profile", "dpi", "transparency") if image.info.get(key)}
    if image.mode not in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA", "CMYK"):
        mode = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(image.mode, "RGB")
        image = image.convert("I;16" if image.mode.startswith("I;16") else mode)
    file = io.BytesIO()
    image.save(file, kind, **({"compress_level": 0} if kind == "PNG" else {}), **told)
    return file.getvalue()


def _load(source: Path | bytes, loader: str, options: dict[str, Any]) -> Any:
    if isinstance(source, bytes):
        return getattr(pyvips.Image, f"{loader}_buffer")(source, **options)
    descriptor = os.open(source, os.O_RDONLY)  # its own, since descriptors share their place in the file
    try:
        return getattr(pyvips.Image, f"{loader}_source")(pyvips.Source.new_from_descriptor(descriptor), **options)
    finally:
        os.close(descriptor)


def _field(image: Any, name: str) -> Any:
    return image.get(name) if image.get_typeof(name) else None


def _colours(path: Path, image: Any, extra: Any) -> Any:
    """Gray or RGB of 8 or 16 bits, and alpha; ``extra`` says what further bands are (TIFF 6.0, ExtraSamples)."""
    kind = image.interpretation
    count = min({"cmyk": 4, "b-w": 1, "grey16": 1}.get(kind, 3), image.bands) if image.bands != 2 else 1
    colours = image.extract_band(0, n=count)
    if kind == "cmyk":
        colours = _from_cmyk(colours)
    elif kind in ("lab", "labs"):  # of D50
        colours = colours.icc_export(output_profile="srgb", depth=16)
    elif kind == "scrgb":
        colours = colours.colourspace("rgb16")
    if colours.format not in ("uchar", "ushort"):
        raise InputError(f"{path}: its {image.format} values have no 8 or 16 bit range; convert it first")
    for place, sample in enumerate(np.atleast_1d(extra).tolist(), count):
        if sample in (1, 2) and place < image.bands:
            alpha = image.extract_band(place)
            alpha = alpha if alpha.format == colours.format else (alpha * np.iinfo(DTYPES[colours.format]).max).rint()
            return colours.bandjoin(alpha.cast(colours.format))
    return colours


def _from_cmyk(image: Any) -> Any:
    deep, icc = image.format == "ushort", _field(image, "icc-profile-data") or b""
    if icc[16:20] == b"CMYK":
        with contextlib.suppress(pyvips.Error):  # a broken profile: convert as if there were none
            return image.icc_transform("srgb", embedded=True, intent="perceptual", depth=16 if deep else 8)
    top = 65535 if deep else 255
    light = (top - image.extract_band(0, n=3)) * (top - image.extract_band(3)) / top
    return light.rint().cast(image.format).copy(interpretation="rgb16" if deep else "srgb")


DTYPES = {"uchar": np.uint8, "ushort": np.uint16}


def _is_ended(file: IO[bytes]) -> bool:
    """Whether a JPEG has its end mark, behind its last scan."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data[-2:] == b"\xff\xd9" or data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def _head(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(1 << 16)


def _png_chunks(file: IO[bytes]) -> dict[bytes, bytes]:
    """The first of each small chunk of a PNG, which may also stand behind the pixels."""
    chunks: dict[bytes, bytes] = {}
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] in (b"eXIf", b"acTL", b"cICP", b"sRGB", b"gAMA", b"cHRM") and length < 1 << 20:
            chunks.setdefault(head[4:], file.read(length))
            length = 0
        file.seek(length + 4, os.SEEK_CUR)
    return chunks


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """XMP that no longer asks for a turn; None where it points to parts of its file that are not kept."""
    if not xmp or any(part in xmp for part in _PARTS):
        return None
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", xmp)
