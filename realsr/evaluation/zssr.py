"""Zero-shot super-resolution (ZSSR; Shocher, Cohen and Irani, CVPR 2018): a small network trained on one photo.

The photo (the "father") is downscaled by the camera's kernel to its "son"; the network learns to enlarge sons to
fathers (:mod:`realsr.evaluation.zssr_pairs`) and then enlarges the photo. With bicubic downscaling it is the rival
``zssr`` of the paper's table, with KernelGAN's kernel (Bell-Kligler et al., NeurIPS 2019) ``k_zssr``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from realsr.estimation.kernels import Kernel
from realsr.evaluation.zssr_pairs import FathersAndSons, kernel_symmetries, second_kernel, shrunk
from realsr.imaging.detail import detailed_window
from realsr.imaging.resample import crop_to_multiple, imresize
from realsr.imaging.symmetries import TURNS, turned, unturned
from realsr.networks.tiling import upscale_tiled
from realsr.runtime.errors import InputError, at_least
from realsr.runtime.hardware import pick_device
from realsr.runtime.single_photo import fit_photo, one_thread

LOOK = 20  # iterations between two measurements of the reconstruction error
LOOKS = 15  # errors that the line is fitted to
FACTOR = 1.5  # the learning rate falls once the errors' scatter exceeds their fall by this factor
SHARES = (0.6, 0.25, 0.15)  # largest shares of the iterations of the three learning rates
SIDE = 128  # side in pixels of the window whose error is measured
TILE = 128  # side in pixels of the tiles of the enlarged photo


class ZSSR(LightningModule):
    """Learns to double the size of one photo from smaller versions of it: a residual to its bicubic enlargement.

    The learning rate is divided by ten when the error of reconstructing the photo from its son stops falling, and
    training ends when it would fall a third time (section 3.2). No rate gets more than its share of the iterations.

    Args:
        iterations: at most.
        again: iterations of the second doubling at most, which continues the first one's network at a third of the
            rate.
        channels: of the inner layers.
        layers: 3x3 convolutions with ReLU between them (section 3.2).
        crop: side of a training crop in pixels, even (128 in the paper).
        learning_rate: of Adam, initial.
        sizes: of the fathers, relative to the photo, in (0, 1].
        noise: standard deviation in levels of 255 of the noise on the sons: the paper takes about 5 for photos of
            cameras, and none for ideal ones.
        back_projections: of each output and of their median; 0 leaves them out.
        seed: of initial weights, crops and noise.
    """

    son: Tensor
    father: Tensor

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
        widths = [3, *[channels] * (layers - 1), 3]
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            convolutions = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
            for convolution in convolutions:
                nn.init.kaiming_normal_(convolution.weight)
            convolutions[-1].weight.mul_(0.01)  # starts as bicubic
        self.body = nn.Sequential(*[layer for c in convolutions for layer in (c, nn.ReLU(inplace=True))][:-1])
        self.dataset = partial(FathersAndSons, crop=crop, sizes=tuple(sizes), noise=noise, seed=seed)
        self.limits, self.rates = (iterations, again), (learning_rate, learning_rate / 3)
        self.layers, self.back_projections = layers, back_projections
        self.register_buffer("son", torch.empty(0))
        self.register_buffer("father", torch.empty(0))

    def pairs(
        self, photo: Tensor, kernel: Tensor | None = None, again: bool = False
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        """The loader of a photo's training, for which the module is prepared; raises InputError if it is too small.

        The photo is ``(3, H, W)`` in [0, 1], its x2 kernel ``(K, K)`` or None for bicubic; ``again`` at the second
        doubling.
        """
        self.iterations, self.rate, self.rates_done = self.limits[again], self.rates[again], 0
        self.errors: list[float] = []  # since the rate last fell
        data = self.dataset(photo, kernel, self.iterations)
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
        return enlarged + self.body(enlarged)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """L1 of the residual."""
        son, father = batch
        return F.l1_loss(self(son), father)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Measure the reconstruction error from time to time, and lower the learning rate."""
        done, settled = batch_idx + 1, False
        if done % LOOK == 0:
            with torch.no_grad():
                self.errors.append(F.l1_loss(self(self.son), self.father).item())
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


