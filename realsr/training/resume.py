"""Resuming from a checkpoint: which one, whether steps are left, and options that have changed since."""

import json
import logging
import re
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule

from realsr.networks.weights import checkpoint_file, inside, read_checkpoint
from realsr.runtime.config import METRICS
from realsr.runtime.errors import InputError

log = logging.getLogger(__name__)

TRAINING_KEYS = {"optimizer_states", "lr_schedulers", "loops", "config", "global_step"}
STARTS = ("init_from", "init_discriminator_from")  # not read on resume
RENAMED_CLASSES = {"realsr.degradation.paper.Degradation": "realsr.degradation.paper.PaperDegradation"}
DEGRADING = r"data\.(degradation\b|pools\.\w+_dir)"  # options of the LR that a network learns from
OFF = r"model\..*optimizer\.(amsgrad|centered|momentum)"  # options that are off where they are left out
# options that a checkpoint's weights and optimiser states depend on
FIXED = r"model\.((generator|discriminator)\..*|.*optimizer\.(_target_|amsgrad|centered|momentum)|ema|lr_scale|init_.+)"


def resume_path(ckpt: str | None, folder: Path) -> Path | None:
    """The checkpoint that the run in ``folder`` resumes; None starts a new run.

    ``ckpt`` is ``last`` for the last one of the run, ``auto`` for the last one if there is any, a file, or the folder
    of another run.

    Raises:
        InputError: the checkpoint is missing, or ``folder`` holds a run that would be overwritten.
    """
    last = folder / "checkpoints" / "last.ckpt"
    if ckpt is None:
        if last.exists():
            raise InputError(f"{folder} holds a run already; go on with ckpt=auto, or choose another name=...")
        return None
    if ckpt == "auto" and not last.exists():
        return None
    path = last if ckpt in ("last", "auto") else checkpoint_file(ckpt)
    if last.exists() and path.resolve().parent != last.resolve().parent:
        raise InputError(f"{folder} holds a run already, which would be lost; choose another name=... for ckpt={ckpt}")
    if ckpt == "last" and not path.exists():
        raise InputError(f"{path}: there is nothing to go on from; leave ckpt=last out")
    return path


def read_run(path: Path) -> dict[str, Any]:
    """The content of a training's checkpoint; raises InputError if the file is missing, or holds weights only."""
    content = read_checkpoint(path)
    if not content.keys() >= TRAINING_KEYS or inside(content, "config", "model", "generator") is None:
        raise InputError(f"{path}: holds weights but no training to go on with; use start={path}")
    return content


def read_metrics(folder: Path) -> dict[str, float] | None:
    """The metrics that a finished run has written; None if there are none, or the file is damaged."""
    try:
        return {name: float(value) for name, value in json.loads((folder / METRICS).read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def nothing_left(content: dict[str, Any], data: dict[str, Any], max_steps: int, folder: Path) -> bool:
    """Whether the run in ``folder`` has made ``max_steps`` steps and the last validation; logs it if so.

    ``content`` is its checkpoint's, ``data`` that of the config now; a degradation that has changed is told.

    Raises:
        InputError: another run has made the steps, so that ``folder`` would stay empty.
    """
    done, last = content["global_step"], folder / "checkpoints" / "last.ckpt"
    if done < max_steps or (last.exists() and read_metrics(folder) is None):
        return False
    if not last.exists():
        raise InputError(f"ckpt has made {done} steps already; give a larger trainer.max_steps, or start=CHECKPOINT")
    log.info("nothing left to do: %d of %d steps; give trainer.max_steps=...", done, max_steps)
    changed = changes({"data": inside(content, "config", "data")}, {"data": data})
    if other := {name: values for name, values in changed.items() if re.match(DEGRADING, name)}:
        log.warning("the network was trained otherwise: %s; name=... trains another", "; ".join(tell(other)[:3]))
    return True


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """A nested config's values by their full names; ``model.lr_scale`` stays one value.

    >>> flat({"model": {"ema": True, "lr_scale": {"body": 0.1}}, "seed": 1})
    {'model.ema': True, 'model.lr_scale': {'body': 0.1}, 'seed': 1}
    """
    if not isinstance(value, dict) or name == "model.lr_scale":
        return {name: RENAMED_CLASSES.get(value, value) if isinstance(value, str) else value}
    inner = [flat(node, f"{name}.{key}" if name else key) for key, node in value.items()]
    return {key: node for part in inner for key, node in part.items()}


def changes(was: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options that differ between two configs: ``(new, old)`` by full name, sorted.

    >>> changes({"seed": 0, "model": {"ema": True}}, {"seed": 1, "model": {"ema": True}})
    {'seed': (1, 0)}
    """
    old, new = flat(was), flat(now)
    pairs = {name: (new.get(name), old.get(name)) for name in sorted({*old, *new})}
    return {
        name: (a, b) for name, (a, b) in pairs.items() if a != b and not (re.fullmatch(OFF, name) and not a and not b)
    }


def tell(changed: dict[str, tuple[Any, Any]]) -> list[str]:
    """Changed options in words.

    >>> tell({"seed": (1, 0)})
    ['seed=1, was 0']
    """
    return [f"{name}={now}, was {was}" for name, (now, was) in changed.items()]


def check_same(path: Path, content: dict[str, Any], config: dict[str, Any]) -> None:
    """Raise InputError if an option differs that cannot change; the start of the run is taken over into ``config``."""
    old, model = content["config"]["model"], config["model"]
    model |= {name: old.get(name) for name in STARTS if model.get(name) is None}
    for name, (now, was) in changes(content["config"], config).items():
        if re.fullmatch(FIXED, name):
            raise InputError(
                f"{path}: was trained with {name}={was}, not {now}; give what it was trained with, or begin another "
                f"run (name=...) with start={path} in place of ckpt"
            )


def apply_options(module: LightningModule, content: dict[str, Any]) -> None:
    """Write the configured options into a checkpoint's optimisers and schedules, before Lightning loads them.

    Learning rates become those that the options would have led to from the first step; unchanged options give the
    same rates bit by bit.
    """
    configured: Any = module.configure_optimizers()
    states = content["optimizer_states"], content["lr_schedulers"]
    for optimizer, scheduled, state, old_schedule in zip(*configured, *states, strict=False):
        schedule = scheduled["scheduler"]
        halved = schedule.gamma ** sum(step <= old_schedule["last_epoch"] for step in schedule.milestones.elements())
        rates = [group["initial_lr"] * halved for group in optimizer.param_groups]
        for group, old, rate in zip(optimizer.param_groups, state["param_groups"], rates, strict=True):
            old |= {**group, "params": old["params"], "lr": rate}
        old_schedule |= {"milestones": schedule.milestones, "base_lrs": schedule.base_lrs, "_last_lr": rates}
