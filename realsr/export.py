"""``python -m realsr.export ckpt=FILE format=onnx``: a generator as a file that other programs open without us."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from realsr.runtime.command_line import and_next
from realsr.runtime.config import command
from realsr.upscaling.export_generator import export

log = logging.getLogger(__name__)

OPENED_BY = {"onnx": "ONNX Runtime and programs that have it", "ncnn": "Upscayl and programs that have ncnn"}


def _run(cfg: DictConfig) -> None:
    log.info("writing the network of %s as format=%s and reading it back", cfg.ckpt, cfg.format)
    target = export(cfg.ckpt, cfg.output, cfg.format, cfg.half, cfg.ema, cfg.overwrite)
    programs = OPENED_BY.get(cfg.format, "chaiNNer, ComfyUI and what else knows such networks")
    upscale = "upscale", f"ckpt={target}", "input=photos", "output=large"
    log.info(and_next(f"{target} is for {programs}, and for us", upscale))


main = command("export")(_run)

if __name__ == "__main__":
    main()
