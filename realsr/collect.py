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
from realsr.runtime.config import command
from realsr.runtime.files import find_images

log = logging.getLogger(__name__)


def _run(cfg: DictConfig) -> None:
    photos = find_images(cfg.data.source_dir)
    collect_tables(photos, Path(cfg.pool_dir) / "jpeg")
    collect_noise(photos, Path(cfg.pool_dir) / "noise", instantiate(cfg.collector))


main = command("collect", then="the same command goes on")(_run)

if __name__ == "__main__":
    main()
