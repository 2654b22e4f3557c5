"""Going on from a checkpoint: which one, whether anything is left to do, and options that changed since."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.optim import Optimizer

from realsr.config import METRICS
from realsr.errors import InputError
from realsr.esrgan import ESRGAN
from realsr.networks.weights import checkpoint_file, read_checkpoint

log = logging.getLogger(__name__)

OF_A_TRAINING = {"optimizer_states", "lr_schedulers", "loops", "config", "global_step"}
OPTIMIZERS = ("optimizer", "discriminator_optimizer")  # in the order in which they are kept
STARTS = ("init_from", "init_discriminator_from")  # read before the first step alone


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


def check_same(path: Path, content: dict[str, Any], model: dict[str, Any]) -> None:
    """Compare what a run cannot change; where the configured ``model`` names no start, it gets that of the run.

    Raises:
        InputError: the checkpoint is no training of ours, or of a model that was configured differently.
    """
    try:
        its = content["config"]["model"]
        model |= {name: its.get(name) for name in STARTS if model.get(name) is None}
        was, now = (dict(_state_options(config)) for config in (its, model))
    except (KeyError, TypeError, AttributeError) as e:
        raise InputError(f"{path}: its config is none of a training of realsr's; choose another file") from e
    for name in sorted({*was, *now}):
        if was.get(name) != now.get(name):
            raise InputError(f"{path}: was trained with {name}={was.get(name)}, not {now.get(name)}; {_instead(path)}")


def _instead(path: Path) -> str:
    return f"give what it was trained with, or begin another run (name=...) with start={path} in place of ckpt"


def _state_options(model: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a checkpoint's weights and optimiser states come from, by name."""
    for network in ("generator", "discriminator"):
        yield from ((f"model.{network}.{key}", value) for key, value in (model[network] or {}).items())
    for optimizer in OPTIMIZERS:
        yield f"model.{optimizer}._target_", (model[optimizer] or model["optimizer"])["_target_"]
    yield from ((f"model.{key}", model.get(key)) for key in ("ema", "lr_scale", *STARTS))


# -- options that optimisers and schedules keep ------------------------------------------------------------------------


def changed_options(module: LightningModule, content: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options, by name, that a checkpoint keeps otherwise than they are configured: as they are, as they were."""
    found: dict[str, tuple[Any, Any]] = {}
    for name, optimizer, schedule, state, its in _kept(module, content):
        for group, old in zip(optimizer.param_groups, state["param_groups"], strict=True):
            for key in sorted(group.keys() & old.keys() - {"params", "lr"}):  # the rate of now; `initial_lr` is given
                now, was = _plain(group[key]), _plain(old[key])
                if now != was:
                    found.setdefault(f"model.{name}.{key.removeprefix('initial_')}", (now, was))
        if schedule.milestones != its["milestones"]:
            found["model.milestones"] = _steps(schedule.milestones), _steps(its["milestones"])
    return found


def check_changes(model: ESRGAN, path: Path, content: dict[str, Any], device: torch.device) -> None:
    """Find out before data are read whether an optimiser can go on with the options that changed.

    Raises:
        InputError: it needs what the checkpoint has not kept of the weights, such as Adam with ``amsgrad``.
    """
    changes = changed_options(model, content)
    for name, optimizer, _, state, _ in _kept(model, content) if changes else ():
        weight = optimizer.param_groups[0]["params"][0]
        kept = state["state"].get(0)  # nothing yet, if it has made no step
        if kept and (lacking := _state_names(getattr(model, name), weight, device) - kept.keys()):
            told = tell({k: change for k, change in changes.items() if k.startswith(f"model.{name}.")})
            raise InputError(
                f"{path}: has no {' nor '.join(sorted(lacking))}, which the optimiser needs with {'; '.join(told)}; "
                f"{_instead(path)}"
            )


def apply_options(module: LightningModule, content: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Write the configured options into a checkpoint's optimisers and schedules, before these are loaded.

    The rate becomes what it had been at this step with the options from the start. If nothing changed, the content
    stays as it is.

    Returns:
        What :func:`changed_options` found.
    """
    changes = changed_options(module, content)
    for _, optimizer, schedule, state, its in _kept(module, content) if changes else ():
        halved = schedule.gamma ** sum(step <= its["last_epoch"] for step in _steps(schedule.milestones))
        rates = [group["initial_lr"] * halved for group in optimizer.param_groups]
        for group, old, rate in zip(optimizer.param_groups, state["param_groups"], rates, strict=True):
            old |= {**group, "params": old["params"], "lr": rate}
        its |= {"milestones": schedule.milestones, "base_lrs": schedule.base_lrs, "_last_lr": rates}
    return changes


def tell(changes: dict[str, tuple[Any, Any]]) -> list[str]:
    """What options are and what they were, in words."""
    return [f"{name}={now}, was {was}" for name, (now, was) in sorted(changes.items())]


def _kept(module: LightningModule, content: dict[str, Any]) -> Iterable[tuple[str, Optimizer, Any, Any, Any]]:
    """Each optimiser's name; it and its schedule as configured; the states of both in a checkpoint."""
    configured: Any = module.configure_optimizers()
    mine = configured[0], [schedule["scheduler"] for schedule in configured[1]]
    return zip(OPTIMIZERS, *mine, content["optimizer_states"], content["lr_schedulers"], strict=False)


def _state_names(build: Callable[[Iterable[Any]], Optimizer], like: nn.Parameter, device: torch.device) -> set[str]:
    """What an optimiser keeps of a weight."""
    weight = nn.Parameter(torch.zeros_like(like, device=device))
    weight.grad = torch.zeros_like(weight)
    optimizer = build([weight])
    optimizer.step()
    return set(optimizer.state[weight])


def _plain(value: Any) -> Any:
    """A list for a tuple, which YAML has not."""
    return list(value) if isinstance(value, tuple) else value


def _steps(milestones: Any) -> list[int]:
    """Of a schedule, which counts them."""
    return sorted(milestones.elements())
