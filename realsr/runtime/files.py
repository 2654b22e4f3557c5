"""Files and folders: finding photos, hashes, atomic writes."""

import functools
import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from realsr.runtime.errors import InputError

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif")
HEIC = (".heic", ".heif", ".hif")
RAW = (  # that LibRaw reads
    *(".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    *(".rwl", ".3fr", ".fff", ".iiq", ".mef", ".mos", ".mrw", ".erf", ".kdc", ".dcr", ".x3f"),
)
OTHERS = (".jp2", ".j2k", ".jxl", ".psd", ".exr", ".hdr", ".tga")  # pictures that are not read
# of suffixes that need an extra: its name, and its package
EXTRAS = dict.fromkeys(HEIC, ("heic", "pillow_heif")) | dict.fromkeys(RAW, ("raw", "rawpy"))
THUMBNAILS = ("@eaDir", "#recycle", "Thumbs", "_thumbs")  # folders of storage boxes
OURS = ("pools", "outputs", "quickstart")  # where the commands write by default
SHEET = "contact_sheet.png"  # of a pool


def find_images(folder: str | Path) -> list[Path]:
    """All image files below a folder that can be read here, sorted by path.

    It leaves out hidden files, thumbnails of storage boxes, and results of the commands: contact sheets, and folders
    :data:`OURS` of the working directory, unless ``folder`` lies in them. A warning counts pictures of other kinds.

    Raises:
        InputError: the folder is missing, is a file, or holds no image.
    """
    if not str(folder):  # Path("") is the working directory
        raise InputError("no photos; the name of their folder is empty, give data.source_dir=DIR")
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder of photos")
    here, ours = folder.resolve(), left_out(folder)
    found, unread = [], Counter[str]()
    for path in sorted(folder.rglob("*")):
        suffix = path.suffix.lower()
        if suffix not in (*SUFFIXES, *EXTRAS, *OTHERS) or path.name == SHEET or not path.is_file():
            continue
        inside = path.relative_to(folder)
        if any(part.startswith(".") or part in THUMBNAILS for part in inside.parts):
            continue
        if any((here / inside).is_relative_to(left) for left in ours):
            continue
        if suffix in OTHERS or missing_extra(suffix):
            unread[suffix] += 1
        else:
            found.append(path)
    if not found:
        but = f" but {_how_to_read(unread)}" if unread else "; give a folder of photos"
        raise InputError(f"{folder}: holds no image ({' '.join(SUFFIXES)}){but}")
    if unread:
        warn_once(f"{folder}: left out {_how_to_read(unread)}")
    return found


def _how_to_read(unread: Mapping[str, int]) -> str:
    """How many pictures of which suffixes cannot be read, and what helps.

    >>> _how_to_read({".nef": 2, ".psd": 1})
    "2 .nef, 1 .psd; pip install 'realsr[raw]' reads some of them, save the others as PNG or TIFF"
    """
    extras, others = sorted({EXTRAS[suffix][0] for suffix in unread if suffix in EXTRAS}), {*unread} - {*EXTRAS}
    mends = [f"pip install 'realsr[{','.join(extras)}]' reads {'some of them' if others else 'them'}"] if extras else []
    mends += ["save the others as PNG or TIFF"] if others else []
    return f"{', '.join(f'{count} {suffix}' for suffix, count in sorted(unread.items()))}; {', '.join(mends)}"


def missing_extra(suffix: str) -> str | None:
    """The extra to install for files of a suffix (in lower case), or None if they can be read without."""
    name, package = EXTRAS.get(suffix, ("", ""))
    return name if package and not _installed(package) else None


def left_out(folder: Path) -> list[Path]:
    """The folders where commands write, which :func:`find_images` leaves out; resolved."""
    here = folder.resolve()
    return [ours for name in OURS if (ours := Path(name).resolve()) not in (here, *here.parents)]


@functools.cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def check_writable(folder: Path, need_bytes: int = 50_000_000, otherwise: str = "choose another folder") -> None:
    """Make a folder, and check that files can be written into it, before hours are spent.

    Raises:
        InputError: the folder cannot be made or written to (``otherwise`` tells what to do then), or has less than
            ``need_bytes`` free.
    """
    probe = folder / ".write-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # jobs of a sweep probe side by side
    except OSError as e:
        raise InputError(f"{folder}: cannot be written to ({e.strerror}); {otherwise}") from e
    free = shutil.disk_usage(folder).free
    if free < need_bytes:
        raise InputError(f"{folder}: only {free / 1e6:.0f} MB are free, {need_bytes / 1e6:.0f} are needed; make room")


warn_once, info_once = functools.cache(log.warning), functools.cache(log.info)  # a line, the first time that it occurs


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears whole or not at all: it is written beside ``path`` and renamed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder, "new", "a.txt")) as file:
    ...         _ = file.write(b"text")
    ...     Path(folder, "new", "a.txt").read_text()
    'text'
    """
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
            e.filename = str(path)  # which a full disk does not name
        raise


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; bytes of file names in a text that are not UTF-8 become question marks."""
    with atomic_write(path) as file:
        file.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)


_UMASK = os.umask(0)  # which the system only tells when it sets another
os.umask(_UMASK)
