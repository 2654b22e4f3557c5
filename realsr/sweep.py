"""``python -m realsr.sweep DIR``: one table and one picture of the runs of a Hydra multirun, which ends with them."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table
from rich.text import Text
from yaml import YAMLError

from realsr.config import FAILED, METRICS, OPTIONS, explain, stop
from realsr.errors import InputError
from realsr.files import atomic_write
from realsr.images import Photo, read_image, write_image
from realsr.metrics import MEASURES
from realsr.pictures import Picture, grid

log = logging.getLogger(__name__)

SAME = ("seed", "ckpt")  # options in which the runs of a row may differ


@dataclass(frozen=True)
class Run:
    """A run of a sweep.

    Attributes:
        folder: of the run.
        row: the options that tell it from other runs, without the seed.
        seed: of the run.
        metrics: of the last validation, as :data:`MEASURES` names them; None: the run is not done.
        failure: why it is not done, or could not be run again; None: all is well.
    """

    folder: Path
    row: str
    seed: int
    metrics: dict[str, float] | None
    failure: str | None


class SweepTable(Callback):
    """The :func:`report` when all runs have ended, also to W&B where they log to it; exits with 2 if one failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Collect what the runs left."""
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
            stop(f"{len(failed)} of {len(runs)} runs failed, see {folder / 'table.md'}", 2)


def report(folder: Path) -> list[Run]:
    """Print the table of a sweep; write ``table.md``, ``table.csv``, ``runs.csv`` and ``compare.png`` into its folder.

    Raises:
        InputError: there is no run in the folder.
    """
    runs = read_runs(folder)
    cells, failures = for_people(runs), [f"{run.row}, seed {run.seed}: {run.failure}" for run in runs if run.failure]
    table = Table(title=Text(f"validation, mean ± standard deviation (runs); {folder}"))
    for heading in cells[0]:
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for row in cells[1:]:
        table.add_row(*map(Text, row))  # names may have brackets, which are markup to Rich
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(*failures, sep="\n", end="\n" if failures else "")
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in cells]
    lines.insert(1, "|" + " --- |" * len(cells[0]))
    markdown = [*lines, "", *(f"- {line}" for line in failures)] if failures else lines
    for name, text in (
        ("table.md", "\n".join(markdown) + "\n"),
        ("table.csv", _csv(for_programs(runs))),
        ("runs.csv", _csv(_each(runs, folder))),
    ):
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    if (picture := compare(runs)) is not None:
        write_image(folder / "compare.png", Photo(picture))
    print(f"table: {folder / 'table.md'}")
    return runs


def read_runs(folder: Path) -> list[Run]:
    """The runs below a folder in the order in which they were launched.

    Raises:
        InputError: there is none.
    """
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
    """Name runs by what of their command lines is not the same in all, the seed left out.

    Args:
        runs: the options of each, such as ``["ablation=patch", "seed=1"]``.

    Returns:
        ``key=value`` of each such option, or only the value where runs differ in one; ``default`` where there is none.
    """
    given = [dict(option.lstrip("+").partition("=")[::2] for option in options) for options in runs]
    keys = [key for key in dict.fromkeys(key for options in given for key in options) if key not in SAME]
    differ = [key for key in keys if len({options.get(key) for options in given}) > 1]
    shown = "{value}" if len(differ) == 1 else "{key}={value}"
    names = [[shown.format(key=key, value=run[key]) for key in differ if key in run] for run in given]
    return [" ".join(name) or "default" for name in names]


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation, which a single value has not."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _by_row(runs: Iterable[Run]) -> dict[str, list[Run]]:
    rows: dict[str, list[Run]] = {}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    return rows


def _measured(runs: Iterable[Run]) -> list[str]:
    return [key for key in MEASURES if any(key in (run.metrics or {}) for run in runs)]


def _values(runs: Iterable[Run], key: str) -> list[float]:
    return [run.metrics[key] for run in runs if run.metrics is not None and key in run.metrics]


def for_people(runs: Sequence[Run]) -> list[list[str]]:
    """A line for every row: ``mean ± standard deviation (runs)`` of each metric; how many failed, if any did."""
    keys, incomplete = _measured(runs), any(run.metrics is None for run in runs)
    cells = [["run", *(MEASURES[key].name for key in keys), *(["failed"] if incomplete else [])]]
    for row, members in _by_row(runs).items():
        failed = sum(run.metrics is None for run in members)
        shown = [_cell(_values(members, key), digits=MEASURES[key].digits) for key in keys]
        cells.append([row, *shown, *([f"{failed} of {len(members)}"] if incomplete else [])])
    return cells


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    mean, deviation = spread(values)
    several = "" if deviation is None else f" ± {deviation:.{digits}f} ({len(values)})"
    return f"{mean:.{digits}f}{several}"


def for_programs(runs: Sequence[Run]) -> list[list[Any]]:
    """The same in full precision: a column each for mean, standard deviation and number of runs; None for no value."""
    keys = _measured(runs)
    cells: list[list[Any]] = [["run", *(f"{key}{part}" for key in keys for part in ("", "_std", "_n")), "failed"]]
    for row, members in _by_row(runs).items():
        line: list[Any] = [row]
        for key in keys:
            values = _values(members, key)
            line += [*(spread(values) if values else (None, None)), len(values)]
        cells.append([*line, sum(run.metrics is None for run in members)])
    return cells


def _each(runs: Sequence[Run], folder: Path) -> list[list[Any]]:
    keys = _measured(runs)
    lines = [
        [
            str(run.folder.relative_to(folder)),
            run.row,
            run.seed,
            run.failure,
            *((run.metrics or {}).get(key) for key in keys),
        ]
        for run in runs
    ]
    return [["folder", "run", "seed", "failure", *keys], *lines]


def _csv(cells: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(cells)
    return text.getvalue()


def compare(runs: Iterable[Run]) -> Picture | None:
    """The same crop of each validation image by every row, between LR (by bicubic) and HR; a line for each image.

    Only runs of one seed are shown, that which most rows have, and of these the ones that were validated on the same
    images as the first. None: there is no picture in the runs' folders.
    """
    seeds: dict[int, list[Run]] = {}
    for run in runs:
        if run.metrics is not None and (run.folder / "validation").is_dir():
            seeds.setdefault(run.seed, []).append(run)
    if not seeds:
        return None
    first, *others = max(seeds.values(), key=len)
    wanted = _targets(first)
    same = [first, *(run for run in others if _targets(run) == wanted)]
    columns = [("LR", first, "bicubic"), *((run.row, run, "sr") for run in same), ("HR", first, "hr")]
    cells, labels = [], []
    for name in sorted(wanted):
        paths = {label: run.folder / "validation" / f"{name}_{kind}.png" for label, run, kind in columns}
        found = [(label, path) for label, path in paths.items() if path.exists()]
        cells.append([read_image(path).rgb for _, path in found])
        labels.append([f"{label}: {name.split('_', 2)[2]}" for label, _ in found])
    return grid(cells, labels) if cells else None


def _targets(run: Run) -> dict[str, bytes]:
    """What tells whether two runs show the same crops, by image: the truth, or bicubic where there is none."""
    folder = run.folder / "validation"
    names = {path.stem.removesuffix("_sr") for path in folder.glob("*_sr.png")}
    files = {name: [folder / f"{name}_{kind}.png" for kind in ("hr", "bicubic")] for name in names}
    return {name: next((path.read_bytes() for path in paths if path.exists()), b"") for name, paths in files.items()}


def send(runs: Sequence[Run], folder: Path, logger: DictConfig) -> None:
    """A run named ``table`` in the sweep's group: the table, every run's metrics and the picture.

    Args:
        runs: of the sweep.
        folder: of the sweep; W&B's files go there when offline.
        logger: of the sweep's runs, as configured.
    """
    target = instantiate(logger, name="table", save_dir=str(folder))
    try:
        for key, (columns, *rows) in (("table", for_programs(runs)), ("runs", _each(runs, folder))):
            target.log_table(key, columns=columns, data=rows)
        if (path := folder / "compare.png").exists():
            target.log_image("compare", [read_image(path).rgb])
    finally:
        wandb.finish()


def main() -> None:
    """Tabulate the folder that the command line names."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        stop("give the folder of a sweep: python -m realsr.sweep DIR", 2)
    try:
        report(Path(sys.argv[1]))
    except (InputError, OSError) as e:
        stop(explain(e) or str(e), 2)


if __name__ == "__main__":
    main()
