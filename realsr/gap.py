"""``python -m realsr.gap data.source_dir=DIR pools=DIR``: how far LR as we make it is from the camera's photos."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from realsr.callbacks import log_picture
from realsr.config import check_writable, command, output_dir
from realsr.data.datasets import draw_seed
from realsr.data.store import scaled
from realsr.degradation import Degradation
from realsr.domains import BANDS, BRIGHTNESS, Curves, Separation, compare, content, curves, features, separation
from realsr.errors import InputError, at_least
from realsr.evenly import evenly
from realsr.files import atomic_write, find_images
from realsr.images import quantize, read_image, to_float
from realsr.jpeg_pool import JpegPool, collect_tables
from realsr.pictures import Picture, save
from realsr.plots import draw_intervals, draw_lines, drawn
from realsr.pools import KernelPool, NoisePool
from realsr.tables import print_cells

log = logging.getLogger(__name__)

RIM = 4  # LR pixels around a made patch that are cut off: there the blur saw a mirrored border
HEADINGS = {
    "noise": "noise",
    "noise_spectrum": "noise dB",
    "colour": "colours",
    "spectrum": "power dB",
    "edges": "edges px",
}

Degrade = Callable[[Tensor, torch.Generator], Tensor]
Patches = dict[str, Tensor]


@dataclass(frozen=True)
class Gap:
    """What a degradation leaves between made LR and the camera's photos.

    Attributes:
        separation: of the classifier that tells them apart.
        distances: of their curves, see :func:`realsr.domains.compare`.
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


def _print(gaps: Mapping[str, Gap], apart: Separation, title: str) -> None:
    cells = [["LR made by", "AUC", *HEADINGS.values()]]
    for name, gap in gaps.items():
        shown = (f"{gap.distances[key]:.2f}" for key in HEADINGS)
        cells.append([name, str(gap.separation), *shown])
    notes = (
        "AUC 0.5: alike, 1: two domains; in brackets 95 % of bootstrap samples of the photos",
        f"what they show tells them apart as well, by AUC {apart}",
    )
    print_cells(cells, title, notes)


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


def _run(cfg: DictConfig) -> None:
    at_least(2, photos=cfg.photos)
    at_least(20, patches=cfg.patches)
    at_least(16, patch=cfg.patch)
    at_least(1, scale=cfg.scale)
    folder = output_dir()
    check_writable(folder)
    if not cfg.data.source_dir:
        raise InputError("data.source_dir is empty; give the folder of the camera's photos")
    source, side = _chosen(cfg.data.source_dir, cfg.photos), cfg.scale * (cfg.patch + 2 * RIM)
    others = cfg.data.clean_dir if cfg.data.hr is None else cfg.data.hr
    sharp = [] if others is None else _chosen(others, cfg.photos)  # a folder that is not there is said before the fit
    tables = Path(cfg.pools).is_dir() and collect_tables(source, Path(cfg.pools) / "jpeg", whole=False)
    need = [str(name) for name, v in cfg.variants.items() if v.jpeg_dir and v.get("jpeg_required", True)]
    compared = {str(name): v for name, v in cfg.variants.items() if tables or name not in need}
    if left_out := [name for name in need if not tables]:
        log.info("not compared, since the photos are no JPEG files: %s", ", ".join(left_out))
    variants = {name: load_variant(node, cfg.scale, cfg.pool.min_confidence) for name, node in compared.items()}
    real = cut_patches(source, cfg.patch, cfg.patches, draw_seed(cfg.seed, 1))
    if cfg.data.hr is not None:
        hr = cut_patches(sharp, side, cfg.patches, draw_seed(cfg.seed, 2))
    else:
        hr = cut_patches(source, side, cfg.patches, draw_seed(cfg.seed, 2), cfg.cleanup)
        clean = cut_patches(sharp, side, cfg.patches, draw_seed(cfg.seed, 3))
        hr |= {f"clean/{name}": patches for name, patches in clean.items()}
    gaps = measure(real, hr, variants, cfg.seed)
    apart = content_gap(real, hr, cfg.scale, cfg.seed)
    _print(gaps, apart, f"{len(real)} camera photos against LR of {len(hr)}, {cfg.patches} patches of each")
    choices = HydraConfig.get().runtime.choices
    log.info(advice(gaps, apart, {name: choices[f"degradation@variants.{name}"] for name in gaps}))
    sheet = picture(curves(torch.cat(list(real.values()))), gaps)
    save(folder / "gap.png", sheet)
    rows: dict[str, dict[str, float]] = {
        name: {**asdict(gap.separation), **gap.distances, "noise_level": gap.curves.noise_level}
        for name, gap in gaps.items()
    }
    with atomic_write(folder / "gap.json") as file:
        file.write(json.dumps({"variants": rows, "content": asdict(apart)}, indent=1).encode())
    numbers = {f"gap/{name}/{key}": v for name, row in rows.items() for key, v in row.items() if math.isfinite(v)}
    try:
        for logger in (instantiate(node) for node in cfg.logger.values() if node is not None):
            logger.log_metrics(numbers, step=0)
            log_picture([logger], "gap/curves", sheet, 0)
            logger.save()
    finally:
        wandb.finish()
    log.info("picture: %s   figures: %s", folder / "gap.png", folder / "gap.json")


def _chosen(folder: str, count: int) -> list[Path]:
    photos = find_images(folder)
    return [photos[i] for i in evenly(count, len(photos))]


def load_variant(node: DictConfig, scale: int, min_confidence: float) -> Degrade:
    """A degradation as its option composes it, with whole pools; without JPEG's where there is none."""
    kernels = None if node.kernel_dir is None else KernelPool.load(node.kernel_dir, scale, min_confidence)
    noise = None if node.noise_dir is None else NoisePool.load(node.noise_dir)
    has_tables = node.jpeg_dir is not None and any(Path(node.jpeg_dir).glob("*.npz"))
    jpeg = JpegPool.load(node.jpeg_dir) if has_tables else None
    degradation: Degrade = instantiate(node.degradation)(kernels=kernels, noise=noise, jpeg=jpeg)
    return degradation


main = command("gap")(_run)

if __name__ == "__main__":
    main()
