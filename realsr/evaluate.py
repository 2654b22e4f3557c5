"""``python -m realsr.evaluate methods=[bicubic,zssr,NAME:FILE] hr=DIR lr=DIR``: is it better, and by how much?"""

from __future__ import annotations

import logging
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from realsr.checkpoints import versions
from realsr.config import command
from realsr.data.folders import PairFiles, find_pairs, say_cropped
from realsr.data.held_out import folder_contents, held_out_lines, seen_in_training
from realsr.data.run_pools import HELD_OUT
from realsr.data.samples import make_samples
from realsr.errors import InputError, at_least
from realsr.evaluation import Evaluation, Judge, evaluate, view
from realsr.evenly import evenly
from realsr.files import file_hash, left_out
from realsr.hardware import keep_memory, pick_device
from realsr.methods import Method, bicubic, network, split_names, zssr
from realsr.pictures import Picture, kernel_picture, noise_picture
from realsr.pools import KernelPool, NoisePool, hold_out
from realsr.report.evaluation import Views, report_evaluation
from realsr.tables import check_paper, print_tables, tabulate, write_tables

log = logging.getLogger(__name__)

SHOWN = 12  # kernels and noise tiles of each pool in the report


def build_methods(cfg: DictConfig) -> list[Method]:
    """The rows that a config asks for: ``methods``, and ``model`` for ``ckpt``."""
    specs = [*map(str, cfg.methods), *([] if cfg.ckpt is None else [f"model:{cfg.ckpt}"])]
    options = cfg.ema, cfg.tile, cfg.overlap, cfg.keep_colours, pick_device(cfg.accelerator)
    simple: dict[str, Callable[[], Method]] = {
        "bicubic": lambda: bicubic(cfg.scale),
        "zssr": lambda: zssr(cfg.scale, instantiate(cfg.zssr), cfg.accelerator),
        "k_zssr": lambda: zssr(cfg.scale, instantiate(cfg.zssr), cfg.accelerator, instantiate(cfg.estimator)),
    }
    return [simple[n]() if p is None else network(n, p, cfg.scale, *options) for n, p in split_names(specs)]


def build_judge(scale: int, metrics: Mapping[str, Any], accelerator: str) -> Judge:
    """What measures, of the nodes ``lpips`` and ``niqe`` of a config; null or missing leaves one out."""
    nodes = {name: node for name, node in metrics.items() if node}
    built = {name: instantiate(node) for name, node in nodes.items()}
    settings: dict[str, Any] = {name: OmegaConf.to_container(node, resolve=True) for name, node in nodes.items()}
    for node in settings.values():  # a file is known by its content
        node |= {key: file_hash(node[key]) for key in ("backbone", "weights") if node.get(key)}
    if built.get("lpips") is not None:
        built["lpips"].to(pick_device(accelerator))
    return Judge(scale, built.get("lpips"), built.get("niqe"), settings)


def check_output(output: Path, *sources: str | None) -> None:
    """Raise InputError where results of one run would be test images of the next."""
    here = output.resolve()
    for source in (Path(name) for name in sources if name):
        if here.is_relative_to(source.resolve()) and not any(here.is_relative_to(path) for path in left_out(source)):
            raise InputError(f"output={output}: lies in {source}, whose pictures are test images; give another folder")


def present(
    done: Evaluation,
    title: str,
    methods: Sequence[Method],
    photos: Sequence[PairFiles],
    folder: Path,
    count: int = 24,
    side: int = 768,
    paper: Mapping[str, Any] = MappingProxyType({}),
    notes: Sequence[str] = (),
) -> None:
    """Print the table, and write it and ``report.html`` into ``folder``.

    Args:
        done: the results.
        title: of the table and the report.
        methods: that they are of.
        photos: likewise.
        folder: that :func:`realsr.evaluation.evaluate` wrote.
        count: of the photos to look at in the report, evenly chosen.
        side: of what is shown of each photo in pixels, at most.
        paper: ``source`` and ``rows`` of figures to be put beside ours.
        notes: sentences below the table.
    """
    photos = [files for files in photos if any(files.name in column for column in done.results.values())]
    first = [*seen_photos(methods, photos), *notes]
    tables = tabulate(done.results, paper, first)
    write_tables(tables, done.results, folder)
    print_tables(tables, title)
    held_out = [f"{m.name}: {' '.join(held_out_lines(m.checkpoint))}" for m in methods if "config" in m.checkpoint]
    notes = [*tables.notes, *done.failures, *held_out]
    chosen = [photos[i] for i in evenly(count, len(photos))]
    pictures = views(chosen, [method.name for method in methods], folder, side, done)
    report = folder / "report.html"
    report_evaluation(report, title, tables.cells, notes, pictures, done.results, pool_pictures(methods), about(done))
    log.info("report: %s; pictures, table.md, images.csv and metrics.json are beside it", report)


def seen_photos(methods: Sequence[Method], photos: Sequence[PairFiles]) -> list[str]:
    """A line for each checkpoint of ours that was trained on some of the photos."""
    ours = [method for method in methods if "held_out" in method.checkpoint]
    contents = folder_contents(photos) if ours else {}
    seen = {method.name: seen_in_training(method.checkpoint, contents) for method in ours}
    return [
        f"{name} was trained on {len(names)} of these {len(photos)} photos, so its figures say little: "
        f"{', '.join(names[:5])}."
        for name, names in seen.items()
        if names
    ]


