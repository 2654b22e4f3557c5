"""Image files in and out: 8 and 16 bit, gray, alpha, palette, CMYK, EXIF orientation; folders; atomic writes."""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from realsr.errors import InputError
from realsr.images16 import decode_16_bit, encode_16_bit, is_16_bit, turn_upright
from realsr.opening import naming_damage, open_image, orientation_of

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
OTHERS = (".heic", ".heif", ".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf")  # photos, but not read
OURS = ("pools", "outputs", "quickstart")  # where the commands write unless they are told otherwise
SHEET = "contact_sheet.png"  # of a pool


@dataclass(frozen=True)
class Photo:
    """A decoded image file, turned upright.

    Attributes:
        rgb: ``(H, W, 3)`` uint8 or uint16 in RGB order; a gray file is repeated over the three channels.
        alpha: ``(H, W)`` of the same type, or None where the file has none.
        gray: whether the file was gray.
        icc_profile: the embedded profile that describes ``rgb``, or None.
    """

    rgb: npt.NDArray[Any]
    alpha: npt.NDArray[Any] | None = None
    gray: bool = False
    icc_profile: bytes | None = None


def find_images(folder: str | Path) -> list[Path]:
    """All image files under ``folder``, sorted by path.

    Recursively; hidden ones are left out, and what the commands have written themselves: contact sheets, and what
    lies in ``pools``, ``outputs`` and ``quickstart`` of the working directory, unless ``folder`` does.

    Raises:
        InputError: the folder is missing, is a file, or holds no image.
    """
    if not str(folder):
        raise InputError("no photos; the name of their folder is empty, give data.source_dir=DIR")
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder of photos")
    here, ours = folder.resolve(), left_out(folder)
    files = [
        p
        for p in sorted(folder.rglob("*"))
        if p.suffix.lower() in (*SUFFIXES, *OTHERS)
        and p.name != SHEET
        and p.is_file()
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
        and not any((here / p.relative_to(folder)).is_relative_to(path) for path in ours)
    ]
    found = [p for p in files if p.suffix.lower() in SUFFIXES]
    unread = Counter(p.suffix.lower() for p in files if p.suffix.lower() in OTHERS)
    others = ", ".join(f"{count} {suffix}" for suffix, count in sorted(unread.items()))
    convert = "convert photos of other kinds to .jpg or .tif first, as with `magick mogrify -format tif *.heic`"
    if not found:
        but = f" but {others}; {convert}" if unread else "; give a folder of photos"
        raise InputError(f"{folder}: holds no image ({' '.join(SUFFIXES)}){but}")
    if unread:
        _warn_once(f"{folder}: left out {others}; {convert}")
    return found


def left_out(folder: Path) -> list[Path]:
    """Where :func:`find_images` does not look, since the commands write there; resolved."""
    here = folder.resolve()
    return [ours for name in OURS if (ours := Path(name).resolve()) not in (here, *here.parents)]


@functools.cache
def _warn_once(line: str) -> None:
    log.warning("%s", line)


def image_size(path: str | Path) -> tuple[int, int]:
    """``(height, width)`` after EXIF rotation, without decoding the pixels.

    Raises:
        InputError: the file cannot be read as an image.
    """
    with file_header(path) as (image, orientation):
        # Pillow gives TIFFs the size that they have when turned, so those are read from the tags
        tags = getattr(image, "tag_v2", {256: image.width, 257: image.height})
        turned = orientation >= 5  # EXIF orientations 5 to 8 swap the axes
        return (tags[256], tags[257]) if turned else (tags[257], tags[256])


@contextmanager
def file_header(path: str | Path) -> Iterator[tuple[Image.Image, int]]:
    """A file opened but not decoded, and its EXIF orientation, 1 to 8.

    Raises:
        InputError: the file cannot be read as an image.
    """
    path = Path(path)
    with open_image(path) as image, naming_damage(path):
        yield image, orientation_of(image, path)


