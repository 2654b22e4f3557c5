"""The table and the picture of the runs of a Hydra multirun."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from realsr.evaluation.tables import MEASURES, Cells, markdown, print_cells
from realsr.imaging import read_image
from realsr.reports.pictures import Picture, grid, save
from realsr.runtime.config import FAILED, METRICS, OPTIONS, explain, stop
from realsr.runtime.errors import InputError
from realsr.runtime.files import write_file

log = logging.getLogger(__name__)

SAME = ("seed", "ckpt")  # options in which the runs of a row may differ


@dataclass(frozen=True)
class Run:
    """A run of a sweep.

    ``row`` names the options that differ from those of other runs, without the seed. ``metrics`` are those of the last
    validation, by the keys of :data:`MEASURES`; None if the run has not finished. ``failure`` says why it has not, or
    could not be run again.
    """

    folder: Path
    row: str
    seed: int
    metrics: dict[str, float] | None
    failure: str | None


class SweepTable(Callback):
    """Makes the :func:`report` at the end of a multirun, also in W&B if it is a logger; exits with 2 after failures."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Collect the results of the runs."""
        folder = Path(config.hydra.sweep.dir)
        try:
            runs = report(folder)
        except (InputError, OSError) as e:
            stop(explain(e) or str(e), 2)  # Hydra would only warn
        if (logger := OmegaConf.select(config, "logger.wandb")) is not None:
            HydraConfig.instance().set_config(config)  # the logger's options may refer to it
            try:
                send(runs, folder, logger)
            except wandb.Error as e:
                log.warning("the table did not reach W&B (%s)", e)
        if failed := [run for run in runs if run.failure is not None]:
            for run in failed:
                if run.metrics is not None:  # done before, and refused now
                    (run.folder / FAILED).unlink(missing_ok=True)
            stop(f"{len(failed)} of {len(runs)} runs failed, see {folder / 'table.md'}", 2)


def report(folder: Path) -> list[Run]:
    """Print a sweep's table; write ``table.md``, ``table.csv``, ``runs.csv`` and ``compare.png`` into its folder."""
    runs = read_runs(folder)
    each = frame_of_runs(runs, folder)
    failures = [f"{run.row}, seed {run.seed}: {run.failure}" for run in runs if run.failure]
    rows = by_row(each)
    cells = for_people(rows)
    notes = ["", *(f"- {line}" for line in failures)] if failures else []
    print_cells(cells, f"validation, mean ± standard deviation (runs); {folder}", failures)
    write_file(folder / "table.md", "\n".join([markdown(cells), *notes, ""]))
    write_file(folder / "table.csv", rows.drop(columns="runs").to_csv(index=False))
    write_file(folder / "runs.csv", each.drop(columns="done").to_csv(index=False))
    shown = ""
    if (picture := comparison(runs)) is not None:
        save(folder / "compare.png", picture)
        shown = f"; the same photos by all runs: {folder / 'compare.png'}"
    print(f"table: {folder / 'table.md'}{shown}")
    return runs


def read_runs(folder: Path) -> list[Run]:
    """The runs below a folder in the order in which they were launched; raises InputError if there is none."""
    found = []
    for path in folder.rglob(".hydra/overrides.yaml"):  # Hydra writes it last
        try:
            number = OmegaConf.select(OmegaConf.load(path.with_name("hydra.yaml")), "hydra.job.num", default=0)
            seed = OmegaConf.select(OmegaConf.load(path.with_name("config.yaml")), "seed", default=0)
            run = path.parent.parent
            options = OmegaConf.load(run / OPTIONS if (run / OPTIONS).exists() else path)
            found.append((number, run, seed, list(map(str, options))))
        except (OSError, YAMLError, OmegaConfBaseException) as e:
            log.warning("%s: is left out (%s)", path.parent, explain(e) or type(e).__name__)
    if not found:
        raise InputError(f"{folder}: there is no run of a sweep in it")
    found.sort()
    rows = row_names([options for *_, options in found])
    return [Run(run, row, seed, *_result(run)) for (_, run, seed, _), row in zip(found, rows, strict=True)]


def _result(run: Path) -> tuple[dict[str, float] | None, str | None]:
    metrics, failed = run / METRICS, run / FAILED
    failure = failed.read_text(errors="replace").partition("\n")[0] if failed.exists() else None
    if not metrics.exists():
        return None, failure or "not done; it is running, or was killed"
    try:
        values = json.loads(metrics.read_bytes())
        found = {key: float(values[f"val/{key}"]) for key in MEASURES if f"val/{key}" in values}
    except (ValueError, TypeError) as e:
        return None, f"{METRICS} is damaged ({e}); run it again with ckpt=auto"
    return {key: value for key, value in found.items() if math.isfinite(value)}, failure


