"""Training on a single photo: a thousand small runs in a row, each quiet, on one thread, and the same every time."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from realsr.runtime.errors import InputError


def fit_photo(module: LightningModule, loader: DataLoader[Any], accelerator: str = "auto") -> None:
    """Run through the loader once.

    Args:
        module: that is trained, in place.
        loader: of one photo's crops.
        accelerator: Lightning's name of the device.

    Raises:
        InputError: there is no such accelerator.
        KeyboardInterrupt: it was stopped.
    """
    with _quiet(), one_thread():
        try:
            trainer = Trainer(barebones=True, max_epochs=1, accelerator=accelerator, devices=1)
        except Exception as e:  # Lightning's own, and what it takes from the accelerator's library
            raise InputError(f"accelerator={accelerator}: {' '.join(str(e).split())}; take cpu or auto") from e
        trainer.fit(module, loader)
    if trainer.interrupted:
        raise KeyboardInterrupt


@contextmanager
def one_thread() -> Iterator[None]:
    """Crops are so small that more threads only wait for each other; and the result must not depend on them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's banner and advice are for one training, not for a thousand small ones in a row."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
