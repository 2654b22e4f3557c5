"""PNG files built from the specification."""

import struct
import zlib


def chunk(kind, body, wrong=0):
    """A chunk; ``wrong`` damages its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def png(array, before=b"", behind=b"", size=None, bits=None, rows=None):
    """Pixels ``(H, W, C)`` uint8 or uint16, with chunks around them; the rest is claimed in their place."""
    if rows is None:
        rows = b"".join(b"\0" + row.astype(f">u{array.itemsize}").tobytes() for row in array)
    (height, width), colour_type = size or array.shape[:2], {1: 0, 2: 4, 3: 2, 4: 6}[array.shape[2]]
    header = struct.pack(">IIBBBBB", width, height, bits or 8 * array.itemsize, colour_type, 0, 0, 0)
    data = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + behind + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data
