"""``python -m realsr.estimate -m 'shard=range(0,N)'``: the photos split over N jobs of a Hydra launcher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from realsr.runtime.errors import InputError, at_least


class CountShards(Callback):
    """Gives every job of a sweep over ``shard=0,1,...,N-1`` the option ``shards=N``, unless it is given."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Add the option to those that the sweeper hands to its jobs, with any launcher."""
        task = config.hydra.overrides.task
        options = {option.get_key_element(): option for option in OverridesParser.create().parse_overrides(list(task))}
        if "shard" not in options or "shards" in options or not options["shard"].is_sweep_override():
            return
        values = sorted(options["shard"].sweep_string_iterator())
        if values == sorted(map(str, range(len(values)))):
            with read_write(config), open_dict(config):
                task.append(f"shards={len(values)}")


def shard_of(photos: Sequence[Path], shard: int, shards: int) -> list[Path]:
    """Every ``shards``-th photo, from number ``shard`` on.

    Raises:
        InputError: ``shard`` is not one of ``shards``.

    >>> [str(photo) for photo in shard_of([Path("a"), Path("b"), Path("c")], 0, 2)]
    ['a', 'c']
    """
    at_least(1, shards=shards)
    if not 0 <= shard < shards:
        raise InputError(f"shard={shard} shards={shards}: shards count from 0 to {shards - 1}; give shards=N as well")
    return list(photos[shard::shards])


def jobs_here(shards: int) -> int:
    """Number of shards that Hydra's launcher may run on this machine at once."""
    config = HydraConfig.get()
    launcher = config.launcher._target_.rpartition(".")[2]
    if config.mode is not RunMode.MULTIRUN or launcher not in ("JoblibLauncher", "LocalLauncher"):
        return 1
    limit = config.launcher.get("n_jobs", -1)
    return min(shards, limit) if limit > 0 else shards
