"""``python -m realsr.export ckpt=FILE format=onnx``: a generator as a file that other programs open without us."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from realsr.runtime.config import command
from realsr.upscaling.export import export

log = logging.getLogger(__name__)

LIMIT, HALF_LIMIT = 1e-4, 0.02  # of the largest value that the network gives, or of 1 where that is less


def _run(cfg: DictConfig) -> None:
    export(cfg.ckpt, cfg.output, cfg.format, cfg.half, cfg.ema, cfg.overwrite)


main = command("export")(_run)

if __name__ == "__main__":
    main()
