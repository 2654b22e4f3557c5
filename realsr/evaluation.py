"""Every method on every photo, measured: what was made already is not made again."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from realsr import __version__
from realsr.config import check_writable
from realsr.data.datasets import Pair
from realsr.data.folders import PairFiles
from realsr.errors import InputError
from realsr.files import atomic_write
from realsr.images import Photo, content_hash, read_image, to_float, to_uint, write_image
from realsr.kernels import Kernel
from realsr.losses.perceptual import LPIPSLoss
from realsr.methods import COMPARE, Method
from realsr.metrics import image_metrics, least_side
from realsr.no_reference import NIQE, NIQE_BLOCK, fits_niqe, photo_metrics
from realsr.pictures import Picture, grid, sharpest_crop

log = logging.getLogger(__name__)

TRUTH = "ground truth"


@dataclass(frozen=True)
class Judge:
    """What measures the results.

    Attributes:
        scale: of the methods, also the border that PSNR and SSIM shave.
        lpips: None leaves it out.
        niqe: likewise, of photos without ground truth.
        settings: what the two depend on, as plain values.
    """

    scale: int
    lpips: LPIPSLoss | None = None
    niqe: NIQE | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def measure(self, sr: Tensor, hr: Tensor | None) -> dict[str, float]:
        """Metrics of ``(3, H, W)`` against the truth, or, without one, of what can be said of it alone."""
        if hr is None:
            return photo_metrics(sr[None], self.niqe)
        return image_metrics(sr[None], hr[None], self.scale, self.lpips)

    def key(self) -> dict[str, Any]:
        """What its values depend on besides the pictures."""
        there = {"lpips": self.lpips is not None, "niqe": self.niqe is not None}
        return {"border": self.scale, "there": there, "settings": dict(self.settings), "realsr": __version__}


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        results: metrics by method and photo; of a photo on which a method failed there are none.
        seconds: that each method took for each photo, when it was run.
        kernels: that were estimated for a photo, by photo.
        failures: a line each.
    """

    results: dict[str, dict[str, dict[str, float]]]
    seconds: dict[str, dict[str, float]]
    kernels: dict[str, Kernel]
    failures: list[str]


def evaluate(photos: Sequence[PairFiles], methods: Sequence[Method], judge: Judge, folder: Path) -> Evaluation:
    """Run every method on every photo, and measure; what ``folder`` holds already is not made again.

    Each result is ``<method>/<photo>.png`` and, beside it, a JSON file of what it was made from and its metrics; a
    part of the photo by all methods is ``compare/<photo>.png``. A photo that is damaged, or on which a method fails,
    does not stop the others.

    Args:
        photos: with ground truth or without.
        methods: of one scale.
        judge: measures.
        folder: for the results.

    Raises:
        InputError: ``folder`` is no place for results; a photo is too small to be measured.
    """
    check_writable(folder)
    check_apart(photos, [method.name for method in methods], folder)
    check_sizes(photos, judge.niqe is not None)
    done = Evaluation({m.name: {} for m in methods}, {m.name: {} for m in methods}, {}, [])
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, disable=len(photos) * len(methods) < 3) as progress:
        task = progress.add_task("evaluating", total=len(photos) * len(methods))
        for number, files in enumerate(photos):
            try:
                pair = files.read()
            except InputError as e:
                done.failures.append(str(e))
                log.error("%s", e)
                continue
            for index, method in enumerate(methods):
                at = number * len(methods) + index
                progress.update(task, completed=at, description=f"{pair.name}: {method.name}")
                try:
                    record = _result(method, pair, judge, folder / method.name)
                except (InputError, RuntimeError, MemoryError) as e:  # no memory, where a network or LPIPS wants it
                    reason = " ".join(str(e).split())[:300] or type(e).__name__
                    done.failures.append(f"{method.name}, {pair.name}: {reason}")
                    log.error("%s", done.failures[-1])
                    continue
                done.results[method.name][pair.name] = record["metrics"]
                done.seconds[method.name][pair.name] = record["seconds"]
                if record["kernel"] is not None:
                    done.kernels[pair.name] = np.array(record["kernel"])
            if parts := view(pair, [method.name for method in methods], folder, 256):
                sheet = grid([list(parts.values())], [list(parts)])
                write_image(folder / COMPARE / f"{pair.name}.png", Photo(sheet))
        progress.update(task, completed=len(photos) * len(methods), description="evaluated")
    return done


