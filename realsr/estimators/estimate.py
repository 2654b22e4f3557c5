"""From one photo to its kernels."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from realsr.estimators.crops import CropPairs
from realsr.estimators.kernelgan.module import KernelGAN
from realsr.kernels import Kernel, postprocess, x4_from_x2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KernelEstimate:
    """What came out for a photo.

    Attributes:
        kernels: by scale: the estimated one, and the x4 kernel derived from a x2 one. Correlation kernels, sum 1.
        losses: last value of every loss, unweighted.
        iterations: that were run.
    """

    kernels: dict[int, Kernel]
    losses: dict[str, float]
    iterations: int

    @property
    def converged(self) -> bool:
        """Whether the kernel sums to about one; if not, it has hardly left its random start."""
        return self.losses["sum"] < 0.5


def estimate_kernel(
    image: Tensor, estimator: Callable[[], KernelGAN] = KernelGAN, accelerator: str = "auto"
) -> KernelEstimate:
    """Estimate the kernel with which the camera blurred and subsampled the scene.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        estimator: builds the module to train, e.g. ``functools.partial(KernelGAN, iterations=1500)``.
        accelerator: Lightning's name of the device.

    Raises:
        InputError: the photo is too small, or has no edges to learn from.
    """
    module = estimator()
    crops = CropPairs(image, module.iterations, module.crop, module.output_size, module.scale, seed=module.seed)
    with _quiet(), _one_thread():
        trainer = Trainer(barebones=True, max_epochs=1, accelerator=accelerator, devices=1)
        # a loader draws a seed at its start: of a generator of its own, not of the global one
        trainer.fit(module, DataLoader(crops, batch_size=1, generator=torch.Generator()))
    if trainer.interrupted:
        raise KeyboardInterrupt
    kernel = postprocess(module.kernel(), module.scale)
    kernels = {module.scale: kernel}
    if module.scale == 2:
        kernels[4] = x4_from_x2(kernel)
    final = {name: value.item() for name, value in module.losses.items()}
    estimate = KernelEstimate(kernels, final, module.iterations)
    if not estimate.converged:
        log.warning("the kernel has not converged, its sum is off by %.2f: give more iterations", final["sum"])
    return estimate


@contextmanager
def _one_thread() -> Iterator[None]:
    """Crops are so small that more threads only wait for each other; and the kernel must not depend on them."""
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
