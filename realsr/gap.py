"""``python -m realsr.gap data.source_dir=DIR pool_dir=DIR``: how far LR as we make it is from the camera's photos."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from realsr.data.datasets import draw_seed
from realsr.estimation.patch_statistics import curves
from realsr.evaluation import gap
from realsr.pools.jpeg_tables import collect_tables
from realsr.pools.pool import check_confidence
from realsr.reports.pictures import save
from realsr.runtime.command_line import and_next
from realsr.runtime.config import command, output_dir, pools_given
from realsr.runtime.errors import InputError, at_least
from realsr.runtime.files import check_writable
from realsr.training.loggers import log_result

log = logging.getLogger(__name__)


def _run(cfg: DictConfig) -> None:
    at_least(2, photos=cfg.photos)
    at_least(20, patches=cfg.patches)
    at_least(16, patch=cfg.patch)
    at_least(1, scale=cfg.scale)
    at_least(0, seed=cfg.seed)
    check_confidence(cfg.pool.min_confidence)
    if not 0 < cfg.cleanup <= 1:
        raise InputError(f"cleanup={cfg.cleanup}: source photos are cleaned by making them smaller, give 0 to 1")
    folder = output_dir()
    check_writable(folder)
    if not cfg.data.source_dir:
        raise InputError("data.source_dir is empty; give the folder of the camera's photos")

    # sizes are checked by the photos' headers before a camera is fitted to the pools
    side = cfg.scale * (cfg.patch + 2 * gap.CUT)
    source = gap.choose_photos(cfg.data.source_dir, cfg.photos, cfg.patch)
    made = [("", cfg.data.source_dir, cfg.cleanup), ("clean/", cfg.data.clean_dir, 1.0)]  # HR: prefix, folder, factor
    ways = [way for way in (made if cfg.data.hr is None else [("", cfg.data.hr, 1.0)]) if way[1] is not None]
    large = [gap.choose_photos(name, cfg.photos, side, factor) for _, name, factor in ways]
    gap.check_counts(len(source), sum(map(len, large)))

    log.info("comparing %d photos in %s with LR", len(source), cfg.data.source_dir)
    tables = Path(cfg.pool_dir).is_dir() and collect_tables(source, Path(cfg.pool_dir) / "jpeg", whole=False)
    variants = gap.load_variants(cfg.variants, cfg.scale, cfg.pool.min_confidence, bool(tables))
    real = gap.cut_patches(source, cfg.patch, cfg.patches, draw_seed(cfg.seed, 1))
    hr: gap.Patches = {}
    for number, (photos, (prefix, _, factor)) in enumerate(zip(large, ways, strict=True), 2):
        cut = gap.cut_patches(photos, side, cfg.patches, draw_seed(cfg.seed, number), factor)
        hr |= {prefix + name: patches for name, patches in cut.items()}
    gaps, scenes = gap.measure(real, hr, variants, cfg.seed), gap.content_gap(real, hr, cfg.scale, cfg.seed)

    gap.print_gaps(gaps, scenes, f"{len(real)} camera photos against LR of {len(hr)}, {cfg.patches} patches of each")
    nearest = min(gaps, key=lambda name: gaps[name].separation.auc)
    degradation = HydraConfig.get().runtime.choices[f"degradation@variants.{nearest}"]
    log.info(gap.advice(gaps, scenes, nearest, degradation))
    sheet = gap.draw_gaps(curves(torch.cat(list(real.values()))), gaps)
    save(folder / "gap.png", sheet)
    gap.write_gaps(folder / "gap.json", gaps, scenes)
    rows = {f"gap/{name}/{key}": value for name, found in gaps.items() for key, value in found.row().items()}
    log_result([instantiate(node) for node in cfg.logger.values() if node is not None], rows, "gap/curves", sheet)
    train = ["experiment=laptop", f"degradation={degradation}", f"name={degradation}"]
    train += [f"data.source_dir={cfg.data.source_dir}", *pools_given(cfg)]
    train += [f"data.clean_dir={cfg.data.clean_dir}"] if cfg.data.clean_dir else []
    commands = [("train", *train)] if cfg.scale == 4 else []  # the network that laptop starts from enlarges by four
    log.info(and_next(f"picture: {folder / 'gap.png'}, figures: {folder / 'gap.json'}", *commands))


main = command("gap")(_run)

if __name__ == "__main__":
    main()
