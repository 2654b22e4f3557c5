"""Files that need an extra: HEIC by ``realsr[heic]`` (pillow-heif), camera raw by ``realsr[raw]`` (LibRaw)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from realsr.imaging import profiles
from realsr.imaging.damage import check_pixels, naming_damage
from realsr.imaging.opening import Opened, notes_of, open_image
from realsr.imaging.rows import Pixels
from realsr.imaging.tags import Tags
from realsr.runtime.errors import InputError
from realsr.runtime.files import HEIC, RAW, missing_extra

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # of HEIC files


def open_file(path: Path, most_pixels: int) -> Opened:
    """Open a file of any kind by the library that reads it; raw files are told by suffix, HEIC by content.

    Raises:
        InputError: see :func:`realsr.imaging.opening.open_image`, or the extra is not installed.
    """
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise InputError(f"{path}: is no file")
    suffix = path.suffix.lower()
    with naming_damage(path):
        with path.open("rb") as file:
            head = file.read(12)
        if suffix not in RAW:
            if head[4:8] != b"ftyp" or head[8:] not in _BRANDS:
                return open_image(path, most_pixels)
            suffix = HEIC[0]
        if missing := missing_extra(suffix):
            raise InputError(f"{path}: cannot be read yet; pip install 'realsr[{missing}]'")
        return (_open_raw if suffix in RAW else _open_heic)(path, most_pixels)


def _open_heic(path: Path, most_pixels: int) -> Opened:
    """The primary image; pillow-heif applies the file's own rotation, and the one in EXIF is for information only.

    More than 8 bits become uint16, whose white is 65535.
    """
    import pillow_heif  # an extra

    file = pillow_heif.open_heif(path, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    image: Any = file[file.primary_index]
    (width, height), info = image.size, image.info
    check_pixels(path, height, width, most_pixels)

    def decode() -> Pixels:
        array: Pixels = np.asarray(image)
        if array.shape[:2] != (height, width):
            raise InputError(f"{path}: has not the {width} x {height} pixels that it claims, it is damaged")
        if array.dtype != np.uint8:
            top = 2 ** int(info["bit_depth"]) - 1
            array = ((array.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)
        return array.reshape(height, width, -1)

    colours, tags, gray = info.get("nclx_profile") or {}, Tags(info.get("exif") or b""), image.mode.startswith("L")
    codes = int(colours.get("color_primaries", 2)), int(colours.get("transfer_characteristics", 2))
    made = profiles.of_code_points(path, *codes, gray) or profiles.of_tags(tags, tags.main, gray)
    return Opened((height, width), decode, notes_of(tags, info.get("icc_profile") or made, info.get("xmp")))


def _open_raw(path: Path, most_pixels: int) -> Opened:
    """Developed upright with the camera's white balance and colours and the curve of sRGB, to 16 bits.

    The exposure stays as taken: LibRaw's own brightening clips the brightest hundredth of every photo, differently in
    each.
    """
    import rawpy  # an extra

    raw = rawpy.imread(str(path))
    sizes = raw.sizes
    swapped = sizes.flip & 4  # LibRaw's bits: 1 mirrors across, 2 mirrors down, 4 swaps the axes
    size = (sizes.iwidth, sizes.iheight) if swapped else (sizes.iheight, sizes.iwidth)
    check_pixels(path, sizes.raw_height, sizes.raw_width, most_pixels)  # with the sensor's rim

    def decode() -> Pixels:
        pixels = raw.postprocess(use_camera_wb=True, no_auto_bright=True, output_bps=16, gamma=(2.4, 12.92))
        return np.asarray(pixels.reshape(*pixels.shape[:2], -1))

    with path.open("rb") as file:
        return Opened(size, decode, notes_of(Tags(file)))
