"""Fill a kernel pool from photos: a blur kernel of each, with its confidence."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.progress import track

from realsr.estimation.estimate import Estimator, check_scale, estimate_kernel
from realsr.estimation.noise_model import NoiseModel
from realsr.estimation.patch_matching import PatchMatching
from realsr.imaging import read_image
from realsr.pools.builder import AS_IT_IS, fill_pool
from realsr.pools.folder import Arrays, Entry
from realsr.pools.kernel_sheet import kernel_sheet, thumbnails
from realsr.pools.pool import KernelPool, check_confidence
from realsr.pools.pool_report import report_pools
from realsr.reports.pictures import save
from realsr.runtime.errors import InputError, at_least, counted
from realsr.runtime.files import SHEET, check_writable
from realsr.runtime.hardware import pick_device
from realsr.runtime.workers import default_workers

log = logging.getLogger(__name__)
HOPELESS = 0.05  # kernels of less confidence are made anew when the settings differ, in training too


class NoKernelError(InputError):
    """No photo gave a kernel."""


def estimate_kernels(
    photos: Sequence[Path],
    folder: Path,
    estimator: Callable[[], Estimator],
    scale: int,
    accelerator: str = "auto",
    redo: bool = True,
    workers: int = 1,
    min_confidence: float = 0.0,
    whole: bool = True,
    noise: Callable[[], NoiseModel | None] | None = None,
) -> KernelPool:
    """Fill the kernel pool in ``folder`` where it lacks kernels, and draw its contact sheet and its page.

    Args:
        photos: of one camera.
        folder: of the pool.
        estimator: a ``functools.partial`` of the module; its keywords are the settings in the manifests.
        scale: of the kernels that are returned and shown.
        accelerator: Lightning's name of the device.
        redo: whether kernels that were estimated with other settings are estimated anew, those of hardly any
            confidence are in any case; and whether a page that shows all of the pool is written anew.
        workers: photos at a time, each in a process that imports the estimator by name; 0: as suits the device.
        min_confidence: kernels of less are marked in the contact sheet.
        whole: whether these are all photos of the pool, and not a shard of them.
        noise: called if a photo lacks its kernel, gives the camera's noise. Without it each photo's own is taken.

    Raises:
        NoKernelError: no photo gave a kernel; gives the first photo's reason.
    """
    at_least(0, workers=workers)
    check_confidence(min_confidence)
    check_writable(folder, otherwise=AS_IT_IS)
    device = pick_device(accelerator)
    check_scale(scale, made := estimator())  # a bad option of the estimator fails here, not once for every photo

    def learn() -> tuple[dict[str, Any], dict[str, Any]]:
        model = noise() if noise else None
        return {"noise": "photo" if model is None else "camera"}, {"noise": model}

    make = functools.partial(_kernels_of, estimator=estimator, scale=scale, accelerator=accelerator, noise=None)
    settings, asks = plain_settings(estimator), noise is not None and isinstance(made, PatchMatching)
    if isinstance(made, PatchMatching):
        settings["noise"] = "camera" if asks else "photo"
        if not redo and (redo := _of_an_earlier_version(folder)):
            log.info("%s: is of an earlier version, which took sharpening for the lens; it is made anew", folder)
    processes = workers or default_workers(device)
    filling = fill_pool(folder, photos, settings, make, redo, processes, whole, learn if asks else None)
    skipped: dict[Path, str] = {}
    with closing(filling):
        for photo, result in track(filling, "estimating kernels", total=len(photos)):
            if isinstance(result, str):
                skipped[photo] = result
                log.warning("skipped: %s", result)
    report = functools.partial(report_pools, folder, folder.parent / "noise", redo)
    if len(skipped) == len(photos):
        report()
        raise NoKernelError(f"no kernel from {counted(len(photos), 'photo')}: {skipped[photos[0]]}")
    pool = KernelPool.load(folder, scale)
    save(folder / SHEET, kernel_sheet(folder, scale, min_confidence)[0])
    log.info("%s: %s, %s skipped", folder, counted(len(pool), "kernel"), counted(len(skipped), "photo"))
    if min_confidence > 0 and pool.confidence is not None:
        kept = int((pool.confidence >= min_confidence).sum())
        log.info("min_confidence=%g keeps %d of %d kernels for x%d", min_confidence, kept, len(pool), scale)
    report()
    return pool


def _kernels_of(
    photo: Path, estimator: Callable[[], Estimator], scale: int, accelerator: str, noise: NoiseModel | None
) -> tuple[Arrays, dict[str, Any]]:
    """A photo's kernels, and the pictures and numbers of the contact sheet."""
    rgb = read_image(photo).rgb
    try:
        estimate = estimate_kernel(rgb, scale, estimator, accelerator, noise)
    except InputError as e:
        raise InputError(f"{photo}: {e}") from e
    if estimate.reasons:
        log.warning("%s: confidence %.2f, %s", photo, estimate.confidence, "; ".join(estimate.reasons))
    arrays: Arrays = {f"x{scale}": kernel for scale, kernel in estimate.kernels.items()}
    if estimate.response is not None:
        arrays["response"] = estimate.response
    arrays["thumbnail"], arrays["density"] = thumbnails(rgb, estimate)
    details = {name: getattr(estimate, name) for name in ("iterations", "losses", "confidence", "reasons")}
    details["doubtful"] = estimate.confidence < HOPELESS
    return arrays, details if estimate.blur is None else {**details, "blur": estimate.blur.tolist()}


def _of_an_earlier_version(folder: Path) -> bool:
    """Whether patch matching made a pool's kernels when it still took the camera's development for the lens."""
    made = (entry for entry in map(Entry.read, folder.glob("*.npz")) if "response" not in entry.arrays)
    return any(entry.settings.get("estimator") == PatchMatching.__qualname__ for entry in made)


def plain_settings(make: Callable[..., Any]) -> dict[str, Any]:
    """The module that ``make`` builds and its options, as plain values.

    >>> plain_settings(functools.partial(dict, crops=8))
    {'estimator': 'dict', 'crops': 8}
    """
    if not isinstance(make, functools.partial):
        return {"estimator": getattr(make, "__qualname__", repr(make))}
    plain: Any = OmegaConf.to_container(OmegaConf.create(make.keywords))
    return {"estimator": make.func.__qualname__, **plain}
