"""HEIC and HEIF, as phones write them, by the extra ``realsr[heic]``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from realsr.imaging import profiles
from realsr.imaging.damage import check_pixels
from realsr.imaging.opening import MOST_PIXELS, Opened, upright_xmp
from realsr.imaging.tags import Tags, clean_exif, resolution
from realsr.runtime.errors import InputError


def read_heif(path: Path, most_pixels: int = MOST_PIXELS) -> tuple[npt.NDArray[Any], Opened]:
    """Decode the primary image; the file's own rotation is applied, and that in its EXIF is for information only.

    Returns:
        ``(H, W, C)`` with C from 1 (gray) to 4 (RGBA), uint8, or uint16 for files of more than 8 bits, whose white
        becomes 65535; and what the file tells besides.

    Raises:
        InputError: larger than ``most_pixels``, or than it claims; or HDR.
        Exception: of many kinds, where the file is damaged.
    """
    image = _open(path, most_pixels)
    size, told = image.size, image.info
    points = told.get("nclx_profile") or {}
    codes = int(points.get("color_primaries", 2)), int(points.get("transfer_characteristics", 2))
    tags, gray = Tags(told.get("exif") or b""), image.mode.startswith("L")
    icc = (
        told.get("icc_profile")
        or profiles.of_code_points(path, *codes, gray)
        or profiles.of_tags(tags, tags.main, gray)
    )
    array = np.asarray(image)
    if array.shape[1::-1] != size:
        raise InputError(f"{path}: has not the {size[0]} x {size[1]} pixels that it claims, it is damaged")
    array = array.reshape(*array.shape[:2], -1)
    if array.dtype != np.uint8:
        top = 2 ** int(told["bit_depth"]) - 1
        array = ((array.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)
    return array, Opened(None, 1, icc, clean_exif(tags), upright_xmp(told.get("xmp")), resolution(tags))


def heif_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` when turned upright; the pixels are not decoded."""
    width, height = _open(path).size
    return height, width


def heif_exif(path: Path) -> bytes:
    """The EXIF as it stands in the file; the pixels are not decoded."""
    return bytes(_open(path).info.get("exif") or b"")


def _open(path: Path, most_pixels: int = MOST_PIXELS) -> Any:
    import pillow_heif  # an extra

    file = pillow_heif.open_heif(path, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    image = file[file.primary_index]
    check_pixels(path, image.size[1], image.size[0], most_pixels)
    return image
