"""What a run leaves for people: pictures of validation images and of the pools, a progress bar."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import wandb
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

from realsr.images import Photo, to_uint, write_image
from realsr.kernel_sheet import kernel_sheet
from realsr.pictures import Picture, grid, sharpest_crop
from realsr.resample import imresize

log = logging.getLogger(__name__)

PICTURE_LOGGERS = (WandbLogger, TensorBoardLogger)


class PictureGrid(Callback):
    """A grid after every validation: LR enlarged by bicubic, SR, HR; a row for each image.

    Written to ``folder/<step>.png`` and to the loggers that take pictures.

    Args:
        folder: where the PNGs go.
        count: rows at most.
        size: side in HR pixels that is shown of each image.
    """

    def __init__(self, folder: str, count: int = 8, size: int = 256) -> None:
        self.folder, self.count, self.size = Path(folder), count, size
        self.rows: list[list[Picture]] = []
        self.labels: list[list[str]] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what the module upscaled."""
        if len(self.rows) >= self.count or not isinstance(outputs, dict):
            return
        scale = outputs["sr"].shape[-1] // outputs["lr"].shape[-1]
        shown = {"bicubic": imresize(outputs["lr"], scale), "sr": outputs["sr"], "hr": outputs["hr"]}
        self.rows.append([self._cut(image) for image in shown.values() if image is not None])
        self.labels.append([f"{outputs['name']} {name}" for name, image in shown.items() if image is not None])

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the grid."""
        if self.rows and trainer.is_global_zero:
            picture = grid(self.rows, self.labels)
            write_image(self.folder / f"{trainer.global_step:06d}.png", Photo(picture))
            log_picture(trainer.loggers, "val/pictures", picture, trainer.global_step)
        self.rows, self.labels = [], []

    def _cut(self, image: Tensor) -> Picture:
        y, x = (max((side - self.size) // 2, 0) for side in image.shape[-2:])
        return to_uint(image[:, y : y + self.size, x : x + self.size])


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


class StepProgress(RichProgressBar):
    """A progress bar over generator steps."""

    @property
    def total_train_batches(self) -> int:
        """Steps of the run; the loader has one more."""
        return self.trainer.max_steps

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """Losses, without the loggers' version."""
        return {name: value for name, value in super().get_metrics(trainer, module).items() if name != "v_num"}


def log_picture(loggers: Iterable[Logger], name: str, picture: Picture, step: int) -> None:
    """Send a ``(H, W, 3)`` uint8 picture to those of the loggers that take pictures, W&B and TensorBoard."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            # floats in [0, 1] would be logged black
            logger.log_image(name, [picture], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step, dataformats="HWC")


def log_histogram(trainer: Trainer, name: str, values: npt.NDArray[np.float64]) -> None:
    """Send numbers to W&B and TensorBoard, which draw their histogram."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_metrics({name: wandb.Histogram(values.tolist())}, trainer.global_step)  # type: ignore[dict-item]
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_histogram(name, values, trainer.global_step)


class ValidationCrops(Callback):
    """The last validation's images at their busiest place, for a sweep's picture of all its runs.

    Written to ``folder/<loader>_<number>_<photo>_<bicubic, sr or hr>.png``, where HR (LR, if there is none) has most
    edges: the same place in all runs that are validated on the same images.

    Args:
        folder: where the PNGs go.
        count: images at most with ground truth, and as many of the camera's without; the first ones.
        size: side of a crop in HR pixels.
    """

    def __init__(self, folder: str, count: int = 4, size: int = 256) -> None:
        self.folder, self.count, self.size = Path(folder), count, size
        self.corners: dict[str, tuple[int, int]] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write those of an image."""
        if not trainer.is_global_zero or batch_idx >= self.count or not isinstance(outputs, dict):
            return
        scale = outputs["sr"].shape[-1] // outputs["lr"].shape[-1]
        images = {"bicubic": imresize(outputs["lr"], scale), "sr": outputs["sr"], "hr": outputs["hr"]}
        shown = {kind: to_uint(image) for kind, image in images.items() if image is not None}
        name = f"{dataloader_idx}_{batch_idx:02d}_{outputs['name']}"
        if name not in self.corners:
            self.corners[name] = sharpest_crop(shown.get("hr", shown["bicubic"]), self.size)
        y, x = self.corners[name]
        for kind, image in shown.items():
            write_image(self.folder / f"{name}_{kind}.png", Photo(image[y : y + self.size, x : x + self.size]))
