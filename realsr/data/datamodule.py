"""Folders of photos in, batches of (lr, hr) out; pools that are missing are made on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from realsr.data.datasets import HRCrops, Pair, StepSampler, draw_seed, share
from realsr.data.folders import find_pairs, read_pairs
from realsr.data.held_out import held_out_record, held_out_text, keep_apart, refuse_shared
from realsr.data.run_pools import POOLS, Pools, check_given, fill_pools, made_from
from realsr.data.samples import make_samples
from realsr.data.store import StoredImage, prepare_hr, stored_hr
from realsr.data.timed import TimedLoader
from realsr.data.validation import check_sizes, degraded, hold_out_images, look_photos, middle
from realsr.degradation.paper import Degradation
from realsr.estimation.estimate import Estimator
from realsr.estimation.noise import TileRule
from realsr.pools.pool import check_confidence
from realsr.runtime.errors import InputError, at_least
from realsr.runtime.files import find_images
from realsr.runtime.workers import ignore_signals

log = logging.getLogger(__name__)


class RealSRData(LightningDataModule):
    """HR crops from two folders of photos, degraded on the device as the camera would.

    Args:
        source_dir: the camera's photos; None trains on ``clean_dir`` alone with pools that are there already.
        clean_dir: sharp, clean photos of any camera; None trains on the cleaned-up source photos alone.
        degradation: builds the degradation from ``kernels``, ``noise`` and ``jpeg``.
        kernel_dir: folder of the kernel pool, which is filled first, or kernels of another program, which are taken
            as they are (:func:`realsr.pools.interchange.read_kernels`); None: bicubic in its place.
        noise_dir: folder of the noise pool; None: no noise.
        store_dir: folder for decoded HR images.
        estimator: makes the kernels that the pool lacks.
        collector: makes the noise tiles that the pool lacks; kernels are estimated with the noise of all tiles.
        augment: of the HR crops, see :class:`HRCrops`.
        build_pools: False takes the pools as they are.
        scale: of the super-resolution.
        crop_size: side of the HR crops in pixels, a multiple of the scale.
        batch_size: of a step, which all devices share out among them.
        source_share: share of the crops that come from cleaned-up source photos, where there are clean ones too.
        cleanup: factor by which source photos are downscaled to clean them.
        val_hr: folder of ground truth, of photos that training has not; None: HR images are held out from training.
        val_lr: folder of its LR images; None: they are made by held-out kernels and noise.
        val_count: number of held-out images, at most a fifth of all.
        val_size: they are cut to this many pixels on a side at most.
        look_count: number of camera photos that are upscaled for looking, without ground truth.
        look_size: they are cut to this many pixels on a side at most.
        num_workers: processes that read crops, and before that decode the HR images.
        accelerator: Lightning's name of the device that estimates kernels.
        estimate_workers: processes that estimate kernels side by side; 0: what suits the device.
        seed: of every draw in training.
        val_seed: of what is held out for validation and how it is degraded; runs of several seeds share it.
        val_kernel_dir: kernel pool of validation's LR; training's unless ablations share another to be comparable.
        val_noise_dir: noise pool of validation's LR, training's by default.
        val_jpeg_dir: pool of validation's JPEG tables, training's by default.
        val_degradation: that of validation; training's but for rows whose own draws from no pools.
        samples_dir: where the embedded sample is written before anything is read; None: it is not wanted.
        min_confidence: kernels of less are left out.
        store_limit: GB that ``store_dir`` may hold; None: 95 % of what is free.
        pool_dir: folder of our own pools; others that are given have to hold a pool. None: all that lack are made.
        jpeg_dir: folder of the pool of the photos' quantisation tables, which is filled first; None: no compression.
        jpeg_required: whether photos without tables are an error; else LR is then not compressed.
    """

    ready = False

    def __init__(
        self,
        source_dir: str | None,
        clean_dir: str | None,
        degradation: Callable[..., Degradation],
        kernel_dir: str | None,
        noise_dir: str | None,
        store_dir: str,
        estimator: Callable[[], Estimator],
        collector: TileRule,
        augment: A.Compose,
        build_pools: bool = True,
        scale: int = 4,
        crop_size: int = 128,
        batch_size: int = 16,
        source_share: float = 0.5,
        cleanup: float = 0.5,
        val_hr: str | None = None,
        val_lr: str | None = None,
        val_count: int = 8,
        val_size: int = 512,
        look_count: int = 4,
        look_size: int = 128,
        num_workers: int = 4,
        accelerator: str = "auto",
        estimate_workers: int = 0,
        seed: int = 0,
        val_seed: int = 0,
        val_kernel_dir: str | None = None,
        val_noise_dir: str | None = None,
        val_degradation: Callable[..., Degradation] | None = None,
        samples_dir: str | None = None,
        min_confidence: float = 0.0,
        store_limit: float | None = None,
        pool_dir: str | None = None,
        jpeg_dir: str | None = None,
        jpeg_required: bool = True,
        val_jpeg_dir: str | None = None,
    ) -> None:
        super().__init__()
        # in one process of all: nodes share the disk with the pools, and two would make the same pool side by side
        self.prepare_data_per_node = False
        if source_dir is None and clean_dir is None:
            raise InputError("no photos to train on; give data.source_dir=DIR, and data.clean_dir=DIR if you have one")
        for given in (source_dir, clean_dir, val_hr, val_lr):
            if given is not None and samples_dir is None:
                find_images(given)
        at_least(1, "data.", scale=scale, crop_size=crop_size, batch_size=batch_size, val_count=val_count)
        check_confidence(min_confidence)
        at_least(0, "data.", num_workers=num_workers, estimate_workers=estimate_workers, look_count=look_count)
        at_least(0, "data.", store_limit=store_limit or 0, val_seed=val_seed)
        at_least(scale, "data.", val_size=val_size, look_size=look_size)
        if crop_size % scale:
            raise InputError(f"data.crop_size={crop_size} is no multiple of the scale {scale}")
        if val_lr is not None and val_hr is None:
            raise InputError("data.val_lr needs data.val_hr, its ground truth")
        if not 0 <= source_share <= 1:
            raise InputError(f"data.source_share={source_share} is no share, give 0 to 1")
        if not 0 < cleanup <= 1:
            raise InputError(f"data.cleanup={cleanup}: source photos are cleaned by making them smaller, give 0 to 1")
        self.hr_dirs = {"source": (source_dir, cleanup), "clean": (clean_dir, 1.0)}
        self.source_dir, self.store_dir, self.augment = source_dir, Path(store_dir), augment
        self.make_degradation, self.estimator, self.collector = degradation, estimator, collector
        self.make_val_degradation = val_degradation or degradation
        own = kernel_dir, noise_dir, jpeg_dir
        theirs = (given or same for given, same in zip((val_kernel_dir, val_noise_dir, val_jpeg_dir), own, strict=True))
        self.folders = dict(zip(POOLS, map(_path, (*own, *theirs)), strict=True))
        self.samples_dir, self.pool_dir = _path(samples_dir), _path(pool_dir and str(Path(pool_dir).resolve()))
        self.build_pools, self.scale, self.crop_size, self.batch_size = build_pools, scale, crop_size, batch_size
        self.val_hr, self.val_lr, self.val_count, self.val_size = val_hr, val_lr, val_count, val_size
        self.source_share, self.cleanup, self.look_count, self.look_size = source_share, cleanup, look_count, look_size
        self.num_workers, self.estimate_workers = num_workers, estimate_workers
        self.accelerator, self.seed, self.val_seed = accelerator, seed, val_seed
        self.jpeg_required, self.min_confidence, self.store_limit = jpeg_required, min_confidence, store_limit

    def prepare_data(self) -> None:
        """Make the pools and the decoded HR images that are missing; goes on where it was interrupted."""
        if self.ready:  # after fit, by Trainer.validate
            return
        check_given(self.folders, self.pool_dir)
        if self.samples_dir is not None:
            make_samples(self.samples_dir)
        sets = [(find_images(folder), factor) for folder, factor in self.hr_dirs.values() if folder is not None]
        prepare_hr(sets, self.store_dir, self.crop_size, self.store_limit, self.num_workers)
        if self.val_hr is not None:  # looked at before pools are made for hours
            refuse_shared(find_pairs(self.val_hr, self.val_lr, self.scale), self._stored())
        if self.source_dir is not None and self.build_pools:
            how = self.scale, self.accelerator, self.estimate_workers, self.min_confidence, self.jpeg_required
            fill_pools(find_images(self.source_dir), self.folders, self.estimator, self.collector, *how)

    def setup(self, stage: str) -> None:
        """Load the pools, hold some photos out, make the validation pairs."""
        if self.ready:
            return
        kernels, noise, tables, val_kernels, val_noise, val_tables = self.folders.values()
        trained, validated = (kernels, noise, self._used(tables)), (val_kernels, val_noise, self._used(val_tables))
        self.pools = Pools(self.scale, self.min_confidence)
        held_out = self.pools.side(validated, True, self.val_seed)
        seen, lr_photos = (held_out, []) if self.val_lr is None else (None, find_images(self.val_lr))
        training, apart = keep_apart(self.pools, trained, seen, lr_photos, self.val_seed)
        self.degradation = self.make_degradation(**training._asdict())
        self.margin = self.degradation.margin
        source, clean = self._stored().values()
        if not source and not clean:
            raise InputError(
                f"no photo is large enough for HR crops of {self.crop_size} pixels (source photos are scaled by "
                f"{self.cleanup:g} first); lower data.crop_size, or give larger photos"
            )
        if self.val_hr is not None:
            held: list[StoredImage] = []
            self.pairs = read_pairs(find_pairs(self.val_hr, self.val_lr, self.scale))
        else:
            source, clean, held = hold_out_images(source, clean, self.val_count, self.val_seed)
            self.pairs = [Pair(image.name, torch.empty(0), middle(image, self.val_size)) for image in held]
        check_sizes(self.pairs, self.scale)
        if self.val_lr is None:
            degrade = self.make_val_degradation(**held_out._asdict()).eval()
            self.pairs = degraded(self.pairs, degrade, self.scale, self.val_seed)
        self.looks = look_photos(self.source_dir, self.look_count, self.look_size)
        first = stage == "fit" and (self.trainer is None or self.trainer.is_global_zero)
        self.records = made_from(self.folders, [*source, *clean]) if first else {}
        how = self.crop_size + 2 * self.margin, self.seed, self.augment
        self.crops = HRCrops(source, clean, self.source_share, *how)
        self.held_out = held_out_record([*source, *clean], [pair.name for pair in self.pairs], held, apart)
        log.info("held out: %s", held_out_text(self.held_out))
        counts = [len(source), len(clean), *(len(pool) if pool else "no" for pool in training), len(self.pairs)]
        what = "%d cleaned-up source and %d clean images, %s kernels, %s noise tiles, %s photos' JPEG tables"
        log.info(f"training on {what}; validation on %d", *counts)
        self.ready = True

    def train_dataloader(self) -> TimedLoader:
        """Batches for the steps that are still to do; a step's crops depend on the seed and its number only.

        Crops are numbered through the step's whole batch, so they stay the same if a run goes on with another number of
        devices. Kernels, noise and tables are drawn for the batch of a device at once, and differ then.
        """
        assert self.trainer is not None
        trainer, batch = self.trainer, share(self.batch_size, self.trainer.world_size)
        return TimedLoader(
            self.crops,
            batch_size=batch,
            sampler=StepSampler(trainer.global_step, trainer.max_steps, batch, trainer.global_rank, trainer.world_size),
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=ignore_signals,
        )

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Pairs, then photos to look at."""
        return [DataLoader(images, batch_size=None) for images in (self.pairs, self.looks) if images]  # type: ignore

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Keep sample numbers from the device, which would have to be waited for to read them there."""
        return {**batch, "index": batch["index"].tolist()} if isinstance(batch, dict) else batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Degrade training batches on the device; validation images are ready."""
        if not isinstance(batch, dict):
            return batch
        hr = batch["hr"] / 255
        generator = torch.Generator().manual_seed(draw_seed(self.seed, batch["index"][0]))
        lr = self.degradation(hr, generator, self.margin)
        inner = slice(self.margin, self.margin + self.crop_size)
        return {"lr": lr, "hr": hr[..., inner, inner], "index": batch["index"]}

    def _used(self, tables: Path | None) -> Path | None:
        """The folder of a JPEG pool; None where it may be without tables, and is."""
        return tables if tables is None or self.jpeg_required or any(tables.glob("*.npz")) else None

    def _stored(self) -> dict[str, list[StoredImage]]:
        """The source and the clean images, by the option that gives their folder."""
        found = {}
        for name, (folder, factor) in self.hr_dirs.items():
            photos = [] if folder is None else find_images(folder)
            found[f"data.{name}_dir={folder}"] = stored_hr(photos, self.store_dir, factor, self.crop_size)
        return found


def _path(given: str | None) -> Path | None:
    return None if given is None else Path(given)
