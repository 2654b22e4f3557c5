"""Several devices, a process for each: they say things once and end together."""

from __future__ import annotations

import logging
import signal
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning import Trainer
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities.rank_zero import rank_zero_only  # type: ignore[attr-defined]

from realsr.errors import InputError

SECONDS = 3.0  # in which a process ends whose connection was lost


def quiet_unless_first() -> None:
    """Leave what is worth saying once to the first process; errors are told by the one that meets them."""
    if rank_zero_only.rank:  # type: ignore[attr-defined]  # Lightning reads it from the environment that torchrun, srun or itself made
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")


def check_startable(trainer: Trainer) -> None:
    """Raise InputError for a row of a sweep that would start other processes: they would run the whole sweep."""
    if HydraConfig.get().mode is RunMode.MULTIRUN and _starts_others(trainer):
        raise InputError(
            f"{trainer.world_size} devices for a row of a sweep: give each row a command of its own without -m, or on "
            f"SLURM hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node={trainer.num_devices}"
        )


@contextmanager
def ending_together(trainer: Trainer) -> Iterator[None]:
    """An error in one process ends all, and the exit code is that of the mistake.

    torchrun and srun end the others themselves. Those that Lightning starts would otherwise report in many lines that
    they lost the first one, or it them.
    """
    try:
        yield
    except Exception as e:
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            others = launcher.procs[:]
            launcher.procs.clear()  # Lightning's own watch over them would kill this process too
            told = not isinstance(e, InputError) and any(_ended(process) == 2 for process in others)
            for process in others:
                process.send_signal(signal.SIGKILL)
            if told:
                raise InputError("the other devices stop as well") from e
        raise


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    with suppress(subprocess.TimeoutExpired):
        return process.wait(SECONDS)
    return None


def _starts_others(trainer: Trainer) -> bool:
    launcher = trainer.strategy.launcher
    return isinstance(launcher, _SubprocessScriptLauncher) and not (
        launcher.cluster_environment.creates_processes_externally
    )