def row_names(runs: Sequence[Iterable[str]]) -> list[str]:
    """Name runs by those of their command line options that differ, without the seed.

    ``key=value`` of each, only the value if runs differ in one option, ``default`` without any.

    >>> row_names([["disc=patch", "seed=0"], ["disc=patch", "seed=1"], ["disc=vgg128", "seed=0"]])
    ['patch', 'patch', 'vgg128']
    """
    given = [dict(option.lstrip("+").partition("=")[::2] for option in options) for options in runs]
    keys = [key for key in dict.fromkeys(key for options in given for key in options) if key not in SAME]
    differ = [key for key in keys if len({options.get(key) for options in given}) > 1]
    shown = "{value}" if len(differ) == 1 else "{key}={value}"
    names = [[shown.format(key=key, value=run[key]) for key in differ if key in run] for run in given]
    return [" ".join(name) or "default" for name in names]


def frame_of_runs(runs: Sequence[Run], folder: Path) -> pd.DataFrame:
    """A line for every run, a column for each metric that a run has."""
    lines = [
        {"folder": str(run.folder.relative_to(folder)), "run": run.row, "seed": run.seed, "failure": run.failure}
        | {"done": run.metrics is not None, **(run.metrics or {})}
        for run in runs
    ]
    metrics = [key for key in MEASURES if any(key in line for line in lines)]
    return pd.DataFrame(lines, columns=["folder", "run", "seed", "failure", "done", *metrics])


def by_row(each: pd.DataFrame) -> pd.DataFrame:
    """From :func:`frame` a line for every row: mean, standard deviation and count of each metric; failed runs."""
    rows, parts = each.groupby("run", sort=False), {"": "mean", "_std": "std", "_n": "count"}
    found = {f"{key}{end}": rows[key].agg(how) for key in MEASURES if key in each for end, how in parts.items()}
    return pd.DataFrame({**found, "runs": rows.size(), "failed": rows.size() - rows["done"].sum()}).reset_index()


def for_people(rows: pd.DataFrame) -> Cells:
    """From :func:`by_row` ``mean ± standard deviation (runs)`` of each metric, and the number of failed runs if any."""
    metrics, incomplete = {key: of for key, of in MEASURES.items() if key in rows}, rows["failed"].any()
    cells = [["run", *(of.name for of in metrics.values()), *(["failed"] if incomplete else [])]]
    for row in rows.to_dict("records"):
        cells.append([row["run"]])
        for key, of in metrics.items():
            mean, deviation, count = (row[f"{key}{end}"] for end in ("", "_std", "_n"))
            several = f" ± {deviation:.{of.digits}f} ({count})" if count > 1 else ""
            cells[-1].append(f"{mean:.{of.digits}f}{several}" if count else "")
        cells[-1] += [f"{row['failed']} of {row['runs']}"] if incomplete else []
    return cells


def comparison(runs: Iterable[Run]) -> Picture | None:
    """The same crop of each validation image by every row, between LR (by bicubic) and HR; a line for each image.

    The runs are those of the most frequent seed that were validated on the same images as the first. None if there is
    no picture in the runs' folders.
    """
    shown = [run for run in runs if run.metrics is not None and (run.folder / "validation").is_dir()]
    if not shown:
        return None
    ((seed, _),) = Counter(run.seed for run in shown).most_common(1)
    of_seed = [run for run in shown if run.seed == seed]
    first, wanted = of_seed[0], _references(of_seed[0])
    same = [(run.row, run, "sr") for run in of_seed if _references(run) == wanted]
    columns = [("LR", first, "bicubic"), *same, ("HR", first, "hr")]
    cells, labels = [], []
    for name in sorted(wanted):
        paths = {label: run.folder / "validation" / f"{name}_{kind}.png" for label, run, kind in columns}
        found = [(label, path) for label, path in paths.items() if path.exists()]
        cells.append([read_image(path).rgb for _, path in found])
        labels.append([f"{label}: {name.split('_', 2)[2]}" for label, _ in found])
    return grid(cells, labels) if cells else None


def _references(run: Run) -> dict[str, bytes]:
    """HR of each crop, or bicubic without ground truth, by which two runs show the same crops."""
    folder = run.folder / "validation"
    names = {path.stem.removesuffix("_sr") for path in folder.glob("*_sr.png")}
    files = {name: [folder / f"{name}_{kind}.png" for kind in ("hr", "bicubic")] for name in names}
    return {name: next((path.read_bytes() for path in paths if path.exists()), b"") for name, paths in files.items()}


def send(runs: Sequence[Run], folder: Path, logger: DictConfig) -> None:
    """Log the table, every run's metrics and the picture to W&B, as a run named ``table`` in the sweep's group."""
    target = instantiate(logger, name="table", save_dir=str(folder))
    try:
        each = frame_of_runs(runs, folder)
        for key, table in (("table", by_row(each)), ("runs", each)):
            target.log_table(key, dataframe=table.astype(object).where(table.notna(), None))
        if (path := folder / "compare.png").exists():
            target.log_image("compare", [read_image(path).rgb])
    finally:
        wandb.finish()
