"""Files and folders: which are photos, what they are by content, and how they are written whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from realsr.runtime.errors import InputError

log = logging.getLogger(__name__)

SUFFIXES = tuple([".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"])
HEIC = (".heic", ".heif", ".hif")
RAW = (  # of which LibRaw knows cameras
    *(".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    *(".rwl", ".3fr", ".fff", ".iiq", ".mef", ".mos", ".mrw", ".erf", ".kdc", ".dcr", ".x3f"),
)
OTHERS = tuple([".jp2", ".j2k", ".jxl", ".psd", ".exr", ".hdr", ".tga"])  # pictures that are not read
EXTRAS = {  # suffixes of photos that are read where an extra is installed: its name, and the package that it brings
    **dict.fromkeys(HEIC, ("heic", "pillow_heif")),
    **dict.fromkeys(RAW, ("raw", "rawpy")),
}
THUMBNAILS = ("@eaDir", "#recycle", "Thumbs", "_thumbs")  # folders in which storage boxes keep what is no photo
OURS = ("pools", "outputs", "quickstart")  # where the commands write unless they are told otherwise
SHEET = "contact_sheet.png"  # of a pool


def find_images(folder: str | Path) -> list[Path]:
    """All image files under ``folder`` of the kinds that can be read here, sorted by path.

    Recursively; hidden ones are left out, thumbnails of storage boxes, and what the commands have written themselves:
    contact sheets, and what lies in ``pools``, ``outputs`` and ``quickstart`` of the working directory, unless
    ``folder`` does. A line counts pictures of kinds that are not read.

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
        if p.suffix.lower() in (*SUFFIXES, *EXTRAS, *OTHERS)
        and p.name != SHEET
        and p.is_file()
        and not any(part.startswith(".") or part in THUMBNAILS for part in p.relative_to(folder).parts)
        and not any((here / p.relative_to(folder)).is_relative_to(path) for path in ours)
    ]
    unread = Counter(p.suffix.lower() for p in files if p.suffix.lower() in OTHERS or missing_extra(p.suffix.lower()))
    found = [p for p in files if p.suffix.lower() not in unread]
    others = ", ".join(f"{count} {suffix}" for suffix, count in sorted(unread.items()))
    extras = ",".join(sorted({EXTRAS[suffix][0] for suffix in unread if suffix in EXTRAS}))
    mends = [f"pip install 'realsr[{extras}]' reads {'them' if set(unread) <= set(EXTRAS) else 'some of them'}"] * bool(
        extras
    )
    mends += ["save the others as PNG or TIFF"] * any(suffix in OTHERS for suffix in unread)
    left = f"{others}; {', '.join(mends)}"
    if not found:
        but = f" but {left}" if unread else "; give a folder of photos"
        raise InputError(f"{folder}: holds no image ({' '.join(SUFFIXES)}){but}")
    if unread:
        warn_once(f"{folder}: left out {left}")
    return found


def missing_extra(suffix: str) -> str | None:
    """The extra that would have to be installed to read files of a suffix (small letters), or None."""
    name, package = EXTRAS.get(suffix, ("", ""))
    return name if package and not _installed(package) else None


def left_out(folder: Path) -> list[Path]:
    """Where :func:`find_images` does not look, since the commands write there; resolved."""
    here = folder.resolve()
    return [ours for name in OURS if (ours := Path(name).resolve()) not in (here, *here.parents)]


@functools.cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@functools.cache
def warn_once(line: str) -> None:
    """Log a warning, the first time that it is given."""
    log.warning("%s", line)


@functools.cache
def info_once(line: str) -> None:
    """Log a line, the first time that it is given."""
    log.info("%s", line)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under ``path`` whole or not at all: written beside it, then renamed."""
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")  # names have 255 bytes at most
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(name, 0o666 & ~_UMASK)  # noqa: PTH101  (mkstemp makes private files)
        os.replace(name, path)  # noqa: PTH105
    except BaseException as e:
        if name:
            Path(name).unlink(missing_ok=True)
        if isinstance(e, OSError):
            e.filename = str(path)  # a full disk names no file, and the temporary one is nobody's
        raise


def _current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


_UMASK = _current_umask()
