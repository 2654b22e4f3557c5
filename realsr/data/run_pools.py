"""The pools of a run: filled first, each read once, and what validation is to see stays out of training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from realsr.data.store import StoredImage
from realsr.degradation.camera_fit import camera_noise
from realsr.estimation.estimate import Estimator, check_scale
from realsr.estimation.noise import TileRule
from realsr.pools.collect import collect_noise
from realsr.pools.estimate import estimate_kernels
from realsr.pools.folder import check_pool, pool_record
from realsr.pools.interchange import is_foreign
from realsr.pools.jpeg_tables import JpegPool, collect_tables, require_tables
from realsr.pools.pool import KernelPool, NoisePool, hold_out

Folders = Sequence[Path | None]  # of kernels, noise and tables
POOLS = ("kernel_dir", "noise_dir", "jpeg_dir", "val_kernel_dir", "val_noise_dir", "val_jpeg_dir")
HELD_OUT = 0.1  # share of the photos whose kernels, noise and tables only validation sees


class Side(NamedTuple):
    """What training or validation draws from; None: it does without."""

    kernels: KernelPool | None
    noise: NoisePool | None
    jpeg: JpegPool | None


class Pools:
    """Pools by their folders, each read once, though training and validation may draw from the same.

    Args:
        scale: of the kernels.
        min_confidence: kernels of less are left out.
    """

    def __init__(self, scale: int, min_confidence: float) -> None:
        kernels = functools.partial(KernelPool.load, scale=scale, min_confidence=min_confidence)
        loaders: tuple[Callable[[Path], Any], ...] = kernels, NoisePool.load, JpegPool.load
        self.loaders = [functools.cache(load) for load in loaders]

    def side(self, folders: Folders, held_out: bool, seed: int) -> Side:
        """Of these folders the items that are held out, or the others.

        Raises:
            InputError: a pool is missing or damaged.
        """
        parts = [
            None if folder is None else hold_out(load(folder), HELD_OUT, seed)[held_out]
            for load, folder in zip(self.loaders, folders, strict=True)
        ]
        return Side(*parts)


def fill_pools(
    photos: Sequence[Path],
    folders: Mapping[str, Path | None],
    estimator: Callable[[], Estimator],
    collector: TileRule,
    scale: int,
    accelerator: str,
    workers: int,
    min_confidence: float,
    jpeg_required: bool,
) -> None:
    """Make what the pools of training and validation lack, going on from what is there.

    Args:
        photos: of the camera.
        folders: by the names of :data:`POOLS`.
        estimator: makes kernels, with the noise of all tiles; kernels of another program are taken as they are.
        collector: makes noise tiles.
        scale: of the kernels.
        accelerator: that estimates them.
        workers: processes that do.
        min_confidence: kernels of less are marked.
        jpeg_required: whether photos without quantisation tables are an error.
    """

    def given(kind: str) -> set[Path]:
        return {folders[name] for name in (f"{kind}_dir", f"val_{kind}_dir")} - {None}  # type: ignore[return-value]

    kernels = {folder for folder in given("kernel") if not is_foreign(folder)}
    if kernels:
        check_scale(scale, estimator())  # a bad option fails before noise is collected
    noise = {folder: collect_noise(photos, folder, collector, redo=False) for folder in given("noise")}
    for folder in given("jpeg"):
        (require_tables if jpeg_required else collect_tables)(photos, folder)
    for folder in kernels:
        where = folders["noise_dir"] or folder.parent / "noise"
        ask = functools.partial(camera_noise, photos, where, collector, noise.get(where))
        estimate_kernels(photos, folder, estimator, scale, accelerator, False, workers, min_confidence, noise=ask)


def photos_of(folder: Path | None, digests: set[str]) -> set[str]:
    """Names of the photos that our own pool in ``folder`` has something of, of those whose files have these SHA-256."""
    if folder is None or not digests or is_foreign(folder):
        return set()
    record = pool_record(folder)
    files = ((name, {**record["shared"], **file}) for name, file in record["files"].items())
    return {file.get("photo", Path(name).stem) for name, file in files if file.get("sha256") in digests}


def check_given(pools: Mapping[str, Path | None], pool_dir: Path | None) -> None:
    """Raise InputError if a pool's folder holds none and is not made either; those of ``pool_dir`` are.

    Args:
        pools: folders by the name of their option.
        pool_dir: None makes all.
    """
    own = [] if pool_dir is None else [pool_dir / name for name in ("kernels", "noise", "jpeg")]
    for name, folder in pools.items():
        if own and folder is not None and folder.resolve() not in own:
            check_pool(folder, f"data.{name}")


def made_from(pools: Mapping[str, Path | None], images: Sequence[StoredImage]) -> dict[str, Any]:
    """What each pool in use is made of, for checkpoints; and the photos, whose files' names hold their hashes.

    Args:
        pools: folders by the name of their option; of several with one folder the first counts.
        images: of training.
    """
    names = {folder: name for name, folder in reversed([*pools.items()]) if folder is not None and folder.exists()}
    return {
        **{name.removesuffix("_dir"): pool_record(folder) for folder, name in names.items()},
        "photos": {"shared": {}, "files": {image.path.name: {"photo": image.name} for image in images}},
    }
