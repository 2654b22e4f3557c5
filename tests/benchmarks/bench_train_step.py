"""A training step: our module inside the Trainer, with the callbacks and the logger of conf/, against a plain loop.

The plain loop is the same step as a careful person writes it without a framework: the discriminator frozen in the
generator's step, its logits of the truth computed once, features of the truth without a graph, a moving average of the
generator. Both get the same batches from memory and take turns, step by step, in one process, on a CPU with one thread.
That both compute the same losses is checked first. Goal: plain over ours at least 0.97, the framework is free. On a CPU
the last line is of the process's own seconds, which vary less on a machine that others use; the clock's stand above it.
VGG19 has random weights here, which cost what trained ones do.
Run alone: python tests/benchmarks/bench_train_step.py [--quick] [--small]
Our step beside others that compute all the time, a thread for each core, by the clock: what OpenMP does by default
against what our commands tell it: ... --busy [python|torch] [--quick]. Goal: half of the speed that it has alone.
On a GPU, against plain float32: ... --device cuda --batch 16 --precision bf16-mixed --channels-last --compile
"""

import argparse
import contextlib
import copy
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings

import hydra
import torch
import torch.nn.functional as F
import torchvision
from busy import LOADS, compare
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import open_dict
from pytorch_lightning import Callback, seed_everything

from realsr.data.datasets import TimedLoader
from realsr.runtime.help import conf_dir

CHECKED = 3  # steps at the start in which the losses are compared, and nothing is timed


class Plain:
    """The step without a framework, on copies of a module's networks."""

    def __init__(self, module, device):
        self.generator, self.discriminator = (copy.deepcopy(n) for n in (module.generator, module.discriminator))
        self.to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.losses, self.ema_decay = module.losses, module.ema_decay
        networks = self.generator, self.discriminator
        self.optimizers = [torch.optim.Adam(n.parameters(), lr=1e-4, betas=(0.9, 0.999)) for n in networks]
        self.schedules = [
            torch.optim.lr_scheduler.MultiStepLR(o, list(module.milestones), 0.5) for o in self.optimizers
        ]
        self.steps = 0

    def to(self, device):
        for network in (self.generator, self.discriminator):
            network.to(device, memory_format=torch.contiguous_format)

    def step(self, lr, hr):
        """The losses, not read."""
        ours, losses = self.losses, {}
        fake, real_logits = self.generator(lr), self.discriminator(hr)
        pixel = F.l1_loss(fake, hr)
        losses["pixel"] = pixel.detach()
        total = ours.weights["pixel"] * pixel
        if ours.perceptual is not None:
            loss = ours.perceptual(fake, hr)
            losses["perceptual"] = loss.detach()
            total = total + ours.weights["perceptual"] * loss
        self.discriminator.requires_grad_(False)
        loss = ours.adversarial.generator(real_logits.detach(), self.discriminator(fake))
        self.discriminator.requires_grad_(True)
        losses["adversarial"] = loss.detach()
        total = total + ours.weights["adversarial"] * loss
        self._update(0, total)
        self._average()
        loss = ours.adversarial.discriminator(real_logits, self.discriminator(fake.detach()))
        losses["discriminator"] = loss.detach()
        self._update(1, loss)
        return losses

    def _update(self, number, loss):
        self.optimizers[number].zero_grad()
        loss.backward()
        self.optimizers[number].step()
        self.schedules[number].step()

    @torch.no_grad()
    def _average(self):
        decay = min(self.ema_decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), 1 - decay)
        self.steps += 1