def read_image(path: str | Path) -> Photo:
    """Decode a file of 8 or 16 bits a channel, whatever its colour mode, and turn it upright.

    Raises:
        InputError: the file is missing, truncated, not an image, or of a kind that has no 8 or 16 bit RGB.
    """
    path = Path(path)
    with open_image(path) as image:
        icc = image.info.get("icc_profile")
        with naming_damage(path):
            if is_16_bit(image):
                return _photo_16_bit(path, image, icc)
            image.load()
            upright = ImageOps.exif_transpose(image)
        if upright.mode in ("F", "I"):
            raise InputError(f"{path}: {upright.mode!r} images have no 8 or 16 bit range; convert it first")
        if upright.mode in ("1", "L") and "transparency" in upright.info:
            upright = upright.convert("LA")
        elif upright.mode in ("P", "PA") or "transparency" in upright.info:
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        if upright.mode in ("CMYK", "LAB"):
            upright, icc = _to_srgb(upright, icc), None
        gray = upright.mode in ("1", "L", "LA", "La")
        alpha = np.asarray(upright.getchannel("A")) if upright.mode in ("LA", "RGBA") else None
        return Photo(np.asarray(upright.convert("RGB")), alpha, gray, icc)


def read_8_bit(path: str | Path) -> npt.NDArray[np.uint8]:
    """The pixels of :func:`read_image`, ``(H, W, 3)``, those of 16 bits rounded to 8."""
    return eight_bit(read_image(path).rgb)


def eight_bit(rgb: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Pixels of 8 or 16 bits ``(H, W, 3)``, those of 16 rounded to 8."""
    return rgb if rgb.dtype == np.uint8 else to_uint(to_float(rgb))


def write_image(path: str | Path, photo: Photo, quality: int = 95) -> None:
    """Write atomically, in the format that the suffix names; gray, alpha, 16 bit and ICC profile are kept.

    16 bit is kept in PNG and TIFF (gray with alpha as RGBA); formats without alpha (JPEG, BMP) drop it, and BMP
    drops the profile.

    Raises:
        InputError: the suffix names no format that can be written.
        OSError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: cannot write {suffix or 'a file without suffix'}; use one of {' '.join(SUFFIXES)}")
    if photo.rgb.dtype == np.uint16 and suffix in (".png", ".tif", ".tiff"):
        data = _encode_16_bit(photo, png=suffix == ".png")
    else:
        data = _encode_8_bit(photo, suffix, quality)
    with atomic_write(path) as file:
        file.write(data)


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


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_hash(rgb: npt.NDArray[Any]) -> str:
    """What pixels ``(H, W, 3)`` are, whatever their file: 16 hexadecimal digits of the SHA-256 of shape and bytes."""
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()[:16]


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under ``path`` whole or not at all: written beside it, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(name, 0o666 & ~_UMASK)  # noqa: PTH101  (mkstemp makes private files)
        os.replace(name, path)  # noqa: PTH105
    except BaseException as e:
        Path(name).unlink(missing_ok=True)
        if isinstance(e, OSError):
            e.filename = str(path)  # a full disk names no file, and the temporary one is nobody's
        raise


def _current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


_UMASK = _current_umask()


def _photo_16_bit(path: Path, image: Image.Image, icc: bytes | None) -> Photo:
    array = decode_16_bit(path)
    if image.format == "PNG":  # TIFFs come upright
        array = turn_upright(array, orientation_of(image, path))
    if array.ndim == 2:
        return Photo(np.repeat(array[..., None], 3, 2), None, True, icc)
    return Photo(array[..., :3].copy(), array[..., 3].copy() if array.shape[2] == 4 else None, False, icc)


def _encode_16_bit(photo: Photo, png: bool) -> bytes:
    if photo.alpha is not None:
        array = np.dstack([photo.rgb, photo.alpha])
    else:
        array = photo.rgb[..., 1] if photo.gray else photo.rgb
    return encode_16_bit(np.ascontiguousarray(array), png, photo.icc_profile)


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    if icc:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            turned = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if turned is not None:
                return turned
        except ImageCms.PyCMSError:
            pass  # a broken profile: convert as if there were none
    return image.convert("RGB")


def _encode_8_bit(photo: Photo, suffix: str, quality: int) -> bytes:
    image = Image.fromarray(_to_8_bit(photo.rgb))
    if photo.gray:
        image = image.getchannel("G")
    if photo.alpha is not None and suffix not in (".jpg", ".jpeg", ".bmp"):
        image.putalpha(Image.fromarray(_to_8_bit(photo.alpha)))
    options: dict[str, Any] = {"icc_profile": photo.icc_profile} if photo.icc_profile else {}
    if suffix in (".jpg", ".jpeg", ".webp"):
        options["quality"] = quality
    if suffix == ".bmp":
        options = {}
    buffer = io.BytesIO()
    image.save(buffer, format=Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


def _to_8_bit(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return array if array.dtype == np.uint8 else ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
