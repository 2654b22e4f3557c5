"""``python -m realsr.quickstart``: the whole method on the embedded sample, where the truth is known."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from realsr.data.folders import find_pairs
from realsr.data.samples import check_no_photos, make_samples
from realsr.evaluation.evaluation_report import present
from realsr.evaluation.evaluator import build_evaluator, evaluate
from realsr.evaluation.kernel_table import print_kernel_table
from realsr.evaluation.methods import bicubic, network
from realsr.imaging import read_image
from realsr.reports.pictures import save
from realsr.runtime.command_line import and_next
from realsr.runtime.config import command
from realsr.runtime.errors import InputError, at_least
from realsr.runtime.files import check_writable, find_images

log = logging.getLogger(__name__)


def _run(cfg: DictConfig) -> None:
    if not cfg.folder:
        raise InputError("folder= is empty; give the name of a folder, such as folder=quickstart")
    at_least(0, seed=cfg.seed)
    evaluator = build_evaluator(4, {"lpips": cfg.lpips}, "cpu")
    folder = Path(cfg.folder)
    photos, pools, run = folder / "photos", folder / "pools", folder / f"run_seed{cfg.seed}"
    if not (photos / "truth.npz").exists():
        check_no_photos(folder)
    check_writable(folder)
    log.info("the whole method on photos in the package, into %s: 2.4 minutes of one core of an AMD EPYC", folder)
    last = run / "checkpoints" / "last.ckpt"
    options = ["experiment=quickstart", f"data.samples_dir={photos}", f"pool_dir={pools}", f"hydra.run.dir={run}"]
    _train(*options, f"seed={cfg.seed}", *(["ckpt=last"] if last.exists() else []), *cfg.options)
    make_samples(photos)  # by the training, unless it was done before
    results = folder / f"results_seed{cfg.seed}"
    pairs = find_pairs(photos / "test_hr", photos / "test_lr_x4", 4)
    methods = [bicubic(4), network("model", last, 4)]
    done = evaluate(pairs, methods, evaluator, results)
    print_kernel_table(pools / "kernels", photos / "truth.npz", results / "kernels.png")
    present(done, f"{len(pairs)} photos of the camera that training never saw, x4", methods, pairs, results)
    rows = [read_image(path).rgb for path in find_images(results / "compare")]
    save(results / "comparison.png", np.concatenate(rows))
    log.info("comparison picture: %s   the upscaled photos: %s", results / "comparison.png", results / "model")
    own = "experiment=laptop", "data.source_dir=photos", "data.clean_dir=clean"
    log.info(and_next(f"the network lies in {run}; your own photos (photos, and clean of any camera)", ("train", *own)))
    if done.failures:
        raise InputError(f"{len(done.failures)} results are missing: {done.failures[0]}")


def _train(*options: str) -> None:
    """Run the training by the command that it prints, which people can repeat."""
    log.info("\npython -m realsr.train %s\n", shlex.join(options))
    status = subprocess.run([sys.executable, "-m", "realsr.train", *options], check=False).returncode
    if status in (1, 130):
        raise KeyboardInterrupt
    if status:
        raise InputError("the training stopped for the reason above; once that is mended, the same command goes on")


main = command("quickstart", then="the same command goes on")(_run)

if __name__ == "__main__":
    main()