def zero_shot(
    lr: Tensor,
    scale: int,
    module: Callable[[], ZSSR],
    kernels: Mapping[int, Kernel] | None = None,
    accelerator: str = "auto",
) -> Tensor:
    """Enlarge a photo by a network trained on it. The result depends on the photo and the settings alone.

    x4 is x2 twice: the first doubling inverts the x2 kernel, the second one that of
    :func:`realsr.evaluation.zssr_pairs.second_kernel`.

    Args:
        lr: ``(3, h, w)`` in [0, 1], on any device.
        scale: 2 or 4.
        module: builds the module to train, e.g. ``functools.partial(ZSSR, iterations=500)``.
        kernels: correlation kernels by scale, as in :class:`realsr.estimation.KernelEstimate`; None is bicubic.
        accelerator: auto, cpu or gpu.

    Returns:
        ``(3, scale*h, scale*w)`` in [0, 1], float32, on the CPU.

    Raises:
        InputError: ``lr`` is too small; there is no such scale, kernel or accelerator.

    >>> from functools import partial
    >>> zero_shot(torch.rand(3, 16, 16), 2, partial(ZSSR, iterations=1, channels=4, layers=2, crop=8)).shape
    torch.Size([3, 32, 32])
    """
    check_zero_shot_scale(scale)
    missing = [] if kernels is None else [size for size in (2, 4) if size <= scale and size not in kernels]
    if missing:
        raise InputError(f"there is no kernel for x{missing[0]}, which ZSSR needs for x{scale}")
    network, first = module(), None if kernels is None else torch.from_numpy(kernels[2]).float()
    with one_thread():
        sr = _doubled(lr.detach().cpu().float(), first, network, accelerator)
        if scale == 2:
            return sr
        second = None if kernels is None else second_kernel(kernels[2], kernels[4])
        return _doubled(sr, second, network, accelerator, again=True)


def check_zero_shot_scale(scale: int) -> None:
    """Raise InputError if the scale is neither 2 nor 4."""
    if scale not in (2, 4):
        raise InputError(f"scale={scale}: ZSSR doubles photos, once or twice; take 2 or 4")


def _doubled(lr: Tensor, kernel: Tensor | None, module: ZSSR, accelerator: str, again: bool = False) -> Tensor:
    """Train on ``lr``, then apply the network in all orientations that keep the kernel."""
    fit_photo(module, module.pairs(lr, kernel, again), accelerator)
    network, times = module.to(pick_device(accelerator)), module.back_projections

    def enlarged(image: Tensor) -> Tensor:
        # a 3x3 layer sees one pixel further, so tiles with this overlap have no seams
        return upscale_tiled(network, imresize(image, 2)[None].to(network.device), 1, TILE, network.layers)[0]

    outputs = self_ensemble(enlarged, lr, kernel_symmetries(kernel))
    if not bool(torch.isfinite(outputs).all()):
        raise InputError("ZSSR's training diverged: lower zssr.learning_rate")
    outputs = torch.stack([back_projected(sr, lr, 2, kernel, times) for sr in outputs])
    median = torch.from_numpy(np.median(outputs.numpy(), 0))
    return back_projected(median, lr, 2, kernel, times).clamp(0, 1)


def back_projected(sr: Tensor, lr: Tensor, scale: int, kernel: Tensor | None = None, times: int = 1) -> Tensor:
    """Correct ``sr (3, s*H, s*W)`` so that its downscaled version comes closer to ``lr`` (Irani and Peleg, 1991).

    Each of the steps adds the difference, enlarged by bicubic; ``kernel (K, K)`` is that of ``lr``, None is bicubic.
    """
    for _ in range(times):
        sr = sr + imresize(lr - shrunk(sr, scale, kernel), scale)
    return sr


def self_ensemble(network: Callable[[Tensor], Tensor], image: Tensor, symmetries: Iterable[int] = TURNS) -> Tensor:
    """A network's outputs on an image ``(3, H, W)`` in some orientations, transformed back: ``(T, 3, H', W')``."""
    return torch.stack([unturned(network(turned(image, index)), index) for index in symmetries])
