"""Runs methods on photos and measures them, keeps earlier results, compares a network with its start."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from realsr import __version__
from realsr.data.datasets import Pair
from realsr.data.folders import PairFiles
from realsr.estimation.kernels import Kernel
from realsr.evaluation.methods import COMPARE, Method
from realsr.evaluation.no_reference import NIQE, NIQE_BLOCK, fits_niqe, photo_metrics
from realsr.evaluation.tables import MEASURES
from realsr.imaging import Photo, content_hash, read_image, to_float, to_uint, write_image
from realsr.imaging.metrics import image_metrics, least_side
from realsr.networks.tiling import upscale_tiled
from realsr.reports.pictures import Picture, grid, save, sharpest_crop
from realsr.runtime.errors import InputError
from realsr.runtime.files import check_writable, file_hash, write_file
from realsr.runtime.hardware import pick_device

log = logging.getLogger(__name__)

TRUTH = "ground truth"
RECORD = {"made_by", "picture", "seconds", "kernel", "measured_by", "metrics"}  # of a result


@dataclass(frozen=True)
class Evaluator:
    """Measures results.

    Attributes:
        scale: of the methods; also the border that PSNR and SSIM shave.
        lpips: with ground truth; None leaves it out.
        niqe: without ground truth; None leaves it out.
        settings: of both, as plain values.
    """

    scale: int
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None
    niqe: NIQE | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def measure(self, sr: Tensor, hr: Tensor | None) -> dict[str, float]:
        """Metrics of ``(3, H, W)`` against the ground truth, or those of one picture where there is none."""
        if hr is None:
            return photo_metrics(sr[None], self.niqe)
        return image_metrics(sr[None], hr[None], self.scale, self.lpips)

    def key(self) -> dict[str, Any]:
        """Everything besides the pictures that the values depend on."""
        there = {"lpips": self.lpips is not None, "niqe": self.niqe is not None}
        return {"border": self.scale, "there": there, "settings": dict(self.settings), "realsr": __version__}


@dataclass(frozen=True)
class Evaluation:
    """Metrics and seconds by method and photo, without those that failed; kernels by photo; a line for each failure."""

    results: dict[str, dict[str, dict[str, float]]]
    seconds: dict[str, dict[str, float]]
    kernels: dict[str, Kernel]
    failures: list[str]

    def fail(self, line: str) -> None:
        """Log and keep a failure."""
        self.failures.append(line)
        log.error("%s", line)


def evaluate(photos: Sequence[PairFiles], methods: Sequence[Method], evaluator: Evaluator, folder: Path) -> Evaluation:
    """Run every method on every photo and measure; results that ``folder`` holds already are kept.

    Each result is ``<method>/<photo>.png`` and a JSON file with its origin and metrics; ``compare/<photo>.png`` shows a
    part of the photo by all methods. A damaged photo, or one on which a method fails, does not stop the others.

    Raises:
        InputError: ``folder`` cannot take the results; a photo is too small to be measured.
    """
    check_writable(folder)
    names = [method.name for method in methods]
    check_photos(photos, names, folder, evaluator.niqe is not None)
    done = Evaluation({name: {} for name in names}, {name: {} for name in names}, {}, [])
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, disable=len(photos) * len(methods) < 3) as progress:
        task = progress.add_task("evaluating", total=len(photos) * len(methods))
        for files in photos:
            try:
                pair = files.read()
            except InputError as e:
                done.fail(str(e))
                progress.advance(task, len(methods))
                continue
            for method in methods:
                progress.update(task, description=f"{pair.name}: {method.name}")
                try:
                    record = _result(method, pair, evaluator, folder / method.name)
                    done.results[method.name][pair.name] = record["metrics"]
                    done.seconds[method.name][pair.name] = record["seconds"]
                    if record["kernel"] is not None:
                        done.kernels[pair.name] = np.array(record["kernel"])
                except (InputError, RuntimeError, MemoryError) as e:  # no memory, where a network or LPIPS wants it
                    done.fail(f"{method.name}, {pair.name}: {' '.join(str(e).split())[:300] or type(e).__name__}")
                progress.advance(task)
            if parts := view(pair, names, folder, 256):
                save(folder / COMPARE / f"{pair.name}.png", grid([list(parts.values())], [list(parts)]))
        progress.update(task, description="evaluated")
    return done


def view(pair: Pair, methods: Sequence[str], folder: Path, side: int) -> dict[str, Picture]:
    """The most detailed ``side x side`` pixels of a photo by every method with a result in ``folder``, and of HR."""
    paths = {name: folder / name / f"{pair.name}.png" for name in methods}
    cells = {name: read_image(path).rgb for name, path in paths.items() if path.exists()}
    if pair.hr is not None:
        cells[TRUTH] = to_uint(pair.hr)
    if not cells:
        return {}
    y, x = sharpest_crop(list(cells.values())[-1], side)
    return {name: cell[y : y + side, x : x + side] for name, cell in cells.items()}


def check_photos(photos: Sequence[PairFiles], methods: Sequence[str], folder: Path, niqe: bool) -> None:
    """Raise InputError if results would overwrite the photos, or if one is too small for SSIM or NIQE."""
    ours = [(folder / name).resolve() for name in (*methods, COMPARE)]
    for files in photos:
        if inside := [path for path in files.paths if any(path.resolve().is_relative_to(place) for place in ours)]:
            raise InputError(f"{inside[0]}: lies where results go, in {folder}; give another output=DIR")
        least = least_side(files.scale)
        height, width = (side * files.scale for side in files.size)
        if files.hr is not None and min(height, width) < least:
            raise InputError(f"{files.hr}: {width}x{height} pixels are too few, SSIM needs {least} on a side")
        if niqe and files.hr is None and not fits_niqe(height, width):
            raise InputError(
                f"{files.lr}: its result of {width}x{height} pixels is too small for NIQE, which needs "
                f"{NIQE_BLOCK}x{2 * NIQE_BLOCK}; take it out, or leave NIQE out by metrics.niqe=null"
            )


def _result(method: Method, pair: Pair, evaluator: Evaluator, folder: Path) -> dict[str, Any]:
    """Make or read a method's picture of a photo, and its record."""
    picture, path = folder / f"{pair.name}.png", folder / f"{pair.name}.json"
    hr = None if pair.hr is None else _digest(pair.hr)
    keys = {**method.made_by, "lr": _digest(pair.lr), "realsr": __version__}, {**evaluator.key(), "hr": hr}
    made_by, measured_by = json.loads(json.dumps(keys))  # as they will be read
    record, sr = _read_record(path), None
    with suppress(InputError):  # no picture yet, or a damaged one
        sr = to_float(read_image(picture).rgb)
    if sr is None or record.get("made_by") != made_by or record["picture"] != _digest(sr):
        for old in (path, picture):  # a killed run must not leave an old record beside a new picture
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
    if record.get("measured_by") != measured_by:
        record |= {"measured_by": measured_by, "metrics": evaluator.measure(sr, pair.hr)}
        write_file(path, json.dumps(record))
    return record


