"""Files that are found in place of weights."""

from __future__ import annotations

import zipfile
from pathlib import Path

from realsr.runtime.errors import InputError

MOST_UNPACKED = 10  # times the size of a file; PyTorch packs nothing


def check_content(path: Path) -> None:
    """Raise InputError for a file that is empty, a Git-LFS pointer, a web page, cut off, or much larger unpacked."""
    size, found = path.stat().st_size, ""
    with path.open("rb") as file:
        start = file.read(512)
    if not size:
        found = "it is empty: copy or download it again"
    elif start.startswith(b"version https://git-lfs"):
        found = "it is a Git-LFS pointer to the file: git lfs pull brings that"
    elif start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        found = "it is a web page, not the file behind it: take the address of its download button"
    elif start.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):  # PyTorch's files have an index at their end
        found = f"cut off after {size} bytes: copy or download it again"
    elif start.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MOST_UNPACKED * size + 2**20:
            found = f"it would be unpacked to {unpacked / 1e6:.0f} MB"
    if found:
        raise InputError(f"{path}: is no checkpoint that can be read ({found})")
