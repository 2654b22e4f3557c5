"""Checkpoints: ``best.ckpt`` and ``last.ckpt``, written whole, also on a signal, with config, versions and pools."""

import io
import logging
import math
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.trainer.states import TrainerFn

from realsr.data.datamodule import RealSRData
from realsr.pools.builder import remove_leftovers
from realsr.pools.folder import pool_changes
from realsr.runtime.config import FAILED, METRICS, OPTIONS
from realsr.runtime.errors import at_least
from realsr.runtime.files import atomic_write, write_file
from realsr.runtime.hardware import versions
from realsr.runtime.workers import STOP_SIGNALS
from realsr.training.loggers import PICTURE_LOGGERS
from realsr.training.resume import apply_options, changes, tell

log = logging.getLogger(__name__)

# beginnings of options whose change is reported on resume, and of those that change the steps themselves
REPORTED = ("seed", "data.", "model.", "trainer.", "callbacks.last.", "callbacks.best.")
SHAPING = ("seed", "data.", "model.", "trainer.precision", "trainer.devices", "trainer.num_nodes")
# parts of an option's name whose change is never reported
HARMLESS = {
    *("num_workers", "workers", "accelerator", "store_limit", "look_count", "lpips"),
    *("dirpath", "default_root_dir", "enable_progress_bar"),
}
EXACT = ("realsr", "torch", "numpy", "cuda", "cudnn", "gpu")  # versions that may change the numbers of a step


