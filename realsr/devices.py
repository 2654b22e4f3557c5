"""Several devices, a process for each: they say things once and end together."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities.rank_zero import rank_zero_only  # type: ignore[attr-defined]

from realsr.errors import InputError


def quiet_unless_first() -> None:
    """Leave what is worth saying once to the first process; errors are told by the one that meets them."""
    if rank_zero_only.rank:  # type: ignore[attr-defined]  # Lightning reads it from the environment that torchrun, srun or itself made
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")


def check_processes(trainer: Trainer) -> None:
    """Find out now what would train the same run several times, or wait for ever, or fail in the first step.

    Raises:
        InputError: torchrun or srun has started another number of processes than the trainer has devices, or none for
            those of other machines; or several devices were asked for without ``trainer=ddp``.
    """
    strategy, devices = trainer.strategy, trainer.num_devices * trainer.num_nodes
    by_turns = isinstance(strategy, DDPStrategy) and strategy._ddp_kwargs.get("find_unused_parameters", False)
    if not (by_turns or isinstance(strategy, SingleDeviceStrategy)):
        raise InputError(
            "two networks are trained by turns, which needs trainer=ddp for several devices; give it with "
            "trainer.devices=N, and no trainer.strategy"
        )
    if (started := _started()) not in (None, devices):
        raise InputError(
            f"{started} process{'es' * (started != 1)} for {devices} device{'s' * (devices != 1)}: torchrun or srun has"
            " to start as many; give trainer=ddp, trainer.devices=N for each machine, trainer.num_nodes= the machines"
        )
    if started is None and trainer.num_nodes > 1 and "MASTER_ADDR" not in os.environ:
        raise InputError(f"trainer.num_nodes={trainer.num_nodes}: start it with torchrun or srun on each machine")


def is_row_apart(trainer: DictConfig) -> bool:
    """Whether this is a run of a sweep that would start the processes of other devices.

    Lightning starts them by the command of this one, so that each would run the whole sweep.
    """
    return HydraConfig.get().mode is RunMode.MULTIRUN and "strategy" in trainer and _started() is None


def run_apart(folder: Path) -> None:
    """Run this row of a sweep as a command of its own, which writes into ``folder``.

    Raises:
        InputError: it failed, and has said why.
    """
    options = [*HydraConfig.get().overrides.task, f"hydra.run.dir='{folder}'"]
    command = [sys.executable, "-m", "realsr.train", *options]
    process = subprocess.Popen(command, start_new_session=True)  # signals come from here, and once
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if code:
        raise InputError(f"the run in {folder} ended with exit code {code}, for the reason that it gives above")


def _started() -> int | None:
    """How many processes torchrun or srun has started; None: it was neither."""
    by = "WORLD_SIZE" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_STEP_NUM_TASKS"
    return int(os.environ[by]) if by in os.environ else None


@contextmanager
def ending_together(trainer: Trainer) -> Iterator[None]:
    """An error in one process is told by it, and ends all.

    torchrun and srun end the others themselves. Of those that Lightning starts, each would otherwise show in many lines
    where it was when the first one left it, or the first one would be killed by Lightning's watch over the others.
    """
    try:
        yield
    except Exception as e:
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            others = launcher.procs[:]
            launcher.procs.clear()  # nothing is left for Lightning to watch over
            codes = [] if isinstance(e, InputError) else _codes(others)
            for process in others:
                process.send_signal(signal.SIGKILL)
            if 2 in codes:
                raise InputError("the other devices stop as well") from e
            if killed := [-code for code in codes if code < 0]:
                name = signal.Signals(killed[0]).name
                raise InputError(f"another device's process was ended by {name}; go on with ckpt=auto") from e
        raise


def _codes(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes of those that have ended, or do so now: a lost connection is noticed before they are gone."""
    deadline = time.monotonic() + 3.0
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0))
    return [process.returncode for process in processes if process.returncode is not None]
