"""ESRGAN as a LightningModule: two networks, three losses; without a discriminator it is the PSNR stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from realsr.data.datasets import Pair
from realsr.errors import InputError
from realsr.losses.adversarial import AdversarialLoss
from realsr.losses.perceptual import LPIPSLoss
from realsr.metrics import image_metrics
from realsr.networks.weights import load_weights
from realsr.tiling import upscale_tiled


class ESRGAN(LightningModule):
    """``0.01 L1 + 1 perceptual + 0.005 adversarial`` for the generator, one discriminator step for each of its own.

    Steps are generator steps everywhere: ``trainer.global_step``, ``max_steps``, milestones, logs, file names.

    Args:
        generator: ``(N, 3, H, W)`` to ``(N, 3, s*H, s*W)``, with an attribute ``scale``.
        optimizer: builds the generator's optimiser from its parameters.
        discriminator_optimizer: likewise the discriminator's; None takes the generator's.
        discriminator: ``(N, 3, H, W)`` to logits; None leaves the adversarial loss out.
        adversarial: the loss on its logits.
        perceptual: of ``(sr, hr)``; None leaves it out.
        lpips: a metric for validation, or None.
        pixel_weight: of L1.
        perceptual_weight: of the perceptual loss.
        adversarial_weight: of the adversarial loss.
        milestones: steps, of each network's own, at which its learning rate is halved.
        warmup_steps: at the start, with L1 alone: a PSNR stage within the run.
        init_from: file with weights for the generator; see :mod:`realsr.networks.weights`.
    """

    def __init__(
        self,
        generator: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        discriminator_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        discriminator: nn.Module | None = None,
        adversarial: AdversarialLoss | None = None,
        perceptual: nn.Module | None = None,
        lpips: LPIPSLoss | None = None,
        pixel_weight: float = 0.01,
        perceptual_weight: float = 1.0,
        adversarial_weight: float = 0.005,
        milestones: Sequence[int] = (5000, 10000, 20000, 30000),
        warmup_steps: int = 0,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        if discriminator is not None and adversarial is None:
            raise InputError("a discriminator needs an adversarial loss; choose gan=ragan, vanilla or lsgan")
        self.automatic_optimization = False
        self.generator, self.discriminator, self.adversarial = generator, discriminator, adversarial
        # frozen networks stay out of the module tree, so out of checkpoints and of DDP's sight
        self.frozen: dict[str, Any] = {"perceptual": perceptual, "lpips": lpips}
        self.optimizer, self.discriminator_optimizer = optimizer, discriminator_optimizer or optimizer
        self.milestones, self.warmup_steps = tuple(milestones), warmup_steps
        self.pixel_weight, self.perceptual_weight = pixel_weight, perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.scale = int(generator.scale)  # type: ignore[arg-type]
        if init_from is not None:
            load_weights(generator, init_from)

    def forward(self, lr: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1] to ``(N, 3, s*H, s*W)``, not clamped."""
        sr: Tensor = self.generator(lr)
        return sr

    def configure_optimizers(self) -> Any:
        """An optimiser for each network, and a schedule for each optimiser."""
        optimizers = [self.optimizer(self.generator.parameters())]
        if self.discriminator is not None:
            optimizers.append(self.discriminator_optimizer(self.discriminator.parameters()))
        schedulers = [torch.optim.lr_scheduler.MultiStepLR(o, list(self.milestones), 0.5) for o in optimizers]
        return optimizers, schedulers

    def on_train_start(self) -> None:
        """Put the frozen loss network on the device."""
        if self.frozen["perceptual"] is not None:
            self.frozen["perceptual"].to(self.device)

    # -- training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Generator first, then the discriminator on the same output."""
        optimizers, schedules = _listed(self.optimizers()), _listed(self.lr_schedulers())
        lr, hr = batch["lr"], batch["hr"]
        warming_up = self.global_step < self.warmup_steps
        fake = self(lr)
        total, terms = self.generator_loss(fake, hr, warming_up)
        optimizers[0].zero_grad()
        self.manual_backward(total)
        optimizers[0].step()
        schedules[0].step()
        if self.discriminator is not None and not warming_up:
            terms |= self._discriminator_step(optimizers[1], fake.detach(), hr)
            schedules[1].step()
        self.log_dict({f"train/{name}": value for name, value in terms.items()})
        self.log("train/generator", total.detach(), prog_bar=True)

    def generator_loss(self, fake: Tensor, hr: Tensor, warming_up: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its terms unweighted and detached."""
        pixel = F.l1_loss(fake, hr)
        terms = {"pixel": pixel.detach()}
        if warming_up:
            return pixel, terms
        total = self.pixel_weight * pixel
        if (perceptual := self.frozen["perceptual"]) is not None:
            loss = perceptual(fake, hr)
            terms["perceptual"] = loss.detach()
            total = total + self.perceptual_weight * loss
        if self.discriminator is not None and self.adversarial is not None:
            self.discriminator.requires_grad_(False)
            with torch.no_grad():
                real_logits = self.discriminator(hr)
            loss = self.adversarial.generator(real_logits, self.discriminator(fake))
            self.discriminator.requires_grad_(True)
            terms["adversarial"] = loss.detach()
            total = total + self.adversarial_weight * loss
        return total, terms

    def _discriminator_step(self, optimizer: Any, fake: Tensor, hr: Tensor) -> dict[str, Tensor]:
        assert self.discriminator is not None and self.adversarial is not None
        real_logits, fake_logits = self.discriminator(hr), self.discriminator(fake)
        loss = self.adversarial.discriminator(real_logits, fake_logits)
        optimizer.zero_grad()
        self.manual_backward(loss)
        # Lightning counts the steps of all optimisers into `global_step`, by these two hooks that it sets before
        # every batch. Without them on the discriminator's, a step is a generator step wherever one is counted.
        optimizer._on_before_step = optimizer._on_after_step = lambda: None
        optimizer.step()
        margins = {"d_real": real_logits.detach().mean(), "d_fake": fake_logits.detach().mean()}
        return {"discriminator": loss.detach(), **margins}

    # -- validation ------------------------------------------------------------------------------------------------

    def validation_step(self, pair: Pair, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Metrics where there is ground truth; the pictures go to the callbacks."""
        pair = Pair(*pair)
        sr = upscale_tiled(self.generator, pair.lr[None], self.scale)
        values: dict[str, float] = {}
        if pair.hr is not None:
            values = image_metrics(sr, pair.hr[None].cpu(), self.scale, self.frozen["lpips"])
            names = {f"val/{name}": value for name, value in values.items()}
            self.log_dict(names, batch_size=1, add_dataloader_idx=False, sync_dist=True)
        hr = None if pair.hr is None else pair.hr.cpu()
        return {"name": pair.name, "lr": pair.lr.cpu(), "sr": sr[0], "hr": hr, "metrics": values}


def _listed(value: Any) -> list[Any]:
    """Lightning gives one optimiser or scheduler bare, several as a list."""
    return value if isinstance(value, list) else [value]