class BestCheckpoint(Checkpoint):
    """Writes ``best.ckpt`` when a validation of the training is better than all before it.

    It must come before :class:`LastCheckpoint`, whose file keeps the best score. Lightning's ModelCheckpoint keeps its
    folder's path in each file, and forgets the best score when the folder is moved.

    Args:
        dirpath: folder of the file.
        monitor: name of a logged metric of which higher is better.
    """

    def __init__(self, dirpath: str, monitor: str) -> None:
        self.path, self.monitor = Path(dirpath) / "best.ckpt", monitor
        self.score = -math.inf

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the file if this validation is the best."""
        score = float(trainer.callback_metrics.get(self.monitor, math.nan))
        if trainer.state.fn is TrainerFn.FITTING and trainer.strategy.reduce_boolean_decision(score > self.score):
            self.score = score
            trainer.save_checkpoint(self.path, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, and its metric."""
        return {"score": self.score, "monitor": self.monitor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the score over, unless its file is missing or the metric is another now."""
        if self.path.exists() and state_dict.get("monitor", self.monitor) == self.monitor:
            self.score = state_dict["score"]


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` at regular steps, at the last step, and after the step in which a signal arrives.

    Signals are Ctrl-C, SIGTERM, SIGHUP, and SIGUSR1 and SIGUSR2, which Slurm sends before it takes a machine away. A
    validation that is due comes first, so that a resumed run has missed nothing. After the file is written the signal
    goes to the handler that was installed before the training: Python's own ends the run, submitit's requeues the job,
    and the run goes on if the handler returns. All processes of a run stop at the same step, whichever got the signal.
    A second Ctrl-C ends a run of one process at once.

    Args:
        dirpath: folder of the file.
        every_n_train_steps: steps between two writes; 0 writes at the end only.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int = 200) -> None:
        at_least(0, "callbacks.last.", every_n_train_steps=every_n_train_steps)
        self.path, self.every = Path(dirpath) / "last.ckpt", every_n_train_steps
        self.written = False
        self.received, self.saved = set[int](), set[int]()  # signals before and after their checkpoint
        self.handlers: dict[int, Any] = {}  # as they were before the training
        self.alone = True

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Remember the handlers before Lightning sets its own; delete the remains of interrupted writes."""
        if trainer.is_global_zero:
            remove_leftovers(self.path.parent, ".*.ckpt.*", 0)
        if stage == TrainerFn.FITTING and threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Replace Lightning's handlers, which end the run in the middle of a step."""
        self.alone = trainer.world_size == 1
        for number, handler in self.handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._receive)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Write the file if it is due, unless a validation is due too: resumed runs would not make up for it."""
        steps = trainer.fit_loop.total_batch_idx + 1
        if not (trainer.enable_validation and steps % (trainer.val_check_batch or math.inf) == 0):
            self._write(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the file if it is due; also after the first validation, whose best.ckpt needs its score kept."""
        if trainer.state.fn is TrainerFn.FITTING:
            self._write(trainer, first=not self.written)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Forward signals of the step before; the loggers have its values by now."""
        self._forward()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Forward signals of the last step."""
        self._forward()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Put the handlers back, since Lightning then calls no teardown."""
        self.teardown(trainer, module, "")

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Put the handlers back."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def _receive(self, number: int, frame: Any) -> None:
        if (self.received or self.saved) and number == signal.SIGINT and self.alone:
            raise KeyboardInterrupt
        self.received.add(number)

    def _write(self, trainer: Trainer, first: bool = False) -> None:
        step, received = trainer.global_step, self._of_all_processes(trainer)
        last = step >= trainer.max_steps or trainer.should_stop  # by trainer.max_time
        if received or last or first or (self.every and step % self.every == 0):
            trainer.save_checkpoint(self.path, weights_only=False)
            self.written = True
        self.received -= received
        self.saved |= received

    def _forward(self) -> None:
        saved, self.saved = self.saved, set()
        handlers = {number: self.handlers.get(number) for number in saved}
        for number, handler in handlers.items():
            if callable(handler):
                handler(number, None)
        if not all(map(callable, handlers.values())):  # the system's default
            raise KeyboardInterrupt

    def _of_all_processes(self, trainer: Trainer) -> set[int]:
        """Signals that any of the processes has received."""
        if self.alone:
            return set(self.received)
        flags = torch.tensor([number in self.received for number in STOP_SIGNALS], device=trainer.strategy.root_device)
        flags = trainer.strategy.reduce(flags * 1.0, reduce_op="max")
        return {number for number, flag in zip(STOP_SIGNALS, flags.tolist(), strict=True) if flag}


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all; Lightning's copy from /tmp to another disk may be cut."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write beside the old file, then replace it."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as file:
            file.write(buffer.getbuffer())


class RunRecord(Callback):
    """Keeps config, versions and the pools' content in every checkpoint, and compares them on resume.

    A resumed run takes the options given now and stores them, so that a file's config is always the one in force.

    Args:
        config: plain containers, as ``OmegaConf.to_container(cfg, resolve=True)`` gives them.
        data: whose pools are recorded.
        folder: of the run, whose metrics are removed once it goes on.
    """

    def __init__(self, config: dict[str, Any], data: RealSRData, folder: Path) -> None:
        self.config, self.data, self.folder = config, data, folder
        self.options = OmegaConf.to_yaml(HydraConfig.get().overrides.task)  # spawned processes know of no Hydra

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Replace the files of the run that is resumed, now that its data are ready; log the config."""
        if trainer.is_global_zero:
            for name in (METRICS, FAILED):
                (self.folder / name).unlink(missing_ok=True)
            write_file(self.folder / OPTIONS, self.options)
        for logger in trainer.loggers:
            if isinstance(logger, PICTURE_LOGGERS):
                logger.log_hyperparams(self.config)

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add plain values, so that the file loads with ``weights_only=True``."""
        checkpoint |= {"config": self.config, "versions": versions(), "pools": self.data.records}
        checkpoint["held_out"] = self.data.held_out

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Apply the options given now; log what changed, and whether the run goes on exactly as it began."""
        apply_options(module, checkpoint)
        was, now = checkpoint.get("versions", {}), versions()
        others = [f"{k} is {now.get(k)}, was {was.get(k)}" for k in EXACT if was.get(k) != now.get(k)]
        changed = changes(checkpoint["config"], self.config)
        options = {k: v for k, v in changed.items() if k.startswith(REPORTED) and not HARMLESS & {*k.split(".")}}
        differ = pool_changes(checkpoint.get("pools", {}), self.data.records)
        files = [f"{len(differ)} files of the pools or photos differ, the first {differ[0]}"] if differ else []
        exactly = not (others or files or any(name.startswith(SHAPING) for name in options))
        if told := [*others, *tell(options), *files]:
            say, end = (log.info, "") if exactly else (log.warning, "; the run will not go on exactly as it began")
            say("in force from step %d: %s%s", checkpoint["global_step"], "; ".join(told), end)


def trainer_plugins() -> list[Any]:
    """Whole checkpoints, and under Slurm no requeue by Lightning: it would prefer its ``hpc_ckpt`` to ``last.ckpt``."""
    slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [WholeCheckpoints(), *([SLURMEnvironment(auto_requeue=False)] if slurm else [])]
