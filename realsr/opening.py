"""Image files opened but not decoded: what is wrong with them in one line, and which way they are turned."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from realsr.errors import InputError

MOST_PIXELS = 500_000_000  # of an image, 1.5 GB once decoded; a small file may claim any number


def open_image(path: Path) -> Image.Image:
    """Open a file of up to :data:`MOST_PIXELS`; its pixels are not decoded yet.

    Raises:
        InputError: it is missing, no image, larger, or must not be read.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        with _of_any_size():
            image = Image.open(path)
    except PermissionError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
        reason = "its content is no image that can be read" if isinstance(e, UnidentifiedImageError) else e
        raise InputError(f"{path}: {reason}") from e
    if (pixels := image.width * image.height) > MOST_PIXELS:
        image.close()
        many, most = pixels / 1e6, MOST_PIXELS / 1e6
        raise InputError(f"{path}: has {many:.0f} megapixels, at most {most:.0f} are read; cut it into parts")
    image.filename = ""  # no memory map: Pillow 13 scrambles mapped gray TIFFs of orientation 5 to 8
    return image


@contextmanager
def _of_any_size() -> Iterator[None]:
    """Without Pillow's bound of 89 megapixels, which scans exceed; :data:`MOST_PIXELS` is ours."""
    bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = bound


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """What Pillow raises in a damaged file, as an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, LookupError, EOFError, struct.error) as e:
        raise InputError(f"{path}: cannot be decoded, the file is damaged ({e})") from e


def orientation_of(image: Image.Image, path: Path) -> int:
    """EXIF orientation, 1 to 8, without decoding the pixels."""
    if image.format == "TIFF":
        value = image.tag_v2.get(0x0112)  # type: ignore[attr-defined]
    else:
        exif = Image.Image.getexif(image)  # the PNG reader's own would decode the picture to look behind it
        if image.format == "PNG" and not exif:
            exif.load(_png_exif(path))
        value = exif.get(0x0112)
    return value if value in range(1, 9) else 1


def _png_exif(path: Path) -> bytes:
    """The eXIf chunk of a PNG, which may stand behind the pixels, or nothing."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return file.read(length)
            file.seek(length + 4, os.SEEK_CUR)
    return b""
