"""Blur and subsample a batch: our strided convolution against blurring every pixel and dropping most of them.

The plain way is a grouped convolution at stride 1 with a kernel for each image and colour, then ``[::4, ::4]``.
Then the whole degradation of a batch of 16 (HR 128) beside the forward pass of the full generator, on the CPU with one
thread and on the GPU where there is one: the goal is a twentieth.
Run alone: python tests/benchmarks/bench_degradation.py [--quick]
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from realsr.degradation.paper import PaperDegradation
from realsr.imaging.resample import blur_subsample
from realsr.networks.rrdb import RRDBNet
from realsr.pools.pool import KernelPool, NoisePool


def plain(hr, kernels, scale):
    n, c, h, w = hr.shape
    size = kernels.shape[-1]
    padded = F.pad(hr, [size // 2] * 4, mode="reflect").view(1, n * c, h + size - 1, w + size - 1)
    weight = kernels.repeat_interleave(c, 0)[:, None]
    return F.conv2d(padded, weight, groups=n * c).view(n, c, h, w)[..., ::scale, ::scale]


def seconds(function, repeats, settle=lambda: None):
    settle()
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    settle()
    return (time.perf_counter() - start) / repeats


@torch.no_grad()
def beside_the_generator(device, rounds):
    """Milliseconds of the degradation and of the generator's forward pass, for the same batch of 16."""
    settle = torch.cuda.synchronize if device == "cuda" else lambda: None
    network, noise = RRDBNet().to(device).eval(), torch.randint(0, 256, (200, 3, 256, 256), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    for size in (13, 33):
        kernels = torch.rand(50, size, size)
        kernels /= kernels.sum((1, 2), keepdim=True)
        names = [str(index) for index in range(200)]
        degradation = PaperDegradation(4, KernelPool(kernels, names[:50]), NoisePool(noise, names))
        side = 128 + 2 * degradation.margin
        hr = torch.rand(16, 3, side, side, device=device)
        lr = degradation(hr, generator, degradation.margin)
        network(lr[: 16 if device == "cuda" else 1])
        slow, fast = [], []
        for _ in range(rounds):
            fast.append(seconds(lambda: degradation(hr, generator, degradation.margin), 20, settle))  # noqa: B023
            slow.append(seconds(lambda: network(lr), 10 if device == "cuda" else 1, settle))  # noqa: B023
        print(f"{device}, {size}x{size}: degradation of 16 {statistics.median(fast) * 1e3:.2f} ms", end=", ")
        print(f"generator's forward {statistics.median(slow) * 1e3:.1f} ms, a share of", end=" ")
        print(f"1/{statistics.median(s / f for s, f in zip(slow, fast, strict=True)):.0f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds = 5 if quick else 15
    torch.set_num_threads(1)
    ratios = []
    for size in (13, 33):
        hr = torch.rand(16, 3, 128, 128)
        kernels = torch.rand(16, size, size)
        kernels /= kernels.sum((1, 2), keepdim=True)
        ours, theirs = blur_subsample(hr, kernels, 4), plain(hr, kernels, 4)
        inner = slice(size // 8 + 1, -(size // 8 + 1))
        difference = (ours - theirs)[..., inner, inner].abs().max().item()
        ratios = []
        for _ in range(rounds):
            slow = seconds(lambda: plain(hr, kernels, 4), 3)  # noqa: B023
            fast = seconds(lambda: blur_subsample(hr, kernels, 4), 3)  # noqa: B023
            ratios.append(slow / fast)
        print(f"{size}x{size}: plain {slow * 1e3:.1f} ms, ours {fast * 1e3:.1f} ms, max difference {difference:.1e}")
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        beside_the_generator(device, 1 if quick and device == "cpu" else 3)
    print(f"ratio: {statistics.median(ratios):.1f} (min {min(ratios):.1f}, max {max(ratios):.1f})")


if __name__ == "__main__":
    main()
