"""Training on a single photo: small runs, one after the other, quiet, on one thread and reproducible."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from realsr.runtime.errors import InputError


def fit_photo(module: LightningModule, loader: DataLoader[Any], accelerator: str = "auto") -> None:
    """Train a module in place, for one pass over a loader of one photo's crops.

    Raises:
        InputError: there is no such accelerator.
        KeyboardInterrupt: the run was stopped.
    """
    logger = logging.getLogger("pytorch_lightning")
    with one_thread(), warnings.catch_warnings(), ExitStack() as after:
        after.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)  # a banner and advice, in each of a thousand small runs
        warnings.simplefilter("ignore")
        try:
            trainer = Trainer(barebones=True, max_epochs=1, accelerator=accelerator, devices=1)
        except Exception as e:  # of Lightning, or of the accelerator's library
            raise InputError(f"accelerator={accelerator}: {' '.join(str(e).split())}; take cpu or auto") from e
        trainer.fit(module, loader)
    if trainer.interrupted:
        raise KeyboardInterrupt


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: crops are too small for more, and results must not depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
