"""ESRGAN as a LightningModule: two networks, three losses; without a discriminator it is the PSNR stage."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from realsr.data.datasets import Pair
from realsr.imaging import quantize
from realsr.imaging.colour import colour_difference
from realsr.imaging.metrics import metric_objects
from realsr.networks.community import scale_of
from realsr.networks.initial import pass_through
from realsr.networks.perceptual import LPIPSLoss
from realsr.networks.rates import parameter_groups
from realsr.networks.starts import start_file
from realsr.networks.tiling import upscale_tiled
from realsr.networks.weights import load_weights
from realsr.runtime.errors import InputError, at_least
from realsr.training.averaging import update_average
from realsr.training.losses.adversarial import AdversarialLoss
from realsr.training.losses.pattern import pattern_loss
from realsr.training.nan_check import MEND, FiniteCheck, of_all_processes, require_finite

log = logging.getLogger(__name__)


class ESRGAN(LightningModule):
    """``0.01 L1 + 1 perceptual + 0.005 adversarial`` for the generator, one discriminator step for each of its own.

    Steps are generator steps everywhere: ``trainer.global_step``, ``max_steps``, milestones, logs, file names.

    Args:
        generator: ``(N, 3, H, W)`` to ``(N, 3, s*H, s*W)``.
        optimizer: builds the generator's optimiser from its parameters.
        discriminator_optimizer: likewise the discriminator's; None takes the generator's.
        discriminator: ``(N, 3, H, W)`` to logits; None leaves the adversarial loss out.
        adversarial: the loss on its logits.
        perceptual: of ``(sr, hr)``; None leaves it out.
        lpips: a metric for validation, or None.
        pixel_weight: of L1.
        perceptual_weight: of the perceptual loss.
        adversarial_weight: of the adversarial loss.
        pattern_weight: of :func:`realsr.training.losses.pattern.pattern_loss`.
        milestones: steps, of each network's own, at which its learning rate is halved.
        warmup_steps: at the start, with L1 alone: a PSNR stage within the run.
        head_start: steps after them in which the discriminator learns beside a generator that stands still.
        initialise: how the generator begins where no weights are loaded: its ``own`` way, or
            :func:`realsr.networks.initial.pass_through`.
        init_from: weights for the generator, with which it is compared in the end; see
            :mod:`realsr.networks.starts`.
        init_discriminator_from: likewise for the discriminator.
        lr_scale: factors of the learning rate for parts of the generator, by name (:mod:`realsr.networks.rates`).
        ema: whether a moving average of the generator is kept, for validation and what comes after training.
        ema_decay: of that average.
        clip_norm: the gradients' norm at most, for each network; None leaves them.
        channels_last: memory format of networks and batches.
        compile: whether the networks are compiled for training.
    """

    def __init__(
        self,
        generator: nn.Module,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        discriminator_optimizer: Callable[[Iterable[Any]], Optimizer] | None = None,
        discriminator: nn.Module | None = None,
        adversarial: AdversarialLoss | None = None,
        perceptual: nn.Module | None = None,
        lpips: LPIPSLoss | None = None,
        pixel_weight: float = 0.01,
        perceptual_weight: float = 1.0,
        adversarial_weight: float = 0.005,
        pattern_weight: float = 0.0,
        milestones: Sequence[int] = (5000, 10000, 20000, 30000),
        warmup_steps: int = 0,
        head_start: int = 0,
        initialise: Literal["own", "pass_through"] = "own",
        init_from: str | None = None,
        init_discriminator_from: str | None = None,
        lr_scale: Mapping[str, float] | None = None,
        ema: bool = True,
        ema_decay: float = 0.999,
        clip_norm: float | None = None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        at_least(0, "model.", warmup_steps=warmup_steps, head_start=head_start, milestones=min(milestones, default=0))
        weights = {"pixel_weight": pixel_weight, "perceptual_weight": perceptual_weight}
        weights |= {"adversarial_weight": adversarial_weight, "pattern_weight": pattern_weight}
        at_least(0, "model.", **weights)
        if infinite := [f"model.{key}={weight}" for key, weight in weights.items() if weight == math.inf]:
            raise InputError(f"{infinite[0]}: give a number that is not infinite")
        if discriminator is not None and adversarial is None:
            raise InputError("a discriminator needs an adversarial loss; choose gan=ragan, vanilla, lsgan or hinge")
        if not 0 <= ema_decay < 1:
            raise InputError(f"model.ema_decay={ema_decay}: give 0 to below 1; ema=false for none")
        if clip_norm is not None and not clip_norm > 0:
            raise InputError(f"model.clip_norm={clip_norm}: give more than 0, or null for no clipping")
        self.automatic_optimization = False
        if initialise == "pass_through":
            pass_through(generator)
        if init_from is not None:
            load_weights(generator, start_file(init_from))
            log.info("start: %s, %s x%d", init_from, type(generator).__name__, scale_of(generator))
        if init_discriminator_from is not None:
            if discriminator is None:
                raise InputError("model.init_discriminator_from: there is no discriminator; choose disc=patch")
            load_weights(discriminator, init_discriminator_from, ("discriminator.",))
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.generator, self.discriminator, self.adversarial = generator, discriminator, adversarial
        self.groups = parameter_groups(generator, dict(lr_scale or {}))
        self.generator_ema = copy.deepcopy(generator).requires_grad_(False) if ema else None
        self.to(memory_format=self.memory_format)
        # what training calls. Like frozen networks it stays out of the module tree: compiled networks have other keys.
        # Not dynamic: batches are of one shape but not of one memory format, and code for any strides would be made
        named = {"generator": generator, "discriminator": discriminator}
        self.run: dict[str, Any] = {
            k: torch.compile(n, dynamic=False) if compile and n else n for k, n in named.items()
        }
        # frozen networks stay out of checkpoints and of DDP's sight
        start = None if init_from is None else copy.deepcopy(generator).requires_grad_(False).eval()
        self.frozen: dict[str, Any] = {"perceptual": perceptual, "lpips": lpips, "start": start}
        self.optimizer, self.discriminator_optimizer = optimizer, discriminator_optimizer or optimizer
        self.milestones, self.warmup_steps, self.head_start = tuple(milestones), warmup_steps, head_start
        self.pixel_weight, self.perceptual_weight = pixel_weight, perceptual_weight
        self.adversarial_weight, self.pattern_weight = adversarial_weight, pattern_weight
        self.ema_decay, self.clip_norm, self.compiled = ema_decay, clip_norm, compile
        self.scale = scale_of(generator)
        self.metrics = metric_objects(self.scale, "val/")

    def forward(self, lr: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1] to ``(N, 3, s*H, s*W)``, not clamped, by the average where there is one."""
        sr: Tensor = (self.generator if self.generator_ema is None else self.generator_ema)(lr)
        return sr

    def configure_optimizers(self) -> Any:
        """An optimiser for each network, and a schedule for each optimiser."""
        optimizers = {"generator": self.optimizer([{"params": parameters} for _, parameters in self.groups])}
        for (factor, _), group in zip(self.groups, optimizers["generator"].param_groups, strict=True):
            group["lr"] *= factor
        if self.discriminator is not None:
            optimizers["discriminator"] = self.discriminator_optimizer(self.discriminator.parameters())
        schedule = torch.optim.lr_scheduler.MultiStepLR
        schedules = [
            {"scheduler": schedule(optimizer, list(self.milestones), 0.5), "name": f"lr/{name}"}
            for name, optimizer in optimizers.items()
        ]
        return list(optimizers.values()), schedules

    def on_train_start(self) -> None:
        """Put the frozen loss network on the device."""
        if self.frozen["perceptual"] is not None:
            self.frozen["perceptual"].to(self.device, memory_format=self.memory_format)

    # -- training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Generator first, then the discriminator on the same output and on the same logits of ``hr``."""
        optimizers, schedules = _listed(self.optimizers()), _listed(self.lr_schedulers())
        lr, hr = (batch[name].contiguous(memory_format=self.memory_format) for name in ("lr", "hr"))
        step = self.global_step
        gan = self.discriminator is not None and step >= self.warmup_steps
        # the discriminator's head start: the other losses alone would blur the generator
        still = gan and step < self.warmup_steps + self.head_start
        with torch.set_grad_enabled(not still):
            fake = self.run["generator"](lr).float()
        real_logits = self._discriminate(hr) if gan else None
        terms: dict[str, Tensor] = {}
        if not still:
            total, terms = self.generator_loss(fake, hr, real_logits)
            self._backward(optimizers[0], total, terms, batch)
            optimizers[0].step()
            schedules[0].step()
            terms["generator"] = total.detach()
            if self.generator_ema is not None:
                update_average(self.generator_ema, self.generator, self.ema_decay, step)
        if real_logits is not None:
            total, mine = self.discriminator_loss(real_logits, fake.detach())
            self._backward(optimizers[1], total, {"discriminator": total}, batch)
            # Lightning counts the steps that its wrappers of optimisers make: one for each of ours
            if still:
                optimizers[1].step()
            else:
                self.trainer.strategy.optimizer_step(optimizers[1].optimizer, lambda: None)
            schedules[1].step()
            terms |= mine
        if is_logged(self.trainer):
            # not for Lightning's progress bar, which would wait for the device in every step
            self.log_dict({f"train/{name}": value for name, value in terms.items()})
            self.log("step", step + 1.0)  # loggers would call the fiftieth step 49

    def generator_loss(self, fake: Tensor, hr: Tensor, real_logits: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its terms unweighted and detached; without ``real_logits`` not adversarial."""
        pixel = F.l1_loss(fake, hr)
        terms = {"pixel": pixel.detach()}
        if self.global_step < self.warmup_steps:
            return pixel, terms
        total = self.pixel_weight * pixel
        if (perceptual := self.frozen["perceptual"]) is not None:
            loss = perceptual(fake, hr)
            terms["perceptual"] = loss.detach()
            total = total + self.perceptual_weight * loss
        if self.pattern_weight:
            loss = pattern_loss(fake, hr, self.scale)
            terms["pattern"] = loss.detach()
            total = total + self.pattern_weight * loss
        if real_logits is not None:
            assert self.discriminator is not None and self.adversarial is not None
            self.discriminator.requires_grad_(False)
            loss = self.adversarial.generator(real_logits.detach(), self._discriminate(fake))
            self.discriminator.requires_grad_(True)
            terms["adversarial"] = loss.detach()
            total = total + self.adversarial_weight * loss
        return total, terms

    def discriminator_loss(self, real_logits: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss; it and the mean logits, detached."""
        assert self.adversarial is not None
        fake_logits = self._discriminate(fake)
        loss = self.adversarial.discriminator(real_logits, fake_logits)
        shown = {"discriminator": loss, "d_real": real_logits.mean(), "d_fake": fake_logits.mean()}
        return loss, {name: value.detach() for name, value in shown.items()}

    def _discriminate(self, image: Tensor) -> Tensor:
        """The discriminator's logits; those of all processes, since relativistic losses compare with their mean."""
        logits: Tensor = self.run["discriminator"](image).float()
        if self.trainer.world_size > 1:
            logits = self.all_gather(logits, sync_grads=True).flatten(0, 1)  # type: ignore[union-attr]
        return logits

    def _backward(self, optimizer: Any, loss: Tensor, terms: dict[str, Tensor], batch: dict[str, Any]) -> None:
        """Raise InputError, before a step is made, where a term of the loss is not finite."""
        check = FiniteCheck(terms, lambda flags: self.trainer.strategy.reduce(flags, reduce_op="max"))
        optimizer.zero_grad()
        self.manual_backward(loss)
        if found := check.found():
            files = of_all_processes(self.trainer.datamodule.crops.files(batch["index"]))  # type: ignore[attr-defined]
            names = " and ".join(found)
            raise InputError(
                f"step {self.trainer.fit_loop.total_batch_idx}: {names} not finite, in a batch from {files}; the last "
                f"good checkpoint is kept: {MEND}"
            )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradients, which are unscaled here."""
        if self.clip_norm is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
            if is_logged(self.trainer):
                self.log("train/grad_norm" if parameters[0] is self.groups[0][1][0] else "train/d_grad_norm", norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Nothing takes the last good checkpoint's place that is not good."""
        require_finite(self)

    # -- validation ------------------------------------------------------------------------------------------------

    def on_validation_epoch_end(self) -> None:
        """The number under which the loggers get this validation."""
        self.log("step", float(self.global_step), sync_dist=True)

    def validation_step(self, pair: Pair, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Metrics where there is ground truth, in float32 whatever the precision; the pictures go to the callbacks."""
        pair = Pair(*pair)
        lr, hr = pair.lr.cpu(), None if pair.hr is None else pair.hr.cpu()
        stage = "photos" if hr is None else "val"
        with torch.autocast(self.device.type, enabled=False):
            sr = upscale_tiled(self, pair.lr[None], self.scale)
            values = {f"{stage}/colour": 255 * float(colour_difference(sr, lr[None], self.scale))}
            if hr is not None and (lpips := self.frozen["lpips"]) is not None:
                values["val/lpips"] = float(lpips(quantize(sr), quantize(hr[None])))
            objects = {} if pair.hr is None else self.metrics(sr.to(self.device), pair.hr[None])
        self.log_dict(values, batch_size=1, add_dataloader_idx=False, sync_dist=True)
        if pair.hr is not None:
            self.log_dict(self.metrics, batch_size=1, add_dataloader_idx=False)
        metrics = {key.partition("/")[2]: float(value) for key, value in {**objects, **values}.items()}
        return {"name": pair.name, "lr": lr, "sr": sr[0], "hr": hr, "metrics": metrics}


def is_logged(trainer: Trainer) -> bool:
    """Whether this step's values get to the loggers; ``log`` takes half a millisecond a name in any step."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return (trainer.fit_loop.total_batch_idx + 1) % every == 0 or trainer.should_stop


def _listed(value: Any) -> list[Any]:
    """Lightning gives one optimiser or scheduler bare, several as a list."""
    return value if isinstance(value, list) else [value]
