"""What the parts of a pool's page have in common."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from realsr.entries import Entry
from realsr.errors import InputError
from realsr.filling import read_skipped
from realsr.report.page import Html, bullets, element, table

Row = TypeVar("Row")
Problems = list[tuple[str, str]]  # names of photos or files, and what is wrong with them


def read_pool(folder: Path, describe: Callable[[Entry, Problems], list[Row]]) -> tuple[list[Row], Problems]:
    """Rows of all entries, and what gave none; memory holds one entry at a time, of pools of thousands too.

    Args:
        folder: of the pool, which may be missing.
        describe: gives the row of an entry, or none and a problem more.
    """
    rows, problems = [], read_skipped(folder)
    for path in sorted(folder.glob("*.npz")):
        try:
            rows += describe(Entry.read(path), problems)
        except InputError as e:
            problems.append((path.name, str(e).removeprefix(f"{path}: ")))
    return rows, problems


def skipped_part(skipped: Problems) -> Iterator[Html]:
    """The photos that gave nothing, and files that could not be read."""
    if skipped:
        yield element("h3", "What gave nothing, and why")
        yield table(("photo or file", "reason"), skipped, "cards")


def settings_of(entry: Entry) -> str:
    """What an entry was made with, as JSON."""
    settings: dict[str, Any] = entry.manifest.get("settings", {})
    version = entry.manifest.get("realsr", "?")
    return json.dumps({**settings, "realsr": version})


def settings_part(settings: Sequence[str]) -> Iterator[Html]:
    """Each setting that entries were made with, and how many were."""
    if settings:
        yield element("h3", "Made with")
        listed = sorted(Counter(settings).items(), key=lambda item: (-item[1], item[0]))
        yield bullets(
            f"{count(number, 'photo')}: " + ", ".join(f"{key}={value}" for key, value in json.loads(text).items())
            for text, number in listed
        )


def count(number: int, what: str) -> str:
    """``1 photo``, ``2 photos``."""
    return f"{number} {what}{'' if number == 1 else 's'}"
