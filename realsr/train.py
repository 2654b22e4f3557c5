"""``python -m realsr.train model=esrgan disc=patch data.source_dir=DIR data.clean_dir=DIR``: photos to a model."""

from __future__ import annotations

import logging
import math
import warnings

import torch
from omegaconf import DictConfig

from realsr.runtime.config import command, output_dir
from realsr.runtime.processes import is_row_apart, quiet_unless_first, run_apart
from realsr.training.resume import read_metrics
from realsr.training.run import train

log = logging.getLogger(__name__)

# Lightning's advice that does not fit here: data come from memory-mapped files
QUIET = (
    ".*does not have many workers.*",
    ".*This DataLoader will create .* worker processes.*",
    ".*treespec.*is deprecated.*",
    ".*dataloader is not resumable.*",
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*GPU available but not used.*",
    ".*functional.all_gather is deprecated.*",
)
# options of Lightning's Trainer that mean nothing here: what they are when left alone, what to give instead


def _run(cfg: DictConfig) -> float:
    torch.set_float32_matmul_precision("high")
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    quiet_unless_first()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    if is_row_apart(cfg.trainer):
        run_apart(output_dir())
        metrics = read_metrics(output_dir()) or {}
    else:
        metrics = train(cfg, output_dir())
    return metrics.get(cfg.optimized_metric, math.nan)


main = command("train", then="go on with ckpt=auto")(_run)

if __name__ == "__main__":
    main()