def _read_record(path: Path) -> dict[str, Any]:
    """The record of an earlier run; empty if there is none, or none that is whole."""
    with suppress(OSError, ValueError, TypeError, KeyError):  # one made by hand may hold anything
        record: dict[str, Any] = json.loads(path.read_bytes())
        kernel = np.array([[0]] if record["kernel"] is None else record["kernel"], float)
        numbers = {type(value) for value in (record["seconds"], *{**record["metrics"]}.values())}
        if record.keys() >= RECORD and kernel.ndim == 2 and numbers <= {int, float}:
            return record
    if path.exists():
        log.warning("%s: is damaged, so the picture beside it is made anew", path)
    return {}


def _digest(image: Tensor) -> str:
    return content_hash(to_uint(image, np.uint16))


def build_evaluator(scale: int, metrics: Mapping[str, Any], accelerator: str) -> Evaluator:
    """The evaluator of a config's nodes ``lpips`` and ``niqe``; null or missing leaves one out."""
    nodes = {name: node for name, node in metrics.items() if node}
    built = {name: instantiate(node) for name, node in nodes.items()}
    settings: dict[str, Any] = {name: OmegaConf.to_container(node, resolve=True) for name, node in nodes.items()}
    for node in settings.values():  # files are compared by their content
        node |= {key: file_hash(node[key]) for key in ("backbone", "weights") if node.get(key)}
    if built.get("lpips") is not None:
        built["lpips"].to(pick_device(accelerator))
    return Evaluator(scale, built.get("lpips"), built.get("niqe"), settings)


@torch.inference_mode()
def validation_means(
    network: Callable[[Tensor], Tensor],
    scale: int,
    pairs: Sequence[Pair],
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Means of the metrics over validation pairs, and over the camera's photos, which have no ground truth.

    The network maps ``(1, 3, H, W)`` in [0, 1] to ``(1, 3, s*H, s*W)``, on ``device``.
    """
    measure = Evaluator(scale, lpips).measure
    found = [measure(upscale_tiled(network, pair.lr[None].to(device), scale)[0], pair.hr) for pair in pairs]
    # a photo may have no edges or no flat region to measure: NaN
    values = {name: [row[name] for row in found if not math.isnan(row.get(name, math.nan))] for name in MEASURES}
    return {name: float(np.mean(each)) for name, each in values.items() if each}


def compare_means(start: dict[str, float], adapted: dict[str, float]) -> str:
    """One line: both networks' means, and which network is better by PSNR, LPIPS and NIQE.

    >>> print(compare_means({"psnr": 28.0, "lpips": 0.25}, {"psnr": 29.0, "lpips": 0.2}))
    start -> adapted: PSNR 28.00 -> 29.00, LPIPS 0.2500 -> 0.2000; the adapted network is better by PSNR and LPIPS
    """
    both = [(name, metric) for name, metric in MEASURES.items() if name in start and name in adapted]
    shown = [f"{m.name} {m.written(start[name])} -> {m.written(adapted[name])}" for name, m in both]
    gains = {m.name: m.better * (adapted[n] - start[n]) for n, m in both if n in ("psnr", "lpips", "niqe")}
    better, worse = ([name for name, gain in gains.items() if (gain > 0) == wanted] for wanted in (True, False))
    sides = {"the adapted network": better, "the start": worse}
    told = ", ".join(f"{side} by {' and '.join(names)}" for side, names in sides.items() if names)
    result = told.replace(" by", " is better by", 1) or "neither is better by these"
    if worse and not better:
        result += "; more photos or steps may help, or take the start"
    return f"start -> adapted: {', '.join(shown)}; {result}"
