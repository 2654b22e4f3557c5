"""Blur and subsample a batch: our strided convolution against blurring every pixel and dropping most of them.

The plain way is a grouped convolution at stride 1 with a kernel for each image and colour, then ``[::4, ::4]``.
Run alone: python tests/benchmarks/bench_degradation.py [--quick]
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from realsr.resample import blur_subsample


def plain(hr, kernels, scale):
    n, c, h, w = hr.shape
    size = kernels.shape[-1]
    padded = F.pad(hr, [size // 2] * 4, mode="reflect").view(1, n * c, h + size - 1, w + size - 1)
    weight = kernels.repeat_interleave(c, 0)[:, None]
    return F.conv2d(padded, weight, groups=n * c).view(n, c, h, w)[..., ::scale, ::scale]


def seconds(function, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    rounds = 5 if parser.parse_args().quick else 15
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
    print(f"ratio: {statistics.median(ratios):.1f} (min {min(ratios):.1f}, max {max(ratios):.1f})")


if __name__ == "__main__":
    main()
