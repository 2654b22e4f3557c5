"""Test images from folders: pairs matched by name, or photos without ground truth."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
        hr: file of the ground truth; None: there is none.
        lr: its file; None makes LR of ``hr`` by bicubic.
        size: rows and columns of LR that are used; HR's are ``scale`` times as many.
        scale: of HR against LR.
        cropped: whether rows or columns are left out, since the files' sizes do not fit the scale.
    """

    name: str
    hr: Path | None
    lr: Path | None
    size: tuple[int, int]
    scale: int
    cropped: bool = False

    @property
    def paths(self) -> list[Path]:
        """Its files, HR first."""
        return [path for path in (self.hr, self.lr) if path is not None]

    def read(self) -> Pair:
        """Decode the files; raises InputError if one cannot be."""
        hr, lr = (None if path is None else to_float(read_image(path).rgb) for path in (self.hr, self.lr))
        height, width = self.size
        if hr is not None:
            hr = hr[..., : height * self.scale, : width * self.scale]
        if lr is None:
            assert hr is not None
            return Pair(self.name, quantize(imresize(hr, 1 / self.scale)), hr)
        return Pair(self.name, lr[..., :height, :width], hr)


def find_pairs(hr_dir: str | Path | None, lr_dir: str | Path | None, scale: int) -> list[PairFiles]:
    """Pairs in two folders; of HR alone, with bicubic LR; of LR alone, without ground truth.

    Names match whole, or without the endings of data sets (:data:`ENDS`). Rows and columns beyond a multiple of the
    scale are cut off at the right and the bottom; LR may have been rounded up. Only the files' headers are read here.

    Raises:
        InputError: neither folder is given, names do not match, or LR is not as large as HR over the scale.
    """
    if hr_dir is None and lr_dir is None:
        raise InputError("no test images: give hr=DIR (ground truth), lr=DIR (small photos), or both")
    hr_files, lr_files = _by_name(hr_dir), _by_name(lr_dir)
    if hr_files and lr_files and hr_files.keys() != lr_files.keys():
        hr_files, lr_files = _by_name(hr_dir, END), _by_name(lr_dir, END)
        if alone := sorted(set(hr_files) ^ set(lr_files)):
            there, other = (hr_files, lr_dir) if alone[0] in hr_files else (lr_files, hr_dir)
            raise InputError(
                f"{there[alone[0]]} has no partner in {other} ({len(alone)} such names); tried {there[alone[0]].stem}, "
                f"and {alone[0]} alone or with {ENDS} at its end"
            )
    return [_pair(hr_files.get(name), lr_files.get(name), scale) for name in hr_files or lr_files]


def read_pairs(found: Sequence[PairFiles]) -> list[Pair]:
    """Decode all of them: for few images."""
    say_cropped(found)
    return [files.read() for files in found]


def say_cropped(found: Sequence[PairFiles]) -> None:
    """Log a line if files are cropped."""
    if cropped := [files for files in found if files.cropped]:
        (height, width), k = cropped[0].size, cropped[0].scale
        sizes = f"{cropped[0].name} to {width}x{height} and {width * k}x{height * k} pixels"
        log.info("%d of %d images are cropped to fit x%d, %s", len(cropped), len(found), k, sizes)


def _by_name(folder: str | Path | None, end: str = "") -> dict[str, Path]:
    """Images of a folder, if there is one, by their stem without what ``end`` matches."""
    found: dict[str, Path] = {}
    for path in () if folder is None else find_images(folder):
        name = re.sub(end, "", path.stem, flags=re.IGNORECASE)
        if name in found:
            raise InputError(f"{path} and {found[name]} are both {name!r} in results; rename or remove one")
        found[name] = path
    return found


def _pair(hr: Path | None, lr: Path | None, scale: int) -> PairFiles:
    """Raises InputError if the sizes do not fit."""
    if hr is None:
        assert lr is not None
        return PairFiles(lr.stem, None, lr, image_size(lr), scale)
    height, width = image_size(hr)
    used = height // scale, width // scale
    small = used if lr is None else image_size(lr)
    if lr is None and not all(used):
        raise InputError(f"{hr}: {width}x{height} pixels are too few to be scaled by 1/{scale}")
    rounded_up = -(-height // scale), -(-width // scale)
    if not all(used) or any(not u <= s <= r for u, s, r in zip(used, small, rounded_up, strict=True)):
        other = [k for k in range(2, 9) if (small[0] * k, small[1] * k) == (height, width)]
        raise InputError(
            f"{lr}: {small[1]}x{small[0]} pixels times {scale} are not the {width}x{height} of {hr}; "
            + (f"give scale={other[0]}" if other else "cut them to show the same, or take both out")
        )
    cropped = small != used or (used[0] * scale, used[1] * scale) != (height, width)
    return PairFiles(hr.stem, hr, lr, used, scale, cropped)
