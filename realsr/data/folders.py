"""Test images from folders: pairs matched by name, or photos without ground truth."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from realsr.data.datasets import Pair
from realsr.imaging import image_size, quantize, read_image, to_float
from realsr.imaging.resample import imresize
from realsr.runtime.errors import InputError
from realsr.runtime.files import find_images

log = logging.getLogger(__name__)

ENDS = "x4, x4d, x4w1, _LR, _LR4, _LRx4, _bicLRx4, _LRBI_x4, _SRF_4_LR, _bicubic, _lq, _HR, _gt"  # as in DIV2K, RealSR
END = r"([_-]?(x\d[a-z]?\d?|(bic)?lr(b[id]|dn)?\d?|hr\d?)|[_-](gt|lq|bicubic|srf_?\d))+$"


@dataclass(frozen=True)
class PairFiles:
    """A test image that is not read yet.

    Attributes:
        name: for tables and files.
        lr: its file; None makes LR of ``hr`` by bicubic.
        hr: file of the ground truth; None: there is none.
        size: rows and columns of LR that are used; HR's are ``scale`` times as many.
        scale: of HR against LR.
        cropped: whether rows or columns are left out, since the files' sizes do not fit the scale.
    """

    name: str
    lr: Path | None
    hr: Path | None
    size: tuple[int, int]
    scale: int
    cropped: bool = False

    @property
    def paths(self) -> list[Path]:
        """Of its files, HR first."""
        return [path for path in (self.hr, self.lr) if path is not None]

    def read(self) -> Pair:
        """Decode the files.

        Raises:
            InputError: one cannot be.
        """
        height, width = self.size
        hr = None if self.hr is None else _read(self.hr)[..., : height * self.scale, : width * self.scale]
        if self.lr is not None:
            return Pair(self.name, _read(self.lr)[..., :height, :width], hr)
        assert hr is not None
        return Pair(self.name, quantize(imresize(hr, 1 / self.scale)), hr)


def find_pairs(hr_dir: str | Path | None, lr_dir: str | Path | None, scale: int) -> list[PairFiles]:
    """Pairs in two folders; of HR alone, with bicubic LR; of LR alone, without ground truth.

    Names match whole, or without the endings of data sets (:data:`ENDS`). Rows and columns beyond a multiple of the
    scale are cut off at the right and the bottom; LR may have been rounded up. Only the files' headers are read here.

    Raises:
        InputError: neither folder is given, names do not match, or LR is not as large as HR over the scale.
    """
    if hr_dir is None and lr_dir is None:
        raise InputError("no test images: give hr=DIR (ground truth), lr=DIR (small photos), or both")
    if lr_dir is None:
        return [_alone(name, path, scale) for name, path in _by_name(hr_dir).items()]
    if hr_dir is None:
        return [PairFiles(name, path, None, image_size(path), scale) for name, path in _by_name(lr_dir).items()]
    hr_files, lr_files = _by_name(hr_dir), _by_name(lr_dir)
    if hr_files.keys() != lr_files.keys():
        hr_files, lr_files = _by_name(hr_dir, END), _by_name(lr_dir, END)
    if alone := sorted(set(hr_files) ^ set(lr_files)):
        there, other = (hr_files, lr_dir) if alone[0] in hr_files else (lr_files, hr_dir)
        raise InputError(
            f"{there[alone[0]]} has no partner in {other} ({len(alone)} such names); tried {there[alone[0]].stem}, and "
            f"{alone[0]} alone or with {ENDS} at its end"
        )
    return [_pair(lr_files[name], path, scale) for name, path in hr_files.items()]


def read_pairs(found: Sequence[PairFiles]) -> list[Pair]:
    """Decode all of them: for few images."""
    say_cropped(found)
    return [files.read() for files in found]


def say_cropped(found: Sequence[PairFiles]) -> None:
    """Log a line if files are cropped."""
    if cropped := [files for files in found if files.cropped]:
        first = cropped[0]
        sizes = " and ".join(f"{w * k}x{h * k}" for (h, w), k in ((first.size, 1), (first.size, first.scale)))
        log.info("%d of %d images are cropped to fit x%d, %s to %s pixels", len(cropped), len(found), first.scale,
                 first.name, sizes)  # fmt: skip


def _by_name(folder: str | Path | None, end: str = "") -> dict[str, Path]:
    """Images by their stem, without what ``end`` matches."""
    found: dict[str, Path] = {}
    for path in find_images(str(folder)):
        name = re.sub(end, "", path.stem, flags=re.IGNORECASE)
        if name in found:
            raise InputError(f"{path} and {found[name]} are both {name!r} in results; rename or remove one")
        found[name] = path
    return found


def _alone(name: str, path: Path, scale: int) -> PairFiles:
    height, width = image_size(path)
    if min(height, width) < scale:
        raise InputError(f"{path}: {width}x{height} pixels are too few to be scaled by 1/{scale}")
    cropped = bool(height % scale or width % scale)
    return PairFiles(name, None, path, (height // scale, width // scale), scale, cropped)


def _pair(lr_file: Path, hr_file: Path, scale: int) -> PairFiles:
    lr, hr = image_size(lr_file), image_size(hr_file)
    used = [large // scale for large in hr]
    if min(used) < 1 or any(not u <= s <= -(-g // scale) for s, g, u in zip(lr, hr, used, strict=True)):
        other = [k for k in range(2, 9) if (lr[0] * k, lr[1] * k) == hr]
        raise InputError(
            f"{lr_file}: {lr[1]}x{lr[0]} pixels times {scale} are not the {hr[1]}x{hr[0]} of {hr_file}; "
            + (f"give scale={other[0]}" if other else "cut them to show the same, or take both out")
        )
    cropped = any(s != u or g != u * scale for s, g, u in zip(lr, hr, used, strict=True))
    return PairFiles(hr_file.stem, lr_file, hr_file, (used[0], used[1]), scale, cropped)


def _read(path: Path) -> Tensor:
    return to_float(read_image(path).rgb)
