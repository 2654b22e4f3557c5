"""``python -m realsr.pack input=DIR output=DIR``: photos to a sharded set, for ``data.clean_shards``."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import math
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from rich.progress import track

from realsr import __version__
from realsr.config import check_writable, command
from realsr.data.sharded import INDEX, Shard, webdataset
from realsr.data.store import hr_pixels, size_text
from realsr.data.tiles import Pixels
from realsr.errors import InputError, at_least
from realsr.files import atomic_write, file_hash, find_images
from realsr.filling import remove_leftovers
from realsr.images import image_size
from realsr.resample import resized
from realsr.shards import jobs_here, shard_of
from realsr.workers import default_workers, side_by_side

log = logging.getLogger(__name__)

# Lossless WebP of photos' pixels takes 0.22 of them (60 tiles of 27 photos), PNG 0.33; it decodes in 3.5 ms a tile, PNG
# in 5.5. Raw pixels would decode in 0.1 ms, but a 1 Gbit/s link brings 160 raw tiles a second and 700 WebPs.
COMPRESSED = 0.25
SPARE = 50_000_000  # bytes that are left free


class Rule(NamedTuple):
    """What a set's content depends on besides its photos.

    Attributes:
        factor: by which photos are scaled.
        tile_size: pixels on a side that images are cut to at most.
        min_size: photos whose result is smaller on a side are left out.
        shard_size: MB, about.
    """

    factor: float
    tile_size: int
    min_size: int
    shard_size: float


def pack(photos: Sequence[Path], folder: Path, rule: Rule, share: int = 0, shares: int = 1, workers: int = 1) -> None:
    """Write the shards that are missing, and the index once all are there.

    A shard's name holds a hash of its photos' paths, sizes and times and of the rule: a run that was killed goes on,
    several jobs may write one set, and what has changed is made anew. Each file appears whole or not at all.

    Args:
        photos: image files. They are mixed, so that neighbours in the set are not neighbours in the folder.
        folder: of the set.
        rule: how to cut and scale them.
        share: every ``shares``-th shard from this one on is written here.
        shares: number of jobs.
        workers: processes, a shard at a time each.

    Raises:
        InputError: there is no room, or no photo that can be used.
    """
    webdataset()
    remove_leftovers(folder, ".*.tar.*")
    plan = dict(_plan(photos, rule))
    if not plan:
        raise InputError(f"no photo of {len(photos)} has {rule.min_size} pixels on a side once scaled; lower min_size")
    paths = {name: folder / name for name in plan}
    mine = [paths[name] for name in list(plan)[share::shares] if not paths[name].exists()]
    need = sum(plan[path.name].size for path in mine)
    done = len(plan) - len(mine)
    log.info("%d shards to write, %d are there; about %s in %s", len(mine), done, size_text(need), folder)
    check_writable(folder, SPARE + int(need))
    make = functools.partial(_write, rule=rule)
    with closing(side_by_side(make, [(path, plan[path.name].photos) for path in mine], workers)) as writing:
        for _, skipped in track(writing, "packing", total=len(mine), disable=len(mine) < 2):
            for reason in skipped:
                log.warning("skipped: %s", reason)
    if missing := [path for path in paths.values() if not path.exists()]:
        log.info("%d shards are other jobs' and not written yet; the last job writes %s", len(missing), INDEX)
        return
    shards = [shard for shard in map(_describe, paths.values()) if shard.images]
    if not shards:
        raise InputError(f"none of {len(photos)} photos can be read")
    content = {"realsr": __version__, **rule._asdict(), "shards": [shard._asdict() for shard in shards]}
    with atomic_write(folder / INDEX) as file:
        file.write(json.dumps(content, indent=1).encode())
    total = sum(shard.size for shard in shards)
    log.info("%s: %d images in %d shards, %s", folder, sum(s.images for s in shards), len(shards), size_text(total))


class Planned(NamedTuple):
    """A shard that is to be: its photos, and its size in bytes, about."""

    photos: list[Path]
    size: float


def _plan(photos: Sequence[Path], rule: Rule) -> Iterator[tuple[str, Planned]]:
    """The shards' names and photos: the same for every job, and no photo in two."""
    group: list[Path] = []
    size, count = 0.0, 0
    for number in np.random.default_rng(0).permutation(len(photos)):
        photo = photos[number]
        try:
            height, width = (resized(side, rule.factor) for side in image_size(photo))
        except InputError as e:
            log.warning("skipped: %s", e)
            continue
        if min(height, width) < rule.min_size:
            log.warning("skipped: %s has %dx%d pixels once scaled, min_size=%d", photo, width, height, rule.min_size)
            continue
        group.append(photo)
        size += COMPRESSED * 3 * height * width
        if size >= rule.shard_size * 1e6:
            yield _name(count, group, rule), Planned(group, size)
            group, size, count = [], 0.0, count + 1
    if group:
        yield _name(count, group, rule), Planned(group, size)


