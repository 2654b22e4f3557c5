"""PSNR and SSIM, in RGB and Y, of one picture: ours, against torchmetrics' SSIM in place of ours, both in float64.

Ours filters SSIM's separable window row by row and column by column, torchmetrics convolves with all of its 11x11.
Run alone: python tests/benchmarks/bench_metrics.py [--quick]
"""

import argparse
import statistics
import time

import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from realsr.metrics import image_metrics, luma, psnr, shave, ssim


def dense(sr, hr):
    """The same values by torchmetrics."""
    window = dict(gaussian_kernel=True, sigma=1.5, kernel_size=11, data_range=1.0)
    _, similarity = structural_similarity_index_measure(sr, hr, **window, return_full_image=True)
    return shave(similarity, 5).mean((1, 2, 3))  # its own mean counts its padding too


def measure(sr, hr, ssim):
    values = {}
    for suffix, a, b in (("", sr, hr), ("_y", luma(sr), luma(hr))):
        a, b = shave(a, 4), shave(b, 4)
        values |= {f"psnr{suffix}": float(psnr(a, b)), f"ssim{suffix}": float(ssim(a, b))}
    return values


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    height, width = (240, 320) if quick else (1356, 2040)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(1, 3, height, width, generator=generator).mul(255).round().double() / 255
    sr = (hr + 0.05 * torch.randn(hr.shape, generator=generator)).clamp(0, 1).mul(255).round() / 255
    ours, theirs = image_metrics(sr, hr, 4), measure(sr, hr, dense)
    for name, value in theirs.items():
        if abs(value - ours[name]) > 1e-6:
            raise SystemExit(f"{name} is {ours[name]} by ours and {value} by torchmetrics")
    fast, slow = [], []
    for _ in range(7 if quick else 3):
        for times, how in ((fast, ssim), (slow, dense)):
            start = time.perf_counter()
            measure(sr, hr, how)
            times.append(time.perf_counter() - start)
    ratios = [s / f for s, f in zip(slow, fast, strict=True)]
    ours, theirs = statistics.median(fast), statistics.median(slow)
    print(f"{width}x{height}, one thread: ours {ours:.2f} s, torchmetrics {theirs:.2f} s")
    print(f"ratio: {statistics.median(ratios):.1f} (min {min(ratios):.1f}, max {max(ratios):.1f})")


if __name__ == "__main__":
    main()
