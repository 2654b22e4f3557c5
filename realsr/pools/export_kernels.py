"""Kernels of a pool as other programs read them: the KernelGAN program's ``.mat`` files, or ``.npy`` arrays."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.io import savemat

from realsr.pools.folder import read_entries
from realsr.pools.interchange import VARIABLE
from realsr.pools.pool import KernelPool
from realsr.runtime.errors import InputError
from realsr.runtime.files import SUFFIXES, atomic_write

log = logging.getLogger(__name__)

FORMS = {"mat": "*/*_kernel_x*.mat", "npy": "kernels_x*.npy"}  # and the files that are written


def check_form(form: str | None) -> None:
    """Raise InputError for an ``export`` that is neither ``mat`` nor ``npy`` nor None."""
    if form is not None and form not in FORMS:
        raise InputError(f"export={form}: choose {' or '.join(FORMS)}")


def export_kernels(folder: Path, target: Path, form: str, min_confidence: float = 0.0) -> None:
    """Write the kernels of the pool in ``folder`` into ``target`` (:func:`write_kernels`), instead of earlier ones.

    Raises:
        InputError: no scale is in all of the pool's files, or no kernel is left.
    """
    have = [{name for name in entry.arrays if name[0] == "x"} for entry in read_entries(folder, "kernel")]
    scales = sorted(int(name[1:]) for name in set.intersection(*have) if name[1:].isdigit())
    if not scales:
        raise InputError(f"{folder}: no scale is in all of its files, so there is nothing to export")
    for name in sorted(set.union(*have) - {f"x{scale}" for scale in scales}):
        count = sum(name in names for names in have)
        log.warning("%s: %s is not exported, only %d of %d files have it", folder, name, count, len(have))
    # before the pool is read: of jobs that end together, the last has all kernels and takes away none
    for path in target.glob(FORMS[form]):
        path.unlink(missing_ok=True)
    for scale in scales:
        pool = KernelPool.load(folder, scale, min_confidence)
        write_kernels(target, form, scale, pool.photos, pool.kernels.numpy())
        log.info("%s: %d kernels for x%d", target, len(pool), scale)


def write_kernels(folder: Path, form: str, scale: int, photos: Sequence[str], kernels: npt.NDArray[Any]) -> None:
    """Write kernels ``(N, K, K)`` of N photos for other programs; values are ours, unchanged.

    The form ``mat`` writes ``<photo>/<photo>_kernel_x<scale>.mat`` as the KernelGAN program does, ``npy`` one array
    ``kernels_x<scale>.npy``. The second photo of a name gets ``_2`` behind it, or the next free number.
    """
    if form == "npy":
        with atomic_write(folder / f"kernels_x{scale}.npy") as file:
            np.save(file, kernels)
        return
    stems = [Path(photo).stem if Path(photo).suffix.lower() in SUFFIXES else photo for photo in photos]
    short = [os.fsencode(stem)[:200].decode(errors="ignore") for stem in stems]  # a file's name has 255 bytes at most
    used: set[str] = set()
    for stem, kernel in zip(short, kernels, strict=True):
        numbered = (f"{stem}_{number}" for number in itertools.count(2))
        name = next(name for name in numbered if name not in {*used, *short}) if stem in used else stem
        used.add(name)
        with atomic_write(folder / name / f"{name}_kernel_x{scale}.mat") as file:
            savemat(file, {VARIABLE: kernel.astype(np.float64)})
