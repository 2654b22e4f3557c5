"""Image files in and out: 8 and 16 bit, gray, alpha, palette, CMYK, EXIF orientation."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageCms
from torch import Tensor

from realsr.errors import InputError
from realsr.files import EXTRAS, HEIC, RAW, missing_extra
from realsr.images.encoding import eight_bit, gathered, write_rows
from realsr.images.exif import clean_exif, mended_exif, orientation_in
from realsr.images.heif import heif_size, read_heif
from realsr.images.opening import MOST_PIXELS, exif_of, naming_damage, open_image, orientation_of
from realsr.images.raw import raw_size, read_raw
from realsr.images.sixteen import decode_16_bit, is_16_bit, turn_upright
from realsr.images.tags import fetch_from

_BAND = 256  # rows that are handed on at once
_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # of HEIC files
_MOST_PROFILE = 8 << 20  # bytes; those of printers have one or two million, a JPEG has room for 16
_TURNS = {  # what undoes an EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Photo:
    """A decoded image file, turned upright.

    Attributes:
        rgb: ``(H, W, 3)`` uint8 or uint16 in RGB order; a gray file is repeated over the three channels.
        alpha: ``(H, W)`` of the same type, or None where the file has none.
        gray: whether the file was gray.
        icc_profile: the embedded profile that describes ``rgb``, or None.
        exif: what the camera says, see :func:`realsr.images.exif.clean_exif`, or None.
    """

    rgb: npt.NDArray[Any]
    alpha: npt.NDArray[Any] | None = None
    gray: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None


def image_size(path: str | Path) -> tuple[int, int]:
    """``(height, width)`` after EXIF rotation, without decoding the pixels.

    Raises:
        InputError: the file cannot be read as an image.
    """
    path = Path(path)
    if extra := _extra_of(path):
        with naming_damage(path):
            return raw_size(path) if extra == "raw" else heif_size(path)
    with file_header(path) as (image, orientation):
        # Pillow gives TIFFs the size that they have when turned, so those are read from the tags
        tags = getattr(image, "tag_v2", {256: image.width, 257: image.height})
        turned = orientation >= 5  # EXIF orientations 5 to 8 swap the axes
        return (tags[256], tags[257]) if turned else (tags[257], tags[256])


@contextlib.contextmanager
def file_header(path: str | Path) -> Iterator[tuple[Image.Image, int]]:
    """A file opened but not decoded, and its EXIF orientation, 1 to 8.

    Raises:
        InputError: the file cannot be read as an image.
    """
    path = Path(path)
    with open_image(path) as image, naming_damage(path):
        with exif_of(image, path) as fetch:
            orientation = orientation_of(image, fetch)
        yield image, orientation


def read_image(path: str | Path, most_pixels: int = MOST_PIXELS) -> Photo:
    """Decode a file of 8 or 16 bits a channel, whatever its colour mode, and turn it upright.

    Args:
        path: of the file.
        most_pixels: larger images are refused before they are decoded; each pixel takes 7 bytes of memory or more.

    Raises:
        InputError: the file is missing, truncated, not an image, larger, an animation, of several pages, or of a kind
            that has no 8 or 16 bit RGB.
    """
    path = Path(path)
    if extra := _extra_of(path):
        with naming_damage(path):
            return _photo_by_extra(path, extra, most_pixels)
    with open_image(path, most_pixels) as image, naming_damage(path):
        with exif_of(image, path) as fetch:
            orientation, exif = orientation_of(image, fetch), clean_exif(fetch)
        icc = image.info.get("icc_profile")
        if not isinstance(icc, bytes) or len(icc) > _MOST_PROFILE:
            icc = None
        if image.format == "TIFF":
            orientation = 1  # decoders turn it
            image.info.pop("xmp", None)  # whose orientation Pillow would follow where EXIF has none
        if is_16_bit(image):
            return _photo_16_bit(turn_upright(decode_16_bit(path), orientation), image, icc, exif)
        image.load()
        return _photo_8_bit(path, image.transpose(_TURNS[orientation]) if orientation > 1 else image, icc, exif)


def photo_of(image: Image.Image) -> Photo:
    """What :func:`read_image` gives of the file, of an image that is open in Pillow; it is turned upright too.

    Raises:
        InputError: it is damaged, or of a mode that has no 8 or 16 bit RGB.
    """
    where = Path(getattr(image, "filename", "") or "image")
    with naming_damage(where):
        image.load()
        fetch = fetch_from(io.BytesIO((image.info.get("exif") or b"").removeprefix(b"Exif\0\0")))
        orientation, exif, icc = orientation_in(fetch), clean_exif(fetch), image.info.get("icc_profile")
        if image.mode.startswith("I;16"):
            array = turn_upright(np.asarray(image).astype(np.uint16), orientation)
            return _photo_16_bit(array, image, icc, exif)
        return _photo_8_bit(where, image.transpose(_TURNS[orientation]) if orientation > 1 else image, icc, exif)


def image_of(bands: Iterable[npt.NDArray[Any]], height: int, width: int, like: Photo) -> Image.Image:
    """Bands as :func:`realsr.images.encoding.write_rows` takes them as an image of Pillow's, of 8 bits."""
    image = gathered(map(eight_bit, bands), height, width)
    described = {"icc_profile": like.icc_profile, "exif": like.exif and mended_exif(like.exif, height, width)}
    image.info |= {key: value for key, value in described.items() if value}
    return image


