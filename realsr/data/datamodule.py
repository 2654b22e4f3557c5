"""Folders of photos in, batches of (lr, hr) out; pools that are missing are made on the way."""

import functools
import logging
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from realsr.data.datasets import StepSampler, TimedLoader, draw_seed, share
from realsr.data.held_out import held_out_record, held_out_text, keep_apart, refuse_shared
from realsr.data.photos import HRPhotos
from realsr.data.run_pools import RunPools
from realsr.data.samples import make_samples
from realsr.data.store import StoredImage
from realsr.data.validation import Validation, check_degradation, hold_out_images
from realsr.degradation.base import Degradation
from realsr.runtime.errors import InputError, at_least, counted
from realsr.runtime.files import find_images
from realsr.runtime.workers import ignore_signals

log = logging.getLogger(__name__)


class RealSRData(LightningDataModule):
    """HR crops from two folders of photos, degraded on the device as the camera would.

    Args:
        source_dir: the camera's photos; None trains on ``clean_dir`` alone with pools that are there already.
        clean_dir: sharp, clean photos of any camera; None trains on the cleaned-up source photos alone.
        photos: makes HR images and crops of both.
        pools: kernels, noise and JPEG tables of the camera.
        degradation: partial of a :class:`realsr.degradation.base.Degradation`, which lacks its pools alone.
        validation: the pairs that a run is measured on.
        scale: of the super-resolution.
        crop_size: side of the HR crops in pixels, a multiple of the scale.
        batch_size: of a step, which all devices share out among them.
        num_workers: processes that read crops, and before that decode the HR images.
        seed: of every draw in training.
        samples_dir: folder that the embedded sample is written to first; None: none is wanted.

    Raises:
        InputError: there is no folder of photos, one is missing, or a number is out of its range.
    """

    ready = False

    def __init__(
        self,
        source_dir: str | None,
        clean_dir: str | None,
        photos: HRPhotos,
        pools: RunPools,
        degradation: functools.partial[Degradation],
        validation: Validation,
        scale: int = 4,
        crop_size: int = 128,
        batch_size: int = 16,
        num_workers: int = 4,
        seed: int = 0,
        samples_dir: str | None = None,
    ) -> None:
        super().__init__()
        # in one process of all: nodes share the disk with the pools, and two would make the same pool side by side
        self.prepare_data_per_node = False
        if source_dir is None and clean_dir is None:
            raise InputError("no photos to train on; give data.source_dir=DIR, and data.clean_dir=DIR if you have one")
        for given in (source_dir, clean_dir, validation.hr, validation.lr):
            if given is not None and samples_dir is None:
                find_images(given)
        at_least(1, "data.", scale=scale, crop_size=crop_size, batch_size=batch_size)
        at_least(0, "data.", num_workers=num_workers, seed=seed)
        if pools.scale != scale:
            raise InputError(f"data.pools.scale={pools.scale}: must be that of the network, {scale}; give scale=")
        validation.check(scale)
        check_degradation("data.degradation", degradation, pools.folders)
        if validation.lr is None:
            check_degradation("data.validation.degradation", validation.degradation or degradation, validation.folders)
        if crop_size % scale:
            raise InputError(f"data.crop_size={crop_size} is no multiple of the scale {scale}")
        self.source_dir, self.clean_dir, self.samples_dir = source_dir, clean_dir, samples_dir
        self.photos, self.pools, self.make_degradation, self.validation = photos, pools, degradation, validation
        self.scale, self.crop_size, self.batch_size = scale, crop_size, batch_size
        self.num_workers, self.seed = num_workers, seed

    def prepare_data(self) -> None:
        """Make the pools and the decoded HR images that are missing; goes on where it was interrupted."""
        if self.ready:  # after fit, by Trainer.validate
            return
        self.pools.check(self.validation.folders)
        if self.samples_dir is not None:
            make_samples(Path(self.samples_dir))
        self.photos.prepare(self.source_dir, self.clean_dir, self.crop_size, self.num_workers)
        source, clean = self.photos.stored(self.source_dir, self.clean_dir, self.crop_size)  # before hours of pools
        if self.validation.hr is not None:
            options = {f"data.source_dir={self.source_dir}": source, f"data.clean_dir={self.clean_dir}": clean}
            refuse_shared(self.validation.files(self.scale), options)
        if self.source_dir is not None:
            self.pools.fill(find_images(self.source_dir), self.validation.folders)

    def setup(self, stage: str) -> None:
        """Load the pools, hold some photos out, make the validation pairs."""
        if self.ready:
            return
        validation = self.validation
        training, held_out = self.pools.split(validation.folders, validation.seed)
        seen, lr_photos = (held_out, []) if validation.lr is None else (None, find_images(validation.lr))
        training, apart = keep_apart(training, seen, self.pools.folders, lr_photos)
        self.degradation = self.make_degradation(**training._asdict())
        self.margin = self.degradation.margin
        one_camera = validation.folders.noise == self.pools.folders.noise
        make = functools.partial(self.make_degradation, **(self.degradation.fitted if one_camera else {}))
        source, clean = self.photos.stored(self.source_dir, self.clean_dir, self.crop_size)
        held: list[StoredImage] = []
        if validation.hr is None:
            source, clean, held = hold_out_images(source, clean, validation.count, validation.seed)
        self.pairs = validation.pairs(held, self.scale, held_out, make)
        self.looks = validation.looks(self.source_dir)
        self.records: dict[str, Any] = {}
        if stage == "fit" and (self.trainer is None or self.trainer.is_global_zero):
            files = {image.path.name: {"photo": image.name} for image in (*source, *clean)}  # named by their hashes
            self.records = {**self.pools.records(validation.folders), "photos": {"shared": {}, "files": files}}
        self.crops = self.photos.crops(source, clean, self.crop_size + 2 * self.margin, self.seed)
        self.held_out = held_out_record([*source, *clean], [pair.name for pair in self.pairs], held, apart)
        log.info("held out: %s", held_out_text(self.held_out))
        nouns = zip(training, ("kernel", "noise tile", "JPEG table"), strict=True)
        pools = ", ".join(counted(len(pool), noun) if pool else f"no {noun}s" for pool, noun in nouns)
        what = "training on %d cleaned-up source and %d clean images, %s; validation on %s"
        log.info(what, len(source), len(clean), pools, counted(len(self.pairs), "image"))
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
        """Keep sample numbers on the CPU: reading them on the device would wait for it."""
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
