"""16-bit PNG and TIFF, which Pillow reads as 8 bit: by OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
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
