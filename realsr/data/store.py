"""Decoded HR images on disk, memory-mapped: a crop then reads its own pixels instead of decoding a whole photo."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from realsr.errors import InputError
from realsr.images import Photo, atomic_write, image_size, read_image, to_float, to_uint
from realsr.resample import imresize

log = logging.getLogger(__name__)


def prepare_hr(photos: Sequence[Path], folder: Path, factor: float, min_size: int) -> None:
    """Write ``(H, W, 3)`` uint8 ``.npy`` files for the photos that have none yet.

    Args:
        photos: image files.
        folder: of the store; a file's name holds its photo's path, size and time, so changed photos are redone.
        factor: 0.5 for source photos: bicubic downscaling takes noise and blur away (RealSR, section 3.2);
            1 for clean photos.
        min_size: photos whose result is smaller than this on a side are left out, with a warning.

    Raises:
        InputError: the disk has no room for what is missing.
    """
    todo: list[tuple[Path, Path]] = []
    small: list[str] = []
    damaged: list[str] = []
    need = 0
    for photo in photos:
        try:
            height, width = (math.ceil(side * factor) for side in image_size(photo))
        except InputError as e:
            damaged.append(str(e))
            continue
        target = _target(photo, folder, factor)
        if min(height, width) < min_size:
            small.append(photo.name)
        elif not target.exists():
            todo.append((photo, target))
            need += height * width * 3
    _check_room(folder, need)
    for photo, target in track(todo, "decoding HR images", disable=len(todo) < 2):
        try:
            _store(read_image(photo), target, factor)
        except InputError as e:
            damaged.append(str(e))
    if damaged:
        log.warning("skipped %d of %d photos that cannot be read: %s", len(damaged), len(photos), "; ".join(damaged))
    if small:
        names = ", ".join(small[:5]) + (", ..." if len(small) > 5 else "")
        scaled = "" if factor == 1 else f" once scaled by {factor:g}"
        message = "skipped %d of %d photos, smaller than the crop of %d pixels%s: %s"
        log.warning(message, len(small), len(photos), min_size, scaled, names)


def stored_hr(photos: Sequence[Path], folder: Path, factor: float, min_size: int) -> list[Path]:
    """The files that :func:`prepare_hr` has made for these photos and that are large enough."""
    targets = [_target(photo, folder, factor) for photo in photos]
    return [t for t in targets if t.exists() and _stored_size(t) >= min_size]


def photo_name(stored: Path) -> str:
    """The photo's name from that of its stored file."""
    return stored.stem.rsplit("-", 2)[0]


def _stored_size(path: Path) -> int:
    """The shorter side of a stored image.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return min(np.load(path, mmap_mode="r").shape[:2])
    except (ValueError, EOFError) as e:
        raise InputError(f"{path}: is damaged ({e}); delete it, it will be made again") from e


def _target(photo: Path, folder: Path, factor: float) -> Path:
    stat = photo.stat()
    key = f"{photo.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    return folder / f"{photo.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}-x{factor:g}.npy"


def _store(photo: Photo, target: Path, factor: float) -> None:
    rgb = photo.rgb
    if factor != 1 or rgb.dtype != np.uint8:
        image = to_float(rgb)
        rgb = to_uint(image if factor == 1 else imresize(image, factor))
    with atomic_write(target) as file:
        np.save(file, rgb)


def _check_room(folder: Path, need: int) -> None:
    if not need:
        return
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    log.info("decoded HR images take %.0f MB in %s", need / 1e6, folder)
    if need > 0.95 * free:
        raise InputError(
            f"{folder}: the decoded HR images need {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "set pool_dir to a larger disk"
        )
