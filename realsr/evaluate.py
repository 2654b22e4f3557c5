"""``python -m realsr.evaluate ckpt=FILE data.hr=DIR data.lr=DIR``: is the model better than bicubic, by how much?"""

from __future__ import annotations

import csv
import io
import json
import logging
import statistics
from collections.abc import Callable
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from realsr.config import check_writable, command, pick_device
from realsr.data.datasets import Pair
from realsr.data.folders import read_pairs
from realsr.errors import at_least
from realsr.images import Photo, atomic_write, to_uint, write_image
from realsr.losses.perceptual import LPIPSLoss
from realsr.metrics import image_metrics
from realsr.networks.weights import load_generator
from realsr.pictures import Picture, grid, sharpest_crop
from realsr.resample import imresize
from realsr.tiling import upscale_tiled

log = logging.getLogger(__name__)

Method = Callable[[Tensor], Tensor]  # (1, 3, H, W) in [0, 1] to (1, 3, s*H, s*W) in [0, 1]
Results = dict[str, dict[str, dict[str, float]]]  # method -> image -> metric -> value
HEADINGS = {"psnr": "PSNR", "psnr_y": "PSNR-Y", "ssim": "SSIM", "ssim_y": "SSIM-Y", "lpips": "LPIPS"}


def evaluate(
    pairs: list[Pair], methods: dict[str, Method], scale: int, folder: Path, lpips: LPIPSLoss | None = None
) -> Results:
    """Run every method on every image; write pictures, ``images.csv`` and ``metrics.json`` into ``folder``.

    Args:
        pairs: without ground truth there are pictures and no metrics.
        methods: by name.
        scale: of all of them, also the border that PSNR and SSIM shave.
        folder: for the results.
        lpips: None leaves it out.
    """
    check_writable(folder)
    results: Results = {name: {} for name in methods}
    for pair in track(pairs, "evaluating", disable=len(pairs) < 2):
        images = {name: method(pair.lr[None]).cpu() for name, method in methods.items()}
        for name, sr in images.items():
            write_image(folder / name / f"{pair.name}.png", Photo(to_uint(sr[0])))
            if pair.hr is not None:
                results[name][pair.name] = image_metrics(sr, pair.hr[None], scale, lpips)
        shown = {name: sr[0] for name, sr in images.items()}
        write_image(folder / "compare" / f"{pair.name}.png", Photo(compare(shown, pair)))
    with atomic_write(folder / "metrics.json") as file:
        file.write(json.dumps({"mean": means(results), "images": results}, indent=1).encode())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "image", *HEADINGS])
    for method, images_of in results.items():
        for image, values in images_of.items():
            writer.writerow([method, image, *(values.get(key, "") for key in HEADINGS)])
    with atomic_write(folder / "images.csv") as file:
        file.write(text.getvalue().encode())
    return results


def means(results: Results) -> dict[str, dict[str, float]]:
    """Mean over images of every metric of every method."""
    return {
        method: {
            key: statistics.fmean(values[key] for values in images.values()) for key in next(iter(images.values()))
        }
        for method, images in results.items()
        if images
    }


def print_table(mean: dict[str, dict[str, float]], title: str) -> None:
    """A row for every method, a column for every metric that was measured."""
    keys = [key for key in HEADINGS if any(key in values for values in mean.values())]
    table = Table(title=title)
    for heading in ("method", *(HEADINGS[key] for key in keys)):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for method, values in mean.items():
        table.add_row(method, *(f"{values[key]:.2f}" if "psnr" in key else f"{values[key]:.4f}" for key in keys))
    Console().print(table)


def compare(images: dict[str, Tensor], pair: Pair, side: int = 256) -> Picture:
    """The busiest crop of every method's ``(3, H, W)`` result and of the ground truth, side by side."""
    if pair.hr is not None:
        images = {**images, "ground truth": pair.hr}
    cells = {name: to_uint(image) for name, image in images.items()}
    y, x = sharpest_crop(list(cells.values())[-1], side)
    return grid([[cell[y : y + side, x : x + side] for cell in cells.values()]], [list(cells)])


def bicubic(scale: int) -> Method:
    """What everything is compared with."""
    return lambda lr: imresize(lr, scale).clamp(0, 1)


def _run(cfg: DictConfig) -> None:
    at_least(0, tile=cfg.tile, overlap=cfg.overlap)
    generator = load_generator(cfg.ckpt, cfg.ema).to(device := pick_device(cfg.accelerator))
    scale = int(generator.scale)  # type: ignore[arg-type]
    pairs = read_pairs(cfg.data.hr, cfg.data.lr, scale)
    methods: dict[str, Method] = {
        "bicubic": bicubic(scale),
        "model": lambda lr: upscale_tiled(generator, lr.to(device), scale, cfg.tile, cfg.overlap, cfg.keep_colours),
    }
    folder = Path(cfg.output)
    results = evaluate(pairs, methods, scale, folder, instantiate(cfg.lpips) if cfg.lpips else None)
    if mean := means(results):
        print_table(mean, f"{len(pairs)} images, x{scale}")
    else:
        log.info("no ground truth, so no metrics")
    log.info("pictures, images.csv and metrics.json are in %s", folder)


main = command("evaluate")(_run)

if __name__ == "__main__":
    main()
