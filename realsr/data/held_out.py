"""Validation's photos, kernels and noise tiles stay out of training; they are compared by content, not by name.

- Photos are the same if their decoded 8-bit pixels are (:func:`realsr.imaging.content_hash`): a copy under another
  name or in another lossless format, a source photo that training has cleaned up. A photo that was cut, scaled or
  saved anew as JPEG is another one.
- Kernels are the same if they differ by rounding only, noise tiles if their bytes are the same. Tiles without noise,
  such as clipped white, do not count.
- Training draws no kernel and no noise of a photo in ``data.validation.lr``, which a pool knows by its file's SHA-256.
- JPEG tables are not compared: a camera has few, which its photos share.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from realsr.data.folders import PairFiles
from realsr.data.run_pools import PoolFolders, Pools
from realsr.data.store import StoredImage
from realsr.imaging import content_hash, read_8_bit
from realsr.pools.folder import pool_record
from realsr.pools.interchange import is_foreign
from realsr.pools.pool import KernelPool, NoisePool
from realsr.runtime.errors import InputError, counted
from realsr.runtime.files import file_hash

log = logging.getLogger(__name__)

SAME_KERNEL = 1e-6  # distance of two kernels, of which one was saved in another format
KINDS = {"photos": "photo", "kernels": "kernel", "noise": "noise tile"}
Record = dict[str, Any]  # plain containers, for a checkpoint


def refuse_shared(pairs: Sequence[PairFiles], training: Mapping[str, Sequence[StoredImage]]) -> None:
    """Raise InputError if a file of validation cannot be read, or is a training image too.

    ``training`` has the images by the option that gives their folder, as ``data.clean_dir=DIR``.
    """
    contents = {path: content_hash(read_8_bit(path)) for pair in pairs for path in pair.paths}
    known = {image.content: f"{image.name} in {option}" for option, images in training.items() for image in images}
    if shared := [path for path in contents if contents[path] in known]:
        raise InputError(
            f"{shared[0]}: is a training photo as well, {known[contents[shared[0]]]} ({len(shared)} of the "
            f"{len(contents)} files of validation are); training must not see them, take them out of one of the folders"
        )


def keep_apart(
    training: Pools, validation: Pools | None, folders: PoolFolders, lr_photos: Sequence[Path]
) -> tuple[Pools, Record]:
    """Take kernels and noise tiles out of training's pools (in ``folders``) that validation has as well.

    ``validation`` has the pools that its LR is made with; where LR is given it is None, and what was learnt of
    ``lr_photos`` is taken out. If nothing would be left, all stay.

    Returns:
        Training's pools. And by the names ``kernels`` and ``noise`` how many there are in ``training`` and in
        ``validation``, how many were ``left_out``, how many are ``shared`` still, and validation's ``photos``.
    """
    digests = {file_hash(photo) for photo in lr_photos}
    kernels, noise, _ = validation or Pools(None, None, None)
    own = [photos_of(folder, digests) for folder in folders[:2]]
    left_kernels, of_kernels = _apart("kernels", training.kernels, kernels, same_kernels, own[0])
    left_noise, of_noise = _apart("noise tiles", training.noise, noise, same_tiles, own[1])
    return Pools(left_kernels, left_noise, training.jpeg), {"kernels": of_kernels, "noise": of_noise}


def _apart(kind: str, pool: Any, held: Any, same: Any, own: Collection[str]) -> tuple[Any, Record]:
    record: Record = {"training": len(pool or ()), "validation": len(held or ()), "left_out": 0, "shared": 0}
    record["photos"] = sorted({*held.photos}) if held else []
    twins = same(pool, held) if pool and held else []
    out = {*twins, *(i for i, photo in enumerate(pool.photos if pool else ()) if photo in own)}
    if not out:
        return pool, record
    keep = [i for i in range(len(pool)) if i not in out]
    if not keep:
        log.warning("too few %s to hold any out: validation sees those of training", kind)
        return pool, {**record, "shared": len(out)}
    log.warning("%d of %d %s are left out of training: validation has them, or their photos", len(out), len(pool), kind)
    return pool.subset(keep), {**record, "training": len(keep), "left_out": len(out)}


def photos_of(folder: Path | None, digests: set[str]) -> set[str]:
    """Names of the photos in our own pool in ``folder`` whose files have one of these SHA-256."""
    if folder is None or not digests or is_foreign(folder):
        return set()
    record = pool_record(folder)
    files = ((name, {**record["shared"], **file}) for name, file in record["files"].items())
    return {file.get("photo", Path(name).stem) for name, file in files if file.get("sha256") in digests}


def same_kernels(pool: KernelPool, other: KernelPool) -> list[int]:
    """Indices of the kernels that are in the other pool too, but for rounding and zeros around them."""
    size = max(pool.kernels.shape[-1], other.kernels.shape[-1])
    one, two = (
        F.pad(kernels, [(size - kernels.shape[-1]) // 2] * 4).flatten(1).double()  # sizes are odd
        for kernels in (pool.kernels, other.kernels)
    )
    return torch.cdist(one, two).amin(1).lt(SAME_KERNEL).nonzero().flatten().tolist()


def same_tiles(pool: NoisePool, other: NoisePool) -> list[int]:
    """Indices of the tiles that are in the other pool too; tiles without noise are left out."""
    if pool.tiles.shape[1:] != other.tiles.shape[1:]:
        return []
    held = {tile.numpy().tobytes() for tile in other.tiles}
    alike = [i for i, tile in enumerate(pool.tiles) if tile.numpy().tobytes() in held]
    return [i for i in alike if bool((pool.tiles[i] != pool.tiles[i][:, :1, :1]).any())]


def held_out_record(
    training: Sequence[StoredImage], validation: Sequence[str], held: Sequence[StoredImage], pools: Record
) -> Record:
    """The record that a checkpoint keeps under ``held_out``: of training's images, validation's names and their pools.

    To that of :func:`keep_apart` it adds ``photos``, of which images that were ``held`` out may be in training as
    well, and ``seen``, the content hashes of the training photos.
    """
    seen = {image.content for image in training}
    photos = {"training": len(training), "validation": len(validation), "photos": sorted(validation)}
    shared = sum(image.content in seen for image in held)
    return {"photos": {**photos, "shared": shared}, **pools, "seen": sorted(seen)}


def held_out_text(record: Record) -> str:
    """One sentence on a record of :func:`held_out_record`, for the log and for reports.

    >>> record = {kind: {"validation": 2, "shared": 0} for kind in KINDS}
    >>> held_out_text(record)
    '2 photos, 2 kernels, 2 noise tiles; none is in training (checked by content)'
    """
    held = [(name, record[kind]) for kind, name in KINDS.items() if record[kind]["validation"]]
    shared = [f"{of['shared']} of the {name}s" for name, of in held if of["shared"]]
    left_out = [counted(record[kind]["left_out"], name) for kind, name in KINDS.items() if record[kind].get("left_out")]
    text = ", ".join(counted(of["validation"], name) for name, of in held)
    has = f"training has {' and '.join(shared)} as well, for there are too few" if shared else "none is in training"
    out = f"; left out of training for that: {' and '.join(left_out)}" if left_out else ""
    return f"{text}; {has} (checked by content){out}"


def held_out_lines(record: Record) -> list[str]:
    """Sentences for a report on what a checkpoint was trained on and what was held out."""
    counts = [(record[kind]["training"], name) for kind, name in KINDS.items()]
    trained = ", ".join(counted(count, name) for count, name in counts if count)
    return [f"Trained on: {trained}.", f"Held out for validation: {held_out_text(record)}."]


def seen_in_training(record: Record, images: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of the test images, given with their hashes by :func:`folder_contents`, that training has seen."""
    seen = {*record["seen"]}
    return [name for name, contents in images.items() if not seen.isdisjoint(contents)]


def folder_contents(pairs: Sequence[PairFiles]) -> dict[str, list[str]]:
    """Content hashes of a test set's files by the pairs' names; raises InputError if one cannot be read."""
    return {pair.name: [content_hash(read_8_bit(path)) for path in pair.paths] for pair in pairs}
