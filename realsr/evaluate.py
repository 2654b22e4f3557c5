"""``python -m realsr.evaluate methods=[bicubic,zssr,NAME:FILE] hr=DIR lr=DIR``: is it better, and by how much?"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from realsr.data.folders import find_pairs, say_cropped
from realsr.data.samples import make_samples
from realsr.evaluation.evaluation_report import present
from realsr.evaluation.evaluator import build_evaluator, evaluate
from realsr.evaluation.methods import build_methods
from realsr.evaluation.tables import check_paper
from realsr.runtime.config import command
from realsr.runtime.errors import InputError, at_least
from realsr.runtime.files import left_out
from realsr.runtime.hardware import keep_memory

log = logging.getLogger(__name__)


def check_output(output: Path, *sources: str | None) -> None:
    """Raise InputError if the output folder lies in a source, where results would be test images of the next run."""
    here = output.resolve()
    for source in (Path(name) for name in sources if name):
        if here.is_relative_to(source.resolve()) and not any(here.is_relative_to(path) for path in left_out(source)):
            raise InputError(f"output={output}: lies in {source}, whose pictures are test images; give another folder")


def _run(cfg: DictConfig) -> None:
    keep_memory()
    at_least(0, tile=cfg.tile)
    at_least(-1, overlap=cfg.overlap)
    at_least(1, scale=cfg.scale)
    if not 0 <= cfg.seed < 2**32:
        raise InputError(f"seed={cfg.seed}: give 0 to {2**32 - 1}")
    for option in ("hr", "lr"):
        if cfg[option] is not None and cfg[option] != cfg.testset[option]:
            raise InputError(f"{option}={cfg[option]}: goes with testset=folder; here it is {cfg.testset[option]}")
    at_least(0, "report.", photos=cfg.report.photos)
    if not 64 <= cfg.report.side <= 16383:
        raise InputError(f"report.side={cfg.report.side}: give 64 to 16383, the most that WebP has")
    methods = build_methods(cfg)
    if not methods:
        raise InputError("nothing to evaluate; give ckpt=FILE, or methods=[bicubic,NAME:FILE]")
    if "samples_dir" in cfg.testset:
        make_samples(Path(cfg.testset.samples_dir))
    folder = Path(cfg.output)
    paper: Any = OmegaConf.to_container(cfg.testset.paper, resolve=True)
    check_paper(paper)
    check_output(folder, cfg.testset.hr, cfg.testset.lr)
    photos = find_pairs(cfg.testset.hr, cfg.testset.lr, cfg.scale)
    say_cropped(photos)
    wanted = {"lpips": any(f.hr is not None for f in photos), "niqe": any(f.hr is None for f in photos)}
    metrics = {name: cfg.metrics[name] for name, want in wanted.items() if want}
    names = ", ".join(method.name for method in methods)
    log.info("comparing %s on %d photos, x%d; results that lie in %s stay", names, len(photos), cfg.scale, folder)
    evaluator = build_evaluator(cfg.scale, metrics, cfg.accelerator)
    done = evaluate(photos, methods, evaluator, folder)
    title = f"{cfg.testset.title or 'test'}: {len(photos)} photos, x{cfg.scale}"
    notes = [] if cfg.testset.lr is not None else ["LR was made of the ground truth by bicubic: no camera's."]
    if evaluator.lpips is not None:
        notes.append(f"LPIPS by {cfg.metrics.lpips.net}.")
    present(done, title, methods, photos, folder, cfg.report.photos, cfg.report.side, paper, notes)
    if done.failures:
        raise InputError(f"{len(done.failures)} results are missing: {done.failures[0]}")


main = command("evaluate", then="the same command goes on")(_run)

if __name__ == "__main__":
    main()
