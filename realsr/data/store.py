"""Decoded HR images on disk, once for all runs: named by what they are made of, never half written."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.progress import track

from realsr.data.tiles import TILE, Pixels, TiledImage, write_tiles
from realsr.errors import InputError
from realsr.filling import remove_leftovers
from realsr.images import atomic_write, file_hash, image_size, read_8_bit, read_image, to_float, to_uint
from realsr.resample import imresize, resized
from realsr.workers import side_by_side

log = logging.getLogger(__name__)

INDEX = "index.json"
Result = TypeVar("Result")


class PhotoSet(NamedTuple):
    """Photos that become HR images in the same way.

    Attributes:
        photos: image files.
        factor: 0.5 for source photos: bicubic downscaling takes noise and blur away (RealSR, section 3.2);
            1 for clean photos.
    """

    photos: Sequence[Path]
    factor: float


class Identity(NamedTuple):
    """What a stored image's name is made of: the photo's SHA-256, height and width."""

    sha256: str
    height: int
    width: int


def prepare_hr(
    sets: Sequence[PhotoSet], folder: Path, min_size: int, limit: float | None = None, workers: int = 1
) -> None:
    """Make the HR images that are missing, side by side; goes on where it was interrupted.

    A file's name holds the hash of its photo's bytes: a photo that was moved or copied is not decoded again, one that
    was changed is. Several programs may fill one folder at the same time.

    Args:
        sets: photos, and what becomes of them.
        folder: of the store.
        min_size: photos whose result is smaller than this on a side are left out, with a warning.
        limit: GB that the folder may hold; None: 95 % of what is free on its disk is used at most.
        workers: processes.

    Raises:
        InputError: there is no room for what is missing; nothing has been decoded then.
    """
    todo: dict[Path, tuple[Path, TiledImage, float]] = {}
    damaged: list[str] = []
    remove_leftovers(folder, ".*.tiles.*")
    for photos, factor in sets:
        small = []
        for photo, identity in _identify(photos, folder, workers).items():
            if isinstance(identity, str):
                damaged.append(identity)
                continue
            image = _image(folder, photo, identity, factor)
            if min(image.height, image.width) < min_size:
                small.append(photo.name)
            elif not image.whole:
                todo[image.path] = photo, image, factor
        if small:
            names = ", ".join(small[:5]) + (", ..." if len(small) > 5 else "")
            scaled = "" if factor == 1 else f" once scaled by {factor:g}"
            message = "skipped %d of %d photos, smaller than the crop of %d pixels%s: %s"
            log.warning(message, len(small), len(photos), min_size, scaled, names)
    if todo:
        _check_room(folder, sum(math.prod(image.shape) for _, image, _ in todo.values()), len(todo), limit)
    damaged += [error for _, error in _each(_store, list(todo.values()), workers, "decoding HR images") if error]
    if damaged:
        count = sum(len(photos) for photos, _ in sets)
        log.warning("skipped %d of %d photos that cannot be read: %s", len(damaged), count, "; ".join(damaged))


def stored_hr(photos: Sequence[Path], folder: Path, factor: float, min_size: int) -> list[TiledImage]:
    """The images that :func:`prepare_hr` has made of these photos and that are large enough."""
    found = _identify(photos, folder, 1).items()
    images = [_image(folder, photo, identity, factor) for photo, identity in found if isinstance(identity, Identity)]
    return [image for image in images if min(image.height, image.width) >= min_size and image.whole]


def _image(folder: Path, photo: Path, identity: Identity, factor: float) -> TiledImage:
    """Where a photo's image is, or is to be."""
    height, width = (resized(side, factor) for side in (identity.height, identity.width))
    name = f"{identity.sha256[:32]}-x{factor:g}-{height}x{width}-t{TILE}.tiles"
    return TiledImage(folder / name, height, width, photo.stem)


def _identify(photos: Sequence[Path], folder: Path, workers: int) -> dict[Path, Identity | str]:
    """What each photo is, or why it cannot be read; from the folder's index where the file is as it was."""
    index = _read_index(folder)
    keys = {photo: _key(photo) for photo in photos}
    known: dict[Path, Identity | str] = {p: Identity(*index[key]) for p, key in keys.items() if key in index}
    new = [photo for photo in photos if photo not in known]
    if new:
        found = dict(_each(_identity, new, workers, "hashing photos"))
        known |= found
        index = _read_index(folder)  # of two programs that write at once, one loses entries, which it hashes once more
        index |= {keys[photo]: [*identity] for photo, identity in found.items() if isinstance(identity, Identity)}
        with atomic_write(folder / INDEX) as file:
            file.write(json.dumps(index, indent=0).encode())
    return {photo: known[photo] for photo in photos}


def _read_index(folder: Path) -> dict[str, Any]:
    """Identities by path, size and time; nothing where the file is missing or damaged, it only saves time."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError):
        return {}
    items = index.items() if isinstance(index, dict) else ()
    return {k: v for k, v in items if isinstance(v, list) and [*map(type, v)] == [str, int, int]}


def _key(photo: Path) -> str:
    stat = photo.stat()
    return f"{stat.st_size}|{stat.st_mtime_ns}|{os.path.abspath(photo)}"  # noqa: PTH100  (resolve takes ten times as long)


def _identity(photo: Path) -> Identity | str:
    try:
        return Identity(file_hash(photo), *image_size(photo))
    except InputError as e:
        return str(e)


def hr_pixels(photo: Path, factor: float) -> Pixels:
    """The HR image that a photo becomes, ``(H, W, 3)`` uint8.

    Raises:
        InputError: it cannot be read.
    """
    return read_8_bit(photo) if factor == 1 else to_uint(imresize(to_float(read_image(photo).rgb), factor))


def _store(job: tuple[Path, TiledImage, float]) -> str | None:
    """Decode a photo into its image; gives the reason where that fails."""
    photo, image, factor = job
    try:
        rgb = hr_pixels(photo, factor)
    except InputError as e:
        return str(e)
    if rgb.shape != image.shape or not image.path.name.startswith(file_hash(photo)[:32]):
        return f"{photo}: has changed while it was read"
    write_tiles(image.path, rgb)
    return None


def _each(
    function: Callable[[Any], Result], items: Sequence[Any], workers: int, title: str
) -> Iterator[tuple[Any, Result]]:
    """Side by side, with a progress bar where there is more than one item."""
    with closing(side_by_side(function, items, workers)) as results:
        yield from track(results, title, total=len(items), disable=len(items) < 2)


def _check_room(folder: Path, need: int, count: int, limit: float | None) -> None:
    """Say what the images that are missing need, in bytes.

    Raises:
        InputError: it is more than there is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log.info("%d decoded HR images take %s in %s", count, size_text(need), folder)
    free = 0.95 * shutil.disk_usage(folder).free
    if need > free:
        raise InputError(
            f"{folder}: {count} decoded HR images need {size_text(need)}, {size_text(free)} are free; "
            "set pool_dir or data.store_dir to a larger disk, or give fewer photos"
        )
    held = sum(path.stat().st_size for path in folder.glob("*.tiles"))
    if limit is not None and held + need > limit * 1e9:
        raise InputError(
            f"{folder}: {count} decoded HR images need {size_text(need)}, {size_text(held)} are there already, and "
            f"data.store_limit={limit:g} GB; raise it, delete {folder} if it holds other photos, or give fewer photos"
        )


def size_text(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
