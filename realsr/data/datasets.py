"""HR crops for training, and whole (lr, hr) pairs for validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import albumentations as A
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from realsr.data.tiles import Pixels
from realsr.errors import InputError

TURNS = ("e", "r90", "r180", "r270", "v", "hvt", "h", "t")  # albumentations' names of a square's eight symmetries


def draw_seed(*key: int) -> int:
    """A 63-bit seed from integers: equal keys give equal seeds, any other key an unrelated one."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Image(Protocol):
    """What crops are cut from: a :class:`realsr.data.tiles.TiledImage`, an array, or what else can be cut likewise."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(H, W, 3)``."""

    def __getitem__(self, cut: tuple[slice, slice], /) -> Pixels:
        """``image[y0:y1, x0:x1]``: uint8 RGB."""


class Images(Protocol):
    """A sequence of images."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Image: ...


@runtime_checkable
class InTurn(Protocol):
    """Images that are not drawn: each has its turn (:class:`realsr.data.sharded.ShardedImages`)."""

    def in_turn(self, number: int, /) -> int:
        """The index of the image for the items of place ``number``."""

    def name(self, index: int, /) -> str:
        """Of an image, without reading it."""


class HRCrops(Dataset[dict[str, Any]]):
    """Random crops, flips and 90 degree rotations of stored HR images.

    Item ``i`` is a function of ``(seed, i)`` alone: photo, place and turn are drawn from them. So a run draws the
    same crops whatever the number of workers, and resumes exactly from a step's number.

    Args:
        source: cleaned-up source photos.
        clean: clean photos.
        source_share: probability of a crop to come from ``source``, where there are both.
        crop: side in pixels, the degradation's margins included. Smaller images are mirrored to that size.
        seed: of the run.
        crops_per_read: so many items with consecutive numbers are cut from one place, which is read once: a square of
            as many pixels. It saves reading where that is slow, and makes the crops of a batch more alike.
    """

    def __init__(
        self,
        source: Images,
        clean: Images,
        source_share: float,
        crop: int,
        seed: int,
        crops_per_read: int = 1,
    ) -> None:
        self.source, self.clean, self.crop, self.seed = source, clean, crop, seed
        self.source_share = source_share if len(source) and len(clean) else float(len(source) > 0)
        self.crops_per_read = crops_per_read
        self.turn = A.D4()
        self.read_last: tuple[int, Pixels, Any, Any] | None = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"hr": (3, crop, crop) uint8, "index": index}``."""
        place, member = divmod(index, self.crops_per_read)
        if self.read_last is None or self.read_last[0] != place:
            self.read_last = place, *self._read(place)
        _, region, corners, turns = self.read_last
        y, x = corners[member]
        crop = region[y : y + self.crop, x : x + self.crop]
        # called as a whole, albumentations takes 20 times as long, and draws from a generator that no seed reaches
        turned = self.turn.apply(crop, group_element=TURNS[turns[member]])
        return {"hr": torch.from_numpy(np.ascontiguousarray(turned.transpose(2, 0, 1))), "index": index}

    def files(self, indices: Sequence[int]) -> list[str]:
        """Names of the images that items are cut from, to tell a user."""
        names = []
        for images, number, _ in (self._draw(index // self.crops_per_read) for index in indices):
            name = images.name(number) if isinstance(images, InTurn) else getattr(images[number], "name", number)
            names.append(f"{'source' if images is self.source else 'clean'}/{name}")
        return names

    def _draw(self, place: int) -> tuple[Images, int, np.random.Generator]:
        """The images that a place is in, the number of its image, and the generator for what is left to draw."""
        rng = np.random.default_rng([self.seed, place])
        images = self.source if rng.random() < self.source_share else self.clean
        return images, images.in_turn(place) if isinstance(images, InTurn) else int(rng.integers(len(images))), rng

    def _read(self, place: int) -> tuple[Pixels, Any, Any]:
        """What is read for the items of one place: pixels, and for each item its corner in them and its turn."""
        images, number, rng = self._draw(place)
        image = images[number]
        side = self.crop * math.ceil(math.sqrt(self.crops_per_read))
        y, x = (int(rng.integers(max(length - side, 0) + 1)) for length in image.shape[:2])
        region = image[y : y + side, x : x + side]
        if min(region.shape[:2]) < self.crop:
            lack = [max(self.crop - length, 0) for length in region.shape[:2]]
            region = np.pad(region, [*((n // 2, n - n // 2) for n in lack), (0, 0)], "symmetric")
        room = [length - self.crop + 1 for length in region.shape[:2]]
        return region, rng.integers(room, size=(self.crops_per_read, 2)), rng.integers(8, size=self.crops_per_read)


class StepSampler(Sampler[int]):
    """Sample numbers of the training steps ``start .. steps``: rank by rank, batch by batch, each number once.

    Its length is that of the whole run, since Lightning counts a resumed run's batches from zero, and one step
    more, so that the last step does not end the epoch: a finished run can then go on with more steps.

    Args:
        start: steps that are done already.
        steps: of the whole run.
        batch: samples of a step on one device; all devices have as many.
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


def share(batch: int, devices: int) -> int:
    """How many samples of a step's batch each device takes.

    Raises:
        InputError: not all would take as many.
    """
    each, rest = divmod(batch, devices)
    if rest:
        fitting = " or ".join(str(n * devices) for n in (each, each + 1) if n)
        counts = " or ".join(str(n) for n in range(devices, 0, -1) if batch % n == 0)
        raise InputError(
            f"data.batch_size={batch} over {devices} devices: it is the batch of a step, and each device takes as much "
            f"of it; choose data.batch_size={fitting}, or {counts} devices"
        )
    return each


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
