"""``python -m realsr.collect data.source_dir=DIR``: a camera's noise and compression into pools.

Noise is cut out as flat tiles, compression read as the quantisation tables of JPEG files.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.progress import track

from realsr.config import check_writable, command
from realsr.entries import Arrays, Entry
from realsr.errors import InputError
from realsr.files import find_images
from realsr.filling import AS_IT_IS, fill_pool
from realsr.images import Photo, read_8_bit, write_image
from realsr.jpeg_pool import collect_tables
from realsr.noise import NoiseRule, TileStatistics, cut_tiles, rejections, tile_statistics, unclipped_tiles
from realsr.pictures import contact_sheet, noise_picture
from realsr.pools import NoisePool
from realsr.report.pools import report_pools

log = logging.getLogger(__name__)


def collect_noise(photos: Sequence[Path], folder: Path, rule: NoiseRule, redo: bool = True) -> NoisePool:
    """Fill the noise pool in ``folder`` from the photos, and draw its contact sheet and its page.

    Args:
        photos: of one camera.
        folder: of the pool.
        rule: which tiles to keep.
        redo: whether photos that were collected from by another rule are collected from anew; they are in any case
            where that rule found nothing.

    Raises:
        InputError: no tile qualifies; says which bound is nearest to letting some pass.
    """
    check_writable(folder, otherwise=AS_IT_IS)
    entries: dict[Path, Entry] = {}
    skipped: list[str] = []
    making = fill_pool(folder, photos, dataclasses.asdict(rule), lambda photo: _tiles_of(photo, rule), redo)
    for photo, result in track(making, "collecting noise", total=len(photos)):
        if isinstance(result, str):
            skipped.append(result)
            log.warning("skipped: %s", result)
        else:
            entries[photo] = result
    if not entries:
        report_pools(folder.parent / "kernels", folder)
        raise InputError(f"no noise tile from {len(photos)} photos: {skipped[0]}")
    if any(entry.manifest["settings"] != dataclasses.asdict(rule) for entry in entries.values()):
        if not any(len(entry.arrays["tiles"]) for entry in entries.values()):
            return collect_noise(photos, folder, rule)
        log.info("%s is of another rule or version; python -m realsr.collect makes it anew", folder)
    else:
        _fill_up(entries, rule)
    for photo, entry in entries.items():
        log.info("%s: %d of %d tiles", photo.name, len(entry.arrays["tiles"]), len(entry.arrays["corner"]))
    if not sum(len(entry.arrays["tiles"]) for entry in entries.values()):
        report_pools(folder.parent / "kernels", folder)
        raise InputError(f"no noise tile in {len(photos)} photos ({len(skipped)} skipped): {_advice(entries, rule)}")
    pool = NoisePool.load(folder)
    sheet = contact_sheet(pool.tiles.permute(0, 2, 3, 1).numpy(), noise_picture, pool.photos)
    write_image(folder / "contact_sheet.png", Photo(sheet))
    log.info("%s: %d tiles of %d photos, %d photos skipped", folder, len(pool), len(set(pool.photos)), len(skipped))
    report_pools(folder.parent / "kernels", folder)
    return pool


def _tiles_of(photo: Path, rule: NoiseRule) -> tuple[Arrays, dict[str, Any]]:
    image = read_8_bit(photo)
    statistics = tile_statistics(image, rule.tile_size, rule.stride)
    if not len(statistics.corner):
        raise InputError(f"{photo}: smaller than a tile of {rule.tile_size} pixels; lower collector.tile_size")
    kept = ~np.any(list(rejections(statistics, rule).values()), axis=0)
    tiles = cut_tiles(image, statistics.corner[kept], rule.tile_size)
    return {"tiles": tiles, "kept": kept, **dataclasses.asdict(statistics)}, {}


def _fill_up(entries: dict[Path, Entry], rule: NoiseRule) -> None:
    """Add the flattest tiles of all photos until there are ``keep_best``."""
    missing = rule.keep_best - sum(len(entry.arrays["tiles"]) for entry in entries.values())
    candidates = [
        (float(statistics.variance[index]), photo, int(index))
        for photo, entry in entries.items()
        for statistics in [_statistics(entry)]
        for index in np.flatnonzero(unclipped_tiles(statistics) & ~entry.arrays["kept"])
    ]
    chosen = sorted(candidates)[: max(missing, 0)]
    for photo in {photo for _, photo, _ in chosen}:
        entry = entries[photo]
        entry.arrays["kept"][[index for _, other, index in chosen if other == photo]] = True
        corners = entry.arrays["corner"][entry.arrays["kept"]]
        entry.arrays["tiles"] = cut_tiles(read_8_bit(photo), corners, rule.tile_size)
        entry.write()
    if chosen:
        log.info(
            "the rule gave too few: added the %d flattest tiles, variance up to %.1f",
            len(chosen),
            chosen[-1][0],
        )


def _advice(entries: dict[Path, Entry], rule: NoiseRule) -> str:
    """Which bound to move, by how much."""
    variance = np.concatenate([entry.arrays["variance"] for entry in entries.values()])
    mean = np.concatenate([entry.arrays["mean"] for entry in entries.values()])
    if not mean.max():
        return "the photos are black; give photos with something in them"
    dark = variance[(variance < rule.max_variance) & (mean <= rule.min_mean)]
    if len(dark):
        brightest = float(mean[variance < rule.max_variance].max())
        return (
            f"{len(dark)} tiles are flat enough but too dark, the brightest has mean {brightest:.1f}; "
            f"lower collector.min_mean from {rule.min_mean:g}"
        )
    flat = (variance < rule.max_variance) & (mean > rule.min_mean)
    if flat.any():
        least = {
            f"collector.max_{name}": np.concatenate([entry.arrays[name] for entry in entries.values()])[flat].min()
            for name in ("clipped", "structure", "direction", "blockiness")
            if getattr(rule, f"max_{name}") is not None
        }
        bounds = ", ".join(f"{name} (the least that one has is {value:.2f})" for name, value in least.items())
        return f"{flat.sum()} tiles are flat and bright enough but show more than noise, or less; raise {bounds}"
    nearest = np.sort(variance[mean > rule.min_mean])[:3]
    if not len(nearest):
        return f"no tile has a mean over {rule.min_mean:g}, the photos are black; lower collector.min_mean"
    return (
        f"the flattest have variance {', '.join(f'{v:.1f}' for v in nearest)}; raise collector.max_variance from "
        f"{rule.max_variance:g}, lower collector.tile_size from {rule.tile_size}, or set collector.keep_best=50"
    )


def _statistics(entry: Entry) -> TileStatistics:
    return TileStatistics(**{field.name: entry.arrays[field.name] for field in dataclasses.fields(TileStatistics)})


def _run(cfg: DictConfig) -> None:
    photos = find_images(cfg.data.source_dir)
    collect_tables(photos, Path(cfg.pool_dir) / "jpeg")
    collect_noise(photos, Path(cfg.pool_dir) / "noise", instantiate(cfg.collector))


main = command("collect", then="the same command goes on")(_run)

if __name__ == "__main__":
    main()
