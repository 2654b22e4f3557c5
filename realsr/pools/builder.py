"""Fill a pool: existing entries stay, missing ones are made, one for each photo.

A photo that gives nothing leaves ``<photo>-<hash of its path>.skipped.json`` with the reason, until it gives something.
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
from realsr.runtime.files import file_hash, write_file
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
    """Make the missing entries of a pool; each is written, whole, as soon as it is made.

    An entry is current when the photo's hash and the settings in its manifest agree; others are made anew (with
    ``redo=False`` only those of changed photos, and those whose manifest calls them ``doubtful``). Several programs
    may fill one pool at the same time. A renamed photo keeps its entry; only the first copy of a photo counts.
    Entries of photos that are not in ``photos`` stay.

    Args:
        folder: of the pool.
        photos: files to make entries for.
        settings: everything that an entry depends on besides its photo, as plain JSON values.
        make: gives arrays and further manifest fields for a photo, or raises InputError for an unusable one.
        redo: whether entries made with other settings are made anew.
        workers: processes that make entries, see :func:`realsr.runtime.workers.side_by_side`.
        whole: whether these are all photos of the pool, and not a share of them.
        learn: called once, if a photo has no current entry, for knowledge that takes long to gain: gives settings that
            replace those above, by which entries are checked again, and further keywords of ``make``.

    Yields:
        Each photo with its entry, or with the reason why it has none; current entries come first.
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
        if entry and (entry.settings == settings or not (redo or entry.manifest.get("doubtful"))):
            _skipped(folder, photo).unlink(missing_ok=True)
            yield photo, entry
            continue
        missing.append(photo)
        if entry:
            outdated.append(entry.settings)
    known = {digest[:8] for digest in seen}
    if whole and (others := sorted(path.name for path in folder.glob("*.npz") if path.stem[-8:] not in known)):
        names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        message = "%s: %d files are of photos that are not in the folder (any more), and are used; else delete them: %s"
        log.info(message, folder, len(others), names)
    if missing and learn is not None:
        learnt, keywords = learn()
        make = functools.partial(make, **keywords)
        yield from fill_pool(folder, missing, {**settings, **learnt}, make, redo, workers, whole=False)
        return
    if outdated:
        was = outdated[0]
        other = [name for name in {**was, **settings} if was.get(name) != settings.get(name)]
        differences = ", ".join(f"{name}={was.get(name)}, now {settings.get(name)}" for name in other[:3])
        log.info("%s: %d of other settings (%s) are made anew", folder, len(outdated), differences)
    yield from side_by_side(functools.partial(_made, folder, settings, make), missing, workers)


def remove_leftovers(folder: Path, pattern: str, seconds: float = 3600) -> None:
    """Delete files that killed writes left behind; younger files may be another program's, at work."""
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()


def _found(folder: Path, photo: Path, digest: str) -> Entry | None:
    """The entry of a photo, also under the name that the photo had before."""
    path = _path(folder, photo, digest)
    entries = map(Entry.read, [path] if path.exists() else sorted(folder.glob(f"*-{digest[:8]}.npz")))
    return next((entry for entry in entries if entry.manifest.get("sha256") == digest), None)


def _made(folder: Path, settings: dict[str, Any], make: Make, photo: Path) -> Entry | str:
    """The photo's new entry, written, or the reason why it has none."""
    with suppress(OSError):  # of a photo that is gone, which `make` reports
        entry = _found(folder, photo, file_hash(photo))
        if entry is not None and entry.settings == settings:
            return entry  # another program was faster
    reason = None
    try:
        arrays, details = make(photo)
    except InputError as e:
        reason = str(e)
    if reason is not None:  # written here, so that a full disk is not taken for a consequence of the reason
        record = {"photo": photo.name, "reason": reason.removeprefix(f"{photo}: "), "settings": settings}
        write_file(_skipped(folder, photo), json.dumps(record))
        return reason
    digest = file_hash(photo)
    manifest = {"photo": photo.name, "sha256": digest, "settings": settings, "realsr": __version__, **details}
    old = _found(folder, photo, digest)
    entry = Entry(old.path if old else _path(folder, photo, digest), arrays, manifest)
    entry.write()
    _skipped(folder, photo).unlink(missing_ok=True)
    return entry


def shows_all(picture: Path, *folders: Path) -> bool:
    """Whether a file that shows pools is there, and newer than what they hold."""
    paths = [path for folder in folders for kind in ("*.npz", "*.skipped.json") for path in folder.glob(kind)]
    return picture.exists() and all(path.stat().st_mtime_ns <= picture.stat().st_mtime_ns for path in paths)


def read_skipped(folder: Path) -> list[tuple[str, str]]:
    """Name of every photo that gave a pool nothing, and why; files that change meanwhile are left out."""
    found = []
    for path in sorted(folder.glob("*.skipped.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_bytes())
            found.append((str(record["photo"]), str(record["reason"])))
    return found


def _path(folder: Path, photo: Path, digest: str, suffix: str = ".npz") -> Path:
    # a file's name has 255 bytes at most, with room for hash and suffix
    stem = photo.stem if len(os.fsencode(photo.stem)) <= 200 else photo.stem[:50]
    return folder / f"{stem}-{digest[:8]}{suffix}"


def _skipped(folder: Path, photo: Path) -> Path:
    """The file of a skipped photo, by the photo's path: a photo that is mended under its name takes it away."""
    return _path(folder, photo, hashlib.sha256(os.fsencode(photo.resolve())).hexdigest(), ".skipped.json")
