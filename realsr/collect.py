"""``python -m realsr.collect data.source_dir=DIR``: a camera's noise and compression into pools.

Noise is cut out as flat tiles, compression read as the quantisation tables of JPEG files.
"""

from __future__ import annotations

import logging
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from realsr.pools.collect import collect_noise
from realsr.pools.jpeg_tables import collect_tables
from realsr.runtime.command_line import and_next
from realsr.runtime.config import command, pools_given
from realsr.runtime.errors import counted
from realsr.runtime.files import find_images

log = logging.getLogger(__name__)


def _run(cfg: DictConfig) -> None:
    source, photos = cfg.data.source_dir, find_images(cfg.data.source_dir)
    what = f"noise and JPEG tables from {counted(len(photos), 'photo')}"
    log.info("collecting %s in %s: 2.4 s for 24 megapixels", what, source)
    collect_tables(photos, Path(cfg.pool_dir) / "jpeg")
    collect_noise(photos, Path(cfg.pool_dir) / "noise", instantiate(cfg.collector))
    estimate = "estimate", f"data.source_dir={source}", *pools_given(cfg)
    log.info(and_next(f"the pools lie in {cfg.pool_dir}", estimate))


main = command("collect", then="the same command goes on")(_run)

if __name__ == "__main__":
    main()
