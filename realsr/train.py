"""``python -m realsr.train model=esrgan disc=patch data.source_dir=DIR data.clean_dir=DIR``: photos to a model."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from realsr.runtime.command_line import and_next
from realsr.runtime.config import command, output_dir
from realsr.runtime.errors import counted
from realsr.runtime.files import find_images
from realsr.runtime.processes import needs_own_command, quiet_unless_first, run_as_command
from realsr.training.resume import read_metrics
from realsr.training.run import train

log = logging.getLogger(__name__)

# Lightning's advice that does not fit here: decoded strips are read from disk, which takes no time
QUIET = (
    ".*does not have many workers.*",
    ".*This DataLoader will create .* worker processes.*",
    ".*treespec.*is deprecated.*",
    ".*dataloader is not resumable.*",
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*GPU available but not used.*",
    ".*functional.all_gather is deprecated.*",
)


def _run(cfg: DictConfig) -> float:
    torch.set_float32_matmul_precision("high")
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    quiet_unless_first()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    folder = output_dir()
    if needs_own_command(cfg.trainer):
        run_as_command(folder)
        metrics = read_metrics(folder) or {}
    else:
        _begin(cfg, folder)
        metrics = train(cfg, folder)
        _end(cfg.data, folder)
    return metrics.get(cfg.optimized_metric, math.nan)


def _begin(cfg: DictConfig, folder: Path) -> None:
    """Say what is trained, on how many photos, in how many steps."""
    data, photos = cfg.data, "the embedded sample"
    if data.samples_dir is None:  # folders that are missing are for train to tell, which a finished run does not need
        folders = [name for name in (data.source_dir, data.clean_dir) if name and Path(name).is_dir()]
        photos = (
            " and ".join(f"{counted(len(find_images(name)), 'photo')} in {name}" for name in folders) or "no photos"
        )
    steps = f"{cfg.trainer.max_steps} steps of {data.batch_size} crops; a bar tells the time"
    log.info(and_next(f"training into {folder} on {photos}: missing pools are made, then {steps}"))


def _end(data: DictConfig, folder: Path) -> None:
    """Say where the network lies, and how photos are enlarged with it; a sweep ends with its table."""
    upscale = "upscale", f"ckpt={folder}", f"input={data.source_dir or 'photos'}", "output=large"
    alone = data.samples_dir is None and HydraConfig.get().mode is not RunMode.MULTIRUN
    log.info(and_next(f"the network lies in {folder}", *((upscale,) if alone else ())))


main = command("train", then="go on with ckpt=auto")(_run)

if __name__ == "__main__":
    main()
