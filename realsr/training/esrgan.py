"""ESRGAN as a LightningModule: a generator and a discriminator take turns; without one it is the PSNR stage."""

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from realsr.data.datasets import Pair
from realsr.imaging.colour import colour_difference
from realsr.imaging.metrics import metric_objects
from realsr.networks.community import scale_of
from realsr.networks.initial import pass_through
from realsr.networks.perceptual import LPIPSLoss, LPIPSMetric
from realsr.networks.rates import parameter_groups
from realsr.networks.starts import start_file
from realsr.networks.tiling import upscale_tiled
from realsr.networks.weights import load_weights
from realsr.runtime.errors import InputError, at_least
from realsr.training.loggers import is_logged
from realsr.training.losses import AdversarialLoss, ESRGANLoss
from realsr.training.nan_check import FiniteCheck, not_finite, require_finite

log = logging.getLogger(__name__)


class ESRGAN(LightningModule):
    """Trains a generator, and a discriminator beside it.

    The losses and their weights are those of :class:`realsr.training.losses.ESRGANLoss`. Steps are generator steps
    everywhere: ``trainer.global_step``, ``max_steps``, milestones, logs, file names.

    Args:
        generator: ``(N, 3, H, W)`` to ``(N, 3, s*H, s*W)``.
        optimizer: builds the generator's optimiser from its parameters.
        discriminator_optimizer: builds the discriminator's; None takes ``optimizer``.
        discriminator: ``(N, 3, H, W)`` to logits; None trains without adversarial loss.
        lpips: metric of the validation, or None.
        milestones: steps, of each network's own, at which its learning rate is halved.
        warmup_steps: first steps, with L1 alone: a PSNR stage within the run.
        head_start: steps after the warm-up in which the discriminator learns and the generator stands still.
        initialise: the generator's ``own`` initialisation, or :func:`realsr.networks.initial.pass_through`.
        init_from: weights that the generator starts from instead (:mod:`realsr.networks.starts`).
        init_discriminator_from: file of weights that the discriminator starts from.
        lr_scale: factors of the learning rate for parts of the generator, by name (:mod:`realsr.networks.rates`).
        ema: keep a moving average of the generator, for validation and upscaling.
        ema_decay: decay of the average, 0 to below 1.
        clip_norm: largest norm of each network's gradients; None does not clip.
        channels_last: memory format of networks and batches.
        compile: compile both networks for training.

    Raises:
        InputError: an option is out of range, or weights do not fit their network.
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
        self.automatic_optimization = False
        at_least(0, "model.", warmup_steps=warmup_steps, head_start=head_start, milestones=min(milestones, default=0))
        if discriminator is not None and adversarial is None:
            raise InputError("a discriminator needs an adversarial loss; choose gan=ragan, vanilla, lsgan or hinge")
        if not 0 <= ema_decay < 1:
            raise InputError(f"model.ema_decay={ema_decay}: give 0 to below 1; ema=false for none")
        if clip_norm is not None and not clip_norm > 0:
            raise InputError(f"model.clip_norm={clip_norm}: give more than 0, or null for no clipping")
        self.scale = scale_of(generator)
        weights = pixel_weight, perceptual_weight, adversarial_weight, pattern_weight
        self.losses = ESRGANLoss(self.scale, perceptual, adversarial, *weights)
        self.warmup_losses = ESRGANLoss(self.scale, pixel_weight=1.0)
        self.metrics = metric_objects(self.scale, "val/")
        self.lpips = None if lpips is None else lpips.forward  # no submodule: checkpoints and DDP leave it out
        if self.lpips is not None:
            self.metrics.add_metrics({"lpips": LPIPSMetric(self.lpips)})
        if initialise == "pass_through":
            pass_through(generator)
        if init_from is not None:
            load_weights(generator, start_file(init_from))
            log.info("start: %s, %s x%d", init_from, type(generator).__name__, self.scale)
        if init_discriminator_from is not None:
            if discriminator is None:
                raise InputError("model.init_discriminator_from: there is no discriminator; choose disc=patch")
            load_weights(discriminator, init_discriminator_from, ("discriminator.",))
        self.generator, self.discriminator = generator, discriminator
        self.groups = parameter_groups(generator, dict(lr_scale or {}))
        self.generator_ema = copy.deepcopy(generator).requires_grad_(False) if ema else None
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)
        for network in [n for n in (generator, discriminator) if compile and n is not None]:
            network.compile(dynamic=False)  # batches have one shape; dynamic code would be for any memory format
        self.optimizer, self.discriminator_optimizer = optimizer, discriminator_optimizer or optimizer
        self.milestones, self.warmup_steps, self.head_start = tuple(milestones), warmup_steps, head_start
        self.ema_decay, self.clip_norm, self.compiled = ema_decay, clip_norm, compile

    def forward(self, lr: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1] to ``(N, 3, s*H, s*W)``, not clamped, by the average where there is one."""
        network = self.generator if self.generator_ema is None else self.generator_ema
        sr: Tensor = network.forward(lr)  # not compiled, since sizes differ from image to image
        return sr

    def configure_optimizers(self) -> Any:
        """An optimiser for each network, and a schedule for each optimiser."""
        optimizers = {"generator": self.optimizer([{"params": parameters} for _, parameters in self.groups])}
        for (factor, _), group in zip(self.groups, optimizers["generator"].param_groups, strict=True):
            group["lr"] *= factor
        if self.discriminator is not None:
            optimizers["discriminator"] = self.discriminator_optimizer(self.discriminator.parameters())
        schedules = [
            {"scheduler": MultiStepLR(optimizer, list(self.milestones), 0.5), "name": f"lr/{name}"}
            for name, optimizer in optimizers.items()
        ]
        return list(optimizers.values()), schedules

    def on_train_start(self) -> None:
        """Move the frozen network of the perceptual loss, which is no submodule, to the device."""
        if self.losses.perceptual is not None:
            self.losses.perceptual.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """A step of the generator, then one of the discriminator on the same ``sr`` and the same logits of ``hr``."""
        lr, hr = (batch[name].contiguous(memory_format=self.memory_format) for name in ("lr", "hr"))
        losses, gan, generator_learns = self._turn()
        with torch.set_grad_enabled(generator_learns):
            sr = self.generator(lr).float()
        real = self._logits(hr) if gan else None
        terms: dict[str, Tensor] = {}
        if generator_learns:
            fake = self._logits(sr, frozen=True) if gan else None
            terms |= self._update(0, *losses.generator(sr, hr, real, fake), batch)
        if real is not None:
            judged = losses.discriminator(real, self._logits(sr.detach()))
            terms |= self._update(1, *judged, batch, counted=not generator_learns)
        if is_logged(self.trainer):
            self.log_dict({f"train/{name}": value for name, value in terms.items()})  # prog_bar would wait for a GPU
            self.log("step", float(self.global_step))  # loggers would call the fiftieth step 49

    def _turn(self) -> tuple[ESRGANLoss, bool, bool]:
        """The losses of this step, L1 alone in the warm-up; whether discriminator and generator learn."""
        step, start = self.global_step, self.warmup_steps
        gan = self.discriminator is not None and step >= start
        return self.losses if step >= start else self.warmup_losses, gan, not gan or step >= start + self.head_start

    def _logits(self, images: Tensor, frozen: bool = False) -> Tensor:
        """The discriminator's logits; those of all processes, since relativistic losses compare with their mean."""
        assert self.discriminator is not None
        self.discriminator.requires_grad_(not frozen)
        logits: Tensor = self.discriminator(images).float()
        self.discriminator.requires_grad_(True)
        if self.trainer.world_size > 1:
            logits = self.all_gather(logits, sync_grads=True).flatten(0, 1)  # type: ignore[union-attr]
        return logits

    def _update(
        self, player: int, loss: Tensor, terms: dict[str, Tensor], batch: Any, counted: bool = True
    ) -> dict[str, Tensor]:
        """A step of optimiser and schedule 0 (generator, and its average) or 1 (discriminator); returns what to log.

        ``global_step`` counts the steps of Lightning's wrappers of optimisers; one in each batch is to be ``counted``.

        Raises:
            InputError: a loss is not finite; the weights stay as they were.
        """
        both: Any = self.optimizers(), self.lr_schedulers()  # lists, but of the PSNR stage bare
        optimizer, schedule = (each[player] if isinstance(each, list) else each for each in both)
        checked = {name: term for name, term in terms.items() if not name.startswith("d_")}  # which are mean logits
        check = FiniteCheck(checked, lambda flags: self.trainer.strategy.reduce(flags, reduce_op="max"))
        optimizer.zero_grad()
        self.manual_backward(loss)
        if found := check.found():
            files = self.trainer.datamodule.crops.files(batch["index"])  # type: ignore[attr-defined]
            raise not_finite(found, self.trainer.fit_loop.total_batch_idx, files)
        if counted:
            optimizer.step()
        else:
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        schedule.step()
        if player == 0 and self.generator_ema is not None:
            update_average(self.generator_ema, self.generator, self.ema_decay, self.global_step - 1)
        return terms if player else {**terms, "generator": loss.detach()}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradients, which are unscaled here under ``16-mixed`` too."""
        if self.clip_norm is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
            if is_logged(self.trainer):
                self.log("train/grad_norm" if optimizer is self.trainer.optimizers[0] else "train/d_grad_norm", norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep weights that are not finite from replacing the last good checkpoint."""
        require_finite(self)

    def validation_step(self, pair: Pair, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Upscale and measure an image, in float32 whatever the precision; the callbacks get the pictures."""
        lr, hr = pair.lr.cpu(), None if pair.hr is None else pair.hr.cpu()
        with torch.autocast(self.device.type, enabled=False):
            sr = upscale_tiled(self, pair.lr[None], self.scale)
            colour = 255 * float(colour_difference(sr, lr[None], self.scale))
            measured = {} if pair.hr is None else self.metrics(sr.to(self.device), pair.hr[None])
        stage = "photos" if hr is None else "val"
        self.log(f"{stage}/colour", colour, batch_size=1, add_dataloader_idx=False, sync_dist=True)
        if measured:
            self.log_dict(self.metrics, batch_size=1, add_dataloader_idx=False)
        values = {key.removeprefix("val/"): float(value) for key, value in measured.items()}
        return {"name": pair.name, "lr": lr, "sr": sr[0], "hr": hr, "metrics": {**values, "colour": colour}}

    def on_validation_epoch_end(self) -> None:
        """Log the steps made, for the loggers."""
        self.log("step", float(self.global_step), sync_dist=True)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """``average = d * average + (1 - d) * network`` for every weight after step ``step``, from 0; buffers are copied.

    ``d = min(decay, (1 + step) / (10 + step))``, so that the start of a run is soon forgotten. AveragedModel would ask
    the device in every step whether it is the first; Lightning's callback counts the steps of both optimisers and
    averages the discriminator too.
    """
    average_fn = get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))  # type: ignore[no-untyped-call]
    average_fn(list(average.parameters()), list(network.parameters()), None)
    for mine, its in zip(average.buffers(), network.buffers(), strict=True):
        mine.copy_(its)
