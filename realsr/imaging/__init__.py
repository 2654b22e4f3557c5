"""Image files in and out: 8 and 16 bit, gray, alpha, palette, CMYK, EXIF orientation."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips
import torch
from PIL import Image
from torch import Tensor

from realsr.imaging.damage import naming_damage
from realsr.imaging.encoding import eight_bit, gathered, write_rows
from realsr.imaging.heif import heif_size, read_heif
from realsr.imaging.opening import MOST_PIXELS, Opened, content_of, open_image
from realsr.imaging.raw import raw_size, read_raw
from realsr.imaging.rows import Plane, Rows, turned_upright
from realsr.imaging.tags import Tags, clean_exif, resolution, sized_exif
from realsr.runtime.errors import InputError
from realsr.runtime.files import EXTRAS, HEIC, RAW, missing_extra

_BAND = 256  # rows that are handed on at once
Pick = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # of HEIC files


@dataclass(frozen=True)
class Photo:
    """A decoded image file, turned upright.

    Attributes:
        rgb: ``(H, W, 3)`` uint8 or uint16 in RGB order; a gray file is repeated over the three channels.
        alpha: ``(H, W)`` of the same type, or None where the file has none.
        gray: whether the file was gray.
        icc_profile: the profile that describes ``rgb``, embedded or made of what else the file tells, or None.
        exif: what the camera says, see :func:`realsr.imaging.tags.clean_exif`, or None.
        xmp: or None.
        resolution: pixels a millimetre across and down, or None.
    """

    rgb: npt.NDArray[Any]
    alpha: npt.NDArray[Any] | None = None
    gray: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    resolution: tuple[float, float] | None = None


def image_size(path: str | Path) -> tuple[int, int]:
    """``(height, width)`` after EXIF rotation, without decoding the pixels.

    Raises:
        InputError: the file cannot be read as an image.
    """
    path = Path(path)
    if extra := _extra_of(path):
        with naming_damage(path):
            return raw_size(path) if extra == "raw" else heif_size(path)
    opened = open_image(path, 2**62)
    sides = opened.image.height, opened.image.width
    return sides if opened.orientation < 5 else sides[::-1]  # EXIF orientations 5 to 8 swap the axes


def read_image(path: str | Path, most_pixels: int = MOST_PIXELS) -> Photo:
    """Decode a file of 8 or 16 bits a channel, whatever its colour mode, and turn it upright.

    Args:
        path: of the file.
        most_pixels: larger images are refused before they are decoded; each pixel takes 3 bytes of memory or more.

    Raises:
        InputError: the file is missing, truncated, not an image, larger, an animation, of several pages, in HDR, or of
            a kind that has no 8 or 16 bit RGB.
    """
    path = Path(path)
    if extra := _extra_of(path):
        with naming_damage(path):
            if extra == "raw":
                with path.open("rb") as file:
                    tags = Tags(file)
                    told = Opened(None, exif=clean_exif(tags), resolution=resolution(tags))
                return _of_array(read_raw(path, most_pixels), told)
            return _of_array(*read_heif(path, most_pixels))
    return _photo(path, open_image(path, most_pixels))


def open_photo(path: str | Path, most_pixels: int = MOST_PIXELS) -> Photo:
    """As :func:`read_image`, but ``rgb`` and ``alpha`` decode the rows that are asked for, as ``rgb[a:b, c:d]``.

    They take little memory, if they are asked for from top to bottom. HEIC and raw files are decoded at once.
    """
    path = Path(path)
    if _extra_of(path):
        return read_image(path, most_pixels)
    opened = open_image(path, most_pixels)

    def upright() -> Any:
        if opened.orientation == 1:
            return open_image(path, most_pixels).image
        # decoded into memory by libvips, or into a temporary file where it is large
        image = open_image(path, most_pixels, access="random").image.copy()
        image.set_type(pyvips.GValue.gint_type, "orientation", opened.orientation)
        return image.autorot()

    rows = Rows(path, upright)
    colour, alpha = _channels(rows.shape[2])
    lazy: Any = Plane(rows, colour), alpha and Plane(rows, alpha), rows.shape[2] < 3
    return Photo(*lazy, *_told(opened))


def photo_of(image: Image.Image) -> Photo:
    """What :func:`read_image` gives of the file, of an image that is open in Pillow; it is turned upright too.

    Raises:
        InputError: it is damaged, or of a mode that has no 8 or 16 bit RGB.
    """
    path = Path(getattr(image, "filename", "") or "image")
    with naming_damage(path):
        content = content_of(image)
    return _photo(path, open_image(content, MOST_PIXELS, path))


def image_of(bands: Iterable[npt.NDArray[Any]], height: int, width: int, like: Photo) -> Image.Image:
    """Bands as :func:`realsr.imaging.encoding.write_rows` takes them as an image of Pillow's, of 8 bits."""
    image = gathered(map(eight_bit, bands), height, width)
    described = {"icc_profile": like.icc_profile, "exif": like.exif and sized_exif(like.exif, height, width)}
    image.info |= {key: value for key, value in described.items() if value}
    return image


