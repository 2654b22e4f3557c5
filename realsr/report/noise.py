"""The part of a page that shows a noise pool: tiles, and what was rejected of each photo, and why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from realsr.entries import Entry
from realsr.noise import IN_POOL, REASONS, count_reasons, in_pool
from realsr.pictures import noise_picture
from realsr.report.page import Html, bullets, element, picture, prose, table
from realsr.report.parts import Problems, count, read_pool, settings_of, settings_part, skipped_part

SHOWN = 48  # tiles with pictures


@dataclass(frozen=True)
class _Tiles:
    """What a row says of a photo's tiles: how many have each reason, and what those in the pool are like."""

    path: Path
    photo: str
    counts: dict[str, int]
    variance: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    settings: str

    @property
    def taken(self) -> int:
        """How many are in the pool."""
        return sum(self.counts[name] for name in IN_POOL)


def noise_part(folder: Path) -> Iterator[Html]:
    """What to know of the noise pool in a folder, which may be missing."""
    found, skipped = read_pool(folder, _tiles)
    yield element("h2", "Noise")
    if not found and not skipped:
        yield element("p", prose("There is none yet: `python -m realsr.collect` cuts it out."))
        return
    total, gave = sum(tiles.taken for tiles in found), sum(tiles.taken > 0 for tiles in found)
    yield element(
        "p",
        f"{count(total, 'tile')} of {count(gave, 'photo')}; {count(len(found) - gave, 'photo')} without one, "
        f"{count(len(skipped), 'photo')} not usable.",
    )
    if found:
        yield element("p", "Tiles without their mean, four times as strong; scenes and blocks should not be seen:")
        yield element("div", *_tile_pictures(found, total), class_="strip")
        yield from _noise_tables(found)
    yield from skipped_part(skipped)
    yield from settings_part([tiles.settings for tiles in found])


def _noise_tables(found: Sequence[_Tiles]) -> Iterator[Html]:
    totals = {name: sum(tiles.counts[name] for tiles in found) for name in REASONS}
    shown = [name for name in REASONS if name and totals[name]]
    yield element("h3", "What was rejected, and why")
    yield table(("reason", "tiles", "what it says"), ((n, totals[n], prose(REASONS[n])) for n in shown), "numbers")
    yield bullets(
        prose(line)
        for line in (
            "A tile has one reason, the first that applies.",
            "`collector=auto` finds out what the camera's noise is, `df2k` and `dped` are the paper's rules; "
            "`python -m realsr.collect` makes the pool anew.",
        )
    )
    yield element("h3", "Every photo")
    head = ("photo", "tiles", "taken", *shown, "noise level", "brightness")
    yield table(head, (_tile_row(tiles, shown) for tiles in found), "numbers")


def _tile_row(tiles: _Tiles, shown: Sequence[str]) -> tuple[object, ...]:
    level = bright = ""
    if tiles.taken:
        level = f"{math.sqrt(tiles.variance.mean()):.1f}"
        bright = f"{tiles.mean.min():.0f} to {tiles.mean.max():.0f}"
    counts = (tiles.counts[name] for name in shown)
    return tiles.photo, sum(tiles.counts.values()), tiles.taken, *counts, level, bright


def _tiles(entry: Entry, problems: Problems) -> list[_Tiles]:
    """An entry's, or nothing and one problem more."""
    arrays = entry.arrays
    if not {"tiles", "reason", "mean", "detrended"} <= set(arrays):
        problems.append((entry.path.name, "is not of this version of realsr.collect: what was rejected is not known"))
        return []
    taken = in_pool(arrays["reason"])
    if taken.sum() != len(arrays["tiles"]):  # realsr.collect is at work, was interrupted, or kept another rule's tiles
        problems.append((entry.path.name, "its tiles are not chosen yet: python -m realsr.collect goes on"))
        return []
    return [
        _Tiles(
            entry.path,
            str(entry.manifest.get("photo", entry.path.stem)),
            count_reasons(arrays["reason"]),
            arrays["detrended"][taken],
            arrays["mean"][taken],
            settings_of(entry),
        )
    ]


def _tile_pictures(found: Sequence[_Tiles], total: int) -> Iterator[Html]:
    """An even choice of all tiles."""
    wanted = np.linspace(0, total - 1, min(SHOWN, total)).round().astype(int)
    first = 0
    for tiles in found:
        mine = wanted[(wanted >= first) & (wanted < first + tiles.taken)] - first
        first += tiles.taken
        if len(mine):
            for tile in Entry.read(tiles.path).arrays["tiles"][mine]:
                yield picture(noise_picture(tile, 96), tiles.photo, photo=True)
