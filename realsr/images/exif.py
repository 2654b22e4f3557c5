"""What a camera says about a photo (EXIF): camera, exposure, time, place; without what holds for its pixels alone.

Kept are the descriptive tags of the main directory, and the directories Exif and GPS. Left out is what is wrong once
the photo has been turned upright, enlarged and saved anew: orientation, thumbnail, sizes (written anew), places in
the picture, density of the sensor, the tags of a TIFF's own structure, and the maker's notes, whose inner
offsets no longer hold.
"""

from __future__ import annotations

import io

from realsr.images.tags import (
    IFD8,
    LONG,
    Entry,
    Fetch,
    Layout,
    Tag,
    directory,
    fetch_from,
    read_entries,
    read_header,
    read_tags,
)

# ImageDescription, Make, Model, XResolution, YResolution, ResolutionUnit, Software, DateTime, Artist, HostComputer,
# Rating, RatingPercent, Copyright, and title, comment, author, keywords, subject as Windows keeps them
_DESCRIPTIVE = {270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096)}
_ORIENTATION, _EXIF, _GPS, _WIDTH, _HEIGHT = 0x0112, 0x8769, 0x8825, 40962, 40963
_MAKE, _MODEL = 271, 272
_RESOLUTION = (282, 283)
_OF_EXIF = {33434, 33437, *range(34850, 34870), *range(36864, 42241)}
_OF_GPS = set(range(32))
# ImageSourceData, MakerNote, SubjectArea, PixelXDimension, PixelYDimension, RelatedSoundFile, FocalPlaneXResolution,
# FocalPlaneYResolution, FocalPlaneResolutionUnit, SubjectLocation, pointers to Interoperability, Exif and GPS
_OUTDATED = {37724, 37500, 37396, _WIDTH, _HEIGHT, 40964, 41486, 41487, 41488, 41492, 40965, _EXIF, _GPS}
_KINDS = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 129}  # values, no offsets, none of 64 bits
_MOST = 16_000  # bytes of values a directory, and
_TAGS = 200  # tags; so that three of them fit into the 65527 bytes that a JPEG has for them

Directories = dict[int, dict[int, Tag]]
"""The main directory as 0, Exif and GPS by the number of the tag that points to them."""


def clean_exif(fetch: Fetch) -> bytes | None:
    """The EXIF of a TIFF file, or of a block of such a form, cleaned as above; None where it has none or is broken.

    Returns:
        A block that begins with its byte order (``II`` or ``MM``), of less than 65 KB.
    """
    start = read_header(fetch)
    if start is None:
        return None
    kept = _kept(fetch, *start)
    return _block(kept, Layout(start[0].order)) if any(kept.values()) else None


def mended_exif(block: bytes, height: int, width: int) -> bytes:
    """A block of :func:`clean_exif` with the size of a picture to be written."""
    layout, directories = exif_directories(block, height, width)
    return _block(directories, layout)


def exif_directories(block: bytes, height: int, width: int) -> tuple[Layout, Directories]:
    """The same taken apart, for a TIFF file, where the main directory is the file's own."""
    fetch = fetch_from(io.BytesIO(block))
    start = read_header(fetch)
    if start is None:
        raise ValueError(f"{block[:8]!r}... is no block of EXIF")
    layout, directories = start[0], _kept(fetch, *start)
    for number, side in ((_WIDTH, width), (_HEIGHT, height)):
        directories[_EXIF][number] = Tag(LONG, layout.pack(LONG, side))
    return layout, directories


def placed(directories: Directories, layout: Layout, at: int) -> bytes:
    """Exif and GPS as bytes that will stand at ``at``; the main directory's pointers are set to them."""
    data = b""
    for number in (_EXIF, _GPS):
        directories[0].pop(number, None)
        if directories.get(number):
            directories[0][number] = Tag(IFD8 if layout.big else LONG, layout.offset(at + len(data)))
            data += directory(directories[number], layout, at + len(data))
    return data


def orientation_in(fetch: Fetch) -> int:
    """EXIF orientation, 1 to 8; 1 where none is given or it is broken."""
    start = read_header(fetch)
    if start is None:
        return 1
    entries, _ = read_entries(fetch, *start)
    tag = read_tags(fetch, [e for e in entries if e.tag == _ORIENTATION], 8).get(_ORIENTATION)
    value = tag.number(start[0]) if tag else None
    return value if value is not None and 1 <= value <= 8 else 1


def model_in(fetch: Fetch) -> str:
    """Make and model of the camera as one name, ``NIKON D800``; empty where none is given or it is broken."""
    start = read_header(fetch)
    if start is None:
        return ""
    entries, _ = read_entries(fetch, *start)
    tags = read_tags(fetch, [e for e in entries if e.tag in (_MAKE, _MODEL)], 400)
    make, model = (
        tags[tag].data.split(b"\0")[0].decode("ascii", "replace").strip() if tag in tags else ""
        for tag in (_MAKE, _MODEL)
    )
    brand = make.split(" ")[0]  # NIKON CORPORATION calls its cameras NIKON D800
    return model if model.lower().startswith(brand.lower()) else f"{brand} {model}".strip()


def _kept(fetch: Fetch, layout: Layout, first: int) -> Directories:
    entries, _ = read_entries(fetch, layout, first)
    pointers = read_tags(fetch, [e for e in entries if e.tag in (_EXIF, _GPS)], 16)
    described = [e for e in entries if e.tag in _DESCRIPTIVE and e.kind in _KINDS and _fits(e)]
    kept: Directories = {0: read_tags(fetch, described, _MOST), _EXIF: {}, _GPS: {}}
    for number, known in ((_EXIF, _OF_EXIF - _OUTDATED), (_GPS, _OF_GPS)):
        if at := number in pointers and pointers[number].number(layout):
            listed, _ = read_entries(fetch, layout, at)
            kept[number] = read_tags(fetch, [e for e in listed if e.tag in known and e.kind in _KINDS][:_TAGS], _MOST)
    return kept


def _fits(entry: Entry) -> bool:
    """Whether a resolution is a single fraction: Pillow opens no JPEG in which it is anything else."""
    return entry.tag not in _RESOLUTION or (entry.kind, entry.size) == (5, 8)


def _block(directories: Directories, layout: Layout) -> bytes:
    at = 8
    placed(directories, layout, 0)  # so that the main directory has its final length
    main = len(directory(directories[0], layout, at))
    inner = placed(directories, layout, at + main)
    return layout.header(at) + directory(directories[0], layout, at) + inner
