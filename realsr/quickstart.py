"""``python -m realsr.quickstart``: the whole method on the embedded sample, where the truth is known."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from realsr.config import check_writable, command
from realsr.data.folders import find_pairs
from realsr.data.samples import are_outdated, make_samples
from realsr.entries import Entry
from realsr.errors import InputError
from realsr.evaluate import build_judge, present
from realsr.evaluation import evaluate
from realsr.files import find_images
from realsr.images import read_image
from realsr.kernels import bicubic_kernel, framed, kernel_psnr, max_normalised_correlation
from realsr.methods import bicubic, network
from realsr.pictures import grid, kernel_picture, save
from realsr.tables import print_cells

log = logging.getLogger(__name__)


def _run(cfg: DictConfig) -> None:
    folder = Path(cfg.folder)
    check_writable(folder)
    photos, pools, run = folder / "photos", folder / "pools", folder / f"run_seed{cfg.seed}"
    if are_outdated(photos):
        log.info("%s: the sample is of a former camera, so all of it is made anew", folder)
        ours = [pools / name for name in ("kernels", "noise", "jpeg")]  # others may be kept beside them
        for old in (*ours, *folder.glob("run_seed*"), *folder.glob("results_seed*"), photos):  # which tell, last
            shutil.rmtree(old, ignore_errors=True)
    last = run / "checkpoints" / "last.ckpt"
    _train(
        "experiment=quickstart",
        f"data.samples_dir={photos}",
        f"pool_dir={pools}",
        f"hydra.run.dir={run}",
        f"seed={cfg.seed}",
        *(["ckpt=last"] if last.exists() else []),
        *cfg.options,
    )
    make_samples(photos)  # a run that was done before has looked at none
    results = folder / f"results_seed{cfg.seed}"
    pairs = find_pairs(photos / "test_hr", photos / "test_lr_x4", 4)
    judge = build_judge(4, {"lpips": cfg.lpips}, "cpu")
    methods = [bicubic(4), network("model", last, 4)]
    done = evaluate(pairs, methods, judge, results)
    print_kernel_table(pools / "kernels", photos / "truth.npz", results / "kernels.png")
    present(done, f"{len(pairs)} photos of the camera that training never saw, x4", methods, pairs, results)
    rows = [read_image(path).rgb for path in find_images(results / "compare")]
    save(results / "comparison.png", np.concatenate(rows))
    log.info("comparison picture: %s", results / "comparison.png")
    log.info("the upscaled photos: %s   the model: %s", results / "model", last)
    if done.failures:
        raise InputError(f"{len(done.failures)} results are missing: {done.failures[0]}")


def _train(*options: str) -> None:
    """Run the training as the command that it is, so that a user can repeat it."""
    log.info("\npython -m realsr.train %s\n", " ".join(options))
    status = subprocess.run([sys.executable, "-m", "realsr.train", *options], check=False).returncode
    if status in (1, 130):
        raise KeyboardInterrupt
    if status:
        raise InputError("the training stopped, see above; the same command goes on where it stopped")


def print_kernel_table(pool: Path, truth_file: Path, picture: Path) -> None:
    """How right the estimated x4 kernels are, against assuming bicubic; draw both beside the truth, which is first."""
    truth = np.load(truth_file)
    table = [["photo", "estimated", "assuming bicubic"]]
    cells, labels, shown = [], [], ("estimated", "bicubic")
    for path in sorted(pool.glob("*.npz")):
        entry = Entry.read(path)
        name = Path(entry.manifest["photo"]).stem
        true, estimated = truth[f"{name}_x4"], entry.arrays["x4"]
        scores = [
            f"{kernel_psnr(kernel, true):.1f} / {max_normalised_correlation(kernel, true):.3f}"
            for kernel in (estimated, bicubic_kernel(4))
        ]
        table.append([name, *scores])
        cells.append([kernel_picture(framed(kernel, len(true))) for kernel in (true, estimated, bicubic_kernel(4))])
        labels.append(
            [name, *(f"{how} {score.partition(' ')[0]} dB" for how, score in zip(shown, scores, strict=True))]
        )
    print_cells(table, "x4 kernels against the true ones (aligned PSNR in dB / MNC; higher is better)")
    save(picture, grid(cells, labels))


main = command("quickstart", then="the same command goes on")(_run)

if __name__ == "__main__":
    main()