def read_8_bit(path: str | Path) -> npt.NDArray[np.uint8]:
    """The pixels of :func:`read_image`, ``(H, W, 3)``, those of 16 bits rounded to 8."""
    return eight_bit(read_image(path).rgb)


def write_image(path: str | Path, photo: Photo, quality: int = 95) -> None:
    """Write a photo as :func:`realsr.images.encoding.write_rows` does; all that :class:`Photo` holds is kept.

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
    with contextlib.suppress(OSError), path.open("rb") as file:  # what is wrong, opening it by Pillow says
        head = file.read(12)
        suffix = suffix or (HEIC[0] if head[4:8] == b"ftyp" and head[8:] in _BRANDS else "")
        if missing := missing_extra(suffix):
            raise InputError(f"{path}: cannot be read yet; pip install 'realsr[{missing}]'")
        return EXTRAS[suffix][0] if suffix else ""
    return ""


def _photo_by_extra(path: Path, extra: str, most_pixels: int) -> Photo:
    if extra == "raw":
        array, icc = read_raw(path, most_pixels), None
        with path.open("rb") as file:
            exif = clean_exif(fetch_from(file))
    else:
        array, icc, block = read_heif(path, most_pixels)
        exif = clean_exif(fetch_from(io.BytesIO(block.removeprefix(b"Exif\0\0"))))
    channels = array.shape[2]
    rgb = np.repeat(array[..., :1], 3, 2) if channels < 3 else np.ascontiguousarray(array[..., :3])
    return Photo(rgb, array[..., -1].copy() if channels in (2, 4) else None, channels < 3, icc, exif)


def _photo_16_bit(array: npt.NDArray[np.uint16], image: Image.Image, icc: bytes | None, exif: bytes | None) -> Photo:
    if array.ndim == 2:
        return Photo(np.repeat(array[..., None], 3, 2), None, True, icc, exif)
    alpha = array[..., 3].copy() if array.shape[2] == 4 else None
    return Photo(array[..., :3].copy(), alpha, "LA;16" in str(getattr(image, "tile", "")), icc, exif)


def _photo_8_bit(path: Path, image: Image.Image, icc: bytes | None, exif: bytes | None) -> Photo:
    if image.mode in ("F", "I"):
        raise InputError(f"{path}: {image.mode!r} images have no 8 or 16 bit range; convert it first")
    if image.mode in ("1", "L") and "transparency" in image.info:
        image = image.convert("LA")
    elif image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in ("CMYK", "LAB"):
        image, icc = _to_srgb(image, icc), None
    gray = image.mode in ("1", "L", "LA", "La")
    alpha = np.asarray(image.getchannel("A")) if image.mode in ("LA", "RGBA") else None
    return Photo(np.asarray(image if image.mode == "RGB" else image.convert("RGB")), alpha, gray, icc, exif)


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    if icc:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            turned = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if turned is not None:
                return turned
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile: convert as if there were none
    return image.convert("RGB")
