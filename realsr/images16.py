"""16-bit PNG and TIFF, which Pillow reads as 8 bit and does not write: by OpenCV and tifffile."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from realsr.errors import InputError

Array16 = npt.NDArray[np.uint16]


def is_16_bit(image: Image.Image) -> bool:
    """Whether an opened, not yet loaded file holds 16 bits a channel."""
    if image.format == "PNG":
        return ";16" in str(getattr(image, "tile", "")) or ";16" in image.mode
    if image.format == "TIFF":
        return bool(max(image.tag_v2.get(258, (8,))) == 16)  # type: ignore[attr-defined]  # BitsPerSample
    return False


def decode_16_bit(path: Path) -> Array16:
    """``(H, W)`` gray, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA uint16; TIFFs are turned upright, PNGs are not.

    Raises:
        InputError: the file is damaged, or of another type.
    """
    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise InputError(f"{path}: cannot be decoded, the file is damaged")
    if array.dtype != np.uint16 or array.shape[2:] not in ((), (3,), (4,)):
        raise InputError(f"{path}: {array.dtype} of shape {array.shape} is no 16 bit gray or RGB; convert it first")
    return np.asarray(array if array.ndim == 2 else _swap_red_and_blue(array))


def encode_16_bit(array: Array16, png: bool, icc: bytes | None) -> bytes:
    """The bytes of a PNG or TIFF file.

    Args:
        array: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)`` uint16.
        png: False makes a TIFF.
        icc: profile to embed, or None.
    """
    if png:
        _, data = cv2.imencode(".png", array if array.ndim == 2 else _swap_red_and_blue(array))
        return _with_profile(bytes(data), icc)
    buffer = io.BytesIO()
    alpha = ["unassalpha"] if array.shape[2:] == (4,) else None
    photometric = "minisblack" if array.ndim == 2 else "rgb"
    tifffile.imwrite(buffer, array, photometric=photometric, extrasamples=alpha, iccprofile=icc, metadata=None)
    return buffer.getvalue()


def turn_upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Undo an EXIF orientation (1 to 8) on a decoded array."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _swap_red_and_blue(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """OpenCV's colour order to ours and back; alpha stays last."""
    return np.ascontiguousarray(array[..., [2, 1, 0, 3][: array.shape[2]]])


def _with_profile(png: bytes, icc: bytes | None) -> bytes:
    """Add the ICC profile, which OpenCV does not write, as the chunk behind the header."""
    if not icc:
        return png
    body = b"iCCPICC Profile\0\0" + zlib.compress(icc)
    return png[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + png[33:]
