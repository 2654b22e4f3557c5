"""Loggers of curves (CSV, W&B) and functions that log pictures, tables and histograms to those that show them."""

import csv
import io
import math
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import wandb
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from realsr.reports.pictures import Picture
from realsr.runtime.errors import InputError
from realsr.runtime.files import write_file

MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")  # of W&B
PICTURE_LOGGERS = (WandbLogger, TensorBoardLogger)
DATA_DIR_BEFORE = os.environ.get("WANDB_DATA_DIR")  # before a run of a sweep sets another


def is_logged(trainer: Trainer) -> bool:
    """Whether this step's values are logged; a call of ``log`` takes half a millisecond a name in any step."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return (trainer.fit_loop.total_batch_idx + 1) % every == 0 or trainer.should_stop


def log_picture(loggers: Iterable[Logger], name: str, picture: Picture, step: int) -> None:
    """Log a ``(H, W, 3)`` uint8 picture to W&B and TensorBoard."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [picture], step=step)  # as uint8: W&B shows floats in [0, 1] black
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step, dataformats="HWC")


def log_result(loggers: Sequence[Logger], numbers: Mapping[str, float], name: str, picture: Picture) -> None:
    """Log numbers, those that are finite, and a ``(H, W, 3)`` uint8 picture outside a training, and end W&B's run."""
    try:
        for logger in loggers:
            logger.log_metrics({key: value for key, value in numbers.items() if math.isfinite(value)}, step=0)
            log_picture([logger], name, picture, 0)
            logger.save()
    finally:
        wandb.finish()


def log_histogram(loggers: Iterable[Logger], name: str, values: npt.NDArray[np.float64], step: int) -> None:
    """Log a histogram of ``(N,)`` numbers to W&B and TensorBoard."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_metrics({name: wandb.Histogram(values.tolist())}, step)  # type: ignore[dict-item]
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_histogram(name, values, step)


def log_table(loggers: Iterable[Logger], name: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
    """Log a new table to W&B; incremental tables would need the server after a resume.

    Rows are cells by column; ``(H, W, 3)`` uint8 arrays become pictures, missing cells stay empty.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            cells = [[row.get(column) for column in columns] for row in rows]
            shown = [[wandb.Image(cell) if isinstance(cell, np.ndarray) else cell for cell in row] for row in cells]
            logger.log_table(name, columns, shown, step=step)


def wandb_logger(
    project: str, name: str, save_dir: str, group: str | None = None, ckpt: str | None = None
) -> WandbLogger:
    """A W&B logger, online if a key is stored or WANDB_API_KEY is set, unless WANDB_MODE says otherwise.

    Offline, every start leaves a folder ``wandb/offline-run-*``; `wandb sync` joins those with one id to one run. Runs
    of one sweep share the ``group``. Where the training resumes a ``ckpt``, W&B resumes the run of ``save_dir``.

    Raises:
        InputError: WANDB_MODE is no mode of W&B, or the file with the run's id is damaged.
    """
    folder = Path(save_dir).resolve()
    mode = os.environ.get("WANDB_MODE", "online")
    if mode not in MODES:
        raise InputError(f"WANDB_MODE={mode}: choose {', '.join(MODES)}")
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        mode = "offline"
    # W&B would keep the pictures of tables in the home folder until they are sent
    os.environ["WANDB_DATA_DIR"] = DATA_DIR_BEFORE or str(folder / "wandb")
    options: dict[str, Any] = {"group": group} if group else {}
    if getattr(rank_zero_only, "rank", 0) == 0:
        options["id"] = run_id(folder / "wandb_id.txt", new=ckpt is None)
    settings = wandb.Settings(silent=mode != "online")
    logger = WandbLogger(project=project, name=name, save_dir=folder, mode=mode, settings=settings, **options)
    # Lightning always passes this and W&B warns of it; the one private name of Lightning's (test_dashboard.py)
    logger._wandb_init.pop("anonymous", None)
    return logger


def run_id(file: Path, new: bool) -> str:
    """W&B's id of a run, kept in ``file``, or a ``new`` one; raises InputError if the file holds something else."""
    if new or not file.is_file():
        write_file(file, secrets.token_hex(6))
    name = file.read_text(errors="replace").strip()
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise InputError(f"{file}: holds no name of a run of W&B; delete it to begin a new one there")
    return name


class CSVCurves(Logger):
    """``csv/metrics.csv``: a line for all that is logged together, on disk at once.

    A resumed run continues the file, and steps that are repeated replace their old lines: the curves are those of a
    run that was never stopped. Lightning's CSVLogger deletes the file of a resumed run or starts another beside it.

    Args:
        save_dir: folder of ``csv``.
        ckpt: checkpoint that the training resumes; None starts the file anew.
    """

    name, version = "csv", ""

    def __init__(self, save_dir: str, ckpt: str | None = None) -> None:
        super().__init__()
        self.path = Path(save_dir) / "csv" / "metrics.csv"
        self.lines: dict[Any, dict[str, Any]] = {}
        self.columns: list[str] = []  # of the file
        if ckpt is not None and self.path.is_file():
            for line in csv.DictReader(self.path.read_text().splitlines()):
                self._keep({name: value for name, value in line.items() if name and value})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: checkpoints hold the config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a line, or rewrite the file if there is a new column or the line replaces another."""
        count = len(self.lines)
        line = self._keep({"step": step or 0} | {name: float(value) for name, value in metrics.items()})
        if len(self.lines) > count and line.keys() <= {*self.columns}:
            with self.path.open("a", newline="") as file:
                file.write(self._text([line]))  # in one piece, which a kill does not cut
            return
        self.columns = sorted({name for line in self.lines.values() for name in line})
        write_file(self.path, ",".join(self.columns) + "\n" + self._text(self.lines.values()))

    def _keep(self, line: dict[str, Any]) -> dict[str, Any]:
        key = str(line.get("step")), *sorted(line)
        self.lines[key] = line
        return line

    def _text(self, lines: Iterable[dict[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(lines)
        return text.getvalue()
