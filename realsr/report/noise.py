"""The part of a page that shows a noise pool: tiles, and what was rejected of each photo, and why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from realsr.entries import Entry
from realsr.noise import NoiseRule, TileStatistics, rejections
from realsr.pictures import noise_picture
from realsr.report.page import Html, bullets, element, picture, prose, table
from realsr.report.parts import Problems, count, read_pool, settings_of, settings_part, skipped_part

SHOWN = 48  # tiles with pictures
OPTIONS = {
    "too much variance": ("max_variance", "variance"),
    "too dark": ("min_mean", "mean"),
    "clipped": ("max_clipped", "clipped"),
    "structure": ("max_structure", "structure"),
    "stripes": ("max_direction", "direction"),
    "block edges": ("max_blockiness", "blockiness"),
}


@dataclass(frozen=True)
class _Tiles:
    """What a row says of a photo's tiles; ``kept`` in the rule's way, ``added`` by ``keep_best``."""

    path: Path
    photo: str
    looked_at: int
    kept: int
    added: int
    rejected: dict[str, int]
    seen: dict[str, npt.NDArray[np.float64]]  # statistics of the tiles that are in the pool
    rule: NoiseRule
    settings: str


def noise_part(folder: Path) -> Iterator[Html]:
    """What to know of the noise pool in a folder, which may be missing."""
    found, skipped = read_pool(folder, _tiles)
    yield element("h2", "Noise")
    if not found and not skipped:
        yield element("p", prose("There is none yet: `python -m realsr.collect` cuts it out."))
        return
    total, gave = sum(tiles.kept + tiles.added for tiles in found), sum(tiles.kept + tiles.added > 0 for tiles in found)
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
    rule = found[0].rule if len({tiles.rule for tiles in found}) == 1 else None
    yield element("h3", "What was rejected, and the option that changes it")
    rows = []
    for reason, (option, statistic) in OPTIONS.items():
        bound = "differs" if rule is None else getattr(rule, option)
        values = np.concatenate([tiles.seen[statistic] for tiles in found])
        have = f"{values.min():.2f} / {np.median(values):.2f} / {values.max():.2f}" if len(values) else ""
        rejected = sum(tiles.rejected[reason] for tiles in found)
        given = "not looked at" if bound is None else bound
        rows.append((reason, rejected, element("code", f"collector.{option}"), given, have))
    yield table(("reason", "tiles", "option", "its value", "kept: least / median / most"), rows, "numbers")
    added = sum(tiles.added for tiles in found)
    yield bullets(
        prose(line)
        for line in (
            "`collector.keep_best=N` fills up to N with the flattest others where the rule gives fewer: "
            f"{count(added, 'tile')} of this pool.",
            "`collector=strict` rejects for all of these reasons; `collector=df2k` and `dped` are the "
            "authors' rules. `python -m realsr.collect` makes the pool anew.",
            "A tile has one reason, the first that applies. Variance and brightness are of the gray tile, in 8-bit "
            "levels.",
        )
    )
    yield element("h3", "Every photo")
    head = ("photo", "tiles", "kept", "added", *OPTIONS, "noise level", "brightness")
    yield table(head, (_tile_row(tiles) for tiles in found), "numbers")


def _tile_row(tiles: _Tiles) -> tuple[object, ...]:
    level = bright = ""
    if len(tiles.seen["variance"]):
        level = f"{math.sqrt(tiles.seen['variance'].mean()):.1f}"
        bright = f"{tiles.seen['mean'].min():.0f} to {tiles.seen['mean'].max():.0f}"
    rejected = (tiles.rejected[reason] for reason in OPTIONS)
    return tiles.photo, tiles.looked_at, tiles.kept, tiles.added, *rejected, level, bright


def _tiles(entry: Entry, problems: Problems) -> list[_Tiles]:
    """An entry's, or nothing and one problem more. What earlier versions did not look at is 0."""
    arrays, settings = entry.arrays, entry.manifest.get("settings", {})
    if not {"tiles", "kept", "corner", "variance", "mean"} <= set(arrays):
        problems.append((entry.path.name, "is not of realsr.collect: what was rejected is not known"))
        return []
    kept = arrays["kept"].astype(bool)
    zeros = np.zeros(len(kept))
    statistics = TileStatistics(**{field.name: arrays.get(field.name, zeros) for field in fields(TileStatistics)})
    rule = NoiseRule(**{field.name: settings[field.name] for field in fields(NoiseRule) if field.name in settings})
    reasons = rejections(statistics, rule)
    passed = ~np.any(list(reasons.values()), axis=0)
    return [
        _Tiles(
            entry.path,
            str(entry.manifest.get("photo", entry.path.stem)),
            len(kept),
            int((kept & passed).sum()),
            int((kept & ~passed).sum()),
            {reason: int((mask & ~kept).sum()) for reason, mask in reasons.items()},
            {name: getattr(statistics, name)[kept] for _, name in OPTIONS.values()},
            rule,
            settings_of(entry),
        )
    ]


def _tile_pictures(found: Sequence[_Tiles], total: int) -> Iterator[Html]:
    """An even choice of all tiles."""
    wanted = np.linspace(0, total - 1, min(SHOWN, total)).round().astype(int)
    first = 0
    for tiles in found:
        mine = wanted[(wanted >= first) & (wanted < first + tiles.kept + tiles.added)] - first
        first += tiles.kept + tiles.added
        if len(mine):
            for tile in Entry.read(tiles.path).arrays["tiles"][mine]:
                yield picture(noise_picture(tile, 96), tiles.photo, photo=True)
