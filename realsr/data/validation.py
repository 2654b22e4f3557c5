"""Validation: HR images held out from training with LR made of them, and camera photos to look at."""

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from realsr.data.datasets import Pair, draw_seed
from realsr.data.folders import PairFiles, find_pairs, read_pairs
from realsr.data.run_pools import PoolFolders, Pools
from realsr.data.store import StoredImage
from realsr.degradation.base import Degradation
from realsr.imaging import read_image, to_float
from realsr.imaging.metrics import least_side
from realsr.runtime.errors import InputError, at_least
from realsr.runtime.evenly import evenly
from realsr.runtime.files import find_images

log = logging.getLogger(__name__)

VALIDATION = 2**40  # sample numbers from here on belong to validation, those below to training


def check_degradation(option: str, make: functools.partial[Degradation], folders: PoolFolders) -> None:
    """Raise InputError for options or pools that a degradation cannot use, before pools are made."""
    kind: Any = make.func
    if not (isinstance(kind, type) and issubclass(kind, Degradation)):
        raise InputError(f"{option}._target_={kind.__qualname__}: is no Degradation; choose degradation=NAME")
    kind.check_pools(*folders)
    try:
        inspect.signature(make).bind(**dict.fromkeys(Pools._fields))
    except TypeError as e:
        raise InputError(f"{option}: {e}; leave ~{option}.OPTION out") from e
    if kind.without_pools:
        make()  # its bounds may make no sense


@dataclass(frozen=True)
class Validation:
    """Which pairs a run is measured on, and which photos of the camera are enlarged for looking.

    Args:
        hr: folder of ground truth, of photos that training has not; None: HR images are held out from training.
        lr: folder of its LR images; None: LR is made with held-out kernels and noise.
        count: number of held-out images, at most a fifth of all.
        size: held-out images are cut to this many pixels on a side at most.
        look_count: number of camera photos without ground truth.
        look_size: these are cut to this many pixels on a side at most.
        kernel_dir: kernel pool that LR is made with; None: bicubic.
        noise_dir: noise pool; None: no noise.
        jpeg_dir: pool of JPEG tables; None: no compression.
        degradation: partial of a :class:`realsr.degradation.base.Degradation`, as for training; None: training's.
        seed: of the choice of images and of their degradation; runs of several seeds share it.
    """

    hr: str | None = None
    lr: str | None = None
    count: int = 8
    size: int = 512
    look_count: int = 4
    look_size: int = 128
    kernel_dir: str | None = None
    noise_dir: str | None = None
    jpeg_dir: str | None = None
    degradation: functools.partial[Degradation] | None = None
    seed: int = 0

    @property
    def folders(self) -> PoolFolders:
        """The pools' folders."""
        return PoolFolders.of(self.kernel_dir, self.noise_dir, self.jpeg_dir)

    def check(self, scale: int) -> None:
        """Raise InputError at numbers out of range, such as sizes below the scale, and at LR without ground truth."""
        at_least(1, "data.validation.", count=self.count)
        at_least(0, "data.validation.", look_count=self.look_count, seed=self.seed)
        at_least(scale, "data.validation.", size=self.size, look_size=self.look_size)
        if self.seed >= 2**63:
            raise InputError(f"data.validation.seed={self.seed}: give 0 to {2**63 - 1}")
        if self.lr is not None and self.hr is None:
            raise InputError("data.validation.lr needs data.validation.hr, its ground truth")

    def files(self, scale: int) -> list[PairFiles]:
        """The files of ``hr`` and ``lr``; none where images are held out."""
        return [] if self.hr is None else find_pairs(self.hr, self.lr, scale)

    def pairs(
        self, held: Sequence[StoredImage], scale: int, pools: Pools, degradation: Callable[..., Degradation]
    ) -> list[Pair]:
        """The pairs of ``hr`` and of the ``held`` out images, the same in every run of this seed.

        Raises:
            InputError: an image cannot be read, or is too small for SSIM.
        """
        pairs = read_pairs(self.files(scale))
        pairs += [Pair(image.name, torch.empty(0), middle(image, self.size)) for image in held]
        least = least_side(scale)
        for name, _, hr in pairs:  # before LR is made, and not after a thousand steps
            if hr is not None and min(hr.shape[-2:]) // scale * scale < least:
                raise InputError(
                    f"validation: {name} has {hr.shape[-1]}x{hr.shape[-2]} pixels, and {least} on a side are needed "
                    "for SSIM; raise data.validation.size, or give larger photos (data.validation.hr, if it is given)"
                )
        if self.lr is not None:
            return pairs
        return degraded(pairs, (self.degradation or degradation)(**pools._asdict()).eval(), scale, self.seed)

    def looks(self, source_dir: str | None) -> list[Pair]:
        """Photos of the camera, evenly chosen, without ground truth."""
        if source_dir is None or not self.look_count:
            return []
        photos, looks = find_images(source_dir), []
        for photo in [photos[index] for index in evenly(self.look_count, len(photos))]:
            try:
                looks.append(Pair(photo.stem, middle(read_image(photo).rgb, self.look_size), None))
            except InputError as e:
                log.warning("not shown: %s", e)
        return looks


def hold_out_images(
    source: list[StoredImage], clean: list[StoredImage], count: int, seed: int
) -> tuple[list[StoredImage], list[StoredImage], list[StoredImage]]:
    """Take validation images out of the clean images if there are two or more, else out of the source images.

    At most ``count`` are taken, and at most a fifth, chosen by the seed. Photos with the same pixels, in either list,
    all stay in training or all leave it.

    >>> from pathlib import Path
    >>> images = [StoredImage(Path(name), (9, 9, 3), name, content=name) for name in ("a", "b", "c")]
    >>> [[image.name for image in part] for part in hold_out_images([], images, count=8, seed=0)]
    [[], ['b', 'c'], ['a']]

    Returns:
        The source and the clean images that training keeps, and those held out.
    """
    pool = clean if len(clean) > 1 else source
    if len(pool) > 1:
        count = min(count, max(len(pool) // 5, 1))
        order = np.random.default_rng(draw_seed(seed, VALIDATION)).permutation(len(pool))[:count]
        held = [pool[i] for i in sorted(order)]
        seen = {image.content for image in held}
        kept = [[image for image in images if image.content not in seen] for images in (source, clean)]
        if any(kept):
            return kept[0], kept[1], held
    log.warning("too few photos to hold one out: validation sees a photo of training; give data.validation.hr=DIR")
    return source, clean, (pool or clean)[:1]


def degraded(pairs: Sequence[Pair], degrade: Degradation, scale: int, seed: int) -> list[Pair]:
    """The pairs' HR images, cut to multiples of the scale, with LR made of them; the same in every run of this seed."""
    made = []
    for index, pair in enumerate(pairs):
        assert pair.hr is not None
        generator = torch.Generator().manual_seed(draw_seed(seed, VALIDATION + index))
        height, width = (side // scale * scale for side in pair.hr.shape[-2:])
        hr = pair.hr[..., :height, :width]
        made.append(Pair(pair.name, degrade(hr[None], generator)[0], hr))
    return made


def middle(rgb: Any, size: int) -> Tensor:
    """At most ``size x size`` pixels from the middle of ``(H, W, 3)``, as ``(3, h, w)`` in [0, 1].

    >>> middle(np.full((6, 4, 3), 255, np.uint8), 5).shape
    torch.Size([3, 5, 4])
    """
    y, x = (max((side - size) // 2, 0) for side in rgb.shape[:2])
    return to_float(np.ascontiguousarray(rgb[y : y + size, x : x + size]))
