"""``python -m realsr.upscale ckpt=FILE input=PHOTO_OR_DIR output=DIR``: photos in, photos four times as large out."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import track
from torch import nn

from realsr.config import check_writable, command, pick_device
from realsr.errors import InputError, at_least
from realsr.images import Photo, find_images, read_image, to_float, to_uint, write_image
from realsr.networks.weights import load_generator
from realsr.resample import imresize
from realsr.tiling import upscale_tiled

log = logging.getLogger(__name__)


def upscale_photo(
    generator: nn.Module, photo: Photo, tile: int = 192, overlap: int = 24, keep_colours: bool = False
) -> Photo:
    """A decoded photo enlarged: RGB by the network, alpha by bicubic; gray, bit depth and ICC profile are kept.

    Args:
        generator: from :func:`realsr.networks.weights.load_generator`; its device is used.
        photo: as :func:`realsr.images.read_image` gives it.
        tile: see :func:`realsr.tiling.upscale_tiled`.
        overlap: likewise.
        keep_colours: likewise.
    """
    scale = int(generator.scale)  # type: ignore[arg-type]
    device = next(generator.parameters()).device
    dtype = photo.rgb.dtype
    lr = to_float(photo.rgb)[None].to(device)
    sr = upscale_tiled(generator, lr, scale, tile, overlap, keep_colours)[0]
    if photo.gray:
        sr = sr.mean(0, keepdim=True).expand(3, -1, -1)
    alpha = None
    if photo.alpha is not None:
        alpha = to_uint(imresize(to_float(photo.alpha[..., None]), scale), dtype)[..., 0]
    return Photo(to_uint(sr, dtype), alpha, photo.gray, photo.icc_profile)


def upscale_files(
    generator: nn.Module, source: Path, output: Path, tile: int = 192, overlap: int = 24, keep_colours: bool = False
) -> list[Path]:
    """Upscale a file, or a folder with its sub-folders, to PNG files in ``output``.

    A file that cannot be read does not stop the others.

    Returns:
        The files written.

    Raises:
        InputError: nothing to upscale, or (after all others are done) files that could not be read.
    """
    at_least(0, tile=tile, overlap=overlap)
    targets = _targets(source, output)
    check_writable(output)
    written: list[Path] = []
    failed: list[str] = []
    for path, target in track(targets.items(), "upscaling", disable=len(targets) < 2):
        try:
            write_image(target, upscale_photo(generator, read_image(path), tile, overlap, keep_colours))
            written.append(target)
        except InputError as e:
            failed.append(str(e))
            log.error("%s", e)
    if failed:
        count = f"{len(failed)} of {len(targets)} files failed: " if len(targets) > 1 else ""
        raise InputError(f"{count}{failed[0]}")
    return written


def _targets(source: Path, output: Path) -> dict[Path, Path]:
    """Where each file's result goes; files in an ``output`` inside ``source`` are results of an earlier run.

    Raises:
        InputError: nothing to upscale, or a result would take the place of a photo.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    root, files = (source.parent, [source]) if source.is_file() else (source, find_images(source))
    if output.resolve() == root.resolve():
        raise InputError(f"output={output}: holds the photos themselves, which would be overwritten; choose another")
    targets: dict[Path, Path] = {}
    for path in files:
        if path.resolve().is_relative_to(output.resolve()) and source.is_dir():
            continue
        target = output / path.relative_to(root).with_suffix(".png")
        if target in targets.values():  # two files whose names differ in the suffix alone
            target = target.with_name(f"{path.name}.png")
        targets[path] = target
    return targets


def _run(cfg: DictConfig) -> None:
    generator = load_generator(cfg.ckpt, cfg.ema).to(pick_device(cfg.accelerator))
    options = cfg.tile, cfg.overlap, cfg.keep_colours
    written = upscale_files(generator, Path(cfg.input), Path(cfg.output), *options)
    log.info("%d photos written to %s", len(written), cfg.output)


main = command("upscale")(_run)

if __name__ == "__main__":
    main()
