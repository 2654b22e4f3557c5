"""Filling a pool: what is there stays, what is missing is made, each photo for itself.

A photo that gives nothing leaves a ``<photo>-<hash of its path>.skipped.json`` that says why, until it gives something.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from realsr import __version__
from realsr.pools.folder import Arrays, Entry
from realsr.runtime.errors import InputError
from realsr.runtime.files import atomic_write, file_hash
from realsr.runtime.workers import side_by_side

log = logging.getLogger(__name__)

AS_IT_IS = "choose another folder, or train with the pools as they are: data.pools.build=false"

Make = Callable[[Path], tuple[Arrays, dict[str, Any]]]
Learn = Callable[[], tuple[dict[str, Any], dict[str, Any]]]


def fill_pool(
    folder: Path,
    photos: Sequence[Path],
    settings: dict[str, Any],
    make: Make,
    redo: bool = True,
    workers: int = 1,
    whole: bool = True,
    learn: Learn | None = None,
) -> Generator[tuple[Path, Entry | str], None, None]:
    """Make the entries that are missing; each is on disk, whole, as soon as it is made.

    An entry is current when the photo's hash and the settings in its manifest agree; others are made anew (with
    ``redo=False`` only those of changed photos, and those whose manifest calls them ``doubtful``). Several programs
    may fill one pool at the same time. A photo that was renamed keeps its entry, and of copies of a photo the first
    counts. How many entries are made anew is logged, and how many are of other photos; those stay and are drawn.

    Args:
        folder: of the pool.
        photos: files to make entries for.
        settings: all that the entries depend on besides the photo, as plain JSON values.
        make: gives arrays and further manifest fields for a photo, or raises InputError for an unusable one.
        redo: whether entries made with other settings are made anew.
        workers: processes that make entries side by side, see :func:`realsr.runtime.workers.side_by_side`.
        whole: whether these photos are all that the pool is to hold, and not a share of them.
        learn: for what takes long to know. Asked once, if a photo has no current entry: gives settings that take the
            place of those here, by which entries are looked at again, and further keywords of ``make``.

    Yields:
        Each photo with its entry, or with the reason why it has none: first those that are current.
    """
    for pattern in (".*.npz.*", ".*.skipped.json.*"):
        remove_leftovers(folder, pattern)
    settings = json.loads(json.dumps(settings))
    seen: dict[str, Path] = {}
    missing, outdated = [], []
    for photo in photos:
        try:
            digest = file_hash(photo)
        except OSError as e:
            yield photo, f"{photo}: cannot be read ({e.strerror})"
            continue
        if digest in seen:
            yield photo, f"{photo}: is the same photo as {seen[digest]}"
            continue
        seen[digest] = photo
        entry = _found(folder, photo, digest)
        if entry is not None and _is_current(entry, settings, redo):
            _skipped(folder, photo).unlink(missing_ok=True)
            yield photo, entry
            continue
        missing.append(photo)
        outdated += [] if entry is None else [entry]
    if whole:
        _tell_others(folder, {digest[:8] for digest in seen})
    if missing and learn is not None:
        learnt, keywords = learn()
        make = functools.partial(make, **keywords)
        yield from fill_pool(folder, missing, {**settings, **learnt}, make, redo, workers, whole=False)
        return
    if outdated:
        was = _differences(outdated[0].manifest.get("settings", {}), settings)
        log.info("%s: %d of other settings (%s) are made anew", folder, len(outdated), was)
    yield from side_by_side(functools.partial(_made, folder, settings, make), missing, workers)


def remove_leftovers(folder: Path, pattern: str, seconds: float = 3600) -> None:
    """Delete what writes that were killed left behind; younger files may be another program's, at work."""
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()


def _found(folder: Path, photo: Path, digest: str) -> Entry | None:
    """The entry of a photo, also under the name that the photo had before."""
    path = _path(folder, photo, digest)
    for candidate in [path] if path.exists() else sorted(folder.glob(f"*-{digest[:8]}.npz")):
        entry = Entry.read(candidate)
        if entry.manifest.get("sha256") == digest:
            return entry
    return None


def _is_current(entry: Entry, settings: dict[str, Any], redo: bool) -> bool:
    outdated = redo or entry.manifest.get("doubtful", False)
    return entry.manifest.get("settings") == settings or not outdated


def _differences(old: dict[str, Any], new: dict[str, Any], limit: int = 3) -> str:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name}={old.get(name)}, now {new.get(name)}" for name in names[:limit])


def _tell_others(folder: Path, known: set[str], limit: int = 3) -> None:
    """Say which entries are of none of the photos, whose hashes' beginnings are ``known``."""
    others = sorted(path.name for path in folder.glob("*.npz") if path.stem[-8:] not in known)
    if others:
        names = ", ".join(others[:limit]) + (", ..." if len(others) > limit else "")
        message = "%s: %d files are of photos that are not in the folder (any more), and are used; else delete them: %s"
        log.info(message, folder, len(others), names)


def _made(folder: Path, settings: dict[str, Any], make: Make, photo: Path) -> Entry | str:
    """The photo's new entry, written, or the reason why it has none."""
    with suppress(OSError):  # of a photo that is gone, which is told below
        entry = _found(folder, photo, file_hash(photo))
        if entry is not None and entry.manifest.get("settings") == settings:
            return entry  # another program was faster
    reason = None
    try:
        arrays, details = make(photo)
    except InputError as e:
        reason = str(e)
    if reason is not None:  # written here, so that a full disk is not taken for a consequence of the reason
        record = {"photo": photo.name, "reason": reason.removeprefix(f"{photo}: "), "settings": settings}
        with atomic_write(_skipped(folder, photo)) as file:
            file.write(json.dumps(record).encode())
        return reason
    digest = file_hash(photo)
    manifest = {"photo": photo.name, "sha256": digest, "settings": settings, "realsr": __version__, **details}
    old = _found(folder, photo, digest)
    entry = Entry(_path(folder, photo, digest) if old is None else old.path, arrays, manifest)
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
