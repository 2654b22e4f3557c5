"""Filling a pool: what is there stays, what is missing is made, each photo for itself.

A photo that gives nothing leaves a ``<photo>-<hash of its path>.skipped.json`` that says why, until it gives something.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from realsr import __version__
from realsr.entries import Arrays, Entry
from realsr.errors import InputError
from realsr.images import atomic_write, file_hash
from realsr.workers import side_by_side

Make = Callable[[Path], tuple[Arrays, dict[str, Any]]]


def fill_pool(
    folder: Path, photos: Sequence[Path], settings: dict[str, Any], make: Make, redo: bool = True, workers: int = 1
) -> Generator[tuple[Path, Entry | str], None, None]:
    """Make the entries that are missing; each is on disk, whole, as soon as it is made.

    An entry is current when the photo's hash and the settings in its manifest agree; others are made anew (with
    ``redo=False`` only those of changed photos, and those whose manifest calls them ``doubtful``). Several programs
    may fill one pool at the same time.

    Args:
        folder: of the pool.
        photos: files to make entries for.
        settings: all that the entries depend on besides the photo, as plain JSON values.
        make: gives arrays and further manifest fields for a photo, or raises InputError for an unusable one.
        redo: whether entries made with other settings are made anew.
        workers: processes that make entries side by side, see :func:`realsr.workers.side_by_side`.

    Yields:
        Each photo with its entry, or with the reason why it has none: first those that are current.
    """
    for pattern in (".*.npz.*", ".*.skipped.json.*"):
        remove_leftovers(folder, pattern)
    settings = json.loads(json.dumps(settings))
    missing = []
    for photo in photos:
        if (entry := _current(folder, photo, settings, redo)) is not None:
            _skipped(folder, photo).unlink(missing_ok=True)
            yield photo, entry
        else:
            missing.append(photo)
    yield from side_by_side(functools.partial(_made, folder, settings, make), missing, workers)


def remove_leftovers(folder: Path, pattern: str, seconds: float = 3600) -> None:
    """Delete what writes that were killed left behind; younger files may be another program's, at work."""
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()


def _current(folder: Path, photo: Path, settings: dict[str, Any], redo: bool) -> Entry | None:
    digest = file_hash(photo)
    path = _path(folder, photo, digest)
    if not path.exists():
        return None
    entry = Entry.read(path)
    outdated = redo or entry.manifest.get("doubtful", False)
    same_settings = entry.manifest.get("settings") == settings or not outdated
    return entry if entry.manifest.get("sha256") == digest and same_settings else None


def _made(folder: Path, settings: dict[str, Any], make: Make, photo: Path) -> Entry | str:
    """The photo's new entry, written, or the reason why it has none."""
    try:
        arrays, details = make(photo)
    except InputError as e:
        record = {"photo": photo.name, "reason": str(e).removeprefix(f"{photo}: "), "settings": settings}
        with atomic_write(_skipped(folder, photo)) as file:
            file.write(json.dumps(record).encode())
        return str(e)
    digest = file_hash(photo)
    manifest = {"photo": photo.name, "sha256": digest, "settings": settings, "realsr": __version__, **details}
    entry = Entry(_path(folder, photo, digest), arrays, manifest)
    entry.write()
    _skipped(folder, photo).unlink(missing_ok=True)
    return entry


def read_skipped(folder: Path) -> list[tuple[str, str]]:
    """Name of every photo that gave a pool nothing, and why; what others write or remove meanwhile is left out."""
    found = []
    for path in sorted(folder.glob("*.skipped.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_bytes())
            found.append((str(record["photo"]), str(record["reason"])))
    return found


def _path(folder: Path, photo: Path, digest: str) -> Path:
    return folder / f"{_stem(photo)}-{digest[:8]}.npz"


def _skipped(folder: Path, photo: Path) -> Path:
    """By the path, not by the content: a photo that is put right says so in the same place."""
    digest = hashlib.sha256(os.fsencode(photo.resolve())).hexdigest()
    return folder / f"{_stem(photo)}-{digest[:8]}.skipped.json"


def _stem(photo: Path) -> str:
    """So much of the name that a file's name, of 255 bytes at most, has room for what is added."""
    return photo.stem if len(os.fsencode(photo.stem)) <= 200 else photo.stem[:50]
