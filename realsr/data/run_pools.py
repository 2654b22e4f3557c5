"""The pools of a run: each machine reads them once, and what validation is to see stays out of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch.distributed as dist

from realsr.data.store import StoredImage
from realsr.entries import check_pool, pool_record
from realsr.files import file_hash
from realsr.interchange import is_foreign
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
    """All pools of a run, whole, by folder; and the names of the photos in them that validation has as they are."""

    kernels: dict[Path, KernelPool]
    noise: dict[Path, NoisePool]
    jpeg: dict[Path, JpegPool]
    own: dict[Path, set[str]]

    def side(self, kernels: Path | None, noise: Path | None, jpeg: Path | None, held_out: bool, seed: int) -> Side:
        """Of these folders the items that are held out, or the others."""

        def part(pools: dict[Path, P], folder: Path | None) -> P | None:
            return None if folder is None else hold_out(pools[folder], HELD_OUT, seed)[held_out]

        return Side(part(self.kernels, kernels), part(self.noise, noise), part(self.jpeg, jpeg))


def read_pools(
    trained: Folders, validated: Folders, scale: int, min_confidence: float, lr_photos: Sequence[Path] = ()
) -> Pools:
    """Read each folder once, though training and validation may draw from the same.

    Args:
        trained: folders of kernels, noise and tables for training, None for none.
        validated: likewise for validation.
        scale: of the kernels.
        min_confidence: kernels of less are left out.
        lr_photos: validation's, where they are the camera's own.

    Raises:
        InputError: a pool is missing or damaged.
    """
    kernels, noise, jpeg = ({*folders} for folders in zip(trained, validated, strict=True))
    digests = {file_hash(photo) for photo in lr_photos}
    return Pools(
        {folder: KernelPool.load(folder, scale, min_confidence) for folder in kernels if folder},
        {folder: NoisePool.load(folder) for folder in noise if folder},
        {folder: JpegPool.load(folder) for folder in jpeg if folder},
        {folder: _own(folder, digests) for folder in trained[:2] if folder and digests and not is_foreign(folder)},
    )


def _own(folder: Path, digests: set[str]) -> set[str]:
    """Names of the photos that a pool has something of, of those whose files have these SHA-256."""
    record = pool_record(folder)
    files = ((name, {**record["shared"], **file}) for name, file in record["files"].items())
    return {file.get("photo", Path(name).stem) for name, file in files if file.get("sha256") in digests}


def check_given(pools: Mapping[str, Path | None], pool_dir: Path | None) -> None:
    """Raise InputError if a pool's folder holds none and is not made either; those of ``pool_dir`` are.

    Args:
        pools: folders by the name of their option.
        pool_dir: None makes all.
    """
    own = [] if pool_dir is None else [pool_dir / name for name in ("kernels", "noise", "jpeg")]
    for name, folder in pools.items():
        if own and folder is not None and folder.resolve() not in own:
            check_pool(folder, f"data.{name}")


def made_from(pools: Mapping[str, Path | None], images: Sequence[StoredImage]) -> dict[str, Any]:
    """What each pool in use is made of, for checkpoints; and the photos, whose files' names hold their hashes.

    Args:
        pools: folders by the name of their option; of several with one folder the first counts.
        images: of training.
    """
    names = {folder: name for name, folder in reversed([*pools.items()]) if folder is not None and folder.exists()}
    return {
        **{name.removesuffix("_dir"): pool_record(folder) for folder, name in names.items()},
        "photos": {"shared": {}, "files": {image.path.name: {"photo": image.name} for image in images}},
    }


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
