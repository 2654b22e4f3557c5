"""Test images from folders: pairs matched by name, or photos without ground truth."""

from __future__ import annotations

import re
from collections.abc import Callable
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
        return [Pair(name, _read(path), None) for name, path in _by_name(lr_dir, _whole_stem).items()]
    if lr_dir is None:
        return [_bicubic_pair(name, path, scale) for name, path in _by_name(hr_dir, _whole_stem).items()]
    hr_files, lr_files = _by_name(hr_dir, _stem), _by_name(lr_dir, _stem)
    if alone := sorted(set(hr_files) ^ set(lr_files)):
        here = hr_dir if alone[0] in hr_files else lr_dir
        raise InputError(f"{here}: {alone[0]} has no partner in the other folder ({len(alone)} such names)")
    return [_pair(lr_files[name], path, scale) for name, path in hr_files.items()]


def pair_files(hr_dir: str | Path | None, lr_dir: str | Path | None) -> dict[str, list[Path]]:
    """The files of each pair of :func:`read_pairs`, by its name: HR, LR, or both."""
    if hr_dir is None or lr_dir is None:
        return {name: [path] for name, path in _by_name(hr_dir or lr_dir, _whole_stem).items()}
    lr_files = _by_name(lr_dir, _stem)
    return {path.stem: [path, lr_files[name]] for name, path in _by_name(hr_dir, _stem).items() if name in lr_files}


def _by_name(folder: str | Path | None, name_of: Callable[[Path], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in find_images(str(folder)):
        name = name_of(path)
        if name in found:
            raise InputError(f"{path} and {found[name]} are both {name!r} in results; rename or remove one")
        found[name] = path
    return found


def _bicubic_pair(name: str, path: Path, scale: int) -> Pair:
    hr = _read(path)
    if min(hr.shape[-2:]) < scale:
        raise InputError(f"{path}: {hr.shape[-1]}x{hr.shape[-2]} pixels are too few to be scaled by 1/{scale}")
    hr = crop_to_multiple(hr, scale)
    return Pair(name, quantize(imresize(hr, 1 / scale)), hr)


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


def _whole_stem(path: Path) -> str:
    return path.stem


def _read(path: Path) -> Tensor:
    return to_float(read_image(path).rgb)
