"""Where W&B goes: online for those who are logged in, else to files that `wandb sync` can send later."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from realsr.images import atomic_write

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
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        mode = "offline"
    # pictures of tables lie here until they are sent; W&B would take the home folder
    os.environ["WANDB_DATA_DIR"] = USERS_DATA_DIR or str(folder / "wandb")
    options: dict[str, Any] = {"group": group} if group else {}
    if getattr(rank_zero_only, "rank", 0) == 0:
        options["id"] = run_id(folder / "wandb_id.txt", new=ckpt is None)
    settings = wandb.Settings(silent=mode != "online")
    logger = WandbLogger(project=project, name=name, save_dir=folder, mode=mode, settings=settings, **options)
    logger._wandb_init.pop("anonymous", None)  # Lightning always passes it, and W&B warns of it
    return logger


def run_id(file: Path, new: bool) -> str:
    """W&B's name of a run, which ``file`` keeps; a new one if there is none, or if ``new``."""
    if new or not file.is_file():
        with atomic_write(file) as out:
            out.write(secrets.token_hex(6).encode())
    return file.read_text().strip()
