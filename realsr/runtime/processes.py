"""Training on several devices, with a process for each: who logs, checks of the launcher, and how all end."""

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning import Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_only  # type: ignore[attr-defined]

from realsr.runtime.errors import InputError


def quiet_unless_first() -> None:
    """Silence log lines and warnings in all processes but the first; errors are raised where they occur."""
    if rank_zero_only.rank:  # type: ignore[attr-defined]  # Lightning reads it from the environment that torchrun, srun or itself made
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")


def check_processes(trainer: Trainer, strategy: Any) -> None:
    """Check the number of processes, which could train the same run several times, wait for ever or fail at once.

    ``strategy`` is that of the config; None is Lightning's own choice.

    Raises:
        InputError: several devices without ``trainer=ddp``; torchrun or srun started another number of processes than
            the trainer has devices; or several machines without either.
    """
    devices = trainer.num_devices * trainer.num_nodes
    finds_unused = strategy == "ddp_find_unused_parameters_true"
    if isinstance(strategy, DictConfig):
        finds_unused = strategy.get("find_unused_parameters", False)
    if not finds_unused and (strategy is not None or devices > 1):
        raise InputError(
            "two networks are trained by turns, which needs trainer=ddp for several devices; give it with "
            "trainer.devices=N, and no trainer.strategy"
        )
    if (started := _started_processes()) not in (None, devices):
        raise InputError(
            f"{started} process{'es' * (started != 1)} for {devices} device{'s' * (devices != 1)}: torchrun or srun has"
            " to start as many; give trainer=ddp, trainer.devices=N for each machine, trainer.num_nodes= the machines"
        )
    if started is None and trainer.num_nodes > 1 and "MASTER_ADDR" not in os.environ:
        raise InputError(f"trainer.num_nodes={trainer.num_nodes}: start it with torchrun or srun on each machine")


def needs_own_command(trainer: DictConfig) -> bool:
    """Whether a run of a sweep needs several devices, and so a command of its own.

    Lightning starts the other processes by the command line of this one; each would run the whole sweep.
    """
    return HydraConfig.get().mode is RunMode.MULTIRUN and "strategy" in trainer and _started_processes() is None


def run_as_command(folder: Path) -> None:
    """Run this row of a sweep as a command of its own; raises InputError if it fails, once it has said why."""
    options = [*HydraConfig.get().overrides.task, f"hydra.run.dir={folder}"]
    command = [sys.executable, "-m", "realsr.train", *options]
    process = subprocess.Popen(command, start_new_session=True)  # it gets signals from here alone
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if code:
        raise InputError(f"the run in {folder} ended with exit code {code}, for the reason that it gives above")


def _started_processes() -> int | None:
    """The number of processes that torchrun or srun started; None without them."""
    by = "WORLD_SIZE" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_STEP_NUM_TASKS"
    return int(os.environ[by]) if by in os.environ else None


@contextmanager
def ending_together(trainer: Trainer) -> Iterator[None]:
    """End all processes with one line when one of them fails.

    torchrun and srun end the others themselves. Processes that Lightning started would each print a traceback when the
    first one ends, or Lightning's watch over them would kill the first one.
    """
    try:
        yield
    except Exception as e:
        started = getattr(trainer.strategy.launcher, "procs", [])
        others = [process for process in started if isinstance(process, subprocess.Popen)]
        if not others:
            raise
        started.clear()  # ends Lightning's watch
        deadline = time.monotonic() + (0.0 if isinstance(e, InputError) else 3.0)  # a lost connection is seen first
        while not any(process.poll() for process in others) and time.monotonic() < deadline:
            time.sleep(0.05)
        codes = [process.poll() or 0 for process in others]
        for process in others:
            process.kill()
        if isinstance(e, InputError):
            raise
        if 2 in codes:
            raise InputError("the other devices stop as well") from e
        if killed := [-code for code in codes if code < 0]:
            name = signal.Signals(killed[0]).name
            raise InputError(f"another device's process was ended by {name}; go on with ckpt=auto") from e
        raise
