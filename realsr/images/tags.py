"""Directories of tags, the container of EXIF and of TIFF files: read without trust in them, and written.

A directory (TIFF 6.0, section 2) is a list of tags with a number, a kind and ``count`` values; values of more than four
bytes (eight in BigTIFF) stand elsewhere in the file. Values are kept as the bytes that they are, in the byte order of
their file, so that nothing is lost where a directory is copied into another file of the same order.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
SHORT, LONG, UNDEFINED, LONG8, IFD8 = 3, 4, 7, 16, 18
_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
Fetch = Callable[[int, int], bytes]
"""``fetch(offset, size)``: that many bytes of a file, or fewer at its end."""


@dataclass(frozen=True)
class Layout:
    """How a file counts: ``order`` is ``<`` or ``>``, ``big`` whether offsets have 64 bits (BigTIFF)."""

    order: str
    big: bool = False

    @property
    def inline(self) -> int:
        """Bytes of a value that stand in the directory itself, and of an offset."""
        return 8 if self.big else 4

    def pack(self, kind: int, *values: int) -> bytes:
        """Whole numbers of a kind as bytes."""
        return struct.pack(f"{self.order}{len(values)}{_LETTERS[kind]}", *values)

    def offset(self, value: int) -> bytes:
        """An offset, or a count of values, as bytes."""
        return self.pack(LONG8 if self.big else LONG, value)

    def header(self, first: int) -> bytes:
        """The start of a file whose first directory stands at ``first``: 8 bytes, or 16."""
        mark = b"II" if self.order == "<" else b"MM"
        if self.big:
            return mark + struct.pack(f"{self.order}HHHQ", 43, 8, 0, first)
        return mark + struct.pack(f"{self.order}HI", 42, first)


@dataclass(frozen=True)
class Tag:
    """Values of one tag: ``data`` is their bytes, in the byte order of their file."""

    kind: int
    data: bytes

    def number(self, layout: Layout) -> int | None:
        """The first value of a tag of whole numbers, else None."""
        letter = _LETTERS.get(self.kind)
        if not letter or len(self.data) < SIZES[self.kind]:
            return None
        return int(struct.unpack_from(layout.order + letter, self.data)[0])


@dataclass(frozen=True)
class Entry:
    """A tag as the directory lists it: the values are ``size`` bytes at ``at``."""

    tag: int
    kind: int
    size: int
    at: int


def read_header(fetch: Fetch) -> tuple[Layout, int] | None:
    """The layout of a file and where its first directory stands; None where it is no TIFF."""
    head = fetch(0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return None
    (mark,) = struct.unpack_from(f"{order}H", head, 2)
    if mark == 43 and len(head) == 16:
        return Layout(order, big=True), struct.unpack_from(f"{order}Q", head, 8)[0]
    return (Layout(order), struct.unpack_from(f"{order}I", head, 4)[0]) if mark == 42 else None


def read_entries(fetch: Fetch, layout: Layout, at: int) -> tuple[list[Entry], int]:
    """What the directory at ``at`` lists, and where the next one stands (0: it is the last).

    No value is read, those of unknown kinds have no size, and a directory that is cut ends where it is cut.
    """
    width = layout.inline
    one = f"{layout.order}HH{'Q' if layout.big else 'I'}{width}s"
    ahead = 8 if layout.big else 2
    head = fetch(at, ahead)
    if len(head) < ahead:
        return [], 0
    count = struct.unpack(f"{layout.order}{'Q' if layout.big else 'H'}", head)[0]
    step = struct.calcsize(one)
    listed = fetch(at + ahead, min(count, 65535) * step + width)
    entries = []
    for place in range(0, min(count * step, len(listed) - step + 1), step):
        tag, kind, number, value = struct.unpack_from(one, listed, place)
        size = number * SIZES.get(kind, 0)
        start = _number(layout, value) if size > width else at + ahead + place + step - width
        entries.append(Entry(tag, kind, size, start))
    end = listed[count * step : count * step + width]
    return entries, _number(layout, end) if len(end) == width else 0


def read_tags(fetch: Fetch, entries: list[Entry], most: int) -> dict[int, Tag]:
    """The values of entries in their order, up to ``most`` bytes in all; what is too long or cut is left out."""
    tags: dict[int, Tag] = {}
    for entry in entries:
        if entry.tag not in tags and entry.size <= most and len(data := fetch(entry.at, entry.size)) == entry.size:
            tags[entry.tag] = Tag(entry.kind, data)
            most -= entry.size
    return tags


def directory(tags: dict[int, Tag], layout: Layout, at: int) -> bytes:
    """The bytes of a directory that will stand at the even offset ``at``, its values behind it; no other follows."""
    width = layout.inline
    start = at + (8 if layout.big else 2) + len(tags) * (20 if layout.big else 12) + width
    head = struct.pack(f"{layout.order}{'Q' if layout.big else 'H'}", len(tags))
    values = bytearray()
    for number, tag in sorted(tags.items()):
        if len(tag.data) <= width:
            value = tag.data.ljust(width, b"\0")
        else:
            value = layout.offset(start + len(values))
            values += tag.data + bytes(-len(tag.data) % 8)
        head += struct.pack(f"{layout.order}HH", number, tag.kind)
        head += layout.offset(len(tag.data) // SIZES[tag.kind]) + value
    return head + bytes(width) + bytes(values)


def fetch_from(file: IO[bytes]) -> Fetch:
    """Reads an open file, or a block in memory by :class:`io.BytesIO`."""
    length = file.seek(0, os.SEEK_END)

    def fetch(offset: int, size: int) -> bytes:
        if offset >= length:
            return b""
        file.seek(offset)
        return file.read(min(size, length - offset))

    return fetch


def _number(layout: Layout, value: bytes) -> int:
    return int.from_bytes(value, "little" if layout.order == "<" else "big")
