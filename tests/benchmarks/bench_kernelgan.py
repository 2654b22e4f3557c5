"""KernelGAN on one photo: ours against the plain formulation, which runs 64-channel layers over every crop.

Both are timed in turns in one process, then the default estimator, which is none, and ours in several processes of
one thread each. Iterations are counted alike in both: what ending at a settled kernel saves comes on top, and is shown
without --quick.
Run alone, with nothing else on the cores: python tests/benchmarks/bench_kernelgan.py [--quick]
"""

import argparse
import functools
import logging
import multiprocessing
import os
import statistics
import time
import warnings

os.environ["OMP_WAIT_POLICY"] = "passive"  # threads that spin would only measure who else is on the cores

import torch
import torch.nn.functional as F
from pytorch_lightning import Trainer
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader

from realsr.estimation.crops import CropPairs
from realsr.estimation.estimate import estimate_kernel
from realsr.estimation.kernelgan import losses
from realsr.estimation.kernelgan.module import BLOCK, NOISE, KernelGAN
from realsr.imaging.resample import imresize


class PlainKernelGAN:
    """As the paper draws it, from the weights of ours: layer by layer, each network run whenever it is mentioned."""

    def __init__(self, ours):
        self.ours = ours
        self.generator, self.critic = plain_generator(ours.generator), plain_critic(ours.critic)
        self.optimizers = [
            torch.optim.Adam(player.parameters(), ours.learning_rate, (0.5, 0.999))
            for player in (self.generator, self.critic)
        ]
        self.noise = torch.Generator().manual_seed(ours.seed)

    def kernel(self):
        """What the layers make of an impulse, turned around."""
        size = self.ours.generator.kernel_size
        kernel = F.pad(next(self.generator.parameters()).new_ones(1, 1, 1, 1), [size - 1] * 4)
        for layer in self.generator:
            kernel = F.conv2d(kernel, layer.weight)
        return kernel[0, 0].flip(0, 1)

    def generate(self, crop):
        return self.generator(crop.transpose(0, 1)).transpose(0, 1)

    def train(self, crops):
        """An iteration for each item of ``crops``, with the noise that ours would add."""
        shape = (len(crops), 2, *crops[0][1].shape)
        for noise, (g_crop, d_crop) in zip(
            NOISE * torch.randn(shape, generator=self.noise, dtype=crops.image.dtype), crops, strict=True
        ):
            self.iterate(g_crop[None], d_crop[None], noise)

    def iterate(self, g_crop, d_crop, noise):
        ours = self.ours
        kernel, fake = self.kernel(), self.generate(g_crop)
        small = imresize(g_crop, 1 / ours.scale)
        cut = (small.shape[-1] - ours.output_size) // 2
        target = small[..., cut : cut + ours.output_size, cut : cut + ours.output_size]
        total = (
            (1 - self.critic(fake)).abs().mean()
            + ours.bicubic_weight * ((fake - target) ** 2).mean()
            + 0.5 * (1 - kernel.sum()).abs()
            + 0.5 * (kernel * ours.mask).abs().mean()
        )
        if ours.constrained:
            total = total + losses.centre_loss(kernel, ours.scale) + 5 * (kernel.abs() ** 0.2).mean()
        self.optimizers[0].zero_grad()
        total.backward()
        with torch.no_grad():
            fake = self.generate(g_crop)
        on_real, on_fake = self.critic(d_crop + noise[:1]), self.critic(fake + noise[1:])
        self.optimizers[1].zero_grad()
        ((1 - on_real).abs().mean() / 2 + on_fake.abs().mean() / 2).backward()
        for optimizer in self.optimizers:
            optimizer.step()


def plain_generator(generator):
    layers = []
    for weight in generator.filters:
        stride = generator.scale if weight is generator.filters[-1] else 1
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[-1], stride=stride, bias=False)
        conv.weight = nn.Parameter(weight.detach().clone())
        layers.append(conv)
    return nn.Sequential(*layers)


def plain_critic(critic):
    depth, channels = critic.gain.shape
    inner = []
    for _ in range(depth):
        inner += [spectral_norm(nn.Conv2d(channels, channels, 1)), nn.BatchNorm2d(channels), nn.ReLU()]
    first, last = spectral_norm(nn.Conv2d(3, channels, 7)), spectral_norm(nn.Conv2d(channels, 1, 1))
    model = nn.Sequential(first, *inner, last, nn.Sigmoid()).to(critic.gain.dtype)
    convs = [m for m in model if isinstance(m, nn.Conv2d)]
    norms = [m for m in model if isinstance(m, nn.BatchNorm2d)]
    stacks = (critic.first, critic.inner)
    weights = [*(weight for stack in stacks for weight in stack.weight), critic.last]
    vectors = [*(v for stack in stacks for v in stack.v), F.normalize(critic.last).mT]
    with torch.no_grad():
        for conv, weight, v in zip(convs, weights, vectors, strict=True):
            parametrization = conv.parametrizations.weight
            parametrization.original.copy_(weight.view_as(parametrization.original))
            parametrization[0]._v.copy_(F.normalize(v, dim=0)[:, 0])
            conv.bias.zero_()
        for norm, gain, shift in zip(norms, critic.gain, critic.shift, strict=True):
            norm.weight.copy_(gain)
            norm.bias.copy_(shift)
        convs[-1].bias.copy_(critic.bias)
    return model


