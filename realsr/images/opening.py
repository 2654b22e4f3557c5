"""Image files opened but not decoded: what is wrong with them in one line, which way they are turned, what EXIF says.

Files come from strangers. Before Pillow sees one, its tags are weighed, since a few kilobytes of them may name the
same megabytes thousands of times; only the formats that we name are tried; sizes are checked before any pixel is
decoded.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import MARKER

from realsr.errors import InputError
from realsr.images.exif import orientation_in
from realsr.images.tags import Entry, Fetch, Layout, fetch_from, read_entries, read_header, read_tags

MOST_PIXELS = 500_000_000  # of an image, 1.5 GB once decoded; a small file may claim any number
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")  # Pillow knows 40 more, some of which run other programs
_DIRECTORIES = (34665, 34853, 40965)  # tags that point to Exif, GPS and Interoperability, which Pillow reads too
_SUBFILE, _REDUCED, _MASK = 254, 1, 4  # what a TIFF's page is (TIFF 6.0, section 8)
_ONCE = (256, 257, 274)  # ImageWidth, ImageLength, Orientation
_MOST_LISTED = 300_000  # tags of all pages
_BOUND = threading.Lock()  # of Pillow's bound, which all threads share


def open_image(path: Path, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Open a file of up to ``most_pixels``; its pixels are not decoded yet.

    Raises:
        InputError: it is missing, no image, larger, must not be read, or holds several pictures.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            pages = _weigh_tags(path, file)
        with _of_any_size():
            image = Image.open(path, formats=FORMATS)
    except InputError:
        raise
    except PermissionError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e
    except UnidentifiedImageError as e:
        raise InputError(f"{path}: its content is no image that can be read ({', '.join(FORMATS)})") from e
    except Exception as e:  # parsers raise anything when a file is damaged
        raise InputError(f"{path}: {_reason(e)}") from e
    try:
        check_pixels(path, image.height, image.width, most_pixels)
        if image.format in ("PNG", "WEBP"):
            pages = getattr(image, "n_frames", 1)
        if pages > 1:
            what = "pages" if image.format == "TIFF" else "pictures, an animation"
            raise InputError(f"{path}: holds {pages} {what}; save the one that is meant as a file of its own")
    except InputError:
        image.close()
        raise
    image.filename = ""  # no memory map: Pillow 13 scrambles mapped gray TIFFs of orientation 5 to 8
    return image


def check_pixels(path: Path, height: int, width: int, most_pixels: int) -> None:
    """Refuse what would take too much memory once decoded.

    Raises:
        InputError: the image has no pixel, or more than ``most_pixels``.
    """
    if min(height, width) < 1:
        raise InputError(f"{path}: has {width} x {height} pixels, the file is damaged")
    if (pixels := height * width) > most_pixels:
        size = f"{pixels / 1e6:.0f} megapixels, at most {most_pixels / 1e6:.0f}"
        raise InputError(f"{path}: has {size} are read; cut it into parts or give max_megapixels")


@contextmanager
def _of_any_size() -> Iterator[None]:
    """Without Pillow's bound of 89 megapixels, which scans exceed; :data:`MOST_PIXELS` is ours."""
    with _BOUND:
        bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = bound


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """What a decoder raises in a damaged file, which may be anything, as an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as e:
        raise InputError(f"{path}: does not fit into memory, or its file is damaged") from e
    except Exception as e:
        raise InputError(f"{path}: cannot be decoded, the file is damaged ({_reason(e)})") from e


def orientation_of(image: Image.Image, exif: Fetch) -> int:
    """Orientation of an opened file, 1 to 8, from its EXIF by :func:`exif_of`."""
    if image.format != "TIFF":
        return orientation_in(exif)
    value = image.tag_v2.get(0x0112)  # type: ignore[attr-defined]  # as Pillow will take it when it turns the pixels
    return value if value in range(1, 9) else 1


@contextmanager
def exif_of(image: Image.Image, path: Path) -> Iterator[Fetch]:
    """What reads the EXIF of an opened file as it stands there, for :mod:`realsr.images.exif`; nothing is decoded."""
    if image.format == "TIFF":
        with path.open("rb") as file:
            yield fetch_from(file)
        return
    block = image.info.get("exif")
    if image.format == "PNG" and not block:
        block = _png_exif(path)
    yield fetch_from(io.BytesIO((block or b"").removeprefix(b"Exif\0\0")))


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


def _weigh_tags(path: Path, file: IO[bytes]) -> int:
    """Check that a file's tags claim no more than the file holds; gives how many pages a TIFF has, else 1."""
    fetch, length = fetch_from(file), file.seek(0, os.SEEK_END)
    if start := read_header(fetch):
        return _weigh_pages(path, fetch, length, *start)
    file.seek(0)
    if file.read(2) == b"\xff\xd8":
        block = _jpeg_exif(file)
        fetch = fetch_from(io.BytesIO(block))
        if start := read_header(fetch):
            _weigh(path, fetch, len(block), start[0], read_entries(fetch, *start)[0])
    return 1


def _weigh_pages(path: Path, fetch: Fetch, length: int, layout: Layout, at: int) -> int:
    pages = listed = 0
    seen: set[int] = set()
    while at and at not in seen:  # a chain may be a ring
        seen.add(at)
        entries, at = read_entries(fetch, layout, at)
        kind = _weigh(path, fetch, length, layout, entries)
        pages += not kind & (_REDUCED | _MASK)
        listed += 10 + len(entries)
        if listed > _MOST_LISTED:
            raise InputError(f"{path}: lists more than {len(seen)} pages or {listed} tags, the file is damaged")
    return max(pages, 1)


def _weigh(path: Path, fetch: Fetch, length: int, layout: Layout, entries: list[Entry]) -> int:
    """Weigh a directory and those that it points to; gives what kind of page it is."""
    told = [entry.tag for entry in entries if entry.tag in _ONCE]
    if len(told) > len(set(told)):
        raise InputError(f"{path}: tells its size or orientation twice, and decoders differ; the file is damaged")
    tags = read_tags(fetch, [e for e in entries if e.tag in (_SUBFILE, *_DIRECTORIES)], 64)
    numbers = {tag: value.number(layout) or 0 for tag, value in tags.items()}
    for pointer in _DIRECTORIES:
        if at := numbers.get(pointer):
            entries = entries + read_entries(fetch, layout, at)[0]
    claimed = sum(entry.size for entry in entries if entry.at + entry.size <= length)
    if claimed > 2 * length + 2**20:
        raise InputError(f"{path}: its tags claim {claimed} of {length} bytes, the file is damaged")
    return numbers.get(_SUBFILE, 0)


def _jpeg_exif(file: IO[bytes]) -> bytes:
    """The EXIF of a JPEG as Pillow will gather it: from all its segments, past any junk between them."""
    block, mark = b"", b"\xff"
    file.seek(3)
    while mark:
        if mark == b"\xff":
            number = 0xFF00 | (file.read(1) or b"\xda")[0]
            if number == 0xFFDA:  # pixels
                break
            if number == 0xFFFF:
                continue
            if number in MARKER and MARKER[number][2]:
                content = file.read(max(int.from_bytes(file.read(2), "big") - 2, 0))
                if number == 0xFFE1 and content.startswith(b"Exif\0\0"):
                    block += content[6:]
        mark = file.read(1)
    return block


def _reason(error: Exception) -> str:
    line = " ".join(str(error).split())
    return line if isinstance(error, (OSError, SyntaxError, ValueError)) else f"{type(error).__name__}: {line}"
