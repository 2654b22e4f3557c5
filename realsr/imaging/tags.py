"""Tags of TIFF files and EXIF blocks (TIFF 6.0, section 2) by Pillow: EXIF kept, the page of a TIFF with the photo."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from realsr.runtime.errors import InputError

Directory = ImageFileDirectory_v2
# The maker's note has offsets that no longer hold; sizes, places and densities are of the pixels as they were taken.
_OUTDATED = {
    *(Base.MakerNote, Base.SubjectLocation, Base.RelatedSoundFile, Base.ExifImageWidth, Base.ExifImageHeight),
    *(Base.FocalPlaneXResolution, Base.FocalPlaneYResolution, Base.FocalPlaneResolutionUnit, IFD.GPSInfo, IFD.Interop),
    37396,  # SubjectArea
}
_KEPT: dict[int, set[int]] = {  # tags by directory
    0: {
        *(Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer),
        *(Base.Rating, Base.RatingPercent, Base.Copyright),
        *range(Base.XPTitle, Base.XPSubject + 1),  # as Windows keeps title, comment, author, keywords and subject
    },
    IFD.Exif: {Base.ExposureTime, Base.FNumber, *range(34850, 34870), *range(36864, 42241)} - _OUTDATED,
    IFD.GPSInfo: set(range(32)),
}
_HEAD = b"II*\0" + bytes(4)
_MOST_READ = 1 << 24  # bytes; overlapping tags may name the same ones a thousand times
_MOST_KEPT = 16_000  # bytes of a directory's values: three directories fit into the 65527 of a JPEG


class _Bounded:
    """A file that ends after many bytes were read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._read, self.seek, self.tell, self._left = file.read, file.seek, file.tell, _MOST_READ

    def read(self, size: int) -> bytes:
        self._left -= size + 100
        return self._read(size) if self._left >= 0 else b""


class Tags:
    """The tags of an open TIFF file, or of an EXIF block, which has the same form; none if it is neither or is damaged.

    ``main`` is the first directory, at the offset ``first``, which is 0 where there is none.
    """

    def __init__(self, file: IO[bytes] | bytes) -> None:
        file = io.BytesIO(file.removeprefix(b"Exif\0\0")) if isinstance(file, bytes) else file
        self._file = cast(IO[bytes], _Bounded(file))
        file.seek(0)
        head = file.read(16)
        self.big = head[:4] == b"II+\0" and len(head) == 16  # Pillow reads no big-endian BigTIFF
        known = self.big or (head[:4] in (b"II*\0", b"MM\0*") and len(head) >= 8)
        self.head = head[: 16 if self.big else 8] if known else _HEAD
        self.first = Directory(self.head).next
        self.main = self.directory(self.first)

    def directory(self, at: Any, group: int | None = None) -> Directory:
        """The directory at an offset, as far as it can be read; its ``next`` is the offset of another one, or 0."""
        found = Directory(self.head, group=group)
        found.next = 0
        with _silently():
            if isinstance(at, int) and at:
                self._file.seek(at)
                found.load(self._file)
        return found

    def inner(self, *numbers: int) -> Directory:
        """The directory that a tag of the main directory points to, or that tags point to one after another."""
        found = self.main
        for number in numbers:
            found = self.directory(value(found, number), number)
        return found


@contextmanager
def _silently() -> Iterator[None]:
    """Parsers may raise or warn of anything in a damaged file; tags read until then are kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(Exception):
            yield


def value(tags: Directory, tag: int, default: Any = None) -> Any:
    """The value of a tag, or ``default`` where it is missing or broken."""
    with _silently():
        found = tags.get(tag, default)
        return found[0] if isinstance(found, tuple) and len(found) == 1 else found
    return default


def clean_exif(tags: Tags) -> bytes | None:
    """What the camera recorded, without what is false once a photo is upright, enlarged and saved anew.

    Returns:
        A block of less than 65 KB that begins with ``II``; None where nothing is left.
    """
    kept = _kept(tags)
    if not any(kept.values()):
        return None
    data, first = _packed(kept, 8)
    return struct.pack("<2sHI", b"II", 42, first) + data


def add_exif(file: IO[bytes], block: bytes, height: int, width: int) -> None:
    """Put a block of :func:`clean_exif` and a picture's size into its TIFF file, which libvips writes without EXIF."""
    tags = Tags(file)
    kept = _kept(Tags(block), tags.head)
    kept[IFD.Exif][Base.ExifImageHeight], kept[IFD.Exif][Base.ExifImageWidth] = height, width
    for tag, content in tags.main.items():
        kept[0].tagtype[tag] = tags.main.tagtype[tag]
        kept[0][tag] = content
    end = file.seek(0, io.SEEK_END)
    end += file.write(bytes(end % 2))
    data, first = _packed(kept, end)
    file.write(data)
    file.seek(8 if tags.big else 4)
    file.write(struct.pack("<Q" if tags.big else "<I", first))