def photo():
    generator = torch.Generator().manual_seed(0)
    return imresize(torch.rand(3, 40, 40, generator=generator), 8).clamp(0, 1)


def pairs(module, image, iterations):
    return CropPairs(image, iterations, module.crop, module.output_size, module.scale, module.seed)


def fit(module, crops):
    Trainer(barebones=True, max_epochs=1, accelerator="cpu").fit(module, DataLoader(crops, BLOCK))


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def spread(values, unit=""):
    return f"{statistics.median(values):.3g}{unit} ({min(values):.3g} to {max(values):.3g})"


def exact(**options):
    """In float64, and with a kernel that sums to one half: at the usual tiny one, Adam magnifies rounding errors."""
    module = KernelGAN(**options).double()
    module.bicubic = losses.bicubic_matrix(module.crop, module.output_size, module.scale)  # was rounded to float32
    with torch.no_grad():
        factor = (0.5 / module.generator.kernel().sum().abs()) ** (1 / len(module.generator.filters))
        for weight in module.generator.filters:
            weight *= factor
    return module


def difference(iterations):
    """Of the two kernels after some iterations in float64, relative to the kernel's largest value."""
    module = exact()
    plain, crops = PlainKernelGAN(module), pairs(module, photo().double(), iterations)
    plain.train(crops)
    fit(module, crops)
    kernel, expected = torch.from_numpy(module.kernel()), plain.kernel()
    return ((kernel - expected).abs().max() / expected.abs().max()).item()


def alternate(threads, rounds, iterations, plain_iterations):
    """Seconds of one iteration in each round: plain on so many threads, ours on one as always."""
    module = KernelGAN()
    plain = PlainKernelGAN(module)
    many, few = pairs(module, photo(), iterations), pairs(module, photo(), plain_iterations)
    slow, fast = [], []
    for _ in range(rounds + 1):  # the first one warms up
        torch.set_num_threads(threads)
        slow.append(seconds(plain.train, few) / plain_iterations)
        torch.set_num_threads(1)  # as realsr.estimation.estimate sets it: more never pay
        fast.append(seconds(fit, module, many) / iterations)
    return slow[1:], fast[1:]


def estimate(iterations, settled=0):
    estimator = functools.partial(KernelGAN, iterations=iterations, settled=settled)
    return estimate_kernel(photo(), estimator=estimator, accelerator="cpu")


def quiet():
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def work(iterations):
    quiet()
    torch.set_num_threads(1)
    return seconds(estimate, iterations)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds, iterations, plain_iterations = (3, 80, 4) if quick else (9, 200, 20)
    quiet()
    full = KernelGAN().iterations
    print(f"seconds per photo are those of {iterations} iterations (plain: {plain_iterations}), scaled up to {full}")

    count = 12 if quick else 60
    print(f"kernels after {count} iterations in float64 differ by {difference(count):.0e}")
    ratios, plain_seconds = {}, []
    for threads in (1, 2, 4):
        slow, fast = alternate(threads, rounds, iterations, plain_iterations)
        ratios[threads] = [a / b for a, b in zip(slow, fast, strict=True)]
        slow, fast = ([full * value for value in values] for values in (slow, fast))
        plain_seconds = plain_seconds or slow
        print(f"threads {threads}: plain {spread(slow, ' s')}, ours {spread(fast, ' s')}, x{spread(ratios[threads])}")

    default = [seconds(lambda: estimate_kernel(photo(), accelerator="cpu")) for _ in range(3)]
    faster = [plain / ours for plain, ours in zip(plain_seconds, default, strict=False)]
    print(f"patch matching, the default estimator, a whole photo: {spread(default, ' s')}, x{spread(faster)}")

    count = 120 if quick else 1000
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(work, [2] * 8, chunksize=1)
        for processes in (1, 2, 4):
            wall = seconds(pool.map, work, [count] * processes, 1)
            print(f"processes {processes}: {60 * processes * count / full / wall:.2f} photos a minute")
    if not quick:
        time_taken, settled = seconds(estimate, full), estimate(full, KernelGAN().settled).iterations
        print(f"a whole photo: {time_taken:.1f} s; settled after {settled} of {full} iterations")
    print(f"ratio: {statistics.median(ratios[1]):.1f} (min {min(ratios[1]):.1f}, max {max(ratios[1]):.1f})")


if __name__ == "__main__":
    main()
