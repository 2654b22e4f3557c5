"""The pools of a run: each machine reads them once, and what validation is to see stays out of training."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch.distributed as dist

from realsr.jpeg_pool import JpegPool
from realsr.pools import KernelPool, NoisePool, P, hold_out

Result = TypeVar("Result")
Folders = tuple[Path | None, Path | None, Path | None]
HELD_OUT = 0.1  # share of the photos whose kernels, noise and tables only validation sees
PATIENCE = timedelta(hours=6)  # for thousands of small files from a slow disk


class Side(NamedTuple):
    """What training or validation draws from; None: it does without."""

    kernels: KernelPool | None
    noise: NoisePool | None
    jpeg: JpegPool | None


class Pools(NamedTuple):
    """All pools of a run, whole, by folder."""

    kernels: dict[Path, KernelPool]
    noise: dict[Path, NoisePool]
    jpeg: dict[Path, JpegPool]

    def side(self, kernels: Path | None, noise: Path | None, jpeg: Path | None, held_out: bool, seed: int) -> Side:
        """Of these folders the items that are held out, or the others."""

        def part(pools: dict[Path, P], folder: Path | None) -> P | None:
            return None if folder is None else hold_out(pools[folder], HELD_OUT, seed)[held_out]

        return Side(part(self.kernels, kernels), part(self.noise, noise), part(self.jpeg, jpeg))


def read_pools(trained: Folders, validated: Folders, scale: int, min_confidence: float) -> Pools:
    """Read each folder once, though training and validation may draw from the same.

    Args:
        trained: folders of kernels, noise and tables for training, None for none.
        validated: likewise for validation.
        scale: of the kernels.
        min_confidence: kernels of less are left out.

    Raises:
        InputError: a pool is missing or damaged.
    """
    kernels, noise, jpeg = ({*folders} for folders in zip(trained, validated, strict=True))
    return Pools(
        {folder: KernelPool.load(folder, scale, min_confidence) for folder in kernels if folder},
        {folder: NoisePool.load(folder) for folder in noise if folder},
        {folder: JpegPool.load(folder) for folder in jpeg if folder},
    )


def once_per_node(make: Callable[[], Result], processes: int) -> Result:
    """What ``make`` gives, made by the first process of each node, which sends it to the node's others.

    All processes have to call it. An error of ``make`` is raised in all of them.

    Args:
        make: without arguments; its result has to be one that can be pickled.
        processes: on each node.
    """
    if processes == 1 or not dist.is_initialized():
        return make()
    group, _ = dist.new_subgroups(processes, timeout=PATIENCE, backend="gloo")  # NCCL would send by way of the GPUs
    first = dist.get_rank() // processes * processes
    sent: list[Any] = [None, None]
    if dist.get_rank() == first:
        try:
            sent[0] = make()
        except Exception as e:
            sent[1] = e
    dist.broadcast_object_list(sent, first, group)
    dist.destroy_process_group(group)
    if sent[1] is not None:
        raise sent[1]
    return sent[0]
