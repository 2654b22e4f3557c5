"""ICC profiles for files that state their colours by other means: gamma and chromaticities, code points, EXIF."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.ExifTags import IFD, Base

from realsr.imaging.tags import Directory, Tags, value
from realsr.runtime.errors import InputError

_D65 = (0.3127, 0.3290)
SRGB_PRIMARIES = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65)  # x and y of red, green, blue, white
_ADOBE = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, *_D65), (563 / 256,)  # Adobe RGB (1998), which DCF calls R03
# ITU-T H.273, tables 2 and 3; a curve is a gamma, or that of ICC's parametric type 3 (ICC.1:2010, table 65)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_VIDEO_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_PRIMARIES = {
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.314, 0.351),
    12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, *_D65),
}
_CURVES: dict[int, tuple[float, ...]] = {4: (2.2,), 5: (2.8,), 8: (1.0,)} | dict.fromkeys((1, 6, 14, 15), _VIDEO_CURVE)
_HDR = {16: "PQ", 18: "HLG"}
# ICC.1:2010, annex E: from D65 and others to D50, in which profiles are
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def of_png(path: Path, chunks: dict[bytes, bytes], gray: bool) -> bytes | None:
    """The profile of cICP, or else of gAMA and cHRM (PNG, third edition, section 12.2); None for sRGB."""
    if len(points := chunks.get(b"cICP", b"")) == 4:
        return of_code_points(path, points[0], points[1], gray)
    if b"sRGB" in chunks or not {b"gAMA", b"cHRM"} & chunks.keys():
        return None
    numbers = np.frombuffer(chunks.get(b"cHRM", b""), ">u4") / 1e5
    primaries = (*numbers[2:], *numbers[:2]) if len(numbers) == 8 else SRGB_PRIMARIES
    gamma = int.from_bytes(chunks.get(b"gAMA", b""), "big") / 1e5
    return profile(primaries, (1 / gamma,) if gamma else _SRGB_CURVE, gray)


def of_code_points(path: Path, primaries: int, transfer: int, gray: bool) -> bytes | None:
    """The profile of two code points of ITU-T H.273 (PNG's cICP, HEIC's nclx); None for sRGB and unknown ones.

    Raises:
        InputError: the image is HDR, whose range 8 or 16 bits cannot hold.
    """
    if transfer in _HDR:
        raise InputError(f"{path}: is an HDR image ({_HDR[transfer]}), which is not read; save it as SDR first")
    if primaries not in _PRIMARIES and transfer not in (4, 5, 8):
        return None  # programs show the curve of BT.709 as that of sRGB
    return profile(_PRIMARIES.get(primaries, SRGB_PRIMARIES), _CURVES.get(transfer, _SRGB_CURVE), gray)


def of_tags(tags: Tags, page: Directory, gray: bool) -> bytes | None:
    """The profile of EXIF's InteropIndex, or of TIFF's WhitePoint and PrimaryChromaticities (TIFF 6.0, section 20)."""
    if str(value(tags.inner(IFD.Exif, IFD.Interop), 1, "")).startswith("R03"):
        return profile(*_ADOBE, gray)
    white, primaries = (
        [float(v) for v in np.atleast_1d(value(page, tag, ()))] for tag in (Base.WhitePoint, Base.PrimaryChromaticities)
    )
    return profile((*primaries, *white), (2.2,), gray) if (len(white), len(primaries)) == (2, 6) else None


def profile(primaries: Sequence[float], curve: tuple[float, ...], gray: bool) -> bytes | None:
    """An ICC profile of primaries and a curve (ICC.1:2010); None for sRGB, and for senseless numbers.

    >>> len(profile((0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.3290), (2.2,), gray=False))
    448
    >>> profile(SRGB_PRIMARIES, (2.2,), gray=False) is None
    True

    Args:
        primaries: x and y of red, green, blue and white.
        curve: a gamma; or g, a, b, c, d: ``(a v + b)^g`` for ``v >= d`` and ``c v`` below.
        gray: whether it is for one channel.
    """
    x, y = np.reshape(primaries, (4, 2)).T
    usual = np.allclose(primaries, SRGB_PRIMARIES, atol=2e-3) or gray
    if not (y > 0).all() or (usual and (curve == _SRGB_CURVE or np.allclose(curve, 2.2, atol=0.02))):
        return None
    xyz = _BRADFORD @ np.stack([x / y, np.ones(4), (1 - x - y) / y])
    matrix = (np.linalg.inv(_BRADFORD) @ (xyz * (_BRADFORD @ _D50 / xyz[:, 3])[:, None]))[:, :3]
    if abs(np.linalg.det(matrix)) < 1e-6 or not 0 < curve[0] < 30:
        return None
    text = b"mluc" + struct.pack(">4xII2s2sII", 1, 12, b"en", b"US", 12, 28) + "Colour".encode("utf-16-be")
    tone = b"para" + struct.pack(">4xHxx", 3 if len(curve) == 5 else 0) + _fixed(curve)
    tags = {b"desc": text, b"cprt": text, b"wtpt": _xyz(_D50)}
    if gray:
        tags[b"kTRC"] = tone
    else:
        colours = (matrix * np.linalg.solve(matrix, _D50)).T
        tags |= {name + b"XYZ": _xyz(colour) for name, colour in zip((b"r", b"g", b"b"), colours, strict=True)}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tone)
    table, data, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, at + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    space, date = b"GRAY" if gray else b"RGB ", struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    head = struct.pack(">I4xI4s4s4s12s4s", at + len(data), 0x04200000, b"mntr", space, b"XYZ ", date, b"acsp")
    return (head + bytes(28) + _fixed(_D50)).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _xyz(colour: Any) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(colour)


def _fixed(numbers: Any) -> bytes:
    """s15Fixed16Numbers."""
    return np.round(np.asarray(numbers) * 65536).astype(">i4").tobytes()
