"""What a run leaves for people: pictures of validation images and pools, and the config in every checkpoint."""

from __future__ import annotations

import io
import logging
import signal
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import wandb
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from realsr import __version__
from realsr.images import Photo, atomic_write, to_uint, write_image
from realsr.kernel_sheet import kernel_sheet
from realsr.pictures import Picture, grid
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


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt`` every so many steps, at the last one, and at the one in which the run is told to stop.

    Ctrl-C and SIGTERM end a training in one process after the step that they meet, so that no step is lost; a second
    one ends it at once.

    Args:
        dirpath: folder of the file.
        every_n_train_steps: steps from one to the next; 0 writes at the end alone.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int = 200) -> None:
        super().__init__(
            dirpath, "last", every_n_train_steps=every_n_train_steps, every_n_epochs=0, enable_version_counter=False
        )
        self.told = False
        self.handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Listen."""
        super().on_train_start(trainer, module)
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._tell) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Write the file; stop if told to."""
        super().on_train_batch_end(trainer, module, *args)
        if self.told or trainer.global_step >= trainer.max_steps:
            trainer.save_checkpoint(Path(str(self.dirpath)) / "last.ckpt", weights_only=False)
        if self.told:
            raise KeyboardInterrupt

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Listen no more."""
        super().teardown(trainer, module, stage)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def _tell(self, number: int, frame: Any) -> None:
        if self.told:
            raise KeyboardInterrupt
        self.told = True


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, also on another disk than /tmp, where Lightning's copy may break."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write beside the old file, then replace it."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as file:
            file.write(buffer.getbuffer())


class StepProgress(RichProgressBar):
    """A progress bar over generator steps."""

    @property
    def total_train_batches(self) -> int:
        """Steps of the run; the loader has one more."""
        return self.trainer.max_steps

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """Losses, without the loggers' version."""
        return {name: value for name, value in super().get_metrics(trainer, module).items() if name != "v_num"}


class RunRecord(Callback):
    """The resolved config and the versions, in every checkpoint and at the loggers that show them.

    Args:
        config: plain containers, as ``OmegaConf.to_container(cfg, resolve=True)`` gives them.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Show the config beside the curves."""
        for logger in trainer.loggers:
            if isinstance(logger, PICTURE_LOGGERS):
                logger.log_hyperparams(self.config)

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Plain values only, so that the file loads with ``weights_only=True``."""
        checkpoint["config"] = self.config
        checkpoint["versions"] = {"realsr": __version__, "torch": str(torch.__version__)}


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
