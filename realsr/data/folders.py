"""Test images from folders: pairs matched by name, or photos without ground truth."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from realsr.data.datasets import Pair
from realsr.errors import InputError
from realsr.images import find_images, quantize, read_image, to_float
from realsr.resample import crop_to_multiple, imresize


def read_pairs(hr_dir: str | Path | None, lr_dir: str | Path | None, scale: int) -> list[Pair]:
    """Pairs from two folders; from HR alone with bicubic LR; from LR alone without ground truth.

    Names match by their stems, with a suffix such as ``x4`` or ``_LR`` of either left out. HR images are cropped
    to a multiple of the scale.

    Raises:
        InputError: neither folder is given, names do not match, or sizes do not fit the scale.
    """
    if hr_dir is None and lr_dir is None:
        raise InputError("no test images: give data.hr=DIR (ground truth), data.lr=DIR (small photos), or both")
    if hr_dir is None:
        return [Pair(p.stem, _read(p), None) for p in find_images(str(lr_dir))]
    hr_files = {_stem(p): p for p in find_images(hr_dir)}
    if lr_dir is None:
        pairs = []
        for p in hr_files.values():
            hr = crop_to_multiple(_read(p), scale)
            pairs.append(Pair(p.stem, quantize(imresize(hr, 1 / scale)), hr))
        return pairs
    lr_files = {_stem(p): p for p in find_images(lr_dir)}
    if alone := sorted(set(hr_files) ^ set(lr_files)):
        here = hr_dir if alone[0] in hr_files else lr_dir
        raise InputError(f"{here}: {alone[0]} has no partner in the other folder ({len(alone)} such names)")
    return [_pair(lr_files[name], path, scale) for name, path in hr_files.items()]


def _pair(lr_file: Path, hr_file: Path, scale: int) -> Pair:
    lr, hr = _read(lr_file), _read(hr_file)
    height, width = lr.shape[-2] * scale, lr.shape[-1] * scale
    if not (0 <= hr.shape[-2] - height < scale and 0 <= hr.shape[-1] - width < scale):
        raise InputError(
            f"{lr_file}: {lr.shape[-1]}x{lr.shape[-2]} pixels times {scale} are not the "
            f"{hr.shape[-1]}x{hr.shape[-2]} of {hr_file}"
        )
    return Pair(hr_file.stem, lr, hr[..., :height, :width])


def _stem(path: Path) -> str:
    return re.sub(r"([_-]?(x\d|lr|hr))+$", "", path.stem, flags=re.IGNORECASE)


def _read(path: Path) -> Tensor:
    return to_float(read_image(path).rgb)
