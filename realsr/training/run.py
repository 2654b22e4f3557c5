"""One training run: check the options before hours are spent, train, validate, write the metrics."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import torch
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything
from torch import nn

from realsr.data.datamodule import RealSRData
from realsr.data.datasets import share
from realsr.evaluation.evaluator import compare_means, validation_means
from realsr.evaluation.tables import MEASURES
from realsr.networks.community import untold_options
from realsr.networks.starts import start_file
from realsr.networks.weights import generator_spec
from realsr.runtime.config import FAILED, METRICS
from realsr.runtime.config_check import nearest
from realsr.runtime.errors import InputError, at_least, first_line
from realsr.runtime.files import check_writable, write_file
from realsr.runtime.hardware import pick_device
from realsr.runtime.processes import check_processes, ending_together
from realsr.runtime.workers import end_workers
from realsr.training.checkpoints import RunRecord, trainer_plugins
from realsr.training.esrgan import ESRGAN
from realsr.training.resume import check_same, nothing_left, read_metrics, read_run, resume_path

log = logging.getLogger(__name__)

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
# options of Lightning's Trainer that do not work with this training: their defaults, and what to give instead
LEFT_ALONE = {
    "gradient_clip_val": (None, "give model.clip_norm"),
    "accumulate_grad_batches": (1, "give a larger data.batch_size, or several devices (trainer=ddp)"),
    "overfit_batches": (0.0, "every step draws crops of its own; give folders with a few photos"),
}


def train(cfg: DictConfig, folder: Path) -> dict[str, float]:
    """Train as configured, into ``folder``.

    Returns:
        The metrics of the last validation, which ``folder/metrics.json`` holds once a run is done. A run that was done
        before returns its old ones and does nothing else.

    Raises:
        InputError: bad input, or ``folder`` holds a run already and ``ckpt`` does not resume it.
    """
    device = pick_device(cfg.accelerator)
    ckpt = resume_path(cfg.ckpt, folder)
    content = {} if ckpt is None else read_run(ckpt)
    check_writable(folder)
    check_options(cfg)
    plain: Any = OmegaConf.to_container(cfg.data, resolve=True)
    if content and nothing_left(content, plain, cfg.trainer.max_steps, folder):
        (folder / FAILED).unlink(missing_ok=True)
        return read_metrics(folder) or {}
    data = instantiate(cfg.data)  # checks its options before anything is downloaded
    if cfg.start.weights is not None:
        take_generator(cfg)
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    if ckpt is not None:
        check_same(ckpt, content, config)
    loggers, callbacks = made_of("logger", cfg.logger), made_of("callbacks", cfg.callbacks)
    callbacks.append(RunRecord(config, data, folder))
    trainer: Trainer = instantiate(cfg.trainer, logger=loggers, callbacks=callbacks, plugins=trainer_plugins())
    check_processes(trainer, cfg.trainer.get("strategy"))
    seed_everything(cfg.seed, verbose=False)
    model = instantiate(cfg.model)  # last, since it may download the weights of its losses
    start = None if cfg.model.init_from is None else copy.deepcopy(model.generator).requires_grad_(False).eval()
    log_plan(cfg, model)
    check_model(model, data.scale, data.crop_size, share(data.batch_size, trainer.world_size))
    check_speed(model, str(trainer.precision), device)
    if ckpt is not None:
        content.clear()  # as large as the networks and their optimisers, and Lightning reads it again
        log.info("going on from %s", ckpt)
    try:
        with ending_together(trainer):
            trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
            finished_before = "val/psnr" not in trainer.callback_metrics
            if not trainer.interrupted and (finished_before or trainer.global_step % trainer.val_check_interval):
                trainer.validate(model, data, verbose=False)
    finally:
        end_workers()
        wandb.finish()
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/") and v == v}
    if trainer.is_global_zero:
        named = sorted((name.removeprefix("val/"), value) for name, value in metrics.items())
        if start is not None:
            metrics |= compare_with_start(start, model, data)
        write_file(folder / METRICS, json.dumps(metrics, indent=1))
        units = {name: metric.unit for name, metric in MEASURES.items()} | {"colour": "levels"}
        shown = ", ".join(f"{name} {value:.4f} {units.get(name, '')}".strip() for name, value in named)
        log.info("done: %s", shown or "no validation")
    return metrics


def made_of(name: str, section: DictConfig) -> list[Any]:
    """The loggers or callbacks of a config's section, but null ones; raises InputError for one without a class."""
    nodes = {str(key): node for key, node in section.items() if node is not None}
    for key, node in nodes.items():
        if not isinstance(node, DictConfig) or "_target_" not in node:
            raise InputError(f"{name}.{key}: has no _target_{nearest(key, {*nodes} - {key})}")
    return [instantiate(node) for node in nodes.values()]


