"""How far LR as we make it is from the photos of a camera."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from realsr.data.datasets import draw_seed
from realsr.data.store import scaled
from realsr.degradation.base import Degradation
from realsr.estimation.patch_statistics import BANDS, BRIGHTNESS, Curves, content, curves, features
from realsr.evaluation.separation import Separation, compare, separation
from realsr.evaluation.tables import print_cells
from realsr.imaging import image_size, quantize, read_image, to_float
from realsr.imaging.resample import resized_length
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool, NoisePool
from realsr.reports.pictures import Picture, draw_intervals, draw_lines, drawn
from realsr.runtime.errors import InputError
from realsr.runtime.evenly import evenly
from realsr.runtime.files import find_images, write_file

log = logging.getLogger(__name__)

CUT = 4  # LR pixels around a made patch that are cut off: there the blur saw a mirrored border

Degrade = Callable[[Tensor, torch.Generator], Tensor]
Patches = dict[str, Tensor]


class Gap(NamedTuple):
    """The difference that a degradation leaves between made LR and the camera's photos.

    A classifier's separation, the distances by :func:`realsr.evaluation.separation.compare` in the table's order, and
    the curves of the made patches.
    """

    separation: Separation
    distances: dict[str, float]
    curves: Curves

    def row(self) -> dict[str, float]:
        """All its figures."""
        return {**self.separation._asdict(), **self.distances, "noise_level": self.curves.noise_level}


def choose_photos(folder: str, count: int, side: int, factor: float = 1.0) -> list[Path]:
    """At most ``count`` photos of a folder, evenly chosen, that have ``side`` pixels once scaled by ``factor``.

    Only headers are read. Photos that are too small are named in the log and left out.

    Raises:
        InputError: there is no such folder, or no photo in it.
    """
    photos, found = find_images(folder), []
    for photo in (photos[i] for i in evenly(count, len(photos))):
        try:
            height, width = (resized_length(length, factor) for length in image_size(photo))
        except InputError as e:
            log.warning("skipped: %s", e)
            continue
        if min(height, width) >= side:
            found.append(photo)
        else:
            scaled = f", scaled by {factor:g}" if factor != 1 else ""
            log.warning("%s: too small for patches of %d pixels: it has %dx%d%s", photo, side, width, height, scaled)
    return found


def check_counts(real: int, hr: int) -> None:
    """Raise InputError if there are fewer than two photos on a side."""
    if min(real, hr) < 2:
        raise InputError(
            f"{real} camera photos and {hr} that LR is made of are large enough: the measure needs two on each side; "
            "give more or larger photos (data.source_dir, data.clean_dir), a smaller patch, or cleanup=1"
        )


def cut_patches(photos: Sequence[Path], side: int, count: int, seed: int, factor: float = 1.0) -> Patches:
    """Crops at random places of each photo, by its name, ``(count, 3, side, side)`` in [0, 1].

    Photos, of :func:`choose_photos`, are scaled by ``factor`` first; damaged ones are named in the log and left out.
    """
    cut: Patches = {}
    for photo in photos:
        try:
            image = to_float(scaled(read_image(photo).rgb, factor))
        except InputError as e:
            log.warning("skipped: %s", e)
            continue
        rng = np.random.default_rng([seed, len(cut)])
        tops, lefts = (rng.integers(0, length - side + 1, count) for length in image.shape[-2:])
        crops = [image[:, y : y + side, x : x + side] for y, x in zip(tops, lefts, strict=True)]
        cut[photo.stem] = torch.stack(crops)
    return cut


def load_variants(
    nodes: Mapping[Any, DictConfig], scale: int, min_confidence: float, compressed: bool
) -> dict[str, Degrade]:
    """Degradations by name, as ``degradation@variants`` of conf/gap.yaml compose them, with whole pools.

    Unless the photos are ``compressed``, variants that need JPEG tables are left out.
    """
    found: dict[str, Degrade] = {}
    for name, node in nodes.items():
        if not isinstance(node, DictConfig) or "degradation" not in node:
            raise InputError(f"variants.{name}={node}: give +degradation@variants.{name}=DEGRADATION")
        pools = node.get("pools", {})
        kernel_dir, noise_dir, jpeg_dir = (pools.get(f"{kind}_dir") for kind in ("kernel", "noise", "jpeg"))
        if jpeg_dir and pools.get("jpeg_required", True) and not compressed:
            log.info("not compared, since the photos are no JPEG files: %s", name)
            continue
        kernels = None if kernel_dir is None else KernelPool.load(kernel_dir, scale, min_confidence)
        noise = None if noise_dir is None else NoisePool.load(noise_dir)
        jpeg = JpegPool.load(jpeg_dir) if jpeg_dir and any(Path(jpeg_dir).glob("*.npz")) else None
        found[str(name)] = instantiate(node.degradation)(kernels=kernels, noise=noise, jpeg=jpeg)
    if not found:
        raise InputError("variants: none is left to compare; give +degradation@variants.NAME=DEGRADATION")
    return found


def measure(real: Patches, hr: Patches, variants: Mapping[str, Degrade], seed: int = 0) -> dict[str, Gap]:
    """Measure degradations ``(hr, generator) -> lr`` against real patches.

    Real patches are ``(n, 3, P, P)`` in [0, 1], HR is ``(n, 3, s*(P + 8), s*(P + 8))``, both by photo.

    Raises:
        InputError: there are fewer than two photos on a side.
    """
    check_counts(len(real), len(hr))
    real_features = {name: features(patches) for name, patches in real.items()}
    real_curves, gaps = curves(torch.cat(list(real.values()))), {}
    for variant, degrade in variants.items():
        generator = torch.Generator().manual_seed(draw_seed(seed, 0))
        made = {name: quantize(degrade(patches, generator)[..., CUT:-CUT, CUT:-CUT]) for name, patches in hr.items()}
        apart = separation(real_features, {name: features(patches) for name, patches in made.items()}, seed)
        made_curves = curves(torch.cat(list(made.values())))
        gaps[variant] = Gap(apart, compare(real_curves, made_curves), made_curves)
    return gaps


def content_gap(real: Patches, hr: Patches, scale: int, seed: int = 0) -> Separation:
    """How well the scenes alone tell the two sides apart: by mean colours and coarse contrast."""
    bicubic = Degradation(scale)
    made = {name: bicubic(patches, torch.Generator())[..., CUT:-CUT, CUT:-CUT] for name, patches in hr.items()}
    of_real, of_made = ({name: content(patches) for name, patches in side.items()} for side in (real, made))
    return separation(of_real, of_made, seed)


def draw_gaps(real: Curves, gaps: Mapping[str, Gap]) -> Picture:
    """Panels of the AUCs and of the curves, ``(980, 940, 3)`` uint8."""
    by_name = {"real": real, **{name: gap.curves for name, gap in gaps.items()}}
    widths = np.linspace(1, 2 * 5 + 1, 21)
    levels, bands, pixels = ((edges[:-1] + edges[1:]) / 2 for edges in (BRIGHTNESS, BANDS, widths))

    def lines(axes: Any, title: str, what: str, x: Any, y: Callable[[Curves], Any]) -> None:
        draw_lines(axes, title, what, {name: (x, y(curves)) for name, curves in by_name.items()})

    def decibels(power: Any) -> Any:
        return 10 * np.log10(power + 0.01)

    def shares(curves: Curves) -> Any:
        return np.histogram(curves.edges, widths)[0] / max(len(curves.edges), 1)

    def paint(figure: Any) -> None:
        auc, noise, spectrum, power, edges, legend = figure.subplots(3, 2).flat
        cycles = "cycles a pixel"
        draw_intervals(auc, "AUC of real against made (0.5: alike)", {n: gap.separation for n, gap in gaps.items()})
        lines(noise, "noise by brightness, levels", "brightness", levels, lambda c: c.noise)
        lines(spectrum, "noise spectrum in flat patches, dB", cycles, bands, lambda c: decibels(c.noise_power))
        lines(power, "power spectrum, dB", cycles, bands, lambda c: decibels(c.power))
        lines(edges, "share of the edges by width", "pixels", pixels, shares)
        legend.legend(*edges.get_legend_handles_labels(), loc="center left", frameon=False)
        legend.axis("off")

    return drawn(paint, 940, 980)


def advice(gaps: Mapping[str, Gap], scenes: Separation, nearest: str, degradation: str) -> str:
    """Which variant to train with, which others are as near, and whether other clean photos would help.

    ``scenes`` is the separation by the scenes alone; ``degradation`` chooses ``nearest``, the variant of smallest AUC.
    """
    best = gaps[nearest].separation
    line = f"nearest is {nearest}, AUC {best.auc:.3f}: train with degradation={degradation}"
    if close := [n for n, gap in gaps.items() if n != nearest and gap.separation.low <= best.high]:
        line += f"; not clearly different from it, since the intervals overlap: {', '.join(close)}"
    if scenes.auc > 0.65 and best.auc <= scenes.high:
        line += "; LR can hardly come nearer by another: give data.clean_dir scenes like the camera's"
    return line


def print_gaps(gaps: Mapping[str, Gap], scenes: Separation, title: str) -> None:
    """The table on the terminal: a row for each variant, and how much of the separation the scenes explain."""
    head = ["LR made by", "AUC", "noise", "noise dB", "colours", "power dB", "edges px"]
    rows = [[name, str(of.separation), *(f"{d:.2f}" for d in of.distances.values())] for name, of in gaps.items()]
    notes = (
        "AUC 0.5: LR and photos look alike, 1: always told apart; in brackets 95 % of bootstrap samples of the photos",
        "part of that comes from the scenes and not from the degradation: by mean colour and coarse contrast alone, "
        f"which a degradation hardly changes, the AUC is {scenes}",
    )
    print_cells([head, *rows], title, notes)


def write_gaps(path: Path, gaps: Mapping[str, Gap], scenes: Separation) -> None:
    """All figures as JSON."""
    figures = {"variants": {name: gap.row() for name, gap in gaps.items()}, "content": scenes._asdict()}
    write_file(path, json.dumps(figures, indent=1))
