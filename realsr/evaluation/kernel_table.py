"""How right a pool's kernels are where the true ones are known."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from realsr.estimation.kernels import bicubic_kernel, framed, kernel_psnr, max_normalised_correlation
from realsr.evaluation.tables import print_cells
from realsr.pools.folder import Entry
from realsr.reports.pictures import grid, kernel_picture, save

log = logging.getLogger(__name__)


def print_kernel_table(pool: Path, truth_file: Path, picture: Path) -> None:
    """How right the estimated x4 kernels are, against assuming bicubic; draw both beside the truth, which is first."""
    truth = np.load(truth_file)
    table = [["photo", "estimated", "assuming bicubic"]]
    cells, labels, shown = [], [], ("estimated", "bicubic")
    for path in sorted(pool.glob("*.npz")):
        entry = Entry.read(path)
        name = Path(entry.manifest["photo"]).stem
        true, estimated = truth[f"{name}_x4"], entry.arrays["x4"]
        scores = [
            f"{kernel_psnr(kernel, true):.1f} / {max_normalised_correlation(kernel, true):.3f}"
            for kernel in (estimated, bicubic_kernel(4))
        ]
        table.append([name, *scores])
        cells.append([kernel_picture(framed(kernel, len(true))) for kernel in (true, estimated, bicubic_kernel(4))])
        labels.append(
            [name, *(f"{how} {score.partition(' ')[0]} dB" for how, score in zip(shown, scores, strict=True))]
        )
    print_cells(table, "x4 kernels against the true ones (aligned PSNR in dB / MNC; higher is better)")
    save(picture, grid(cells, labels))