def views(
    photos: Sequence[PairFiles], methods: Sequence[str], folder: Path, side: int, done: Evaluation
) -> Iterator[Views]:
    """Of each photo the part with most detail, one photo at a time.

    Args:
        photos: to be shown.
        methods: by name.
        folder: that :func:`realsr.evaluation.evaluate` wrote.
        side: of the parts in pixels, at most.
        done: what it gave.
    """
    for files in photos:
        pair = files.read()
        pictures = view(pair, methods, folder, side)
        kernel = done.kernels.get(pair.name)
        if pictures:
            yield Views(pair.name, pictures, None if kernel is None else kernel_picture(kernel))


def pool_pictures(methods: Sequence[Method]) -> dict[str, list[Picture]]:
    """Kernels and noise tiles that networks were trained with, as far as their pools are still where they were."""
    found: dict[str, list[Picture]] = {}
    for method in methods:
        config = method.checkpoint.get("config")
        data = config.get("data") if isinstance(config, Mapping) else None
        if not isinstance(data, Mapping):  # of another program's checkpoint
            continue
        kernel_dir, noise_dir, seed = data.get("kernel_dir"), data.get("noise_dir"), data.get("val_seed", 0)
        try:
            if kernel_dir and Path(kernel_dir).exists():
                whole = KernelPool.load(kernel_dir, data.get("scale", 4), data.get("min_confidence", 0.0))
                kernels = hold_out(whole, HELD_OUT, seed)[0].kernels.numpy()
                shown = [kernel_picture(kernels[i]) for i in evenly(SHOWN, len(kernels))]
                found[f"{method.name}: {len(kernels)} kernels of {kernel_dir}"] = shown
            if noise_dir and Path(noise_dir).exists():
                tiles = hold_out(NoisePool.load(noise_dir), HELD_OUT, seed)[0].tiles.permute(0, 2, 3, 1).numpy()
                shown = [noise_picture(tiles[i]) for i in evenly(SHOWN, len(tiles))]
                found[f"{method.name}: {len(tiles)} noise tiles of {noise_dir}, four times as strong"] = shown
        except InputError as e:  # emptied or damaged since
            log.warning("left out of the report: %s", e)
    return found


def about(done: Evaluation) -> dict[str, str]:
    """What made the results: command, versions, machine, and how long each method took when it was run."""
    took = ", ".join(f"{name} {statistics.fmean(s.values()):.2g} s" for name, s in done.seconds.items() if s)
    return {
        "Command": f"`{shlex.join(['python', '-m', *_command()])}`",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "Machine": f"{platform.system()}, {platform.machine()}, {torch.get_num_threads()} threads",
        "A photo took": took,
        "Date": time.strftime("%Y-%m-%d %H:%M"),
    }


def _command() -> list[str]:
    """The module that runs, by the name that ``python -m`` takes, and its options."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [spec.name if spec else Path(sys.argv[0]).name, *sys.argv[1:]]


def _run(cfg: DictConfig) -> None:
    keep_memory()
    at_least(0, tile=cfg.tile)
    at_least(-1, overlap=cfg.overlap)
    at_least(1, scale=cfg.scale)
    if not 0 <= cfg.seed < 2**32:
        raise InputError(f"seed={cfg.seed}: give 0 to {2**32 - 1}")
    for option in ("hr", "lr"):
        if cfg[option] is not None and cfg[option] != cfg.data[option]:
            raise InputError(f"{option}={cfg[option]}: goes with data=folder; here it is {cfg.data[option]}")
    at_least(0, "report.", photos=cfg.report.photos)
    if not 64 <= cfg.report.side <= 16383:
        raise InputError(f"report.side={cfg.report.side}: give 64 to 16383, the most that WebP has")
    methods = build_methods(cfg)
    if not methods:
        raise InputError("nothing to evaluate; give ckpt=FILE, or methods=[bicubic,NAME:FILE]")
    if "samples_dir" in cfg.data:
        make_samples(Path(cfg.data.samples_dir))
    folder = Path(cfg.output)
    paper: Any = OmegaConf.to_container(cfg.data.paper, resolve=True)
    check_paper(paper)
    check_output(folder, cfg.data.hr, cfg.data.lr)
    photos = find_pairs(cfg.data.hr, cfg.data.lr, cfg.scale)
    say_cropped(photos)
    wanted = {"lpips": any(f.hr is not None for f in photos), "niqe": any(f.hr is None for f in photos)}
    metrics = {name: cfg.metrics[name] for name, want in wanted.items() if want}
    judge = build_judge(cfg.scale, metrics, cfg.accelerator)
    done = evaluate(photos, methods, judge, folder)
    title = f"{cfg.data.title or 'test'}: {len(photos)} photos, x{cfg.scale}"
    notes = [] if cfg.data.lr is not None else ["LR was made of the ground truth by bicubic: no camera's."]
    if judge.lpips is not None:
        notes.append(f"LPIPS by {cfg.metrics.lpips.net}.")
    present(done, title, methods, photos, folder, cfg.report.photos, cfg.report.side, paper, notes)
    if done.failures:
        raise InputError(f"{len(done.failures)} results are missing: {done.failures[0]}")


main = command("evaluate", then="the same command goes on")(_run)

if __name__ == "__main__":
    main()