def view(pair: Pair, methods: Sequence[str], folder: Path, side: int) -> dict[str, Picture]:
    """The busiest ``side x side`` pixels at most of a photo, by every method that has a result, and of the truth.

    Args:
        pair: of the photo.
        methods: by name.
        folder: that :func:`evaluate` wrote.
        side: in pixels.
    """
    paths = {name: folder / name / f"{pair.name}.png" for name in methods}
    cells = {name: read_image(path).rgb for name, path in paths.items() if path.exists()}
    if pair.hr is not None:
        cells[TRUTH] = to_uint(pair.hr)
    if not cells:
        return {}
    y, x = sharpest_crop(list(cells.values())[-1], side)
    return {name: cell[y : y + side, x : x + side] for name, cell in cells.items()}


def check_apart(photos: Sequence[PairFiles], methods: Sequence[str], folder: Path) -> None:
    """Raise InputError if results would be written over the photos."""
    ours = [(folder / name).resolve() for name in (*methods, COMPARE)]
    for path in (path for files in photos for path in files.paths):
        if any(path.resolve().is_relative_to(place) for place in ours):
            raise InputError(f"{path}: lies where results go, in {folder}; give another output=DIR")


def check_sizes(photos: Sequence[PairFiles], niqe: bool = False) -> None:
    """Raise InputError if a photo is too small for SSIM, or without truth for NIQE, before anything is made."""
    for files in photos:
        least = least_side(files.scale)
        height, width = (side * files.scale for side in files.size)
        if files.hr is not None and min(height, width) < least:
            raise InputError(f"{files.hr}: {width}x{height} pixels are too few, SSIM needs {least} on a side")
        if niqe and files.hr is None and not fits_niqe(height, width):
            raise InputError(
                f"{files.lr}: its result of {width}x{height} pixels is too small for NIQE, which needs "
                f"{NIQE_BLOCK}x{2 * NIQE_BLOCK}; take it out, or leave NIQE out by metrics.niqe=null"
            )


def _result(method: Method, pair: Pair, judge: Judge, folder: Path) -> dict[str, Any]:
    """The record of a method's picture of a photo, made now or read."""
    picture, path = folder / f"{pair.name}.png", folder / f"{pair.name}.json"
    made_by = {**_plain(method.made_by), "lr": _digest(pair.lr)}
    measured_by = {**_plain(judge.key()), "hr": None if pair.hr is None else _digest(pair.hr)}
    record, sr = _read_record(path, made_by), _read_picture(picture)
    if record is not None and sr is not None and _digest(sr) == record.get("picture"):
        if record["measured_by"] == measured_by:
            return record
    else:
        for old in (path, picture):  # the record would tell of another picture than the one that is written next
            old.unlink(missing_ok=True)
        start = time.perf_counter()
        sr, kernel = method.run(pair.lr)
        seconds = time.perf_counter() - start
        if not bool(sr.isfinite().all()):  # as 8 bits they would look like any others
            raise InputError("its picture has pixels that are NaN or infinite")
        pixels = to_uint(sr)
        write_image(picture, Photo(pixels))
        sr = to_float(pixels)  # as it will be read
        record = {"made_by": made_by, "picture": _digest(sr), "seconds": seconds}
        record["kernel"] = None if kernel is None else kernel.tolist()
    record |= {"measured_by": measured_by, "metrics": judge.measure(sr, pair.hr)}
    with atomic_write(path) as file:
        file.write(json.dumps(record).encode())
    return record


def _read_record(path: Path, made_by: dict[str, Any]) -> dict[str, Any] | None:
    """A record of an earlier run, if it is whole and of the same making."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("made_by") != made_by or "measured_by" not in record:
        return None
    metrics, kernel = record.get("metrics"), record.get("kernel", "")
    numbers = [record.get("seconds"), *(metrics.values() if isinstance(metrics, dict) else [None])]
    whole = all(isinstance(value, (int, float)) for value in numbers)
    return record if whole and (kernel is None or isinstance(kernel, list)) else None


def _read_picture(path: Path) -> Tensor | None:
    try:
        return to_float(read_image(path).rgb)
    except InputError:
        return None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return plain


def _digest(image: Tensor) -> str:
    return content_hash(to_uint(image, np.uint16))
