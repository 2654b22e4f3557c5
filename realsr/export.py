"""``python -m realsr.export ckpt=FILE format=onnx``: a generator as a file that other programs open without us."""

from __future__ import annotations

from omegaconf import DictConfig

from realsr.runtime.config import command
from realsr.upscaling.export import export


def _run(cfg: DictConfig) -> None:
    export(cfg.ckpt, cfg.output, cfg.format, cfg.half, cfg.ema, cfg.overwrite)


main = command("export")(_run)

if __name__ == "__main__":
    main()
