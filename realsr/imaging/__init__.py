"""Image files in and out, 8 and 16 bit, and conversions between arrays, tensors and levels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
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
from realsr.imaging.extras import open_file
from realsr.imaging.opening import MOST_PIXELS, Opened, content_of, open_image
from realsr.imaging.rows import Rows


@dataclass(frozen=True)
class Photo:
    """A decoded image file, upright.

    Attributes:
        rgb: ``(H, W, 3)`` uint8 or uint16, or float32 in [0, 1] from a tensor; gray has three equal channels.
        alpha: ``(H, W)`` of the same type, or None.
        gray: whether the file was gray.
        icc_profile: of ``rgb``: embedded, or made from the file's other statements of its colours; or None.
        exif: the camera's record, see :func:`realsr.imaging.tags.clean_exif`, or None.
        xmp: the XMP packet, or None.
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
    """Height and width after EXIF rotation; the pixels are not decoded.

    Raises:
        InputError: the file cannot be read as an image.
    """
    return open_file(Path(path), 2**62).size


def read_image(path: str | Path, most_pixels: int = MOST_PIXELS) -> Photo:
    """Decode an image file of any colour mode to 8 or 16 bit RGB, upright; 3 to 8 bytes of memory a pixel.

    Raises:
        InputError: the file is missing, truncated, no image, of more than ``most_pixels``, an animation, of several
            pages, HDR, or of a kind that has no 8 or 16 bit RGB.
    """
    return _decoded(Path(path), open_file(Path(path), most_pixels))


def open_photo(path: str | Path, most_pixels: int = MOST_PIXELS) -> Photo:
    """Like :func:`read_image`, but ``rgb`` and ``alpha`` decode rows as they are sliced, ``rgb[a:b, c:d]``.

    They take little memory when rows are read from top to bottom. HEIC and raw files are decoded at once.
    """
    path = Path(path)
    opened = open_file(path, most_pixels)
    if opened.image is None:
        return _decoded(path, opened)

    def upright() -> Any:
        # to turn it, libvips decodes into memory, or into a temporary file if the image is large
        access = "sequential" if opened.orientation == 1 else "random"
        image = open_image(path, most_pixels, access).image.copy()
        image.set_type(pyvips.GValue.gint_type, "orientation", opened.orientation)
        return image.autorot()

    count = opened.image.bands
    rgb: Any = Rows(path, upright, _rgb)
    alpha: Any = Rows(path, upright, lambda array: array[..., -1]) if count in (2, 4) else None
    return Photo(rgb, alpha, count < 3, **opened.notes)


def photo_of(image: Image.Image) -> Photo:
    """An open Pillow image as :func:`read_image` would read its file.

    >>> photo = photo_of(Image.new("L", (30, 20)))
    >>> photo.rgb.shape, photo.gray
    ((20, 30, 3), True)

    Raises:
        InputError: the image is damaged, or its mode has no 8 or 16 bit RGB.
    """
    path = Path(getattr(image, "filename", "") or "image")
    with naming_damage(path):
        content = content_of(image)
    return _decoded(path, open_image(path, content=content))


def image_of(bands: Iterable[npt.NDArray[Any]], height: int, width: int, like: Photo) -> Image.Image:
    """A Pillow image of 8 bits from bands as :func:`realsr.imaging.encoding.write_rows` takes them."""
    image = gathered(map(eight_bit, bands), height, width)
    notes = ("icc_profile", like.icc_profile), ("exif", like.exif)
    image.info |= {key: value for key, value in notes if value}
    return image


def read_8_bit(path: str | Path) -> npt.NDArray[np.uint8]:
    """The RGB of :func:`read_image`, ``(H, W, 3)``; 16 bits are rounded to 8."""
    return eight_bit(read_image(path).rgb)


def write_image(path: str | Path, photo: Photo, quality: int = 95) -> None:
    """Write a photo with all that :class:`Photo` holds; formats and errors as for :func:`.encoding.write_rows`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(f"{folder}/a.png", Photo(np.full((20, 30, 3), 65535, np.uint16)))
    ...     read_image(f"{folder}/a.png").rgb[0, 0]
    array([65535, 65535, 65535], dtype=uint16)
    """
    colours = photo.rgb[..., :1] if photo.gray else photo.rgb
    pixels = colours if photo.alpha is None else np.dstack([colours, photo.alpha])
    write_rows(path, [pixels], len(pixels), pixels.shape[1], photo, quality)


def to_float(rgb: npt.NDArray[Any]) -> Tensor:
    """``(H, W, 3)`` uint8, uint16, or floats in [0, 1], to ``(3, H, W)`` float32 in [0, 1].

    >>> to_float(np.array([[[0, 51, 255]]], np.uint8)).flatten()
    tensor([0.0000, 0.2000, 1.0000])
    """
    scale = np.float32(1 if rgb.dtype.kind == "f" else np.iinfo(rgb.dtype).max)
    return torch.from_numpy(np.ascontiguousarray((rgb.astype(np.float32) / scale).transpose(2, 0, 1)))


def to_uint(image: Tensor, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    """``(C, H, W)`` float in [0, 1] to ``(H, W, C)`` of ``dtype`` (uint8 or uint16), clamped and rounded.

    >>> to_uint(torch.tensor([-0.1, 0.2, 1.3]).view(3, 1, 1))
    array([[[  0,  51, 255]]], dtype=uint8)
    """
    top = np.iinfo(dtype).max
    array = image.detach().float().clamp(0, 1).mul(top).round().cpu().numpy().transpose(1, 2, 0)
    return np.ascontiguousarray(array.astype(dtype))


def quantize(image: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to the 256 levels of an 8-bit file.

    >>> quantize(torch.tensor([0.001, 0.003, 1.1])) * 255
    tensor([  0.,   1., 255.])
    """
    return image.clamp(0, 1).mul(255).round().div(255)


def gray_uint8(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """BT.601 luma of ``(H, W, 3)``, ``(H, W)`` rounded to 8 bits, as Pillow computes it."""
    return np.asarray(Image.fromarray(rgb).convert("L"))


def content_hash(rgb: npt.NDArray[Any]) -> str:
    """16 hexadecimal digits of the SHA-256 of shape and bytes of pixels ``(H, W, 3)``, independent of their file."""
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()[:16]


def _decoded(path: Path, opened: Opened) -> Photo:
    with naming_damage(path):
        array = opened.decode()
    count = array.shape[2]
    alpha = array[..., -1].copy() if count in (2, 4) else None
    return Photo(np.ascontiguousarray(_rgb(array)), alpha, count < 3, **opened.notes)


def _rgb(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The RGB of ``(h, w, C)``; C is 1 or 2 for gray."""
    return np.repeat(array[..., :1], 3, 2) if array.shape[2] < 3 else array[..., :3]
