"""``python -m realsr.estimate data.source_dir=DIR``: a blur kernel of every photo of a camera, into a kernel pool."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from realsr.degradation.camera_fit import camera_noise
from realsr.pools.estimate import NoKernelError, estimate_kernels
from realsr.pools.export_kernels import check_form, export_kernels
from realsr.pools.shards import jobs_here, shard_of
from realsr.runtime.command_line import and_next
from realsr.runtime.config import command, pools_given
from realsr.runtime.errors import counted
from realsr.runtime.files import find_images
from realsr.runtime.hardware import pick_device
from realsr.runtime.workers import default_workers

log = logging.getLogger(__name__)

SECONDS = {"PatchMatching": 3, "KernelGAN": 11}  # of a core a photo, by their defaults (docs/measured.md)


def _run(cfg: DictConfig) -> None:
    check_form(cfg.export)
    estimator = instantiate(cfg.estimator)
    every = find_images(cfg.data.source_dir)
    photos = shard_of(every, cfg.shard, cfg.shards)
    seconds = SECONDS.get(cfg.estimator._target_.rpartition(".")[2])
    long = f", about {seconds} s of a core each" if seconds else ""
    share = f" (shard {cfg.shard} of {cfg.shards})" if cfg.shards > 1 else ""
    what = f"the kernels of {counted(len(photos), 'photo')} in {cfg.data.source_dir}"
    log.info("estimating %s%s%s", what, share, long)
    workers = cfg.workers or max(default_workers(pick_device(cfg.accelerator)) // jobs_here(cfg.shards), 1)
    folder = Path(cfg.pool_dir) / "kernels"
    try:
        if photos:
            mine = set(photos)  # first, so that shards share out what is to be collected of all photos
            every.sort(key=lambda photo: photo not in mine)
            noise = functools.partial(camera_noise, every, Path(cfg.pool_dir) / "noise", instantiate(cfg.collector))
            how = {"workers": workers, "min_confidence": cfg.pool.min_confidence, "whole": cfg.shards == 1}
            estimate_kernels(photos, folder, estimator, cfg.scale, cfg.accelerator, noise=noise, **how)
            if cfg.export is not None:
                target = folder.with_name(f"kernels_{cfg.export}")
                export_kernels(folder, target, cfg.export, cfg.pool.min_confidence)
    except NoKernelError as e:
        if cfg.shards == 1:
            raise
        log.warning("%s", e)
    if cfg.shards == 1:
        options = f"data.source_dir={cfg.data.source_dir}", *pools_given(cfg)
        commands = [("gap", *options), ("train", "experiment=laptop", *options)]
        if cfg.scale != 4:  # the network that laptop starts from enlarges by four
            commands = [("gap", *options, f"scale={cfg.scale}")]
        log.info(and_next(f"the kernels lie in {folder}", *commands))


main = command("estimate", then="the same command goes on")(_run)

if __name__ == "__main__":
    from realsr.estimate import main  # by its name, under which workers and a launcher's jobs find its functions

    main()
