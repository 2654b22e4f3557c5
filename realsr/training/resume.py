"""Going on from a checkpoint: which one, whether anything is left to do, and options that changed since."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.optim import Optimizer

from realsr.networks.weights import checkpoint_file, read_checkpoint
from realsr.runtime.config import METRICS
from realsr.runtime.errors import InputError
from realsr.training.esrgan import ESRGAN

log = logging.getLogger(__name__)

OF_A_TRAINING = {"optimizer_states", "lr_schedulers", "loops", "config", "global_step"}
OPTIMIZERS = ("optimizer", "discriminator_optimizer")  # in the order in which they are kept
STARTS = ("init_from", "init_discriminator_from")  # read before the first step alone
# what a checkpoint's weights and optimiser states come from
FIXED = r"model\.((generator|discriminator)\..*|(discriminator_)?optimizer\._target_|ema|lr_scale|init_\w+)"


def resume_path(ckpt: str | None, folder: Path) -> Path | None:
    """The checkpoint to go on from; None: from none.

    Args:
        ckpt: ``last``, that of ``folder``; ``auto``, likewise if it is there; or a file, or the folder of a run.
        folder: of the run.

    Raises:
        InputError: it is missing, or ``folder`` holds a run that would be overwritten.
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
    """The content of a checkpoint of a training.

    Raises:
        InputError: it is missing, or holds no training.
    """
    content = read_checkpoint(path)
    if not content.keys() >= OF_A_TRAINING:
        raise InputError(f"{path}: holds weights but no training to go on with; use start={path}")
    return content


def read_metrics(folder: Path) -> dict[str, float] | None:
    """What a run has left that is done; None: it is not, or they are damaged."""
    try:
        return {name: float(value) for name, value in json.loads((folder / METRICS).read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def nothing_left(content: dict[str, Any], max_steps: int, folder: Path) -> bool:
    """Whether all steps are done, and the last validation too, which a run in ``folder`` may lack; says so."""
    done = content["global_step"]
    to_validate = (folder / "checkpoints" / "last.ckpt").exists() and read_metrics(folder) is None
    if done < max_steps or to_validate:
        return False
    log.info("nothing left to do: %d of %d steps; give trainer.max_steps=...", done, max_steps)
    return True


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """What is set in a config's section, by its full name; factors of learning rates stay together."""
    if not isinstance(value, dict) or name == "model.lr_scale":
        return {name: value}
    inner = [flat(node, f"{name}.{key}" if name else key) for key, node in value.items()]
    return {key: node for part in inner for key, node in part.items()}


def changes(was: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options, by full name and sorted, that one config has otherwise than another: as they are, as they were."""
    old, new = flat(was), flat(now)
    names = sorted({*old, *new})
    return {name: (new.get(name), old.get(name)) for name in names if new.get(name) != old.get(name)}


def tell(changed: dict[str, tuple[Any, Any]]) -> list[str]:
    """What options are and what they were, in words."""
    return [f"{name}={now}, was {was}" for name, (now, was) in changed.items()]


def check_same(path: Path, content: dict[str, Any], config: dict[str, Any]) -> None:
    """Compare what a run cannot change; where ``config`` names no start, it gets that of the run.

    Raises:
        InputError: the checkpoint is no training of ours, or of a model that was configured differently.
    """
    its, model = (of.get("model") if isinstance(of, dict) else None for of in (content["config"], config))
    if not isinstance(its, dict) or not isinstance(model, dict) or "generator" not in its:
        raise InputError(f"{path}: its config is none of a training of realsr's; choose another file")
    model |= {name: its.get(name) for name in STARTS if model.get(name) is None}
    for name, (now, was) in changes(content["config"], config).items():
        if re.fullmatch(FIXED, name):
            raise InputError(f"{path}: was trained with {name}={was}, not {now}; {_instead(path)}")


def _instead(path: Path) -> str:
    return f"give what it was trained with, or begin another run (name=...) with start={path} in place of ckpt"


# -- options that optimisers and schedules keep ------------------------------------------------------------------------


def check_states(model: ESRGAN, path: Path, content: dict[str, Any], device: torch.device) -> None:
    """Find out before data are read whether an optimiser can go on with the options that changed.

    Raises:
        InputError: it needs what the checkpoint has not kept of the weights, such as Adam with ``amsgrad``.
    """
    for name, optimizer, _, state, _ in _kept(model, content):
        kept = state["state"].get(0)  # nothing yet, if it has made no step
        weight = nn.Parameter(torch.zeros_like(optimizer.param_groups[0]["params"][0], device=device))
        weight.grad = torch.zeros_like(weight)
        trial = getattr(model, name)([weight])
        trial.step()
        if kept and (lacking := trial.state[weight].keys() - kept.keys()):
            old, rates = state["param_groups"][0], ("params", "lr", "initial_lr")
            changed = {k: (v, old.get(k)) for k, v in optimizer.param_groups[0].items() if k not in rates}
            told = tell({f"model.{name}.{k}": (now, was) for k, (now, was) in changed.items() if now != was})
            raise InputError(
                f"{path}: has no {' nor '.join(sorted(lacking))}, which the optimiser needs with {'; '.join(told)}; "
                f"{_instead(path)}"
            )


def apply_options(module: LightningModule, content: dict[str, Any]) -> None:
    """Write the configured options into a checkpoint's optimisers and schedules, before these are loaded.

    The rate becomes what it had been at this step with the options from the start, to the bit where nothing changed.
    """
    for _, optimizer, schedule, state, its in _kept(module, content):
        halved = schedule.gamma ** sum(step <= its["last_epoch"] for step in schedule.milestones.elements())
        rates = [group["initial_lr"] * halved for group in optimizer.param_groups]
        for group, old, rate in zip(optimizer.param_groups, state["param_groups"], rates, strict=True):
            old |= {**group, "params": old["params"], "lr": rate}
        its |= {"milestones": schedule.milestones, "base_lrs": schedule.base_lrs, "_last_lr": rates}


def _kept(module: LightningModule, content: dict[str, Any]) -> Iterable[tuple[str, Optimizer, Any, Any, Any]]:
    """Each optimiser's name; it and its schedule as configured; the states of both in a checkpoint."""
    configured: Any = module.configure_optimizers()
    mine = configured[0], [schedule["scheduler"] for schedule in configured[1]]
    return zip(OPTIMIZERS, *mine, content["optimizer_states"], content["lr_schedulers"], strict=False)
