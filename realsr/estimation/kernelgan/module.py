"""KernelGAN's training on the crops of one photo."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from realsr.estimation.crops import CropPairs, Map
from realsr.estimation.kernelgan import losses
from realsr.estimation.kernelgan.networks import PATCH, LinearGenerator, PatchCritic
from realsr.estimation.kernels import Kernel, recentre, suppress_small, x4_from_x2
from realsr.runtime.errors import at_least

# Weights of the generator's losses besides the adversarial one (weight 1), from the KernelGAN program.
SUM, BOUNDARY, CENTRE, SPARSITY = 0.5, 0.5, 1.0, 5.0
BICUBIC_START, BICUBIC_END = 5.0, 5e-6
NOISE = 1 / 255  # standard deviation of the noise on the critic's inputs, on crops in [-1, 1]
LOWER = 750  # iterations after which the learning rate is divided by ten
BLOCK = 200  # iterations of a batch, after which the weights of the losses change


class KernelGAN(LightningModule):
    """Trains a linear generator until a critic cannot tell the downscaled photo's patches from the photo's own.

    A batch has up to 200 iterations, ``(g_crops, d_crops)`` of :class:`realsr.estimation.crops.CropPairs`, without
    synchronisation between them. The critic's noise is drawn anew in each; the original program adds it to the photo in
    place, where it accumulates.

    Args:
        scale: of the estimated kernel, 2 in the paper (a x4 kernel is derived from it).
        iterations: at most, each a step of generator and critic (3000).
        channels: width of both networks (64).
        crop: side of the generator's input in pixels (64).
        learning_rate: initial, of both networks (2e-4).
        settled: training ends after a batch that changed the kernel by less than this (0.02), in relative L1, once all
            losses are active; 0 runs all iterations.
        mixed_colours: see :func:`realsr.estimation.kernelgan.losses.bicubic_target`.
        seed: of initial weights, crops and noise.
    """

    def __init__(
        self,
        scale: int = 2,
        iterations: int = 3000,
        channels: int = 64,
        crop: int = 64,
        learning_rate: float = 2e-4,
        settled: float = 0.02,
        mixed_colours: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, "estimator.", iterations=iterations, channels=channels)
        at_least(2, "estimator.", scale=scale)
        at_least(0, "estimator.", learning_rate=learning_rate, settled=settled, seed=seed)
        self.automatic_optimization = False
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.generator = LinearGenerator(scale, channels)
            self.critic = PatchCritic(channels)
        size = self.generator.kernel_size
        # the critic's patches need an output of one pixel more, for its normalisation
        at_least(size + PATCH * scale, "estimator.", crop=crop)
        self.scale, self.iterations, self.crop, self.seed = scale, iterations, crop, seed
        self.learning_rate, self.settled, self.mixed_colours = learning_rate, settled, mixed_colours
        self.output_size = (crop - size) // scale + 1
        self.mask: Tensor
        self.bicubic: Tensor
        self.register_buffer("mask", losses.boundary_mask(size).float(), persistent=False)
        self.register_buffer("bicubic", losses.bicubic_matrix(crop, self.output_size, scale).float(), persistent=False)
        self.bicubic_weight = BICUBIC_START
        self.agreements = 0  # consecutive iterations with a bicubic loss under 0.4; it stays at 3
        self.constrained = False  # whether centre and sparsity losses are active
        self.scales = (2, 4) if scale == 2 else (scale,)
        self.density: Map = np.zeros((0, 0))
        self.iterations_done = 0
        self.losses: dict[str, Tensor] = {}

    def crops(self, image: Tensor) -> DataLoader[tuple[Tensor, Tensor]]:
        """The loader of a photo ``(3, H, W)`` in [0, 1]; raises InputError if it is smaller than a crop, or flat."""
        pairs = CropPairs(image, self.iterations, self.crop, self.output_size, self.scale, self.seed)
        self.density = pairs.density
        # its own generator, since a loader draws a seed when it starts
        return DataLoader(pairs, batch_size=BLOCK, generator=torch.Generator())

    def configure_optimizers(self) -> Any:
        """Adam with beta1 0.5 for both networks; they share no parameters, so one optimiser equals two."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate, (0.5, 0.999), fused=True)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, LOWER, 0.1)]

    def on_train_start(self) -> None:
        """Draw noise from a generator of this photo alone, so that nothing that runs beside it changes the result."""
        self.noise = torch.Generator(self.device).manual_seed(self.seed)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Up to 200 iterations, each one backward pass and one step for both networks on one generator output."""
        g_crops, d_crops = batch
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        scheduler: Any = self.lr_schedulers()
        targets = losses.bicubic_target(g_crops, self.bicubic, self.mixed_colours)
        shape = (len(d_crops), 2, *d_crops.shape[1:])
        noise = NOISE * torch.randn(shape, generator=self.noise, device=self.device, dtype=d_crops.dtype)
        before, bicubic = self.kernel(), []
        for inputs in zip(g_crops[:, None], targets[:, None], d_crops[:, None], noise, strict=True):
            optimizer.zero_grad()
            self.losses = self.both_losses(*inputs)
            torch.autograd.backward(self.losses["total"] + self.losses["critic"])
            optimizer.step()
            scheduler.step()
            bicubic.append(self.losses["bicubic"].detach())
        self.losses = {name: loss.detach() for name, loss in self.losses.items()}
        self.iterations_done += len(bicubic)
        after = self.kernel()
        if self.constrained and np.abs(after - before).sum() / np.abs(after).sum() < self.settled:
            self.trainer.should_stop = True
        self._update_weights(torch.stack(bicubic).tolist())

    def both_losses(self, g_crop: Tensor, target: Tensor, d_crop: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """:meth:`generator_losses`, whose ``total`` trains the generator alone, and ``critic``, for the critic alone.

        ``g_crop`` is ``(1, 3, crop, crop)`` in [-1, 1]; ``target`` of the bicubic loss, the real ``d_crop`` and
        ``noise``, one on it and one on the fake, have ``output_size`` pixels on a side.
        """
        kernel = self.generator.kernel()
        fake = self.generator(g_crop, kernel)
        # scores lie in [0, 1], so the mean distance to 0 or 1 is the distance of the mean
        score, on_real, on_fake = self.critic(fake, torch.cat([d_crop, fake.detach()]) + noise).mean(1).unbind()
        return {**self.generator_losses(kernel, fake, target, score), "critic": (1 - on_real + on_fake) / 2}

    def generator_losses(self, kernel: Tensor, fake: Tensor, target: Tensor, score: Tensor) -> dict[str, Tensor]:
        """All terms unweighted, and ``total`` with this stage's weights; ``score`` is the critic's mean on ``fake``."""
        terms = {
            "adversarial": 1 - score,
            "bicubic": ((fake - target) ** 2).mean(),
            "sum": (1 - kernel.sum()).abs(),
            "boundary": (kernel * self.mask).abs().mean(),
            "centre": losses.centre_loss(kernel, self.scale),
            "sparsity": (kernel.abs() ** 0.2).mean(),
        }
        total = terms["adversarial"] + self.bicubic_weight * terms["bicubic"]
        total = total + SUM * terms["sum"] + BOUNDARY * terms["boundary"]
        if self.constrained:
            total = total + CENTRE * terms["centre"] + SPARSITY * terms["sparsity"]
        return {**terms, "total": total}

    @torch.no_grad()
    def kernel(self) -> Kernel:
        """The composed 13x13 kernel without clean-up."""
        return self.generator.kernel().cpu().double().numpy()

    def kernels(self) -> dict[int, Kernel]:
        """The kernels of all ``scales``, cleaned up."""
        kernel = recentre(suppress_small(self.kernel()), self.scale)
        return {self.scale: kernel, 4: x4_from_x2(kernel)} if self.scale == 2 else {self.scale: kernel}

    def confidence(self) -> tuple[float, list[str]]:
        """Confidence in the kernel in [0, 1] and the reasons that lower it, by its sum and its energy at the border.

        The critic's score does not help: it is the same for good and bad kernels.
        """
        if (off := self.losses["sum"].item()) >= 0.5:
            return 0.0, [f"has not converged, its sum is off by {off:.2f}: give more iterations"]
        size = np.abs(self.kernel())
        border = 1 - float(size[2:-2, 2:-2].sum() / size.sum())
        reasons = [f"{border:.0%} of the kernel is at its border"] if border > 0.03 else []
        return float(np.clip((0.1 - border) / 0.08, 0, 1)), reasons

    def _update_weights(self, bicubic: list[float]) -> None:
        """KernelGAN's schedule, by the batch's bicubic losses: first bicubic, then free, then centred and sparse."""
        for iteration, loss in enumerate(bicubic, start=1):
            if self.agreements < 3:
                self.agreements = self.agreements + 1 if loss < 0.4 else 0
            elif iteration == BLOCK:
                self.bicubic_weight = max(self.bicubic_weight / 100, BICUBIC_END)
                self.constrained = self.constrained or self.bicubic_weight < 5e-3
