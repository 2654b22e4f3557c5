"""Where W&B goes: online for those who are logged in, else to files that `wandb sync` can send later."""

from __future__ import annotations

import os
from typing import Any

from pytorch_lightning.loggers import WandbLogger


def wandb_logger(project: str, name: str, save_dir: str, group: str | None = None) -> WandbLogger:
    """A W&B logger, online if a key is stored or WANDB_API_KEY is set, unless WANDB_MODE says otherwise.

    Args:
        project: W&B project.
        name: of the run.
        save_dir: folder for its files.
        group: runs of one sweep share it.
    """
    import wandb

    offline = os.environ.get("WANDB_MODE", "online") != "online" or not wandb.api.api_key
    options: dict[str, Any] = {"group": group} if group else {}
    os.makedirs(save_dir, exist_ok=True)  # noqa: PTH103
    return WandbLogger(project=project, name=name, save_dir=save_dir, offline=offline, **options)