def camera_name(tags: Tags) -> str:
    """Make and model of the camera as one name, for example ``NIKON D800``; empty where neither can be read."""
    make, model = (str(value(tags.main, tag, "")).split("\0")[0].strip() for tag in (Base.Make, Base.Model))
    brand = make.split(" ")[0]  # NIKON CORPORATION calls its cameras NIKON D800
    return model if model.lower().startswith(brand.lower()) else f"{brand} {model}".strip()


def resolution(tags: Tags) -> tuple[float, float] | None:
    """Pixels a millimetre across and down, or None."""
    across, down = (value(tags.main, tag, 0) for tag in (Base.XResolution, Base.YResolution))
    unit = value(tags.main, Base.ResolutionUnit, 2)
    scale = {2: 25.4, 3: 10}.get(unit, 0)  # inch, centimetre
    known = scale and across > 0 and down > 0
    return (float(across) / scale, float(down) / scale) if known else None


def photo_page(path: Path, tags: Tags) -> tuple[dict[str, int], Directory]:
    """The page of a TIFF that is the photo; smaller copies of it, thumbnails and masks may stand before it.

    Returns:
        ``page`` and ``subifd`` as libvips takes them, and the tags of that page.

    Raises:
        InputError: several are photos.
    """
    at, found = tags.first, list[tuple[dict[str, int], Directory]]()
    seen: list[int] = []
    while at and at not in seen:  # a chain may be a ring
        main = tags.directory(at)
        found.append(({"page": len(seen)}, main))
        inner = main.get(Base.SubIFDs, ())
        found += [({"page": len(seen), "subifd": n}, tags.directory(place)) for n, place in enumerate(inner)]
        seen.append(at)
        at = main.next
    if not found:
        return {}, tags.main
    # 1 is a smaller copy, 4 a mask (TIFF 6.0, section 8)
    photos = [(place, page) for place, page in found if not int(value(page, Base.NewSubfileType, 0)) & 5] or found[:1]
    sizes = [(int(value(page, Base.ImageWidth, 0)), int(value(page, Base.ImageLength, 0))) for _, page in photos]
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    copies = [4 * w * h < width * height and abs(w * height - h * width) <= max(width, height) for w, h in sizes]
    if copies.count(False) > 1:
        raise InputError(f"{path}: holds {len(photos)} pages; save the one that is meant as a file of its own")
    return photos[copies.index(False)]


def _kept(tags: Tags, head: bytes = _HEAD) -> dict[int, Directory]:
    """The main directory (0) and the inner ones with the tags of :data:`_KEPT` alone."""
    kept = {}
    for number, known in _KEPT.items():
        source, room = tags.inner(number) if number else tags.main, _MOST_KEPT
        kept[number] = Directory(head, group=number)
        for tag in sorted(known & source.keys()):
            content = value(source, tag)
            length = 12 + (len(content) if isinstance(content, (bytes, str)) else 8 * np.size(content))
            if content is not None and length <= room:
                room -= length
                kept[number].tagtype[tag] = source.tagtype[tag]
                kept[number][tag] = content
    return kept


def _packed(kept: dict[int, Directory], at: int) -> tuple[bytes, int]:
    """The directories as bytes for the even offset ``at``, the main one last, and the offset of the main one."""
    data, main = b"", kept[0]
    with _silently():
        for number in (IFD.Exif, IFD.GPSInfo):
            if kept[number]:
                main[number] = at + len(data)
                data += kept[number].tobytes(at + len(data))
        return data + main.tobytes(at + len(data)), at + len(data)
    return b"", 0
