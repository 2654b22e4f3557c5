"""What a run shows people: pictures of validation images and of the pools, its speed, a progress bar."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import wandb
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from realsr.imaging import to_uint
from realsr.imaging.resample import imresize
from realsr.pools.kernel_sheet import kernel_sheet
from realsr.reports.pictures import Picture, grid, save, sharpest_crop
from realsr.runtime.errors import at_least
from realsr.training.esrgan import is_logged

log = logging.getLogger(__name__)

PICTURE_LOGGERS = (WandbLogger, TensorBoardLogger)


class ValidationPictures(Callback):
    """LR enlarged by bicubic, SR and HR of the first images of each validation, where there are most edges.

    As a grid, ``folder/<step>.png``, which goes to the loggers that take pictures; in a table of W&B's, ``val/photos``,
    a row for each image with its pictures and metrics, a table for each validation; and those of the last validation as
    ``crops/<loader>_<number>_<photo>_<bicubic, sr or hr>.png``, for a sweep's picture of all its runs.

    Args:
        folder: where the grids go.
        crops: where single pictures go, of ``CROPS`` images with ground truth and as many without.
        count: images at most, of those with ground truth and of those without.
        size: side in HR pixels that is shown of each image.
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
        """Take an image, in the first process."""
        if not trainer.is_global_zero or batch_idx >= self.count or not isinstance(outputs, dict):
            return
        scale = outputs["sr"].shape[-1] // outputs["lr"].shape[-1]
        shown = {"bicubic": imresize(outputs["lr"], scale), "sr": outputs["sr"], "hr": outputs["hr"]}
        pictures = {kind: to_uint(image) for kind, image in shown.items() if image is not None}
        y, x = sharpest_crop(pictures.get("hr", pictures["bicubic"]), self.size)
        cut = {kind: picture[y : y + self.size, x : x + self.size] for kind, picture in pictures.items()}
        self.rows.append({"step": trainer.global_step, "photo": outputs["name"], **cut, **outputs.get("metrics", {})})
        for kind, picture in cut.items() if batch_idx < self.CROPS else ():
            name = f"{dataloader_idx}_{batch_idx:02d}_{outputs['name']}_{kind}.png"
            save(self.crops / name, picture)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the grid, send it and the table."""
        if self.rows:
            cells = [{key: cell for key, cell in row.items() if isinstance(cell, np.ndarray)} for row in self.rows]
            labels = [[f"{row['photo']} {key}" for key in shown] for row, shown in zip(self.rows, cells, strict=True)]
            picture = grid([list(shown.values()) for shown in cells], labels)
            save(self.folder / f"{trainer.global_step:06d}.png", picture)
            log_picture(trainer.loggers, "val/pictures", picture, trainer.global_step)
            log_table(trainer.loggers, "val/photos", self.rows, trainer.global_step)
        self.rows = []


class PoolPictures(Callback):
    """The pools, sent to the loggers that take pictures at the start: contact sheets, and the kernels' widths.

    Args:
        kernels: kernel pool, or kernels of another program; None: there is none.
        noise: folder of the noise pool; passed over where it has no sheet, or None.
        scale: of the kernels.
        min_confidence: kernels of less are marked, and not in the histograms.
    """

    def __init__(self, kernels: str | None, noise: str | None, scale: int, min_confidence: float = 0.0) -> None:
        self.kernels, self.noise = kernels, noise
        self.scale, self.min_confidence = scale, min_confidence

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Send them."""
        if not (trainer.is_global_zero and any(isinstance(logger, PICTURE_LOGGERS) for logger in trainer.loggers)):
            return
        if self.kernels is not None:
            sheet, widths = kernel_sheet(self.kernels, self.scale, self.min_confidence)
            log_picture(trainer.loggers, "pools/kernels", sheet, trainer.global_step)
            for name, values in zip(("wider", "narrower"), widths.T, strict=True):
                log_histogram(trainer, f"pools/width_{name}", values)
        if self.noise is not None and (path := Path(self.noise) / "contact_sheet.png").is_file():
            log_picture(
                trainer.loggers, "pools/noise", np.asarray(Image.open(path).convert("RGB")), trainer.global_step
            )


class Throughput(Callback):
    """``speed/images_per_second`` of all devices, ``speed/waiting``: the share of the time that steps wait for data.

    Both since they were last logged, without the time of validation. Nothing waits for a GPU here: over the steps from
    one log to the next the host is as fast as its GPU. Lightning's ThroughputMonitor waits in every step, asks for
    FLOPs, and does not know of waiting for data.
    """

    told = False

    def __init__(self) -> None:
        self.began: npt.NDArray[np.float64] | None = None
        self.spent, self.images = np.zeros(2), 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """The loader knows how long it is waited for."""
        self.loader: Any = trainer.train_dataloader

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """The first batch is there, or the first after a validation."""
        if self.began is None:
            self.began = self._now()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log when the losses are."""
        self.images += len(batch["hr"]) * trainer.world_size
        if is_logged(trainer):
            self._pause()
            seconds, waited = self.spent
            module.log_dict({"speed/images_per_second": self.images / seconds, "speed/waiting": waited / seconds})
            if not (self.told or sys.stdout.isatty()):  # a terminal has the bar
                self.told, step = True, seconds * len(batch["hr"]) * trainer.world_size / self.images
                left = timedelta(seconds=round(step * (trainer.max_steps - trainer.global_step)))
                log.info("about %s to go, without validations", left)
            self.began, self.spent, self.images = self._now(), np.zeros(2), 0

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Stop the clock until the next batch."""
        self._pause()

    def _pause(self) -> None:
        if self.began is not None:
            self.spent += self._now() - self.began
            self.began = None

    def _now(self) -> npt.NDArray[np.float64]:
        return np.array([time.perf_counter(), self.loader.waited])


class StepProgress(RichProgressBar):
    """A progress bar over generator steps."""

    shown: Mapping[str, float] = {}

    @property
    def total_train_batches(self) -> int:
        """Steps of the run; the loader has one more."""
        return self.trainer.max_steps

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> Any:
        """The generator's loss, of the last step that was logged: asked in every step, a device would be waited for."""
        if is_logged(trainer) and "train/generator" in trainer.callback_metrics:
            self.shown = {"generator": float(trainer.callback_metrics["train/generator"])}
        return self.shown


def log_picture(loggers: Iterable[Logger], name: str, picture: Picture, step: int) -> None:
    """Send a ``(H, W, 3)`` uint8 picture to those of the loggers that take pictures, W&B and TensorBoard."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            # floats in [0, 1] would be logged black
            logger.log_image(name, [picture], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step, dataformats="HWC")


def log_table(loggers: Iterable[Logger], name: str, rows: Sequence[dict[str, Any]], step: int) -> None:
    """Send rows with the same or some of the same keys to W&B; ``(H, W, 3)`` uint8 arrays become pictures.

    Every call makes a table of its own: an incremental one needs the server to go on after a resume.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            cells = [[row.get(column) for column in columns] for row in rows]
            shown = [[wandb.Image(cell) if isinstance(cell, np.ndarray) else cell for cell in row] for row in cells]
            logger.log_table(name, columns, shown, step=step)


def log_histogram(trainer: Trainer, name: str, values: npt.NDArray[np.float64]) -> None:
    """Send numbers to W&B and TensorBoard, which draw their histogram."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_metrics({name: wandb.Histogram(values.tolist())}, trainer.global_step)  # type: ignore[dict-item]
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_histogram(name, values, trainer.global_step)
