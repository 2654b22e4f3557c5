"""``python -m realsr.upscale ckpt=FILE input=PHOTO_OR_DIR output=DIR``: photos in, photos four times as large out."""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

from omegaconf import DictConfig

from realsr.imaging.encoding import FORMATS, check_quality
from realsr.networks.tiling import Tiles
from realsr.networks.weights import checkpoint_file
from realsr.runtime.config import command
from realsr.runtime.errors import InputError, at_least, counted
from realsr.runtime.files import file_hash, find_images
from realsr.runtime.hardware import count_devices, keep_memory
from realsr.upscaling import library
from realsr.upscaling.backends import backend_of, load_model
from realsr.upscaling.files import Enlarge, seconds_a_megapixel, upscale_file, upscale_files
from realsr.upscaling.library import Ensemble, check_result_scale

log = logging.getLogger(__name__)


def _run(cfg: DictConfig) -> None:
    keep_memory()
    check_result_scale(cfg.scale or None)
    check_quality(cfg.quality)
    at_least(1, max_megapixels=cfg.max_megapixels)
    options = {"scale": cfg.scale or None, "tiles": Tiles(cfg.tile, cfg.overlap, cfg.batch), "quality": cfg.quality}
    options |= {"keep_colours": cfg.keep_colours, "most_pixels": round(cfg.max_megapixels * 1e6)}

    def on(index: int) -> Enlarge:
        model = load_model(cfg.ckpt, cfg.backend, cfg.accelerator, cfg.precision, cfg.compile, cfg.ema, index)
        asked = Ensemble(model) if cfg.tta else model
        pace = seconds_a_megapixel(asked)
        if index == 0:
            how = f"on {asked.device}" if backend == "torch" else f"by {backend}, {cfg.accelerator}"
            log.info("enlarging %s, %g s a megapixel %s", what, float(f"{pace:.2g}"), how)
        return partial(upscale_file, model=asked, pace=pace, **options)

    if cfg.format not in (known := ("same", *(suffix[1:] for suffix in FORMATS))):
        raise InputError(f"format={cfg.format}: choose {', '.join(known)}")
    what = f"{counted(len(find_images(cfg.input)), 'photo')} in {cfg.input}" if Path(cfg.input).is_dir() else cfg.input
    suffix = None if cfg.format == "same" else f".{cfg.format}"
    backend = backend_of(cfg.ckpt, cfg.backend)
    count = count_devices(cfg.accelerator, cfg.devices, backend == "torch")
    enlarge = [on(index) for index in range(count)]
    made_by = {"ckpt": cfg.ckpt, "weights": file_hash(checkpoint_file(cfg.ckpt))[:12]}
    made_by |= {key: cfg[key] for key in ("ema", "scale", "tta", "keep_colours")}
    made_by |= {} if cfg.format in ("png", "tif", "bmp") else {"quality": cfg.quality}
    upscale_files(enlarge, Path(cfg.input), Path(cfg.output), suffix, cfg.overwrite, made_by)


class _Callable(ModuleType):
    """A module that is also callable: ``from realsr import upscale`` gives the module once it is imported."""

    __call__ = staticmethod(library.upscale)


sys.modules[__name__].__class__ = _Callable

main = command("upscale", then="the same command goes on")(_run)

if __name__ == "__main__":
    main()
