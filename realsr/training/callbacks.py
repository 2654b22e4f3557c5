"""Callbacks that show a run: pictures of validation images and pools, speed, a progress bar."""

import logging
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar

from realsr.imaging import to_uint
from realsr.imaging.resample import imresize
from realsr.pools.kernel_sheet import kernel_sheet
from realsr.reports.pictures import grid, save, sharpest_crop
from realsr.runtime.errors import at_least
from realsr.runtime.files import SHEET
from realsr.training.loggers import PICTURE_LOGGERS, is_logged, log_histogram, log_picture, log_table

log = logging.getLogger(__name__)


class ValidationPictures(Callback):
    """Pictures of each validation: LR enlarged by bicubic, SR and HR, cropped where there are most edges.

    They are drawn as a grid, ``folder/<step>.png``, which W&B and TensorBoard get too; logged to W&B as a table,
    ``val/photos``, with a row of pictures and metrics for each image; and those of the last validation are kept as
    ``crops/<loader>_<number>_<photo>_<bicubic, sr or hr>.png``, for the picture of a sweep.

    Args:
        folder: folder of the grids.
        crops: folder of the single pictures, of ``CROPS`` images with ground truth and as many without.
        count: number of images with ground truth, and of images without, at most.
        size: side of the crop in HR pixels.
    """

    CROPS = 3

    def __init__(self, folder: str, crops: str, count: int = 8, size: int = 256) -> None:
        at_least(0, "callbacks.pictures.", count=count)
        at_least(4, "callbacks.pictures.", size=size)
        self.folder, self.crops, self.count, self.size = Path(folder), Path(crops), count, size
        self.rows: list[dict[str, Any]] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Crop an image, in the first process."""
        if not trainer.is_global_zero or batch_idx >= self.count or not isinstance(outputs, dict):
            return
        scale = outputs["sr"].shape[-1] // outputs["lr"].shape[-1]
        images = {"bicubic": imresize(outputs["lr"], scale), "sr": outputs["sr"], "hr": outputs["hr"]}
        pictures = {kind: to_uint(image) for kind, image in images.items() if image is not None}
        y, x = sharpest_crop(pictures.get("hr", pictures["bicubic"]), self.size)
        crops = {kind: picture[y : y + self.size, x : x + self.size] for kind, picture in pictures.items()}
        self.rows.append({"step": trainer.global_step, "photo": outputs["name"], **crops, **outputs.get("metrics", {})})
        for kind, picture in crops.items() if batch_idx < self.CROPS else ():
            save(self.crops / f"{dataloader_idx}_{batch_idx:02d}_{outputs['name']}_{kind}.png", picture)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the grid; log it and the table."""
        if self.rows:
            cells = [{key: cell for key, cell in row.items() if isinstance(cell, np.ndarray)} for row in self.rows]
            labels = [[f"{row['photo']} {key}" for key in crops] for row, crops in zip(self.rows, cells, strict=True)]
            picture = grid([list(crops.values()) for crops in cells], labels)
            save(self.folder / f"{trainer.global_step:06d}.png", picture)
            log_picture(trainer.loggers, "val/pictures", picture, trainer.global_step)
            log_table(trainer.loggers, "val/photos", self.rows, trainer.global_step)
        self.rows = []


class PoolPictures(Callback):
    """Logs contact sheets of the pools and histograms of the kernels' widths, when training starts.

    Args:
        kernels: folder of the kernel pool, or kernels of another program; None without kernels.
        noise: folder of the noise pool, with or without a contact sheet; None without noise.
        scale: of the kernels.
        min_confidence: kernels below it are marked, and not in the histograms.
    """

    def __init__(self, kernels: str | None, noise: str | None, scale: int, min_confidence: float = 0.0) -> None:
        self.kernels, self.noise = kernels, noise
        self.scale, self.min_confidence = scale, min_confidence

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Draw and log them."""
        loggers, step = trainer.loggers, trainer.global_step
        if not (trainer.is_global_zero and any(isinstance(logger, PICTURE_LOGGERS) for logger in loggers)):
            return
        if self.kernels is not None:
            sheet, widths = kernel_sheet(self.kernels, self.scale, self.min_confidence)
            log_picture(loggers, "pools/kernels", sheet, step)
            for name, values in zip(("wider", "narrower"), widths.T, strict=True):
                log_histogram(loggers, f"pools/width_{name}", values, step)
        if self.noise is not None and (path := Path(self.noise) / SHEET).is_file():
            log_picture(loggers, "pools/noise", np.asarray(Image.open(path).convert("RGB")), step)


class Throughput(Callback):
    """Logs the speed of training, ``speed/images_per_second``, and ``speed/waiting``, the share of time spent on data.

    Images of all devices count, time of validation does not; both values are means since the last log. Timing does not
    synchronise with the GPU, since over the steps between two logs the host is as fast as its GPU. Lightning's
    ThroughputMonitor synchronises in every step, needs FLOPs, and does not measure the wait for data.
    """

    told = False

    def __init__(self) -> None:
        self.began: npt.NDArray[np.float64] | None = None  # None while the clock stands
        self.spent, self.images = np.zeros(2), 0  # seconds, of which for data

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the loader, a :class:`realsr.data.datasets.TimedLoader`."""
        self.loader: Any = trainer.train_dataloader

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Start the clock, with the first batch and with the first after a validation."""
        if self.began is None:
            self.began = self._now()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images; log and reset in steps that are logged."""
        self.images += len(batch["hr"]) * trainer.world_size
        if is_logged(trainer):
            self._stop()
            seconds, waited = self.spent
            module.log_dict({"speed/images_per_second": self.images / seconds, "speed/waiting": waited / seconds})
            if not (self.told or sys.stdout.isatty()):  # a terminal has the bar
                self.told, step = True, seconds * len(batch["hr"]) * trainer.world_size / self.images
                left = timedelta(seconds=round(step * (trainer.max_steps - trainer.global_step)))
                log.info("about %s to go, without validations", left)
            self.began, self.spent, self.images = self._now(), np.zeros(2), 0

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Stop the clock."""
        self._stop()

    def _stop(self) -> None:
        if self.began is not None:
            self.spent += self._now() - self.began
            self.began = None

    def _now(self) -> npt.NDArray[np.float64]:
        return np.array([time.perf_counter(), self.loader.waited])


class StepProgress(RichProgressBar):
    """A progress bar over generator steps, with the generator's loss."""

    shown: Mapping[str, float] = {}

    @property
    def total_train_batches(self) -> int:
        """Steps of the run; the loader has one more."""
        return self.trainer.max_steps

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> Any:
        """The loss of the last step that was logged; reading it in every step would wait for the device."""
        if is_logged(trainer) and "train/generator" in trainer.callback_metrics:
            self.shown = {"generator": float(trainer.callback_metrics["train/generator"])}
        return self.shown