def read_8_bit(path: str | Path) -> npt.NDArray[np.uint8]:
    """The pixels of :func:`read_image`, ``(H, W, 3)``, those of 16 bits rounded to 8."""
    return eight_bit(read_image(path).rgb)


def write_image(path: str | Path, photo: Photo, quality: int = 95) -> None:
    """Write a photo as :func:`realsr.imaging.encoding.write_rows` does; all that :class:`Photo` holds is kept.

    Raises:
        InputError: the suffix names no format that can be written, or the photo is too large for it.
        OSError: the folder cannot be written to, or the disk is full.
    """
    height, width = photo.rgb.shape[:2]
    write_rows(path, _bands(photo), height, width, photo, quality)


def to_float(rgb: npt.NDArray[Any]) -> Tensor:
    """``(H, W, 3)`` uint8 or uint16 to ``(3, H, W)`` float32 in [0, 1]."""
    scale = np.float32(np.iinfo(rgb.dtype).max)
    return torch.from_numpy(np.ascontiguousarray((rgb.astype(np.float32) / scale).transpose(2, 0, 1)))


def to_uint(image: Tensor, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    """``(C, H, W)`` float in [0, 1] to ``(H, W, C)`` of ``dtype`` (uint8 or uint16), clamped and rounded."""
    top = np.iinfo(dtype).max
    array = image.detach().float().clamp(0, 1).mul(top).round().cpu().numpy().transpose(1, 2, 0)
    return np.ascontiguousarray(array.astype(dtype))


def quantize(image: Tensor) -> Tensor:
    """Round to the 256 levels of an 8-bit file, as saving and reading would; [0, 1] to [0, 1]."""
    return image.clamp(0, 1).mul(255).round().div(255)


def gray_uint8(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """``(H, W, 3)`` to ``(H, W)``: BT.601 luma rounded to 8 bits, as Pillow computes it."""
    return np.asarray(Image.fromarray(rgb).convert("L"))


def content_hash(rgb: npt.NDArray[Any]) -> str:
    """What pixels ``(H, W, 3)`` are, whatever their file: 16 hexadecimal digits of the SHA-256 of shape and bytes."""
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()[:16]


def _bands(photo: Photo) -> Iterator[npt.NDArray[Any]]:
    for top in range(0, len(photo.rgb), _BAND):
        colour = photo.rgb[top : top + _BAND, :, 1:2] if photo.gray else photo.rgb[top : top + _BAND]
        yield colour if photo.alpha is None else np.dstack([colour, photo.alpha[top : top + _BAND]])


def _extra_of(path: Path) -> str:
    """The extra that reads a file, told by the suffix of raw files and by the content of HEIC; empty where none need.

    Raises:
        InputError: it is not installed, or there is something else than a file.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: is no file")
    suffix = path.suffix.lower() if path.suffix.lower() in RAW else ""
    with contextlib.suppress(OSError), path.open("rb") as file:  # what is wrong, opening it says
        head = file.read(12)
        suffix = suffix or (HEIC[0] if head[4:8] == b"ftyp" and head[8:] in _BRANDS else "")
        if missing := missing_extra(suffix):
            raise InputError(f"{path}: cannot be read yet; pip install 'realsr[{missing}]'")
        return EXTRAS[suffix][0] if suffix else ""
    return ""


def _channels(count: int) -> tuple[Pick, Pick | None]:
    """What gives RGB and alpha, if there is one, of ``(h, w, count)``."""

    def colour(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.repeat(array[..., :1], 3, 2) if count < 3 else array[..., :3]

    def alpha(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array[..., -1]

    return colour, alpha if count in (2, 4) else None


def _photo(path: Path, opened: Opened) -> Photo:
    array = turned_upright(Rows(path, lambda: opened.image).whole(), opened.orientation)
    return _of_array(array, opened)


def _of_array(array: npt.NDArray[Any], opened: Opened) -> Photo:
    colour, alpha = _channels(array.shape[2])
    return Photo(np.ascontiguousarray(colour(array)), alpha and alpha(array).copy(), array.shape[2] < 3, *_told(opened))


def _told(opened: Opened) -> tuple[Any, ...]:
    return opened.icc_profile, opened.exif, opened.xmp, opened.resolution
