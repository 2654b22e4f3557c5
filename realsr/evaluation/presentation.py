"""What people see of an evaluation: the tables, the report, how it was made."""

from __future__ import annotations

import logging
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from realsr.data.folders import PairFiles
from realsr.data.held_out import folder_contents, held_out_lines, seen_in_training
from realsr.data.run_pools import HELD_OUT
from realsr.evaluation.evaluator import Evaluation, view
from realsr.evaluation.methods import Method
from realsr.evaluation.page import Views, report_evaluation
from realsr.evaluation.tables import print_tables, tabulate, write_tables
from realsr.networks.weights import inside
from realsr.pools.kernel_sheet import kernel_on_fixed_scale
from realsr.pools.pool import KernelPool, NoisePool, hold_out
from realsr.reports.pictures import Picture, noise_picture
from realsr.runtime.errors import InputError
from realsr.runtime.evenly import evenly
from realsr.runtime.hardware import versions

log = logging.getLogger(__name__)

SHOWN = 12  # kernels and noise tiles of each pool in the report


def present(
    done: Evaluation,
    title: str,
    methods: Sequence[Method],
    photos: Sequence[PairFiles],
    folder: Path,
    count: int = 24,
    side: int = 768,
    paper: Mapping[str, Any] = MappingProxyType({}),
    notes: Sequence[str] = (),
) -> None:
    """Print the tables, and write them and ``report.html`` into the folder of the results.

    The report shows ``count`` photos, evenly chosen, of each at most ``side x side`` pixels. ``paper`` has ``source``
    and ``rows`` of published figures to be put beside ours; ``notes`` are sentences below the tables.
    """
    photos = [files for files in photos if any(files.name in column for column in done.results.values())]
    records = {m.name: m.checkpoint["held_out"] for m in methods if "held_out" in m.checkpoint}
    tables = tabulate(done.results, paper, [*seen_photos(records, photos), *notes])
    write_tables(tables, done.results, folder)
    print_tables(tables, title)
    held_out = [f"{name}: {' '.join(held_out_lines(record))}" for name, record in records.items()]
    notes = [*tables.notes, *done.failures, *held_out]
    chosen = [photos[i] for i in evenly(count, len(photos))]
    shown = views(chosen, [method.name for method in methods], folder, side, done)
    report = folder / "report.html"
    report_evaluation(report, title, tables.cells, notes, shown, done.results, pool_pictures(methods), about(done))
    log.info("open %s in a browser; pictures, table.md, images.csv and metrics.json are beside it", report)


def seen_photos(records: Mapping[str, Any], photos: Sequence[PairFiles]) -> list[str]:
    """A line for each of the checkpoints, by their ``held_out`` records, that was trained on some of the photos."""
    contents = folder_contents(photos) if records else {}
    seen = {name: seen_in_training(record, contents) for name, record in records.items()}
    return [
        f"{name} was trained on {len(names)} of these {len(photos)} photos, so its figures say little: "
        f"{', '.join(names[:5])}."
        for name, names in seen.items()
        if names
    ]


def views(
    photos: Sequence[PairFiles], methods: Sequence[str], folder: Path, side: int, done: Evaluation
) -> Iterator[Views]:
    """The part of each photo with most detail, by every method of which ``folder`` has a result."""
    for files in photos:
        pair = files.read()
        kernel = done.kernels.get(pair.name)
        if pictures := view(pair, methods, folder, side):
            yield Views(pair.name, pictures, None if kernel is None else kernel_on_fixed_scale(kernel, files.scale))


def pool_pictures(methods: Sequence[Method]) -> dict[str, list[Picture]]:
    """Kernels and noise tiles that networks were trained with, where their pools still exist."""
    found: dict[str, list[Picture]] = {}
    for method in methods:
        pools, validation = (inside(method.checkpoint, "config", "data", part) for part in ("pools", "validation"))
        if not isinstance(pools, Mapping):  # of another program's checkpoint
            continue
        kernel_dir, noise_dir, seed = pools.get("kernel_dir"), pools.get("noise_dir"), inside(validation, "seed") or 0
        try:
            if kernel_dir and Path(kernel_dir).exists():
                scale = pools.get("scale", 4)
                whole = KernelPool.load(kernel_dir, scale, pools.get("min_confidence", 0.0))
                kernels = hold_out(whole, HELD_OUT, seed)[0].kernels.numpy()
                shown = [kernel_on_fixed_scale(kernels[i], scale) for i in evenly(SHOWN, len(kernels))]
                found[f"{method.name}: {len(kernels)} kernels of {kernel_dir}, blue at two standard deviations"] = shown
            if noise_dir and Path(noise_dir).exists():
                tiles = hold_out(NoisePool.load(noise_dir), HELD_OUT, seed)[0].tiles.permute(0, 2, 3, 1).numpy()
                shown = [noise_picture(tiles[i]) for i in evenly(SHOWN, len(tiles))]
                found[f"{method.name}: {len(tiles)} noise tiles of {noise_dir}, four times as strong"] = shown
        except InputError as e:  # emptied or damaged since
            log.warning("left out of the report: %s", e)
    return found


def about(done: Evaluation) -> dict[str, str]:
    """Command, versions, machine, time, and the seconds per photo of each method when it was run."""
    took = ", ".join(f"{name} {statistics.fmean(s.values()):.2g} s" for name, s in done.seconds.items() if s)
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # of python -m NAME
    module = spec.name if spec else Path(sys.argv[0]).name
    return {
        "Command": f"`{shlex.join(['python', '-m', module, *sys.argv[1:]])}`",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "Machine": f"{platform.system()}, {platform.machine()}, {torch.get_num_threads()} threads",
        "A photo took": took,
        "Date": time.strftime("%Y-%m-%d %H:%M"),
    }