def take_generator(cfg: DictConfig) -> None:
    """Take the generator of the start, in place of that of ``model=``; say so where the command line names another."""
    given, taken = cfg.model.generator, generator_spec(start_file(cfg.start.weights))
    cfg.model.generator = taken
    other, name = (str(node and node["_target_"]).rpartition(".")[2] for node in (given, taken))
    option = f"model={HydraConfig.get().runtime.choices.get('model')}"
    if option in HydraConfig.get().overrides.task and other != name:
        told = option, cfg.start.weights, name, other
        log.warning("%s: the start %s is a %s, trained in place of %s; for that give start=none", *told)


def log_plan(cfg: DictConfig, model: ESRGAN) -> None:
    """Log surprises of the losses: no perceptual loss, or a GAN that starts late or never."""
    if model.losses.perceptual is None and (model.discriminator is not None or cfg.model.perceptual is not None):
        log.warning("training without a perceptual loss (perceptual=none, or no weights): textures will be weaker")
    if model.discriminator is not None and model.warmup_steps:
        never = " (never: trainer.max_steps is no more)" if cfg.trainer.max_steps <= model.warmup_steps else ""
        log.info("with L1 alone until step %d, then with the GAN%s", model.warmup_steps, never)


def compare_with_start(start: nn.Module, model: ESRGAN, data: RealSRData) -> dict[str, float]:
    """Log whether the trained network is better than its start; returns the start's means as ``start/NAME``."""
    given = model.scale, [*data.pairs, *data.looks], model.lpips, model.device
    before, after = (validation_means(network.to(model.device), *given) for network in (start, model.eval()))
    log.info(compare_means(before, after))
    return {f"start/{name}": value for name, value in before.items()}


def check_options(cfg: DictConfig) -> None:
    """Raise InputError at options that no part of the training checks: out of range, or of no use here."""
    steps = {key: cfg.trainer[key] for key in ("max_steps", "max_epochs", "val_check_interval", "log_every_n_steps")}
    at_least(1, "trainer.", **steps)
    for name, (left, instead) in LEFT_ALONE.items():
        if (value := cfg.trainer.get(name, left)) != left:
            raise InputError(f"trainer.{name}={value}: does not go with this training; {instead}")
    if not 0 <= cfg.seed < 2**32:
        raise InputError(f"seed={cfg.seed}: give 0 to {2**32 - 1}")
    known = [f"val/{key}" for key, metric in MEASURES.items() if metric.better > 0]
    if cfg.optimized_metric not in known:
        raise InputError(
            f"optimized_metric={cfg.optimized_metric}: choose one of {', '.join(known)}, of which higher is better"
        )


def check_model(model: ESRGAN, scale: int, crop: int, batch: int) -> None:
    """Try the networks on the meta device with ``batch`` crops of ``crop`` pixels, and the optimisers.

    Raises:
        InputError: the networks are for another scale or other crops, an optimiser refuses its options, or files of
            the generator could not be read again. So it is told before pools are made for hours.
    """
    if (own := model.scale) != scale:
        raise InputError(f"scale={scale}: the generator enlarges by {own}; choose scale={own}, or another start")
    if untold := untold_options(model.generator):
        raise InputError(f"model.generator: weights do not tell {', '.join(untold)}, so no file could be read again")
    networks = [copy.deepcopy(n).to("meta") for n in (model.generator, model.discriminator) if n is not None]
    image = torch.zeros(batch, 3, crop // scale, crop // scale, device="meta")
    try:
        for network in networks:
            image = network(image)
    except (RuntimeError, ValueError) as e:
        name = type(network).__name__
        raise InputError(f"{name} cannot take crops of data.crop_size={crop} pixels ({first_line(e)})") from e
    try:
        model.configure_optimizers()
    except (TypeError, ValueError) as e:
        raise InputError(f"model.optimizer: {first_line(e)}") from e


def check_speed(model: ESRGAN, precision: str, device: torch.device) -> None:
    """Raise InputError at a precision that is unknown or in which nothing is clipped, or where nothing compiles."""
    if precision not in PRECISIONS:
        raise InputError(f"trainer.precision={precision}: choose {', '.join(PRECISIONS)}")
    if model.clip_norm is not None and precision == "16-mixed":
        for optimizer in model.configure_optimizers()[0]:
            if optimizer.defaults.get("fused"):
                raise InputError("model.clip_norm: no fused optimiser is clipped under trainer.precision=16-mixed")
    if model.compiled:
        try:
            torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
        except Exception as e:  # of compilers, drivers or folders
            raise InputError(
                f"model.compile=true: nothing can be compiled here ({first_line(e)}); install a C++ compiler (on a "
                "GPU Triton too), or set model.compile=false"
            ) from e
