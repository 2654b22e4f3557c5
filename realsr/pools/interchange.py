"""Kernel files of other programs: the KernelGAN program's ``.mat`` files, ``.npy`` arrays.

That program leaves ``<photo>/<photo>_kernel_x2.mat`` and, with ``--X4``, ``<photo>_kernel_x4.mat`` in its results
folder, a variable ``Kernel`` in each (17 and 33 pixels wide), and RealSR's program reads such folders. Others keep
the kernels of one scale in an array ``(N, K, K)``. All are correlation kernels in the phase convention of
:mod:`realsr.imaging.resample`, so values pass unchanged in both directions (:mod:`realsr.pools.export_kernels`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from realsr.estimation.kernels import Kernel
from realsr.runtime.errors import InputError

VARIABLE = "Kernel"  # its name in the KernelGAN program's files


def is_foreign(path: str | Path) -> bool:
    """Whether ``path`` is a ``.mat`` or ``.npy`` file, or a folder of them and no pool of ours."""
    path = Path(path)
    return path.is_file() or (not any(path.glob("*.npz")) and bool(kernel_files(path)))


def read_kernels(path: str | Path, scale: int) -> Iterator[tuple[Path, str, Kernel]]:
    """Read another program's kernels for ``scale``, in the order of the files' names.

    Args:
        path: a ``.mat`` or ``.npy`` file, or a folder, which is searched to any depth for ``.mat``, or, where there is
            none, for ``.npy``. Files whose name ends in another scale (``_x2``) are left out. An array is ``(K, K)``,
            ``(N, K, K)`` or ``(N, 1, K, K)``.
        scale: subsampling factor that the kernels are meant for.

    Yields:
        The file, the photo (or the file and the index of the kernel in it), and the kernel, of sum one.

    Raises:
        InputError: there is none for this scale, or one cannot be used; names the file.
    """
    scales = {file: re.search(r"(?<=_x)\d+$", file.stem) for file in kernel_files(Path(path))}
    wanted = [file for file, own in scales.items() if own is None or int(own[0]) == scale]
    if not scales:
        raise InputError(f"{path}: is no kernel pool; give a folder, or a .mat or .npy file")
    if not wanted:
        have = ", ".join(sorted({f"x{own[0]}" for own in scales.values() if own}))
        raise InputError(f"{path}: has no x{scale} kernels, only {have}; KernelGAN's program makes x4 with --X4")
    for file in wanted:
        name = file.stem.removesuffix(f"_kernel_x{scale}")
        stack = _read_stack(file)
        for index, array in enumerate(stack):
            which = f"[{index}]" if len(stack) > 1 else ""
            yield file, f"{name}{which}", checked_kernel(array, f"{file}{which}")


def checked_kernel(kernel: npt.NDArray[Any], where: str | Path) -> Kernel:
    """The kernel divided by its sum.

    Raises:
        InputError: it is not square, not finite, or sums to nothing; names ``where``.

    >>> checked_kernel(np.ones((2, 2)), "mine.npy")
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
        raise InputError(f"{where}: a kernel is a square array, this one is {kernel.shape}; delete the file")
    if not np.isfinite(kernel).all():
        raise InputError(f"{where}: the kernel has NaN or infinite values; delete the file or make it anew")
    if kernel.sum() <= 1e-6:
        raise InputError(f"{where}: the kernel sums to {kernel.sum():.3g}; delete the file or make it anew")
    return np.asarray(kernel / kernel.sum(), dtype=np.float64)


def kernel_files(path: Path) -> list[Path]:
    """The files that :func:`read_kernels` reads, in their order."""
    if any(path.glob("*/*.npz")):
        raise InputError(f"{path}: is a folder of pools; give {path / 'kernels'}, the one with kernels")
    files = [path] if path.is_file() else sorted(path.rglob("[!.]*"))
    of = {kind: [file for file in files if file.suffix.lower() == kind and file.is_file()] for kind in (".mat", ".npy")}
    return of[".mat"] or of[".npy"]


def _read_stack(file: Path) -> npt.NDArray[Any]:
    """The kernels ``(N, K, K)`` of a file."""
    try:
        if file.suffix.lower() == ".npy":
            with file.open("rb") as opened:
                array = np.lib.format.read_array(opened, allow_pickle=False)
        else:
            content = loadmat(str(file))
            array = content.get(VARIABLE)
    except NotImplementedError as e:
        raise InputError(f"{file}: is of MATLAB 7.3, which scipy does not read; save it with -v7") from e
    except Exception as e:  # a damaged file makes either reader raise whatever its code runs into
        raise InputError(f"{file}: cannot be read as kernels ({' '.join(str(e).split())})") from e
    if array is None:
        have = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise InputError(f"{file}: has no variable {VARIABLE}, only {have}; rename the one that is the kernel")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{file}: holds {array.dtype}, a kernel is of real numbers")
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (2, 3) or not array.size:
        raise InputError(f"{file}: an array {array.shape} is no kernel (K, K) and no pool (N, K, K)")
    return array[None] if array.ndim == 2 else array
