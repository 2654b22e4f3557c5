"""Several devices, a process for each: they say things once and end together."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning import Trainer
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities.rank_zero import rank_zero_only  # type: ignore[attr-defined]

from realsr.errors import InputError


def quiet_unless_first() -> None:
    """Leave what is worth saying once to the first process; errors are told by the one that meets them."""
    if rank_zero_only.rank:  # type: ignore[attr-defined]  # Lightning reads it from the environment that torchrun, srun or itself made
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")


def check_processes(trainer: Trainer) -> None:
    """Find out now what would train the same run twice, or wait for ever.

    Raises:
        InputError: torchrun or srun has started another number of processes than the trainer has devices; or a row of a
            sweep would start others itself, which would run the whole sweep.
    """
    by = "WORLD_SIZE" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_STEP_NUM_TASKS"
    devices = trainer.num_devices * trainer.num_nodes
    if (started := int(os.environ.get(by, devices))) != devices:
        raise InputError(
            f"{started} processes were started for {devices} device{'s' * (devices > 1)}; give trainer=ddp, "
            "trainer.devices= the processes of one machine and trainer.num_nodes= the machines"
        )
    if HydraConfig.get().mode is RunMode.MULTIRUN and _starts_others(trainer):
        raise InputError(
            f"{devices} devices for a row of a sweep: give each row a command of its own without -m, or on SLURM "
            f"hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node={trainer.num_devices}"
        )


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
                raise InputError(f"another device's process was ended by {name}; go on with ckpt=last") from e
        raise


def _codes(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes of those that have ended, or do so now: a lost connection is noticed before they are gone."""
    deadline = time.monotonic() + 3.0
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0))
    return [process.returncode for process in processes if process.returncode is not None]


def _starts_others(trainer: Trainer) -> bool:
    launcher = trainer.strategy.launcher
    return isinstance(launcher, _SubprocessScriptLauncher) and not (
        launcher.cluster_environment.creates_processes_externally
    )