class TakeTurns(Callback):
    """The plain step after each of ours; the time between two of them is ours, all that the Trainer does included."""

    def __init__(self, plain, settle, tolerance):
        self.plain, self.settle, self.tolerance = plain, settle, tolerance
        self.ours, self.theirs, self.peaks, self.worst = [], [], ([], []), 0.0

    def on_train_start(self, trainer, module):
        self.log_every, trainer.log_every_n_steps = trainer.log_every_n_steps, 1
        self.plain.to(module.device)
        self.start = self._now()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        ours = self._since(self.peaks[0])
        losses = self.plain.step(batch["lr"], batch["hr"])
        theirs = self._since(self.peaks[1])
        if batch_idx < CHECKED:
            self._compare(losses, trainer.callback_metrics)
        else:
            trainer.log_every_n_steps = self.log_every
            self.ours.append(ours)
            self.theirs.append(theirs)
        self.start = self._now()

    def _now(self):
        self.settle()
        return time.perf_counter(), time.process_time()

    def _since(self, peaks):
        now = self._now()
        seconds, self.start = [after - before for after, before in zip(now, self.start, strict=True)], now
        if torch.cuda.is_available():
            peaks.append(torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()
        return seconds

    def _compare(self, losses, ours):
        for name, loss in losses.items():
            wanted, got = float(loss), float(ours[f"train/{name}"])
            difference = abs(got - wanted) / abs(wanted)
            if not difference <= self.tolerance:
                raise SystemExit(f"{name} is {got} in our step, {wanted} in the plain one: they are not the same step")
            self.worst = max(self.worst, difference)


class OnDemand(Callback):
    """A step for every line that comes in; writes its seconds."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if not sys.stdin.readline():
            raise SystemExit  # nobody is there to ask
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        print(time.perf_counter() - self.start, file=sys.__stdout__, flush=True)


def compose(folder, overrides):
    """The config that the command would see, with its output in ``folder``."""
    with hydra.initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = hydra.compose("train", overrides, return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = folder
    HydraConfig.instance().set_config(cfg)
    return cfg


def random_vgg(folder):
    """A file with weights of VGG19's shapes."""
    state = torchvision.models.vgg19().features.state_dict()
    torch.save({f"features.{name}": value for name, value in state.items()}, f"{folder}/vgg19.pth")
    return f"{folder}/vgg19.pth"


def options(args, folder):
    """Overrides, batch and crop of what is measured; the smaller the step, the more the framework weighs."""
    common = ["data.source_dir=photos", "lpips=null", "degradation=bicubic", f"accelerator={args.accelerator}"]
    common += [f"trainer.precision={args.precision}", f"model.channels_last={args.channels_last}"]
    common += [f"model.compile={args.compile}", "trainer.val_check_interval=100000", "+trainer.limit_val_batches=0"]
    if args.small:
        return [*common, "model=compact", "perceptual=none", "disc_features=16"], args.batch or 8, 64
    common += [f"model.perceptual.backbone={random_vgg(folder)}"]
    if args.quick:
        return [*common, "model.generator.blocks=3"], args.batch or 1, 128
    return common, args.batch or 2, 128


def measure(args, folder):
    """The callback that has timed the steps, and the batch's size."""
    overrides, batch, crop = options(args, folder)
    steps = args.steps or ((60 if args.quick else 400) if args.small else (16 if args.quick else 20))
    cfg = compose(folder, [*overrides, f"trainer.max_steps={steps + CHECKED}"])
    seed_everything(0, verbose=False)
    module = instantiate(cfg.model)
    device = torch.device(args.device)
    if module.losses.perceptual is not None:
        module.losses.perceptual.to(device)
    exact = args.precision == "32-true" and not args.channels_last and not args.compile
    settle = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    turns = OnDemand() if args.on_demand else TakeTurns(Plain(module, device), settle, 1e-5 if exact else 0.05)
    batches = [
        {"lr": torch.rand(batch, 3, crop // 4, crop // 4), "hr": torch.rand(batch, 3, crop, crop), "index": [0] * batch}
        for _ in range(4)
    ]
    loader = TimedLoader(
        [batches[i % 4] for i in range(steps + CHECKED)], batch_size=None, pin_memory=device.type == "cuda"
    )
    callbacks = [instantiate(node) for node in cfg.callbacks.values()]
    loggers = [instantiate(node) for node in cfg.logger.values()]
    trainer = instantiate(cfg.trainer, logger=loggers, callbacks=[*callbacks, turns])
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        trainer.fit(module, loader)
    return turns, batch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--small", action="store_true", help="model=compact, as in the quickstart")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="32-true", help="of ours; the plain step is always float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--busy", nargs="?", const="python", choices=LOADS, help="beside others; implies --small")
    parser.add_argument("--on-demand", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.accelerator = "gpu" if args.device == "cuda" else "cpu"
    if not args.on_demand:
        torch.set_num_threads(1)
    os.environ["FORCE_COLOR"] = "1"  # the progress bar is drawn as on a terminal
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if args.on_demand:
        measure(args, args.on_demand)
    with tempfile.TemporaryDirectory() as folder:
        if args.busy:
            batch = args.batch or (1 if args.quick else 8)
            command = [sys.executable, __file__, "--small", "--batch", str(batch), "--steps", str(10**6)]
            return compare([*command, "--on-demand", folder], args.busy, 1 if args.quick else 20)
        turns, batch = measure(args, folder)
    print(f"{CHECKED} steps compared: losses differ by {turns.worst:.1e} at most, relatively")
    for name, times, peaks in (("plain, float32", turns.theirs, turns.peaks[1]), ("ours", turns.ours, turns.peaks[0])):
        clock = [1e3 * wall for wall, _ in times]
        memory = f", {max(peaks[CHECKED:]) / 2**30:.2f} GiB at most" if peaks else ""
        print(
            f"{name}: {statistics.median(clock):.2f} ms a step (min {min(clock):.2f}, max {max(clock):.2f})", end=", "
        )
        print(f"{1e3 * batch / statistics.median(clock):.2f} images a second{memory}")
    kinds = {"ratio by the clock": 0} | ({"ratio": 1} if args.device == "cpu" else {"ratio": 0})
    for name, kind in kinds.items():
        ratios = [plain[kind] / ours[kind] for plain, ours in zip(turns.theirs, turns.ours, strict=True)]
        print(f"{name}: {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})")


if __name__ == "__main__":
    main()
