"""Decoded HR images on disk, once for all runs: named by what they are made of, never half written."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy.typing as npt
from rich.progress import track

from realsr.data.tiles import TILE, Pixels, TiledImage, write_tiles
from realsr.errors import InputError
from realsr.files import atomic_write, file_hash
from realsr.filling import remove_leftovers
from realsr.images import content_hash, image_size, read_8_bit, read_image, to_float, to_uint
from realsr.images.encoding import eight_bit
from realsr.resample import imresize, resized
from realsr.workers import side_by_side

log = logging.getLogger(__name__)

INDEX = "index.json"
CONTENTS = "contents.txt"  # a line for each photo: 32 digits of its file's SHA-256, its content's hash
DIGITS = 32  # of a photo's SHA-256 that stand for it
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
    unknown: list[Path] = []  # content of images that an earlier version has stored
    known = _read_contents(folder)
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
            elif identity.sha256[:DIGITS] not in known:
                unknown.append(photo)
        if small:
            names = ", ".join(small[:5]) + (", ..." if len(small) > 5 else "")
            scaled = "" if factor == 1 else f" once scaled by {factor:g}"
            message = "skipped %d of %d photos, smaller than the crop of %d pixels%s: %s"
            log.warning(message, len(small), len(photos), min_size, scaled, names)
    if todo:
        _check_room(folder, sum(math.prod(image.shape) for _, image, _ in todo.values()), len(todo), limit)
    for _, (content, error) in _each(_store, list(todo.values()), workers, "decoding HR images"):
        damaged += [error] if error else []
        _add_contents(folder, content)
    photo_contents(unknown, folder, workers)
    if damaged:
        count = sum(len(photos) for photos, _ in sets)
        log.warning("skipped %d of %d photos that cannot be read: %s", len(damaged), count, "; ".join(damaged))


def stored_hr(photos: Sequence[Path], folder: Path, factor: float, min_size: int) -> list[TiledImage]:
    """The images that :func:`prepare_hr` has made of these photos and that are large enough."""
    found = _identify(photos, folder, 1).items()
    images = [_image(folder, photo, identity, factor) for photo, identity in found if isinstance(identity, Identity)]
    images = [image for image in images if min(image.height, image.width) >= min_size and image.whole]
    known = _read_contents(folder)
    # where it is not known what the pixels are, the bytes of the file are compared
    return [replace(image, content=known.get(key := image.path.name[:DIGITS], key)) for image in images]


def photo_contents(photos: Sequence[Path], folder: Path, workers: int = 1) -> dict[Path, str]:
    """The :func:`realsr.images.content_hash` of photos' 8-bit pixels, upright; decoded are those that are new only.

    Equal pixels have equal hashes, in files of any name and lossless format. Photos that cannot be read are left out.

    Args:
        photos: image files.
        folder: of the store, which keeps what was found.
        workers: processes.
    """
    found = _identify(photos, folder, workers).items()
    keys = {photo: identity.sha256[:DIGITS] for photo, identity in found if isinstance(identity, Identity)}
    known = _read_contents(folder)
    new = {key: photo for photo, key in keys.items() if key not in known}
    for _, content in _each(_content, list(new.values()), workers, "hashing pixels"):
        _add_contents(folder, content)
        known |= content
    return {photo: known[key] for photo, key in keys.items() if key in known}


def _image(folder: Path, photo: Path, identity: Identity, factor: float) -> TiledImage:
    """Where a photo's image is, or is to be."""
    height, width = (resized(side, factor) for side in (identity.height, identity.width))
    name = f"{identity.sha256[:DIGITS]}-x{factor:g}-{height}x{width}-t{TILE}.tiles"
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


def _read_contents(folder: Path) -> dict[str, str]:
    """Contents by the beginning of the file's SHA-256; a line that was cut off only costs that it is made again."""
    try:
        text = (folder / CONTENTS).read_text("ascii", "replace")
    except OSError:
        return {}
    return dict(re.findall(rf"^([0-9a-f]{{{DIGITS}}}) ([0-9a-f]{{16}})$", text, re.MULTILINE))


def _add_contents(folder: Path, content: dict[str, str]) -> None:
    """Added to the end, so that of several programs none loses a line; nor to one that was cut off."""
    if content:
        with (folder / CONTENTS).open("a", encoding="ascii") as file:
            file.write("".join(f"\n{key} {value}" for key, value in content.items()))


def _content(photo: Path) -> dict[str, str]:
    """A photo's content by its file's hash; nothing where it cannot be read."""
    try:
        return {file_hash(photo)[:DIGITS]: content_hash(read_8_bit(photo))}
    except InputError:
        return {}


def hr_pixels(photo: Path, factor: float) -> Pixels:
    """The HR image that a photo becomes, ``(H, W, 3)`` uint8.

    Raises:
        InputError: it cannot be read.
    """
    return scaled(read_image(photo).rgb, factor)


def scaled(rgb: npt.NDArray[Any], factor: float) -> Pixels:
    """Pixels of 8 or 16 bits ``(H, W, 3)`` as an HR image: scaled by ``factor``, uint8."""
    return eight_bit(rgb) if factor == 1 else to_uint(imresize(to_float(rgb), factor))


def _store(job: tuple[Path, TiledImage, float]) -> tuple[dict[str, str], str | None]:
    """Decode a photo into its image; gives its content by its file's hash, or the reason where that fails."""
    photo, image, factor = job
    try:
        pixels = read_image(photo).rgb
    except InputError as e:
        return {}, str(e)
    rgb, digest = scaled(pixels, factor), file_hash(photo)[:DIGITS]
    if rgb.shape != image.shape or not image.path.name.startswith(digest):
        return {}, f"{photo}: has changed while it was read"
    write_tiles(image.path, rgb)
    return {digest: content_hash(eight_bit(pixels))}, None


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
