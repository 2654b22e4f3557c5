"""What people see of an evaluation: tables, and ``report.html`` with every photo, sliders, pools, how it was made."""

from __future__ import annotations

import logging
import math
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from realsr.data.folders import PairFiles
from realsr.data.held_out import folder_contents, held_out_lines, seen_in_training
from realsr.data.run_pools import HELD_OUT
from realsr.evaluation.evaluator import Evaluation, view
from realsr.evaluation.methods import Method
from realsr.evaluation.tables import MEASURES, Cells, Metric, Results, print_tables, tabulate, write_tables
from realsr.networks.weights import inside
from realsr.pools.kernel_sheet import kernel_on_fixed_scale
from realsr.pools.pool import KernelPool, NoisePool, hold_out
from realsr.reports.html import picture, write_page
from realsr.reports.pictures import Picture, noise_picture
from realsr.runtime.errors import InputError
from realsr.runtime.evenly import evenly
from realsr.runtime.hardware import versions

log = logging.getLogger(__name__)

SHOWN = 12  # kernels and noise tiles of each pool in the report


class Views(NamedTuple):
    """Pictures of one photo, ``(h, w, 3)`` uint8: of one size, by method or "ground truth"; and of its kernel."""

    name: str
    pictures: Mapping[str, Picture]
    kernel: Picture | None = None


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
    tables = tabulate(done.results, paper, [*_seen_photos(records, photos), *notes])
    write_tables(tables, done.results, folder)
    print_tables(tables, title)
    held_out = [f"{name}: {' '.join(held_out_lines(record))}" for name, record in records.items()]
    notes = [*tables.notes, *done.failures, *held_out]
    chosen = [photos[i] for i in evenly(count, len(photos))]
    shown = _views(chosen, [method.name for method in methods], folder, side, done)
    report = folder / "report.html"
    report_evaluation(report, title, tables.cells, notes, shown, done.results, pool_pictures(methods), _about(done))
    log.info("open %s in a browser; pictures, table.md, images.csv and metrics.json are beside it", report)


def _seen_photos(records: Mapping[str, Any], photos: Sequence[PairFiles]) -> list[str]:
    """A line for each of the checkpoints, by their ``held_out`` records, that was trained on some of the photos."""
    contents = folder_contents(photos) if records else {}
    seen = {name: seen_in_training(record, contents) for name, record in records.items()}
    return [
        f"{name} was trained on {len(names)} of these {len(photos)} photos, so its figures say little: "
        f"{', '.join(names[:5])}."
        for name, names in seen.items()
        if names
    ]


def _views(
    photos: Sequence[PairFiles], methods: Sequence[str], folder: Path, side: int, done: Evaluation
) -> Iterator[Views]:
    """The part of each photo with most detail, by every method of which ``folder`` has a result."""
    for files in photos:
        kernel = done.kernels.get(files.name)
        if pictures := view(files.read(), methods, folder, side):
            yield Views(files.name, pictures, None if kernel is None else kernel_on_fixed_scale(kernel, files.scale))


def pool_pictures(methods: Sequence[Method]) -> dict[str, list[Picture]]:
    """Kernels and noise tiles that networks were trained with, where their pools still exist."""
    found: dict[str, list[Picture]] = {}
    for method in methods:
        pools, validation = (inside(method.checkpoint, "config", "data", part) for part in ("pools", "validation"))
        if not isinstance(pools, Mapping):  # of another program's checkpoint
            continue
        seed, scale = inside(validation, "seed") or 0, pools.get("scale", 4)
        try:
            if (folder := pools.get("kernel_dir")) and Path(folder).exists():
                whole = KernelPool.load(folder, scale, pools.get("min_confidence", 0.0))
                kernels = hold_out(whole, HELD_OUT, seed)[0].kernels.numpy()
                shown = [kernel_on_fixed_scale(kernels[i], scale) for i in evenly(SHOWN, len(kernels))]
                found[f"{method.name}: {len(kernels)} kernels of {folder}, blue at two standard deviations"] = shown
            if (folder := pools.get("noise_dir")) and Path(folder).exists():
                tiles = hold_out(NoisePool.load(folder), HELD_OUT, seed)[0].tiles.permute(0, 2, 3, 1).numpy()
                shown = [noise_picture(tiles[i]) for i in evenly(SHOWN, len(tiles))]
                found[f"{method.name}: {len(tiles)} noise tiles of {folder}, four times as strong"] = shown
        except InputError as e:  # emptied or damaged since
            log.warning("left out of the report: %s", e)
    return found


