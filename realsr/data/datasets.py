"""HR crops for training, and whole (lr, hr) pairs for validation."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import albumentations as A
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from realsr.data.store import Pixels, StoredImage
from realsr.runtime.errors import InputError

Image = StoredImage | Pixels  # that crops are cut from


def draw_seed(*key: int) -> int:
    """A 63-bit seed from integers: equal keys give equal seeds, any other key an unrelated one.

    >>> draw_seed(0, 7) == draw_seed(0, 7), draw_seed(0, 7) == draw_seed(1, 7)
    (True, False)
    """
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


class HRCrops(Dataset[dict[str, Any]]):
    """Random crops of stored HR images, augmented.

    Item ``i`` is a function of ``(seed, i)`` alone. So a run draws the same crops whatever the number of workers, and
    resumes exactly from a step's number.

    >>> crops = HRCrops([], [np.zeros((40, 40, 3), np.uint8)], 0.5, 32, seed=0, augment=A.Compose([A.D4()]))
    >>> crops[5]["hr"].shape
    torch.Size([3, 32, 32])

    Args:
        source: cleaned-up source photos; ``clean`` has clean ones.
        source_share: probability of a crop to come from ``source``, where there are both.
        crop: side in pixels, the degradation's margins included. Smaller images are mirrored to that size.
        augment: makes of a crop ``(crop, crop, 3)`` uint8 one of the same shape and type.

    Raises:
        InputError: ``augment`` makes something else.
    """

    def __init__(
        self,
        source: Sequence[Image],
        clean: Sequence[Image],
        source_share: float,
        crop: int,
        seed: int,
        augment: A.Compose,
    ) -> None:
        self.source, self.clean, self.crop, self.seed, self.augment = source, clean, crop, seed, augment
        self.source_share = source_share if len(source) and len(clean) else float(len(source) > 0)
        made = augment(image=np.zeros((crop, crop, 3), np.uint8))["image"]
        if made.shape != (crop, crop, 3) or made.dtype != np.uint8:
            raise InputError(
                f"augment: makes {made.shape} {made.dtype} of crops ({crop}, {crop}, 3) uint8; "
                "leave out transforms that change sizes or types"
            )

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"hr": (3, crop, crop) uint8, "index": index}``."""
        image, _, rng = self._draw(index)
        y, x = (int(rng.integers(max(length - self.crop, 0) + 1)) for length in image.shape[:2])
        hr = image[y : y + self.crop, x : x + self.crop]
        if min(hr.shape[:2]) < self.crop:
            lack = [self.crop - length for length in hr.shape[:2]]
            hr = np.pad(hr, [*((n // 2, n - n // 2) for n in lack), (0, 0)], "symmetric")
        self.augment.set_random_seed(int(rng.integers(2**32)))
        hr = self.augment(image=hr)["image"]
        return {"hr": torch.from_numpy(np.ascontiguousarray(hr.transpose(2, 0, 1))), "index": index}

    def files(self, indices: Sequence[int]) -> list[str]:
        """Names of the images that items are cut from, for messages."""
        return [self._draw(index)[1] for index in indices]

    def _draw(self, index: int) -> tuple[Image, str, np.random.Generator]:
        """An item's image, its name, and the generator for further draws."""
        rng = np.random.default_rng([self.seed, index])
        kind, images = ("source", self.source) if rng.random() < self.source_share else ("clean", self.clean)
        number = int(rng.integers(len(images)))
        return images[number], f"{kind}/{getattr(images[number], 'name', number)}", rng


class StepSampler(Sampler[int]):
    """Sample numbers of the training steps from ``start`` to ``steps``, each once in the ``world`` of processes.

    Each process, of which this is number ``rank``, takes ``batch`` of them in a step. The length is that of the whole
    run, since Lightning counts a resumed run's batches from zero, and one step more, so that the last step does not
    end the epoch: a finished run can then go on with more steps.

    >>> list(StepSampler(start=1, steps=2, batch=2, rank=0, world=2))
    [4, 5, 8, 9]
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
    """How many samples of a step's batch each device takes; raises InputError if they cannot be shared out evenly.

    >>> share(16, devices=4)
    4
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


class TimedLoader(DataLoader[Any]):
    """Counts the seconds that its batches were waited for, which Lightning tells its profiler alone."""

    waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        began = time.perf_counter()
        for batch in super().__iter__():
            self.waited += time.perf_counter() - began
            yield batch
            began = time.perf_counter()


class Pair(NamedTuple):
    """One validation image, by its name: ``lr (3, h, w)`` and ``hr (3, s*h, s*w)`` in [0, 1]; None: no ground truth."""

    name: str
    lr: Tensor
    hr: Tensor | None
