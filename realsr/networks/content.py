"""Files that stand in place of weights and are something else."""

from __future__ import annotations

import zipfile
from pathlib import Path

from realsr.runtime.errors import InputError

MOST_UNPACKED = 10  # times the size of a file; PyTorch packs nothing


def check_content(path: Path) -> None:
    """Refuse a file that is no weights at all, or not all of them, before a reader fails at it in words of its own.

    Raises:
        InputError: it is empty, a Git-LFS pointer, a saved web page, cut off, or would be far larger in memory.
    """
    if what := _something_else(path):
        raise InputError(f"{path}: is no checkpoint that can be read ({what})")


def _something_else(path: Path) -> str:
    """What a file is in place of weights, and the way out; nothing if it may be what it should be."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not size:
        return "it is empty: copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git-LFS pointer to the file: git lfs pull brings that"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, not the file behind it: take the address of its download button"
    cut = f"cut off after {size} bytes: copy or download it again"
    if start.startswith(b"PK\x03\x04"):  # as PyTorch writes them, their index at the end
        return _packed(path, size) if zipfile.is_zipfile(path) else cut
    return cut if path.suffix == ".safetensors" and not _is_whole(start, size) else ""


def _is_whole(start: bytes, size: int) -> bool:
    """Whether a .safetensors file has at least the header that its first eight bytes tell the length of."""
    return 8 + int.from_bytes(start[:8], "little") <= size


def _packed(path: Path, size: int) -> str:
    with zipfile.ZipFile(path) as file:
        unpacked = sum(entry.file_size for entry in file.infolist())
    return f"it would be unpacked to {unpacked / 1e6:.0f} MB" if unpacked > MOST_UNPACKED * size + 2**20 else ""
