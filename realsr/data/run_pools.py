"""The pools of a run: filled first, then split into photos for training and photos for validation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from realsr.degradation.camera_fit import camera_noise
from realsr.estimation.estimate import Estimator, check_scale
from realsr.estimation.noise import TileRule
from realsr.pools.collect import collect_noise
from realsr.pools.estimate import estimate_kernels
from realsr.pools.folder import pool_record
from realsr.pools.interchange import is_foreign
from realsr.pools.jpeg_tables import JpegPool, collect_tables, require_tables
from realsr.pools.pool import KernelPool, NoisePool, check_confidence, hold_out
from realsr.runtime.errors import InputError, at_least

HELD_OUT = 0.1  # share of the photos whose kernels, noise and tables only validation sees


class PoolFolders(NamedTuple):
    """Folders of the pools that LR is made with; None: without."""

    kernel: Path | None
    noise: Path | None
    jpeg: Path | None

    @classmethod
    def of(cls, *names: str | None) -> PoolFolders:
        """From the options ``kernel_dir``, ``noise_dir`` and ``jpeg_dir``."""
        return cls(*(None if name is None else Path(name) for name in names))


class Pools(NamedTuple):
    """Pools that training or validation draws from; None: without."""

    kernels: KernelPool | None
    noise: NoisePool | None
    jpeg: JpegPool | None


@dataclass(frozen=True)
class PoolBuilder:
    """Fills pools from the camera's photos; entries that are there stay.

    Args:
        estimator: makes the estimator of one photo's kernel.
        collector: chooses the noise tiles.
        accelerator: Lightning's name of the device that estimates kernels.
        workers: photos whose kernels are estimated side by side; 0: as many as suit the device.
    """

    estimator: Callable[[], Estimator]
    collector: TileRule
    accelerator: str = "auto"
    workers: int = 0

    def __post_init__(self) -> None:
        at_least(0, "data.pools.builder.", workers=self.workers)

    def fill(self, photos: Sequence[Path], pools: RunPools, validation: PoolFolders) -> None:
        """Fill the pools of training and validation; kernels of another program stay as they are.

        Kernels are estimated with the noise of all tiles in training's noise pool.

        Raises:
            InputError: the photos give no kernel, no noise or no table, or a folder cannot be written to.
        """
        pairs = zip(pools.folders, validation, strict=True)
        kernels, noise, jpeg = ([folder for folder in dict.fromkeys(pair) if folder is not None] for pair in pairs)
        ours = [folder for folder in kernels if not is_foreign(folder)]
        if ours:
            check_scale(pools.scale, self.estimator())  # a bad option fails before noise is collected
        collected = {folder: collect_noise(photos, folder, self.collector, redo=False) for folder in noise}
        for folder in jpeg:
            (require_tables if pools.jpeg_required else collect_tables)(photos, folder)
        for folder in ours:
            where = pools.folders.noise or folder.parent / "noise"
            ask = functools.partial(camera_noise, photos, where, self.collector, collected.get(where))
            how = self.estimator, pools.scale, self.accelerator, False, self.workers, pools.min_confidence
            estimate_kernels(photos, folder, *how, noise=ask)


@dataclass(frozen=True)
class RunPools:
    """The pools that training draws from, and how they are filled.

    Args:
        kernel_dir: folder of the kernel pool, or kernels of another program, which are taken as they are
            (:func:`realsr.pools.interchange.read_kernels`); None: bicubic in place of a kernel.
        noise_dir: folder of the noise pool; None: no noise.
        jpeg_dir: folder of the pool of the photos' quantisation tables; None: no compression.
        builder: fills them.
        scale: of the kernels.
        min_confidence: kernels of less are left out, 0 to 1.
        jpeg_required: whether photos without tables are an error; else LR is not compressed then.
        pool_dir: the builder makes new pools here alone, other folders have to hold one; None: it makes all.
        build: False takes the pools as they are.
    """

    kernel_dir: str | None
    noise_dir: str | None
    jpeg_dir: str | None
    builder: PoolBuilder
    scale: int = 4
    min_confidence: float = 0.0
    jpeg_required: bool = True
    pool_dir: str | None = None
    build: bool = True

    def __post_init__(self) -> None:
        check_confidence(self.min_confidence)

    @property
    def folders(self) -> PoolFolders:
        """The pools' folders."""
        return PoolFolders.of(self.kernel_dir, self.noise_dir, self.jpeg_dir)

    def check(self, validation: PoolFolders) -> None:
        """Raise InputError if a folder, of validation's too, holds no pool and lies elsewhere than in ``pool_dir``."""
        if self.pool_dir is None:
            return
        made = [Path(self.pool_dir).resolve() / name for name in ("kernels", "noise", "jpeg")]
        for part, folders in (("pools", self.folders), ("validation", validation)):
            for kind, folder in folders._asdict().items():
                if folder is None or folder.resolve() in made or any(folder.glob("*.npz")) or is_foreign(folder):
                    continue
                option, state = f"data.{part}.{kind}_dir", "holds no pool" if folder.is_dir() else "no such folder"
                raise InputError(
                    f"{option}={folder}: {state}; give one that does, or leave {option} out and it is made"
                )

    def fill(self, photos: Sequence[Path], validation: PoolFolders) -> None:
        """Have the builder fill the pools of training and validation, unless ``build`` is False."""
        if self.build:
            self.builder.fill(photos, self, validation)

    def split(self, validation: PoolFolders, seed: int) -> tuple[Pools, Pools]:
        """Training's pools without the photos that are held out, and validation's pools of these photos alone.

        Raises:
            InputError: a pool is missing or damaged.
        """
        load_kernels = functools.partial(KernelPool.load, scale=self.scale, min_confidence=self.min_confidence)
        loaders: list[Callable[[Path], Any]] = [load_kernels, NoisePool.load, JpegPool.load]
        cached = [functools.cache(load) for load in loaders]

        def side(folders: PoolFolders, held_out: bool) -> Pools:
            if not self.jpeg_required and folders.jpeg is not None and not any(folders.jpeg.glob("*.npz")):
                folders = folders._replace(jpeg=None)
            parts = (
                None if folder is None else hold_out(load(folder), HELD_OUT, seed)[held_out]
                for load, folder in zip(cached, folders, strict=True)
            )
            return Pools(*parts)

        return side(self.folders, held_out=False), side(validation, held_out=True)

    def records(self, validation: PoolFolders) -> dict[str, Any]:
        """For checkpoints, by pool (``kernel``, ``val_kernel``...), :func:`realsr.pools.folder.pool_record`."""
        names: dict[Path, str] = {}
        for prefix, folders in (("", self.folders), ("val_", validation)):
            for kind, folder in folders._asdict().items():
                if folder is not None and folder.exists():
                    names.setdefault(folder, f"{prefix}{kind}")
        return {name: pool_record(folder) for folder, name in names.items()}
