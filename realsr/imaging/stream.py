"""Bands of a picture as a source that libvips reads: it takes no pixels from Python but those of a file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

_PIECE = 1 << 20  # bytes that are handed to libvips at once
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of PNG, by channels


class Stream:
    """Pieces of a file as a source of libvips; ``error`` is what ended them too early."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.error: BaseException | None = None
        self._pieces, self._rest = pieces, memoryview(b"")
        self.source = pyvips.SourceCustom()
        self.source.on_read(self._read)

    def _read(self, size: int) -> memoryview:
        try:
            if not len(self._rest):
                self._rest = memoryview(next(self._pieces, b""))
        except BaseException as e:  # which libvips would only print
            self.error = e
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def png(
    bands: Iterable[npt.NDArray[Any]], height: int, width: int, channels: int, bits: int, exif: bytes
) -> Iterator[bytes]:
    """The pieces of an unpacked PNG of bands ``(h, width, channels)``, which libvips decodes as they come."""
    header = struct.pack(">IIBBBBB", width, height, bits, _COLOUR_TYPES[channels], 0, 0, 0)
    yield b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + (_chunk(b"eXIf", exif) if exif else b"")
    packer, step = zlib.compressobj(0), max(1, _PIECE // (width * channels * bits // 8))
    for band in bands:
        for top in range(0, len(band), step):
            rows = np.ascontiguousarray(band[top : top + step], f">u{bits // 8}").view(np.uint8)
            unfiltered = np.pad(rows.reshape(len(rows), -1), ((0, 0), (1, 0)))
            yield _chunk(b"IDAT", packer.compress(unfiltered.data))
    yield _chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
