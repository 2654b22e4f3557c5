"""``python -m realsr.estimate data.source_dir=DIR``: a blur kernel of every photo of a camera, into a kernel pool."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from realsr.config import check_writable, command, pick_device
from realsr.errors import InputError
from realsr.estimators.estimate import estimate_kernel
from realsr.estimators.kernelgan.module import KernelGAN
from realsr.images import Photo, find_images, read_image, to_float, write_image
from realsr.pictures import contact_sheet, kernel_picture
from realsr.pools import Arrays, KernelPool, fill_pool

log = logging.getLogger(__name__)


def estimate_kernels(
    photos: Sequence[Path],
    folder: Path,
    estimator: Callable[[], KernelGAN],
    scale: int,
    accelerator: str = "auto",
    redo: bool = True,
) -> KernelPool:
    """Fill the kernel pool in ``folder``, going on from what is there, and draw its contact sheet.

    Args:
        photos: of one camera.
        folder: of the pool.
        estimator: a ``functools.partial`` of the module; its keywords are the settings in the manifests.
        scale: of the kernels that are returned and shown.
        accelerator: Lightning's name of the device.
        redo: whether kernels that were estimated with other settings are estimated anew; those that had not
            converged are in any case.

    Raises:
        InputError: no photo gave a kernel; says why the first one did not.
    """
    check_writable(folder)
    pick_device(accelerator)
    estimated = estimator().scale  # a bad option of the estimator fails here, not once for every photo
    if scale not in (offered := (2, 4) if estimated == 2 else (estimated,)):
        raise InputError(
            f"scale={scale}: estimator.scale={estimated} gives kernels for {' and '.join(map(str, offered))}"
        )

    def make(photo: Path) -> tuple[Arrays, dict[str, Any]]:
        image = to_float(read_image(photo).rgb)
        try:
            estimate = estimate_kernel(image, estimator, accelerator)
        except InputError as e:
            raise InputError(f"{photo}: {e}") from e
        arrays = {f"x{scale}": kernel for scale, kernel in estimate.kernels.items()}
        return arrays, {
            "iterations": estimate.iterations,
            "losses": estimate.losses,
            "doubtful": not estimate.converged,
        }

    skipped: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("ETA"), TimeRemainingColumn()) as progress:
        task = progress.add_task("estimating kernels", total=len(photos))
        for _, result in fill_pool(folder, photos, _settings(estimator), make, redo):
            progress.advance(task)
            if isinstance(result, str):
                skipped.append(result)
                log.warning("skipped: %s", result)
    if len(skipped) == len(photos):
        raise InputError(f"no kernel from {len(photos)} photos: {skipped[0]}")
    pool = KernelPool.load(folder, scale)
    sheet = contact_sheet(pool.kernels.numpy(), kernel_picture, pool.photos)
    write_image(folder / "contact_sheet.png", Photo(sheet))
    log.info("%s: %d kernels, %d photos skipped", folder, len(pool), len(skipped))
    return pool


def _settings(estimator: Callable[[], KernelGAN]) -> dict[str, Any]:
    """What an entry depends on besides its photo."""
    if isinstance(estimator, functools.partial):
        return {"estimator": estimator.func.__qualname__, **estimator.keywords}
    return {"estimator": getattr(estimator, "__qualname__", repr(estimator))}


def _run(cfg: DictConfig) -> None:
    photos = find_images(cfg.data.source_dir)
    folder = Path(cfg.pool_dir) / "kernels"
    estimate_kernels(photos, folder, instantiate(cfg.estimator), cfg.scale, cfg.accelerator)


main = command("estimate", then="the same command goes on")(_run)

if __name__ == "__main__":
    main()
