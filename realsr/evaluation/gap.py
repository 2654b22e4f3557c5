"""How far LR as we make it is from the photos of a camera."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from realsr.data.datasets import draw_seed
from realsr.data.store import scaled
from realsr.degradation.paper import Degradation
from realsr.estimation.patch_statistics import BANDS, BRIGHTNESS, Curves, content, curves, features
from realsr.evaluation.separation import Separation, compare, separation
from realsr.imaging import quantize, read_image, to_float
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool, NoisePool
from realsr.reports.pictures import Picture
from realsr.reports.plots import draw_intervals, draw_lines, drawn
from realsr.runtime.errors import InputError

log = logging.getLogger(__name__)

RIM = 4  # LR pixels around a made patch that are cut off: there the blur saw a mirrored border

Degrade = Callable[[Tensor, torch.Generator], Tensor]
Patches = dict[str, Tensor]


@dataclass(frozen=True)
class Gap:
    """What a degradation leaves between made LR and the camera's photos.

    Attributes:
        separation: of the classifier that tells them apart.
        distances: of their curves, see :func:`realsr.evaluation.separation.compare`.
        curves: of the made patches.
    """

    separation: Separation
    distances: dict[str, float]
    curves: Curves


def measure(real: Patches, hr: Patches, variants: Mapping[str, Degrade], seed: int = 0) -> dict[str, Gap]:
    """Measure degradations against real patches; those of one name on both sides are never apart in training and test.

    Args:
        real: by photo, ``(n, 3, P, P)`` in [0, 1].
        hr: by photo, ``(n, 3, s*(P + 8), s*(P + 8))``, what LR is made of, the same for all variants.
        variants: by name, ``(hr, generator) -> lr``.
        seed: of the draws.

    Raises:
        InputError: there are fewer than two photos on a side.
    """
    if min(len(real), len(hr)) < 2:
        raise InputError(
            f"{len(real)} camera photos and {len(hr)} that LR is made of are large enough: the measure needs two on "
            "each side; give more or larger photos (data.source_dir, data.clean_dir), or a smaller patch"
        )
    seen = {name: features(patches) for name, patches in real.items()}
    real_curves, gaps = curves(torch.cat(list(real.values()))), {}
    for variant, degrade in variants.items():
        generator = torch.Generator().manual_seed(draw_seed(seed, 0))
        made = {name: quantize(degrade(patches, generator)[..., RIM:-RIM, RIM:-RIM]) for name, patches in hr.items()}
        apart = separation(seen, {name: features(patches) for name, patches in made.items()}, seed)
        made_curves = curves(torch.cat(list(made.values())))
        gaps[variant] = Gap(apart, compare(real_curves, made_curves), made_curves)
    return gaps


def content_gap(real: Patches, hr: Patches, scale: int, seed: int = 0) -> Separation:
    """How well the two sides are told apart by what they show: mean colours and coarse contrast alone."""
    bicubic = Degradation(scale)
    made = {name: bicubic(patches, torch.Generator())[..., RIM:-RIM, RIM:-RIM] for name, patches in hr.items()}
    shown, seen = ({name: content(patches) for name, patches in side.items()} for side in (real, made))
    return separation(shown, seen, seed)


def cut_patches(photos: Sequence[Path], side: int, count: int, seed: int, factor: float = 1.0) -> Patches:
    """``count`` crops at random places of each photo, by its name, ``(count, 3, side, side)`` in [0, 1].

    Args:
        photos: files; those that are too small or cannot be read are left out with a word.
        side: in pixels.
        count: of each photo.
        seed: of the places.
        factor: the photos are scaled by first.
    """
    cut: Patches = {}
    for photo in photos:
        try:
            image = to_float(scaled(read_image(photo).rgb, factor))
        except InputError as e:
            log.warning("skipped: %s", e)
            continue
        height, width = image.shape[-2:]
        if min(height, width) < side:
            log.warning("skipped: %s: %dx%d pixels, patches need %d", photo, width, height, side)
            continue
        rng = np.random.default_rng([seed, len(cut)])
        corners = zip(rng.integers(0, height - side + 1, count), rng.integers(0, width - side + 1, count), strict=True)
        cut[photo.stem] = torch.stack([image[:, y : y + side, x : x + side] for y, x in corners])
    return cut


def picture(real: Curves, gaps: Mapping[str, Gap]) -> Picture:
    """Panels of the AUCs and of the curves, ``(980, 940, 3)`` uint8."""
    by_name = {"real": real, **{name: gap.curves for name, gap in gaps.items()}}
    separations = {name: (g.separation.auc, g.separation.low, g.separation.high) for name, g in gaps.items()}
    widths = np.linspace(1, 2 * 5 + 1, 21)
    levels, bands, pixels = ((edges[:-1] + edges[1:]) / 2 for edges in (BRIGHTNESS, BANDS, widths))

    def decibels(power: Any) -> Any:
        return 10 * np.log10(power + 0.01)

    def shares(edges: Any) -> Any:
        return np.histogram(edges, widths)[0] / max(len(edges), 1)

    def paint(figure: Any) -> None:
        auc, noise, spectrum, power, edges, legend = figure.subplots(3, 2).flat
        draw_intervals(auc, "AUC of real against made (0.5: alike)", separations)
        of = by_name.items()
        draw_lines(noise, "noise by brightness, levels", "brightness", {n: (levels, c.noise) for n, c in of})
        flat = {n: (bands, decibels(c.noise_power)) for n, c in of}
        draw_lines(spectrum, "noise spectrum in flat patches, dB", "cycles a pixel", flat)
        draw_lines(power, "power spectrum, dB", "cycles a pixel", {n: (bands, decibels(c.power)) for n, c in of})
        draw_lines(edges, "share of the edges by width", "pixels", {n: (pixels, shares(c.edges)) for n, c in of})
        legend.legend(*edges.get_legend_handles_labels(), loc="center left", frameon=False)
        legend.axis("off")

    return drawn(paint, 940, 980)


def advice(gaps: Mapping[str, Gap], apart: Separation, options: Mapping[str, str]) -> str:
    """Which variant to train with, and whether other clean photos would help.

    Args:
        gaps: by variant.
        apart: by what the photos show.
        options: of ``degradation``, by variant.
    """
    nearest = min(gaps, key=lambda name: gaps[name].separation.auc)
    auc = gaps[nearest].separation.auc
    told = f"nearest is {nearest}, AUC {auc:.3f}: train with degradation={options.get(nearest, nearest)}"
    if apart.auc > 0.65 and auc <= apart.high:
        told += "; LR can hardly come nearer by another: give data.clean_dir scenes like the camera's"
    return told


def load_variant(node: DictConfig, scale: int, min_confidence: float) -> Degrade:
    """A degradation as its option composes it, with whole pools; without JPEG's where there is none."""
    pools = node.get("pools", {})
    kernel_dir, noise_dir, jpeg_dir = (pools.get(f"{kind}_dir") for kind in ("kernel", "noise", "jpeg"))
    kernels = None if kernel_dir is None else KernelPool.load(kernel_dir, scale, min_confidence)
    noise = None if noise_dir is None else NoisePool.load(noise_dir)
    has_tables = jpeg_dir is not None and any(Path(jpeg_dir).glob("*.npz"))
    jpeg = JpegPool.load(jpeg_dir) if has_tables else None
    degradation: Degrade = instantiate(node.degradation)(kernels=kernels, noise=noise, jpeg=jpeg)
    return degradation
