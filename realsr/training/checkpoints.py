"""Checkpoints: written whole, also when told to stop, and with what they were made from inside."""

from __future__ import annotations

import io
import logging
import math
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.trainer.states import TrainerFn

from realsr.data.datamodule import RealSRData
from realsr.pools.builder import remove_leftovers
from realsr.pools.folder import pool_changes
from realsr.runtime.errors import at_least
from realsr.runtime.files import atomic_write
from realsr.runtime.hardware import versions
from realsr.runtime.workers import STOP_SIGNALS
from realsr.training.callbacks import PICTURE_LOGGERS
from realsr.training.resume import apply_options, changes, tell

log = logging.getLogger(__name__)

# options whose change is told, by how their names begin; those that shape a step; what changes nothing wherever it is
TOLD = ("seed", "data.", "model.", "trainer.", "callbacks.last.", "callbacks.best.")
SHAPING = ("seed", "data.", "model.", "trainer.precision", "trainer.devices", "trainer.num_nodes")
FREE = {
    *("num_workers", "workers", "accelerator", "store_limit", "look_count", "lpips"),
    *("dirpath", "default_root_dir", "enable_progress_bar"),
}
EXACT = ("realsr", "torch", "numpy", "cuda", "cudnn", "gpu")  # versions that a step's numbers may depend on


class BestCheckpoint(Checkpoint):
    """``best.ckpt``, whenever a validation in training is better than all before. Comes before :class:`LastCheckpoint`.

    Lightning's ModelCheckpoint keeps its folder's path in each file, and forgets the best where the folder was moved.

    Args:
        dirpath: folder of the file.
        monitor: name of a logged metric of which higher is better.
    """

    def __init__(self, dirpath: str, monitor: str) -> None:
        self.path, self.monitor = Path(dirpath) / "best.ckpt", monitor
        self.score = -math.inf

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the file if this is the best."""
        score = float(trainer.callback_metrics.get(self.monitor, math.nan))
        if trainer.state.fn is TrainerFn.FITTING and trainer.strategy.reduce_boolean_decision(score > self.score):
            self.score = score
            trainer.save_checkpoint(self.path, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, and of what."""
        return {"score": self.score, "monitor": self.monitor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it, unless the file of that score is not here, or another metric is asked for now."""
        if self.path.exists() and state_dict.get("monitor", self.monitor) == self.monitor:
            self.score = state_dict["score"]


class LastCheckpoint(Checkpoint):
    """``last.ckpt`` every so many steps, at the last one, and at the one in which the run is told to stop.

    Ctrl-C, SIGTERM, SIGHUP, and SIGUSR1 and SIGUSR2, which Slurm sends before it takes a machine away, have the file
    written after the step that they meet, with its validation where one is due: so a run that goes on has missed
    nothing. Then whoever listened before the training gets the signal: by default the run ends, submitit has the job
    queued again, and what is ignored there lets the run go on. Of several processes all stop at the same step,
    whichever was told. In a run of one process a second Ctrl-C ends it at once.

    Args:
        dirpath: folder of the file.
        every_n_train_steps: steps from one to the next; 0 writes at the end alone.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int = 200) -> None:
        at_least(0, "callbacks.last.", every_n_train_steps=every_n_train_steps)
        self.path, self.every = Path(dirpath) / "last.ckpt", every_n_train_steps
        self.written = False
        self.told: set[int] = set()
        self.saved: set[int] = set()
        self.before: dict[int, Any] = {}
        self.alone = True

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Remember who listens, before Lightning does; delete what writes that were killed left behind."""
        if trainer.is_global_zero:
            remove_leftovers(self.path.parent, ".*.ckpt.*", 0)
        if stage == TrainerFn.FITTING and threading.current_thread() is threading.main_thread():
            self.before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Listen in place of Lightning, whose handler kills wherever the signal happens to come."""
        self.alone = trainer.world_size == 1
        for number, handler in self.before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._tell)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Write the file if it is time, but before a validation wait for it: resumed runs do not make up for it."""
        steps = trainer.fit_loop.total_batch_idx + 1
        if not (trainer.enable_validation and steps % (trainer.val_check_batch or math.inf) == 0):
            self._write(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the file if it is time; also after the first validation, which may leave a best.ckpt to be kept."""
        if trainer.state.fn is TrainerFn.FITTING:
            self._write(trainer, first=not self.written)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Hand on what was told in the step before, which the loggers have got meanwhile."""
        self._hand_on()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Hand on what was told in the last step."""
        self._hand_on()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self.teardown(trainer, module, "")

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Listen no more."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _tell(self, number: int, frame: Any) -> None:
        if (self.told or self.saved) and number == signal.SIGINT and self.alone:
            raise KeyboardInterrupt
        self.told.add(number)

    def _write(self, trainer: Trainer, first: bool = False) -> None:
        step, told = trainer.global_step, self._agreed(trainer)
        last = step >= trainer.max_steps or trainer.should_stop  # by trainer.max_time
        if told or last or first or (self.every and step % self.every == 0):
            trainer.save_checkpoint(self.path, weights_only=False)
            self.written = True
        self.told -= told
        self.saved |= told

    def _hand_on(self) -> None:
        told, self.saved = self.saved, set()
        listeners = {number: self.before.get(number) for number in told}
        for number, listener in listeners.items():
            if callable(listener):
                listener(number, None)
        if not all(map(callable, listeners.values())):
            raise KeyboardInterrupt

    def _agreed(self, trainer: Trainer) -> set[int]:
        """What any of the processes was told."""
        if self.alone:
            return set(self.told)
        flags = torch.tensor([number in self.told for number in STOP_SIGNALS], device=trainer.strategy.root_device)
        flags = trainer.strategy.reduce(flags * 1.0, reduce_op="max")
        return {number for number, flag in zip(STOP_SIGNALS, flags.tolist(), strict=True) if flag}


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, also on another disk than /tmp, where Lightning's copy may break."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write beside the old file, then replace it."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as file:
            file.write(buffer.getbuffer())


