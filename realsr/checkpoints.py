"""Checkpoints: written whole, when told to stop, and with what they were made from inside."""

from __future__ import annotations

import io
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from realsr import __version__
from realsr.callbacks import PICTURE_LOGGERS
from realsr.images import atomic_write


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
