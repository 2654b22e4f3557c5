"""Accuracy of a pool's kernels where the true kernels are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from realsr.estimation.kernels import bicubic_kernel, kernel_psnr, max_normalised_correlation
from realsr.evaluation.tables import print_cells
from realsr.pools.folder import Entry
from realsr.pools.kernel_sheet import kernel_on_fixed_scale
from realsr.reports.pictures import grid, save


def print_kernel_table(pool: Path, truth_file: Path, picture: Path) -> None:
    """Print PSNR and MNC of the estimated x4 kernels and of bicubic's; draw both after the true kernel.

    ``truth_file`` is an ``.npz`` of the true kernels, ``<photo>_x4``.
    """
    truth = np.load(truth_file)
    table, cells, labels = [["photo", "estimated", "assuming bicubic"]], [], []
    for entry in map(Entry.read, sorted(pool.glob("*.npz"))):
        name = Path(entry.photo).stem
        true, others = truth[f"{name}_x4"], (entry.arrays["x4"], bicubic_kernel(4))
        psnrs = [f"{kernel_psnr(kernel, true):.1f}" for kernel in others]
        mncs = [f"{max_normalised_correlation(kernel, true):.3f}" for kernel in others]
        table.append([name, *map(" / ".join, zip(psnrs, mncs, strict=True))])
        shown = true * (true > 0.02 * true.max())  # a fit's noise would widen the ellipse
        cells.append([kernel_on_fixed_scale(kernel, 4) for kernel in (shown, *others)])
        labels.append([f"{name}, true", f"estimated {psnrs[0]} dB", f"bicubic {psnrs[1]} dB"])
    print_cells(table, "x4 kernels against the true ones (aligned PSNR in dB / MNC; higher is better)")
    save(picture, grid(cells, labels))
