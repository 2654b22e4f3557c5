"""Decoded HR images on disk, once for all runs: named by their photo's content, never half written.

A file stores strips of ``STRIP`` columns one behind the other, so that the rows of a crop lie together: a crop of 160
pixels is 2.2 reads of 140 KB in all. Stored row by row, as in a ``.npy``, it is 960 KB. Measured on photos of 2040x1356
pixels that were in no page cache, a crop took 1.3 ms row by row (5.7 without advice to the kernel) and 0.4 in strips.
"""

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import track

from realsr.imaging import content_hash, image_size, read_image, to_float, to_uint
from realsr.imaging.encoding import eight_bit
from realsr.imaging.resample import imresize, resized_length
from realsr.pools.builder import remove_leftovers
from realsr.runtime.errors import InputError
from realsr.runtime.files import atomic_write, file_hash
from realsr.runtime.workers import side_by_side

log = logging.getLogger(__name__)

STRIP = 128
INDEX = "index.jsonl"  # from size, time and path of a photo's file to half of its SHA-256, height and width

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class StoredImage:
    """A stored image; ``image[y0:y1, x0:x1]`` reads a part of it, ``(y1-y0, x1-x0, 3)`` uint8 RGB.

    Attributes:
        path: of the file.
        shape: ``(height, width, 3)``.
        name: of the photo, for people.
        content: :func:`realsr.imaging.content_hash` of the whole photo, before it was scaled; empty: not stored yet.
    """

    path: Path
    shape: tuple[int, int, int]
    name: str = field(default="", compare=False)
    content: str = field(default="", compare=False)

    def __getitem__(self, cut: tuple[slice, slice]) -> Pixels:
        (top, bottom, _), (left, right, _) = cut[0].indices(self.shape[0]), cut[1].indices(self.shape[1])
        height, first = max(bottom - top, 0), left // STRIP * STRIP
        if not height or left >= right:
            return np.empty((height, max(right - left, 0), 3), np.uint8)
        strips = []
        try:
            with self.path.open("rb", buffering=0) as file:
                for start in range(first, right, STRIP):
                    width = min(STRIP, self.shape[1] - start)
                    file.seek((start * self.shape[0] + top * width) * 3)
                    strips.append(np.frombuffer(file.read(height * width * 3), np.uint8).reshape(height, width, 3))
        except (FileNotFoundError, ValueError) as e:
            raise InputError(f"{self.path}: is gone or damaged; the same command makes it again") from e
        return np.concatenate(strips, axis=1)[:, left - first : right - first]


def write_strips(path: Path, rgb: Pixels) -> None:
    """Write ``(H, W, 3)`` uint8 as a file of :class:`StoredImage`, whole or not at all, even if the machine fails."""
    with atomic_write(path) as file:
        for start in range(0, rgb.shape[1], STRIP):
            file.write(np.ascontiguousarray(rgb[:, start : start + STRIP]).data)
        file.flush()
        os.fsync(file.fileno())


def prepare_hr(sets: Sequence[Any], folder: Path, min_size: int, limit: float | None = None, workers: int = 1) -> None:
    """Make the HR images that are missing, side by side; goes on where it was interrupted.

    A file's name holds the hash of its photo's bytes: a photo that was moved or copied is not decoded again, a changed
    one is. Several programs may fill one folder at the same time. Each of ``sets`` is photos and the factor that they
    are scaled by; those with a side of less than ``min_size`` pixels then are left out, with a warning. The folder may
    hold ``limit`` GB; None: 95 % of its disk's free space is used at most.

    Raises:
        InputError: there is no room for the missing images; nothing has been decoded then.
    """
    todo: dict[Path, tuple[Path, StoredImage, float]] = {}
    damaged: list[str] = []
    remove_leftovers(folder, ".*.strips.*")
    for photos, factor in sets:
        small = []
        for photo, image in _images(photos, folder, factor, workers).items():
            if isinstance(image, str):
                damaged.append(image)
            elif min(image.shape[:2]) < min_size:
                small.append(photo.name)
            elif not image.content:
                todo[image.path] = photo, image, factor
        if small:
            which = f"smaller than the crop of {min_size} pixels once scaled by {factor:g}: {', '.join(small[:5])}"
            log.warning("no HR images of %d of %d photos, %s", len(small), len(photos), which)
    if todo:
        need, count = sum(math.prod(image.shape) for _, image, _ in todo.values()), len(todo)
        free, held = 0.95 * shutil.disk_usage(folder).free, sum(p.stat().st_size for p in folder.glob("*.strips"))
        log.info("%d decoded HR images take %.2g GB in %s", count, need / 1e9, folder)
        if need > free or (limit is not None and held + need > limit * 1e9):
            raise InputError(
                f"{folder}: {count} decoded HR images need {need / 1e9:.2g} GB; {held / 1e9:.2g} GB are there already, "
                f"{free / 1e9:.2g} GB are free, data.photos.store_limit={limit}: set pool_dir or data.photos.store_dir "
                "to a larger disk, raise the limit, delete the folder if it holds other photos, or give fewer photos"
            )
    damaged += [error for _, error in _each(_store, [*todo.values()], workers, "decoding HR images") if error]
    if damaged:
        told = len(damaged), sum(len(photos) for photos, _ in sets), "; ".join(damaged)
        log.warning("skipped %d of %d photos that cannot be read: %s", *told)