def _name(number: int, photos: list[Path], rule: Rule) -> str:
    files = [(str(p.absolute()), p.stat().st_size, p.stat().st_mtime_ns) for p in photos]
    return f"shard-{number:06d}-{hashlib.sha256(repr((files, tuple(rule))).encode()).hexdigest()[:8]}.tar"


def _write(job: tuple[Path, list[Path]], rule: Rule) -> list[str]:
    """Write one shard; gives the reasons for the photos that were left out."""
    path, photos = job
    skipped = []
    rng = np.random.default_rng(0)
    pieces: list[tuple[str, bytes]] = []
    for photo in photos:
        try:
            tiles = cut(hr_pixels(photo, rule.factor), rule.tile_size)
        except InputError as e:
            skipped.append(str(e))
            continue
        key = file_hash(photo)[:12]
        pieces += ((f"{key}-{i}-{t.shape[1]}x{t.shape[0]}", _encode(t)) for i, t in enumerate(tiles))
    with atomic_write(path) as file, webdataset().TarWriter(file, encoder=False, mtime=0) as tar:
        for number in rng.permutation(len(pieces)):
            key, data = pieces[number]
            tar.write({"__key__": f"{number:05d}-{key}", "webp": data})
    return skipped


def cut(image: Pixels, size: int) -> list[Pixels]:
    """An image ``(H, W, 3)`` in pieces as equal as can be, of ``size`` pixels on a side at most."""
    rows = np.array_split(image, math.ceil(image.shape[0] / size), axis=0)
    return [piece for row in rows for piece in np.array_split(row, math.ceil(image.shape[1] / size), axis=1)]


def _encode(image: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "WEBP", lossless=True, quality=0, method=0)
    return buffer.getvalue()


def _describe(path: Path) -> Shard:
    """The index's entry of a shard that is there, from the names in it."""
    try:
        with tarfile.open(path, "r:") as tar:
            names = tar.getnames()
        sides = [int(side) for name in names for side in re.findall(r"-(\d+)x(\d+)\.webp$", name)[0]]
    except (tarfile.TarError, IndexError) as e:
        raise InputError(f"{path}: is damaged ({e}); delete it, it will be made again") from e
    return Shard(path.name, len(names), path.stat().st_size, min(sides, default=0))


def _run(cfg: DictConfig) -> None:
    at_least(1, tile_size=cfg.tile_size, min_size=cfg.min_size, shard_size=cfg.shard_size)
    at_least(0, workers=cfg.workers)
    at_least(2 * cfg.min_size, tile_size=cfg.tile_size)  # pieces have half of it and more
    if not 0 < cfg.factor <= 1:
        raise InputError(f"factor={cfg.factor}: give 1 for clean photos, or what makes the camera's smaller, 0 to 1")
    shard_of([], cfg.shard, cfg.shards)
    workers = cfg.workers or max(default_workers(torch.device("cpu")) // jobs_here(cfg.shards), 1)
    rule = Rule(float(cfg.factor), cfg.tile_size, cfg.min_size, float(cfg.shard_size))
    pack(find_images(cfg.input), Path(cfg.output), rule, cfg.shard, cfg.shards, workers)


main = command("pack", then="the same command goes on")(_run)

if __name__ == "__main__":
    from realsr.pack import main  # by its name, under which workers find its functions

    main()
