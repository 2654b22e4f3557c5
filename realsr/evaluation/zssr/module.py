"""ZSSR's network and its training on one photo."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from realsr.evaluation.zssr.pairs import FathersAndSons, shrunk
from realsr.imaging.detail import detailed_window
from realsr.imaging.resample import crop_to_multiple, imresize
from realsr.runtime.errors import InputError, at_least

LOOK = 20  # iterations between two measurements of the reconstruction error
LOOKS = 15  # errors that the line is fitted to
FACTOR = 1.5  # the learning rate falls once the errors' scatter exceeds their fall by this factor
SHARES = (0.6, 0.25, 0.15)  # largest shares of the iterations of the three learning rates
SIDE = 128  # side in pixels of the window whose error is measured


class ZSSRNetwork(nn.Module):
    """3x3 convolutions, ``channels`` wide, with ReLU: adds a residual to the bicubic enlargement (ZSSR, 3.2).

    >>> ZSSRNetwork(channels=8, layers=3)(torch.rand(1, 3, 16, 12)).shape
    torch.Size([1, 3, 16, 12])
    """

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        widths = [3, *[channels] * (layers - 1), 3]
        convolutions = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight)
        with torch.no_grad():
            convolutions[-1].weight.mul_(0.01)  # starts as bicubic
        self.body = nn.Sequential(*[layer for c in convolutions for layer in (c, nn.ReLU(inplace=True))][:-1])

    def forward(self, enlarged: Tensor) -> Tensor:
        """``(N, 3, H, W)`` to the same, in [0, 1]."""
        return enlarged + self.body(enlarged)


class ZSSR(LightningModule):
    """Learns to double the size of one photo from smaller versions of it.

    The learning rate is divided by ten when the error of reconstructing the photo from its son stops falling, and
    training ends when it would fall a third time (section 3.2). No rate gets more than its share of the iterations.

    Args:
        iterations: at most.
        again: iterations of the second doubling at most, which continues the first one's network at a third of the
            rate.
        channels: of the network's inner layers.
        layers: of the network.
        crop: side of a training crop in pixels, even (128 in the paper).
        learning_rate: of Adam, initial.
        sizes: of the fathers, relative to the photo, in (0, 1].
        noise: standard deviation in levels of 255 of the noise on the sons: the paper takes about 5 for photos of
            cameras, and none for ideal ones.
        back_projections: of each output and of their median; 0 leaves them out.
        seed: of initial weights, crops and noise.
    """

    def __init__(
        self,
        iterations: int = 1000,
        again: int = 200,
        channels: int = 64,
        layers: int = 8,
        crop: int = 64,
        learning_rate: float = 1e-3,
        sizes: Sequence[float] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
        noise: float = 0.0,
        back_projections: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, "zssr.", iterations=iterations, again=again, channels=channels)
        at_least(2, "zssr.", layers=layers)
        at_least(0, "zssr.", learning_rate=learning_rate, noise=noise, back_projections=back_projections, seed=seed)
        if crop < 8 or crop % 2:
            raise InputError(f"zssr.crop={crop}: give an even number of 8 or more")
        if not sizes or not all(0.25 <= size <= 1 for size in sizes):
            raise InputError(f"zssr.sizes={list(sizes)}: give numbers from 0.25 to 1")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = ZSSRNetwork(channels, layers)
        self.limits = (iterations, again)
        self.iterations, self.rate = iterations, learning_rate  # of this doubling
        self.layers, self.crop, self.sizes, self.noise = layers, crop, tuple(sizes), noise
        self.learning_rate, self.back_projections, self.seed = learning_rate, back_projections, seed
        self.son, self.father = torch.empty(0), torch.empty(0)
        self.errors: list[float] = []  # since the rate last fell
        self.rates_done = 0
        self.place = self.device  # of the training; Lightning leaves the network on the CPU

    def pairs(
        self, photo: Tensor, kernel: Tensor | None = None, again: bool = False
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        """The loader of a photo's training, for which the module is prepared; raises InputError if it is too small.

        The photo is ``(3, H, W)`` in [0, 1], its x2 kernel ``(K, K)`` or None for bicubic; ``again`` at the second
        doubling.
        """
        self.iterations = self.limits[again]
        self.rate = self.learning_rate / 3 if again else self.learning_rate
        self.errors, self.rates_done = [], 0
        data = FathersAndSons(photo, kernel, self.iterations, self.crop, self.sizes, self.noise, self.seed)
        rows, columns = detailed_window(photo.movedim(0, -1).numpy(), SIDE)
        self.father = crop_to_multiple(photo[:, rows, columns], 2)[None]
        self.son = imresize(shrunk(self.father, 2, kernel), 2)
        # its own generator, since a loader draws a seed when it starts
        return DataLoader(data, batch_size=1, generator=torch.Generator())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), self.rate)

    def forward(self, enlarged: Tensor) -> Tensor:
        """``(N, 3, H, W)`` enlarged by bicubic to the network's estimate of the same size."""
        return self.network(enlarged)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """L1 of the residual."""
        son, father = batch
        return F.l1_loss(self.network(son), father)

    def on_train_start(self) -> None:
        """Move the reconstruction's images to the device."""
        self.place = self.device
        self.son, self.father = self.son.to(self.device), self.father.to(self.device)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Measure the reconstruction error from time to time, and lower the learning rate."""
        done, settled = batch_idx + 1, False
        if done % LOOK == 0:
            with torch.no_grad():
                self.errors.append(F.l1_loss(self.network(self.son), self.father).item())
            settled = has_settled(self.errors)
        if settled or done >= self.iterations * sum(SHARES[: self.rates_done + 1]):
            self.errors, self.rates_done = [], self.rates_done + 1
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] /= 10
            self.trainer.should_stop = self.rates_done == len(SHARES)


def has_settled(errors: Sequence[float], looks: int = LOOKS, factor: float = FACTOR) -> bool:
    """Whether the last ``looks`` errors scatter about a fitted line by ``factor`` times more than they fall along it.

    The scatter is a standard deviation; the fall is that from the first to the last of them. False for fewer errors.

    >>> has_settled([3.0, 2.0, 1.0], looks=3), has_settled([1.0, 1.2, 1.0], looks=3)
    (False, True)
    """
    if len(errors) < looks:
        return False
    place, last = np.arange(looks), np.array(errors[-looks:])
    line = np.polyfit(place, last, 1)
    return bool(np.std(last - np.polyval(line, place)) > -factor * line[0] * (looks - 1))