def stored_hr(photos: Sequence[Path], folder: Path, factor: float, min_size: int) -> list[StoredImage]:
    """The images of these photos that :func:`prepare_hr` has made and that are large enough."""
    found = _images(photos, folder, factor, 1).values()
    return [i for i in found if isinstance(i, StoredImage) and i.content and min(i.shape[:2]) >= min_size]


def scaled(rgb: Any, factor: float) -> Pixels:
    """An HR image, uint8, of pixels of 8 or 16 bits ``(H, W, 3)``, scaled by ``factor``.

    >>> scaled(np.zeros((8, 6, 3), np.uint16), 0.5).shape
    (4, 3, 3)
    """
    return eight_bit(rgb) if factor == 1 else to_uint(imresize(to_float(rgb), factor))


def _images(photos: Sequence[Path], folder: Path, factor: float, workers: int) -> dict[Path, StoredImage | str]:
    """Each photo's image, or why it cannot be read. A stored image's content hash is read off its file's name."""
    held = {path.stem.rpartition("-")[0]: path for path in folder.glob("*.strips")}
    found: dict[Path, StoredImage | str] = {}
    for photo, identity in _identities(photos, folder, workers).items():
        if isinstance(identity, str):
            found[photo] = identity
            continue
        height, width = (resized_length(side, factor) for side in identity[1:])
        name = f"{identity[0]}-x{factor:g}-{height}x{width}"
        path, content = folder / name, ""
        if name in held and held[name].stat().st_size == height * width * 3:
            path, content = held[name], held[name].stem.rpartition("-")[2]
        found[photo] = StoredImage(path, (height, width, 3), photo.stem, content)
    return found


def _identities(photos: Sequence[Path], folder: Path, workers: int) -> dict[Path, Any]:
    """Hash, height and width of each photo, or why it cannot be read; from the index if the file is unchanged."""
    index: dict[str, Any] = {}
    for line in (folder / INDEX).read_text("utf-8", "replace").splitlines() if (folder / INDEX).exists() else ():
        with suppress(ValueError, TypeError):  # a line that was cut off only costs time
            index |= json.loads(line)
    stats = {photo: photo.stat() for photo in photos}
    keys = {p: f"{s.st_size}|{s.st_mtime_ns}|{os.path.abspath(p)}" for p, s in stats.items()}  # noqa: PTH100  (resolve is slow)
    new = [photo for photo in photos if keys[photo] not in index]
    found = {keys[photo]: what for photo, what in _each(_identity, new, workers, "hashing photos")}
    if known := {key: what for key, what in found.items() if not isinstance(what, str)}:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / INDEX).open("a", encoding="utf-8") as file:  # so that of several programs none loses a line
            file.write(f"\n{json.dumps(known)}")
    index |= found
    return {photo: index[key] for photo, key in keys.items()}


def _identity(photo: Path) -> tuple[str, int, int] | str:
    try:
        return file_hash(photo)[:32], *image_size(photo)
    except InputError as e:
        return str(e)


def _store(job: tuple[Path, StoredImage, float]) -> str | None:
    """Decode a photo into the store; returns the reason where that fails."""
    photo, image, factor = job
    try:
        pixels = read_image(photo).rgb
    except InputError as e:
        return str(e)
    rgb = scaled(pixels, factor)
    if rgb.shape != image.shape or not image.path.name.startswith(file_hash(photo)[:32]):
        return f"{photo}: has changed while it was read"
    write_strips(image.path.with_name(f"{image.path.name}-{content_hash(eight_bit(pixels))}.strips"), rgb)
    return None


def _each(function: Any, items: Sequence[Any], workers: int, title: str) -> Iterator[tuple[Any, Any]]:
    """Items with their results, computed side by side, with a progress bar for more than one."""
    with closing(side_by_side(function, items, workers)) as results:
        yield from track(results, title, total=len(items), disable=len(items) < 2)
