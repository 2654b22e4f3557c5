"""HR crops for training, and whole (lr, hr) pairs for validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler


def draw_seed(*key: int) -> int:
    """A 63-bit seed from integers: equal keys give equal seeds, any other key an unrelated one."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


class HRCrops(Dataset[dict[str, Any]]):
    """Random crops, flips and 90 degree rotations of stored HR images.

    Item ``i`` is a function of ``(seed, i)`` alone: photo, place and turn are drawn from them. So a run draws the
    same crops whatever the number of workers, and resumes exactly from a step's number.

    Args:
        source: ``.npy`` files of cleaned-up source photos.
        clean: ``.npy`` files of clean photos.
        source_share: probability of a crop to come from ``source``, where there are both.
        crop: side in pixels, the degradation's margins included. Smaller images are mirrored to that size.
        seed: of the run.
    """

    def __init__(
        self, source: Sequence[Path], clean: Sequence[Path], source_share: float, crop: int, seed: int
    ) -> None:
        self.source, self.clean, self.seed = list(source), list(clean), seed
        self.source_share = source_share if self.source and self.clean else float(bool(self.source))
        self.transform = A.Compose(
            [
                A.PadIfNeeded(crop, crop, border_mode=cv2.BORDER_REFLECT, p=1.0),
                A.RandomCrop(crop, crop, p=1.0),
                A.HorizontalFlip(p=0.5),
                A.RandomRotate90(p=1.0),
            ]
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"hr": (3, crop, crop) uint8, "index": index}``."""
        rng = np.random.default_rng([self.seed, index])
        files = self.source if rng.random() < self.source_share else self.clean
        image = np.load(files[int(rng.integers(len(files)))], mmap_mode="r")
        # albumentations draws from a generator of its own, which no global seed reaches
        self.transform.set_random_seed(int(rng.integers(2**31)))
        crop = self.transform(image=image)["image"]
        return {"hr": torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))), "index": index}


class StepSampler(Sampler[int]):
    """Sample numbers of the training steps ``start .. steps``: rank by rank, batch by batch, each number once.

    Its length is that of the whole run, since Lightning counts a resumed run's batches from zero, and one step
    more, so that the last step does not end the epoch: a finished run can then go on with more steps.

    Args:
        start: steps that are done already.
        steps: of the whole run.
        batch: samples of a step on one device.
        rank: of this process.
        world: number of processes.
    """

    def __init__(self, start: int, steps: int, batch: int, rank: int = 0, world: int = 1) -> None:
        self.start, self.steps, self.batch, self.rank, self.world = start, steps, batch, rank, world

    def __iter__(self) -> Iterator[int]:
        for step in range(self.start, self.steps + 1):
            first = (step * self.world + self.rank) * self.batch
            yield from range(first, first + self.batch)

    def __len__(self) -> int:
        return (self.steps + 1) * self.batch


class Pair(NamedTuple):
    """One validation image.

    Attributes:
        name: for tables and files.
        lr: ``(3, h, w)`` in [0, 1].
        hr: ``(3, s*h, s*w)`` in [0, 1], or None where there is no ground truth.
    """

    name: str
    lr: Tensor
    hr: Tensor | None
