"""Curves: as CSV, and at W&B, online for those who are logged in, else to files that `wandb sync` can send later."""

from __future__ import annotations

import csv
import io
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from realsr.runtime.errors import InputError
from realsr.runtime.files import atomic_write

MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")  # of W&B
USERS_DATA_DIR = os.environ.get("WANDB_DATA_DIR")  # before a run of a sweep sets its own


def wandb_logger(
    project: str, name: str, save_dir: str, group: str | None = None, ckpt: str | None = None
) -> WandbLogger:
    """A W&B logger, online if a key is stored or WANDB_API_KEY is set, unless WANDB_MODE says otherwise.

    Offline, every start leaves a folder ``wandb/offline-run-*``; `wandb sync` makes one run of those with one id.

    Args:
        project: W&B project.
        name: of the run.
        save_dir: folder for its files.
        group: runs of one sweep share it.
        ckpt: what the training goes on from, then W&B goes on with the run of ``save_dir``; None: with a new one.
    """
    import wandb

    folder = Path(save_dir).resolve()
    mode = os.environ.get("WANDB_MODE", "online")
    if mode not in MODES:
        raise InputError(f"WANDB_MODE={mode}: choose {', '.join(MODES)}")
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        mode = "offline"
    # pictures of tables lie here until they are sent; W&B would take the home folder
    os.environ["WANDB_DATA_DIR"] = USERS_DATA_DIR or str(folder / "wandb")
    options: dict[str, Any] = {"group": group} if group else {}
    if getattr(rank_zero_only, "rank", 0) == 0:
        options["id"] = run_id(folder / "wandb_id.txt", new=ckpt is None)
    settings = wandb.Settings(silent=mode != "online")
    logger = WandbLogger(project=project, name=name, save_dir=folder, mode=mode, settings=settings, **options)
    # the one private name of Lightning's: it always passes this, and W&B warns of it (test_dashboard.py would see it)
    logger._wandb_init.pop("anonymous", None)
    return logger


def run_id(file: Path, new: bool) -> str:
    """W&B's name of a run, which ``file`` keeps; a new one if there is none, or if ``new``.

    Raises:
        InputError: the file holds something else.
    """
    if new or not file.is_file():
        with atomic_write(file) as out:
            out.write(secrets.token_hex(6).encode())
    name = file.read_text(errors="replace").strip()
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise InputError(f"{file}: holds no name of a run of W&B; delete it to begin a new one there")
    return name


class CSVCurves(Logger):
    """``csv/metrics.csv``: a line for what is logged together, on disk at once.

    A run that goes on goes on with its file, and what is logged anew of steps that are made anew takes the old lines'
    places: so the curves are those of a run that nobody stopped. Lightning's CSVLogger deletes the file of a run that
    goes on, or begins another beside it.

    Args:
        save_dir: folder of ``csv``.
        ckpt: what the training goes on from; None begins the file anew.
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
        """They are in the checkpoints."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a line; or all, where there is a new column or the line is there already."""
        count = len(self.lines)
        line = self._keep({"step": step or 0} | {name: float(value) for name, value in metrics.items()})
        if len(self.lines) > count and line.keys() <= {*self.columns}:
            with self.path.open("a", newline="") as file:
                file.write(self._text([line]))  # in one piece, which a kill does not cut
            return
        self.columns = sorted({name for line in self.lines.values() for name in line})
        with atomic_write(self.path) as out:
            out.write((",".join(self.columns) + "\n" + self._text(self.lines.values())).encode())

    def _keep(self, line: dict[str, Any]) -> dict[str, Any]:
        key = str(line.get("step")), *sorted(line)
        self.lines[key] = line
        return line

    def _text(self, lines: Iterable[dict[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(lines)
        return text.getvalue()
