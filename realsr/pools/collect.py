"""Fill a noise pool from photos: their flat tiles that show noise and nothing else."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from realsr.estimation import noise
from realsr.imaging import read_8_bit
from realsr.imaging.camera_models import tell_cameras
from realsr.pools.builder import AS_IT_IS, fill_pool, shows_all
from realsr.pools.folder import Arrays, Entry
from realsr.pools.pool import NoisePool
from realsr.pools.pool_report import report_pools
from realsr.reports.pictures import contact_sheet, noise_picture, save
from realsr.runtime.errors import InputError, counted
from realsr.runtime.files import SHEET, check_writable

log = logging.getLogger(__name__)


class NoNoiseError(InputError):
    """No photo gave a tile of noise."""


def collect_noise(photos: Sequence[Path], folder: Path, rule: noise.TileRule, redo: bool = True) -> NoisePool:
    """Fill the noise pool in ``folder`` from the photos, and draw its contact sheet and its page.

    With ``redo=False`` pictures that show all of it stay.

    First the tiles of every photo are measured, and the statistics are kept in the pool. Then the tiles of all photos
    together decide by the ``rule`` which of them are noise; as photos are added, tiles are chosen again from the kept
    statistics. Photos that another rule collected from are collected from anew, unless ``redo=False``, and in any case
    where that rule found nothing or an earlier version measured less.

    Raises:
        NoNoiseError: no tile is taken; names the reasons and a remedy.
    """
    check_writable(folder, otherwise=AS_IT_IS)
    tell_cameras(photos)
    settings = {**dataclasses.asdict(rule), "statistics": noise.STATISTICS}
    found: dict[Path, tuple[Path, noise.TileStatistics]] = {}
    skipped: list[str] = []
    others: dict[Path, int] = {}  # tiles of photos that another rule collected from
    earlier = False
    making = fill_pool(folder, photos, settings, functools.partial(_measured, rule=rule), redo)
    for photo, result in track(making, "collecting noise", total=len(photos)):
        if isinstance(result, str):
            skipped.append(result)
            log.warning("skipped: %s", result)
        elif result.settings == settings:
            tiles = noise.TileStatistics.of(result.arrays)
            found[photo] = result.path, tiles.where(rule.candidates(tiles))
        else:
            others[photo] = len(result.arrays["tiles"])
            earlier |= result.settings.get("statistics") != noise.STATISTICS
    report = functools.partial(report_pools, folder.parent / "kernels", folder, redo)
    if not found and not others:
        report()
        raise NoNoiseError(f"no noise tile from {counted(len(photos), 'photo')}: {skipped[0]}")
    if others:
        if earlier:
            log.warning("%s: is of an earlier version, which looked at less; it is made anew", folder)
        if earlier or not any(others.values()):
            return collect_noise(photos, folder, rule)
        log.info("%s is of another rule; python -m realsr.collect makes it anew", folder)
    else:
        rejected = _choose(found, rule)
        if not any(rejected[name] for name in noise.IN_POOL):
            report()
            many = f"{counted(len(photos), 'photo')} ({len(skipped)} skipped)"
            raise NoNoiseError(f"no noise tile in {many}: {rule.advice(rejected)}")
    pool = NoisePool.load(folder)
    if redo or not shows_all(folder / SHEET, folder):
        save(folder / SHEET, contact_sheet(pool.tiles.permute(0, 2, 3, 1).numpy(), noise_picture, pool.photos))
    photos_of = counted(len(set(pool.photos)), "photo"), counted(len(skipped), "photo")
    log.info("%s: %s of %s, %s skipped", folder, counted(len(pool), "tile"), *photos_of)
    report()
    return pool


def _measured(photo: Path, rule: noise.TileRule) -> tuple[Arrays, dict[str, Any]]:
    """The statistics of a photo's tiles; none is chosen yet."""
    image = read_8_bit(photo)
    tiles = noise.tile_statistics(image, rule.tile_size, rule.stride)
    if not len(tiles.corner):
        raise InputError(f"{photo}: smaller than a tile of {rule.tile_size} pixels; lower collector.tile_size")
    none = noise.cut_tiles(image, tiles.corner[:0], rule.tile_size)
    return {"tiles": none, "reason": rule.reasons(tiles), **vars(tiles)}, {}


def _choose(found: Mapping[Path, tuple[Path, noise.TileStatistics]], rule: noise.TileRule) -> dict[str, int]:
    """Put the tiles that the rule chooses into the pool, given each photo's file there and its candidates.

    Returns:
        The number of tiles of all photos by reason, a name in :data:`realsr.estimation.noise.REASONS`.
    """
    total, noiseless = dict.fromkeys(noise.REASONS, 0), 0
    chosen = rule.choose([tiles for _, tiles in found.values()])
    for (photo, (path, tiles)), reasons in zip(found.items(), chosen, strict=True):
        counts = _cut_chosen(photo, path, rule, reasons)
        why = "" if counts[""] else f" ({noise.listed(counts)})"
        taken = sum(counts[name] for name in noise.IN_POOL)
        log.info("%s: %d of %d tiles%s", photo.name, taken, sum(counts.values()), why)
        total = {name: count + counts[name] for name, count in total.items()}
        noiseless += int((noise.in_pool(reasons) & ~noise.shows_noise(tiles)).sum())
    if noiseless:
        log.warning("%d tiles have no noise, they are constant or clipped; collector=auto leaves such out", noiseless)
    return total


def _cut_chosen(photo: Path, path: Path, rule: noise.TileRule, reasons: noise.Reasons) -> dict[str, int]:
    """Cut the chosen tiles of a photo, given the reasons of its candidates, unless its file has them already."""
    entry = Entry.read(path)
    tiles = noise.TileStatistics.of(entry.arrays)
    every = rule.reasons(tiles)
    every[rule.candidates(tiles)] = reasons
    corners = tiles.corner[noise.in_pool(every)]
    if len(entry.arrays["tiles"]) != len(corners) or not np.array_equal(entry.arrays["reason"], every):
        entry.arrays["tiles"] = noise.cut_tiles(read_8_bit(photo), corners, rule.tile_size)
        entry.arrays["reason"] = every
        entry.write()
    return noise.count_reasons(every)
