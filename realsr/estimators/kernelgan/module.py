"""KernelGAN's training of one photo, as a LightningModule; the data are that photo's crops."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from realsr.errors import at_least
from realsr.estimators.kernelgan import losses
from realsr.estimators.kernelgan.networks import LinearGenerator, PatchCritic
from realsr.kernels import Kernel

# Weights of the generator's losses besides the adversarial one (weight 1), from the KernelGAN program.
SUM, BOUNDARY, CENTRE, SPARSITY = 0.5, 0.5, 1.0, 5.0
BICUBIC_START, BICUBIC_END = 5.0, 5e-6
NOISE = 1 / 255  # standard deviation of what is added to the critic's inputs, on crops in [-1, 1]


class KernelGAN(LightningModule):
    """Trains a linear generator until a critic cannot tell the downscaled photo's patches from the photo's own.

    A batch is ``(g_crop, d_crop)`` as :class:`realsr.estimators.crops.CropPairs` gives it. The critic's noise is
    drawn afresh each time; the original program adds it to the photo in place, where it piles up.

    Args:
        scale: of the kernel that is estimated, 2 in the paper (a x4 kernel is derived from it).
        iterations: one step of both players each (3000).
        channels: width of both networks (64).
        crop: side of the generator's input in pixels (64).
        learning_rate: of both Adams (2e-4), divided by ten every ``lr_every`` iterations.
        lr_every: 750.
        mixed_colours: see :func:`realsr.estimators.kernelgan.losses.bicubic_target`.
        seed: of initial weights, crops and noise.
    """

    def __init__(
        self,
        scale: int = 2,
        iterations: int = 3000,
        channels: int = 64,
        crop: int = 64,
        learning_rate: float = 2e-4,
        lr_every: int = 750,
        mixed_colours: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, "estimator.", iterations=iterations, channels=channels, lr_every=lr_every)
        at_least(2, "estimator.", scale=scale)
        at_least(0, "estimator.", learning_rate=learning_rate, seed=seed)
        self.automatic_optimization = False
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.generator = LinearGenerator(scale, channels)
            self.critic = PatchCritic(channels)
        # the critic's 7x7 patches need an output of 8 pixels, for BatchNorm
        at_least(self.generator.kernel_size + 7 * scale, "estimator.", crop=crop)
        self.scale, self.iterations, self.crop, self.seed = scale, iterations, crop, seed
        self.learning_rate, self.lr_every, self.mixed_colours = learning_rate, lr_every, mixed_colours
        self.output_size = (crop - self.generator.kernel_size) // scale + 1
        self.mask: Tensor
        self.register_buffer("mask", losses.boundary_mask(self.generator.kernel_size).float(), persistent=False)
        self.bicubic_weight = BICUBIC_START
        self.agreements = 0  # iterations in a row whose bicubic loss was under 0.4; 3 and more: agreed for good
        self.constrained = False  # whether centre and sparsity count yet
        self.losses: dict[str, Tensor] = {}

    def configure_optimizers(self) -> Any:
        """Adam with beta1 0.5 for both players."""
        optimizers = [
            torch.optim.Adam(player.parameters(), self.learning_rate, (0.5, 0.999))
            for player in (self.generator, self.critic)
        ]
        return optimizers, [torch.optim.lr_scheduler.StepLR(o, self.lr_every, 0.1) for o in optimizers]

    def on_train_start(self) -> None:
        """Noise comes from a generator of this photo's own, so nothing that runs beside it can change it."""
        self.noise = torch.Generator(self.device).manual_seed(self.seed)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Generator first, then the critic on the same output."""
        g_crop, d_crop = batch
        g_optimizer, d_optimizer = self.optimizers()  # type: ignore[attr-defined]
        kernel = self.generator.kernel()
        fake = self.generator(g_crop, kernel)

        self.critic.requires_grad_(False)
        self.losses = self.generator_losses(g_crop, kernel, fake, self.critic(fake))
        g_optimizer.zero_grad()
        self.manual_backward(self.losses["total"])
        g_optimizer.step()
        self.critic.requires_grad_(True)

        verdict_real = self.critic(self._noisy(d_crop))
        verdict_fake = self.critic(self._noisy(fake.detach()))
        critic_loss = ((1 - verdict_real).abs().mean() + verdict_fake.abs().mean()) / 2
        d_optimizer.zero_grad()
        self.manual_backward(critic_loss)
        d_optimizer.step()
        self.losses["critic"] = critic_loss.detach()

        for scheduler in self.lr_schedulers():  # type: ignore[union-attr]
            scheduler.step()
        self._update_weights(batch_idx + 1)

    def generator_losses(self, g_crop: Tensor, kernel: Tensor, fake: Tensor, verdict: Tensor) -> dict[str, Tensor]:
        """Every term unweighted, and ``total`` as it counts at this stage."""
        target = losses.bicubic_target(g_crop, fake.shape[-1], self.scale, self.mixed_colours)
        terms = {
            "adversarial": (1 - verdict).abs().mean(),
            "bicubic": losses.bicubic_loss(fake, target),
            "sum": losses.sum_loss(kernel),
            "boundary": losses.boundary_loss(kernel, self.mask),
            "centre": losses.centre_loss(kernel, self.scale),
            "sparsity": losses.sparsity_loss(kernel),
        }
        total = (
            terms["adversarial"]
            + self.bicubic_weight * terms["bicubic"]
            + SUM * terms["sum"]
            + BOUNDARY * terms["boundary"]
        )
        if self.constrained:
            total = total + CENTRE * terms["centre"] + SPARSITY * terms["sparsity"]
        return {**terms, "total": total}

    @torch.no_grad()
    def kernel(self) -> Kernel:
        """The composed 13x13 kernel as it stands, without clean-up."""
        return self.generator.kernel().double().cpu().numpy()

    def _noisy(self, crop: Tensor) -> Tensor:
        noise = torch.randn(crop.shape, generator=self.noise, device=crop.device, dtype=crop.dtype)
        return crop + NOISE * noise

    def _update_weights(self, iteration: int) -> None:
        """First be like bicubic, then be free of it, then be centred and sparse (KernelGAN's schedule)."""
        if self.agreements < 3:  # `.item()` waits for the device, so only until the agreement is reached
            self.agreements = self.agreements + 1 if self.losses["bicubic"].item() < 0.4 else 0
        elif iteration % 200 == 0:
            self.bicubic_weight = max(self.bicubic_weight / 100, BICUBIC_END)
            self.constrained = self.constrained or self.bicubic_weight < 5e-3
