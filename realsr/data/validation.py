"""What validation sees: HR images held out from training with LR made of them, and camera photos to look at."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from realsr.data.datasets import Pair, draw_seed
from realsr.data.store import StoredImage
from realsr.degradation.paper import Degradation
from realsr.imaging import read_image, to_float
from realsr.imaging.metrics import least_side
from realsr.runtime.errors import InputError
from realsr.runtime.evenly import evenly
from realsr.runtime.files import find_images

log = logging.getLogger(__name__)

VALIDATION = 2**40  # sample numbers from here on belong to validation, those below to training


def hold_out_images(
    source: list[StoredImage], clean: list[StoredImage], count: int, seed: int
) -> tuple[list[StoredImage], list[StoredImage], list[StoredImage]]:
    """Take validation images out of the clean images if there are two or more, else of the source images.

    Args:
        source: cleaned-up source images.
        clean: clean ones. Of photos with the same pixels, in either, training keeps all or none.
        count: to take at most, and at most a fifth.
        seed: of the choice.

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
    log.warning("too few photos to hold one out: validation sees a photo of training; give data.val_hr=DIR")
    return source, clean, (pool or clean)[:1]


def degraded(pairs: Sequence[Pair], degrade: Degradation, scale: int, seed: int) -> list[Pair]:
    """The pairs' HR images with LR made of them, the same in every run of this seed."""
    made = []
    for index, pair in enumerate(pairs):
        assert pair.hr is not None
        generator = torch.Generator().manual_seed(draw_seed(seed, VALIDATION + index))
        height, width = (side // scale * scale for side in pair.hr.shape[-2:])
        hr = pair.hr[..., :height, :width]
        made.append(Pair(pair.name, degrade(hr[None], generator)[0], hr))
    return made


def check_sizes(pairs: Sequence[Pair], scale: int) -> None:
    """Raise InputError if an image is too small to be measured: before LR is made, and not after a thousand steps."""
    least = least_side(scale)
    for name, _, hr in pairs:
        if hr is not None and min(hr.shape[-2:]) // scale * scale < least:
            raise InputError(
                f"validation: {name} has {hr.shape[-1]}x{hr.shape[-2]} pixels, and {least} on a side are needed for "
                "SSIM; raise data.val_size, or give larger photos (data.val_hr, if it is given)"
            )


def look_photos(source_dir: str | None, count: int, size: int) -> list[Pair]:
    """``count`` photos of a folder, evenly chosen, cut to ``size`` pixels on a side; without ground truth."""
    if source_dir is None or not count:
        return []
    photos = find_images(source_dir)
    looks = []
    for index in evenly(count, len(photos)):
        try:
            looks.append(Pair(photos[index].stem, middle(read_image(photos[index]).rgb, size), None))
        except InputError as e:
            log.warning("not shown: %s", e)
    return looks


def middle(rgb: Any, size: int) -> Tensor:
    """At most ``size x size`` pixels from the middle of ``(H, W, 3)``, as ``(3, h, w)`` in [0, 1]."""
    y, x = (max((side - size) // 2, 0) for side in rgb.shape[:2])
    return to_float(np.ascontiguousarray(rgb[y : y + size, x : x + size]))