class RunRecord(Callback):
    """The resolved config, the versions and what the pools are made of: in every checkpoint, and looked at on resume.

    On resume the config of now is put in force, so that what is stored is always what a run was made with.

    Args:
        config: plain containers, as ``OmegaConf.to_container(cfg, resolve=True)`` gives them.
        data: whose pools they are.
    """

    def __init__(self, config: dict[str, Any], data: RealSRData) -> None:
        self.config, self.data = config, data

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Show the config beside the curves."""
        for logger in trainer.loggers:
            if isinstance(logger, PICTURE_LOGGERS):
                logger.log_hyperparams(self.config)

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Plain values only, so that the file loads with ``weights_only=True``."""
        checkpoint |= {"config": self.config, "versions": versions(), "pools": self.data.records}
        checkpoint["held_out"] = self.data.held_out

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the options in force that are given now; say what changed, and whether the run goes on exactly."""
        apply_options(module, checkpoint)
        was, now = checkpoint.get("versions", {}), versions()
        others = [f"{k} is {now.get(k)}, was {was.get(k)}" for k in EXACT if was.get(k) != now.get(k)]
        options = {
            name: change
            for name, change in changes(checkpoint["config"], self.config).items()
            if name.startswith(TOLD) and not FREE & {*name.split(".")}
        }
        differ = pool_changes(checkpoint.get("pools", {}), self.data.records)
        files = [f"{len(differ)} files of the pools or photos differ, the first {differ[0]}"] if differ else []
        exactly = not (others or files or any(name.startswith(SHAPING) for name in options))
        if told := [*others, *tell(options), *files]:
            say, end = (log.info, "") if exactly else (log.warning, "; the run will not go on exactly as it began")
            say("in force from step %d: %s%s", checkpoint["global_step"], "; ".join(told), end)


def trainer_plugins() -> list[Any]:
    """For the Trainer: whole checkpoints; and under Slurm no checkpoints and requeues of Lightning's own.

    Lightning would prefer its ``hpc_ckpt`` files to ``last.ckpt`` ever after. A requeued job goes on with
    ``ckpt=auto`` in its command.
    """
    slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [WholeCheckpoints(), *([SLURMEnvironment(auto_requeue=False)] if slurm else [])]
