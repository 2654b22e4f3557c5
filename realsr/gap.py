"""``python -m realsr.gap data.source_dir=DIR pools=DIR``: how far LR as we make it is from the camera's photos."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from realsr.data.datasets import draw_seed
from realsr.estimation.patch_statistics import curves
from realsr.evaluation.gap import RIM, Gap, advice, content_gap, cut_patches, load_variant, measure, picture
from realsr.evaluation.separation import Separation
from realsr.evaluation.tables import print_cells
from realsr.pools.jpeg_tables import collect_tables
from realsr.reports.pictures import save
from realsr.runtime.command_line import and_next
from realsr.runtime.config import check_writable, command, output_dir
from realsr.runtime.errors import InputError, at_least
from realsr.runtime.evenly import evenly
from realsr.runtime.files import atomic_write, find_images
from realsr.training.loggers import log_picture

log = logging.getLogger(__name__)

HEADINGS = {
    "noise": "noise",
    "noise_spectrum": "noise dB",
    "colour": "colours",
    "spectrum": "power dB",
    "edges": "edges px",
}


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
    log.info(
        "comparing %d photos in %s with LR by %d degradations, %d patches of each photo",
        *(len(source), cfg.data.source_dir, len(cfg.variants), cfg.patches),
    )
    tables = Path(cfg.pools).is_dir() and collect_tables(source, Path(cfg.pools) / "jpeg", whole=False)
    pools = {str(name): variant.get("pools", {}) for name, variant in cfg.variants.items()}
    need = [name for name, of in pools.items() if of.get("jpeg_dir") and of.get("jpeg_required", True)]
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
    options = {name: choices[f"degradation@variants.{name}"] for name in gaps}
    log.info(advice(gaps, apart, options))
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
    nearest = min(gaps, key=lambda name: gaps[name].separation.auc)
    train = ["experiment=laptop", f"degradation={options[nearest]}", f"data.source_dir={cfg.data.source_dir}"]
    train += [f"data.clean_dir={cfg.data.clean_dir}"] if cfg.data.clean_dir else []
    train += [] if OmegaConf.is_interpolation(cfg, "pools") else [f"pool_dir={cfg.pools}"]
    log.info(and_next(f"picture: {folder / 'gap.png'}, figures: {folder / 'gap.json'}", ("train", *train)))


def _chosen(folder: str, count: int) -> list[Path]:
    photos = find_images(folder)
    return [photos[i] for i in evenly(count, len(photos))]


main = command("gap")(_run)

if __name__ == "__main__":
    main()
