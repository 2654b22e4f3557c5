"""``python -m realsr.train model=esrgan disc=patch data.source_dir=DIR data.clean_dir=DIR``: photos to a model."""

from __future__ import annotations

import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import torch
import wandb
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything

from realsr.callbacks import RunRecord
from realsr.config import check_writable, command, output_dir, pick_device
from realsr.errors import InputError
from realsr.images import atomic_write
from realsr.networks.weights import read_checkpoint

log = logging.getLogger(__name__)

# Lightning's advice that does not fit here: data come from memory-mapped files, checkpoints after the step are meant
QUIET = (
    ".*does not have many workers.*",
    ".*manual optimization and every_n_train_steps.*",
    ".*treespec.*is deprecated.*",
    ".*dataloader is not resumable.*",
    ".*checkpoint directory .* exists and is not empty.*",
    ".*GPU available but not used.*",
)


def train(cfg: DictConfig, folder: Path) -> dict[str, float]:
    """Train as configured, into ``folder``.

    Returns:
        The last validation's metrics; they are also in ``folder/metrics.json``.

    Raises:
        InputError: bad input, or a run lies in ``folder`` already and ``ckpt`` does not say to go on with it.
    """
    pick_device(cfg.accelerator)
    ckpt = resume_path(cfg.ckpt, folder)
    check_writable(folder)
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    seed_everything(cfg.seed, verbose=False)
    data = instantiate(cfg.data)
    model = instantiate(cfg.model)
    if model.frozen["perceptual"] is None and model.discriminator is not None:
        log.warning("perceptual=none: trained without the paper's perceptual loss, textures will be weaker")
    loggers = [instantiate(node) for node in cfg.logger.values() if node is not None]
    callbacks = [instantiate(node) for node in cfg.callbacks.values() if node is not None]
    trainer: Trainer = instantiate(cfg.trainer, logger=loggers, callbacks=[*callbacks, RunRecord(config)])
    if trainer.max_steps < 1:
        raise InputError(f"trainer.max_steps={trainer.max_steps}: give the number of generator steps")
    try:
        trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
        if not trainer.interrupted and trainer.global_step % trainer.val_check_interval:
            trainer.validate(model, data, verbose=False)
    finally:
        wandb.finish()
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/") and v == v}
    if trainer.is_global_zero:
        with atomic_write(folder / "metrics.json") as file:
            file.write(json.dumps(metrics, indent=1).encode())
        shown = "  ".join(f"{name.removeprefix('val/')} {value:.4f}" for name, value in sorted(metrics.items()))
        log.info("done: %s; checkpoints in %s", shown or "no validation", folder / "checkpoints")
    return metrics


def resume_path(ckpt: str | None, folder: Path) -> Path | None:
    """The checkpoint to go on from: ``last`` is that of ``folder``, else a file.

    Raises:
        InputError: it is missing or no checkpoint of a training; or ``folder`` holds a run that would be overwritten.
    """
    last = folder / "checkpoints" / "last.ckpt"
    if ckpt is None:
        if last.exists():
            raise InputError(f"{folder} holds a run already; go on with ckpt=last, or choose another name=...")
        return None
    path = last if ckpt == "last" else Path(ckpt)
    if ckpt == "last" and not path.exists():
        raise InputError(f"{path}: there is nothing to go on from; leave ckpt=last out")
    content = read_checkpoint(path)
    if "optimizer_states" not in content or "loops" not in content:
        raise InputError(f"{path}: holds weights but no training to go on with; use model.init_from={path}")
    return path


def _run(cfg: DictConfig) -> float:
    torch.set_float32_matmul_precision("high")
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    metrics = train(cfg, output_dir())
    return metrics.get(cfg.optimized_metric, math.nan)


main = command("train")(_run)

if __name__ == "__main__":
    main()