def _about(done: Evaluation) -> dict[str, str]:
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


def report_evaluation(
    path: Path,
    title: str,
    tables: Sequence[Cells],
    notes: Sequence[str],
    views: Iterable[Views],
    results: Results,
    pools: Mapping[str, Sequence[Picture]],
    about: Mapping[str, str],
) -> None:
    """Write the page: one file, which needs no other and no network.

    ``notes`` are sentences below the tables; ``code`` is between backticks, here and in ``about``. ``views`` are taken
    one at a time to save memory. The ``results``, whose values may be missing, infinite or NaN, are compared with the
    first method's. ``pools`` are pictures by their heading.
    """
    photos = list(dict.fromkeys(photo for of_method in results.values() for photo in of_method))
    shown = [_photo(view, results) for view in views]
    write_page(
        path,
        "evaluation.html",
        title=title,
        tables=tables,
        notes=notes,
        lists=_lists(results, photos),
        methods=list(results),
        photos=len(photos),
        shown=shown,
        anchors={view["name"]: f"photo-{number}" for number, view in enumerate(shown, 1)},
        pictured=list(dict.fromkeys([*results, *(method for view in shown for method in view["methods"])])),
        pools={name: [picture(p, f"{name}, {i}") for i, p in enumerate(tiles, 1)] for name, tiles in pools.items()},
        about=about,
    )


def _photo(view: Views, results: Results) -> dict[str, Any]:
    """The pictures of a photo with their metrics, for the template."""
    figures = []
    for method, pixels in view.pictures.items():
        values = results.get(method, {}).get(view.name, {})
        text = ", ".join(f"{MEASURES[key].name} {MEASURES[key].written(value)}" for key, value in values.items())
        figures.append((method, picture(pixels, f"{view.name}: {method}", photo=True), text))
    kernel = None if view.kernel is None else picture(view.kernel, f"{view.name}: estimated kernel")
    sizes = {"width": pixels.shape[1], "height": pixels.shape[0]}
    return {"name": view.name, "methods": list(view.pictures), "figures": figures, "kernel": kernel, **sizes}


def _lists(results: Results, photos: Sequence[str]) -> list[dict[str, Any]]:
    """For every metric the rows of its table: a photo and its values by every method."""
    given = {key for of_method in results.values() for values in of_method.values() for key in values}
    lists = []
    for key, metric in ((key, metric) for key, metric in MEASURES.items() if key in given):
        by_photo = {photo: [of.get(photo, {}).get(key) for of in results.values()] for photo in photos}
        rows = [(photo, list(_numbers(values, metric))) for photo, values in by_photo.items()]
        lists.append({"key": key, "name": metric.name, "heading": metric.heading, "rows": rows})
    return lists


def _numbers(values: Sequence[float | None], metric: Metric) -> Iterator[dict[str, Any]]:
    """The first method's value, then of every other its value and its difference from the first."""
    known = [metric.better * value for value in values if value is not None and not math.isnan(value)]
    first = values[0]
    for i, value in enumerate(values):
        best = metric.better != 0 and value is not None and bool(known) and metric.better * value == max(known)
        yield {"value": _exact(value), "text": metric.written(value), "best": best, "look": ""}
        if i:
            difference = None if first is None or value is None else 0.0 if first == value else value - first
            gain = 0 if difference is None else metric.better * round(difference, metric.digits)
            look = "gain" if gain > 0 else "loss" if gain < 0 else "same"
            yield {"value": _exact(difference), "text": metric.written(difference, "+"), "best": False, "look": look}


def _exact(value: float | None) -> str:
    """The value for JavaScript, which spells infinity out."""
    return f"{math.nan if value is None else value:.9g}".replace("inf", "Infinity")
