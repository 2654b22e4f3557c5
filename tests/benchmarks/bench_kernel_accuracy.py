"""How right estimated kernels are, on photographs whose true kernel is known, since we blurred them.

Photos are scikit-image's, or those of a folder; larger ones are halved until their shorter side has 1300 pixels at
most. Kernels are DIV2KRK's (the KernelGAN paper's test set): Gaussians of two variances between 0.175 and 2.5 times the
scale, each value off by up to 25 %, cut to 11x11 at x2 and 21x21 at x4, centred; and others that no Gaussian fits, one
for each photo: a disk (defocus), a line (motion), two lobes, bicubic and Lanczos antialiasing. A photo has the same
kernel at all levels of noise. Seeds are those of the noise and of the estimator.

What a kernel is worth is measured by the picture that it gives back: least squares with a penalty on the gradient, the
same for the estimated kernel, the true one, and the one that is assumed where nothing is estimated: bicubic's.

python tests/benchmarks/bench_kernel_accuracy.py [--quick] [--photos DIR] [--estimator patch_matching kernelgan]
"""

import argparse
import csv
import functools
import itertools
import logging
import math
import operator
import os
import statistics
import time
import warnings
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # photos run side by side instead

import numpy as np
import skimage
import torch
from scipy.stats import spearmanr
from torchmetrics.functional.image import peak_signal_noise_ratio

from realsr.data.samples import CLEAN, SOURCE, TEST
from realsr.estimation import kernels
from realsr.estimation.estimate import estimate_kernel
from realsr.estimation.kernelgan.module import KernelGAN
from realsr.estimation.patch_matching import PatchMatching
from realsr.imaging import quantize, read_image, to_float
from realsr.imaging.colour import luma
from realsr.imaging.metrics import shave
from realsr.imaging.resample import blur_subsample, crop_to_multiple, imresize
from realsr.runtime.files import find_images
from realsr.runtime.workers import default_workers, side_by_side

logging.disable(logging.WARNING)  # in workers, too
warnings.simplefilter("ignore")

FRAMES = {2: 11, 3: 15, 4: 21}  # of DIV2KRK's kernels, in which kernels are compared, too
OTHERS = ("disk", "motion", "lobes", "bicubic", "lanczos")
ESTIMATORS = ("patch_matching", "kernelgan", "kernelgan_mixed")  # mixed: as the KernelGAN program has it
MAX_SIDE = 1300  # of a photo's shorter side
MIN_SIDE = 66  # of what estimators take
CROP, BORDER = 128, 8  # LR pixels that are reconstructed, and those at each side that do not count
WIDTHS = (0.0, 0.45, 0.6, 0.75, 0.9)  # where the rows of a table begin, in LR pixels
WORST = {"PSNR": (1, min), "MNC": (3, min), "cov": (2, max), "loss": (2, max), "gain": (2, min)}  # with digits
LEGEND = """
PSNR, MNC   of the aligned kernel in dB; its largest normalised cross-correlation with the true one
cov         L1 error of the covariance, in squared HR pixels
loss, gain  dB of the picture: those lost against the true kernel, those gained over the bicubic one
seeds       standard deviation of PSNR over seeds, median over photos
width       estimated over true (bicubic and Lanczos have none: their negative lobes weigh as much as the rest)
fail, pict  kernels of lower PSNR than bicubic's, pictures worse than with it; where bicubic is not true"""


class Case(NamedTuple):
    """A photo that is degraded and looked at; from its number its kernel is drawn."""

    photo: Path
    number: int
    scale: int
    sigma: float
    shape: str
    seed: int


def make_estimator(name, scale, seed):
    if name == "patch_matching":
        return functools.partial(PatchMatching, seed=seed)
    return functools.partial(KernelGAN, scale=3 if scale == 3 else 2, mixed_colours="mixed" in name, seed=seed)


def true_kernel(shape, scale, number):
    """What shape it has, and the kernel; shapes are as large in LR pixels at all scales."""
    rng = np.random.default_rng((number, scale))
    if shape == "gauss":
        variances, angle = rng.uniform(0.175 * scale, 2.5 * scale, 2), rng.uniform(0, math.pi)
        kernel = kernels.gaussian_kernel(FRAMES[scale], tuple(np.sqrt(variances)), angle, scale)
        return shape, kernels.recentre(kernels.normalise(kernel * rng.uniform(0.75, 1.25, kernel.shape)), scale)
    shape, size = OTHERS[number % len(OTHERS)], 8 * scale + 1
    if shape == "bicubic":
        return shape, kernels.bicubic_kernel(scale)
    if shape == "lanczos":
        offset = (np.arange(size) - kernels.centre_index(size, scale)) / scale
        taps = np.sinc(offset) * np.sinc(offset / 3) * (abs(offset) < 3)
        return shape, kernels.normalise(np.outer(taps, taps))
    length, angle = rng.uniform(0.8, 1.3), rng.uniform(0, math.pi)
    offset = ((np.arange(9 * size) - 4) / 9 - kernels.centre_index(size, scale)) / scale  # nine points a pixel
    along = offset[None, :] * math.cos(angle) - offset[:, None] * math.sin(angle)
    across = offset[None, :] * math.sin(angle) + offset[:, None] * math.cos(angle)
    if shape == "disk":
        fine = np.hypot(along, across) < 0.85 * length
    elif shape == "motion":
        fine = np.exp(-8 * (across**2 + np.maximum(abs(along) - length, 0) ** 2))
    else:
        lobes = [np.exp(-3 * ((along - place) ** 2 + across**2)) for place in (0, 1.5 * length)]
        fine = 0.65 * lobes[0] + 0.35 * lobes[1]
    return shape, kernels.recentre(kernels.normalise(fine.reshape(size, 9, size, 9).mean((1, 3))), scale)


@functools.lru_cache(maxsize=1)
def read(photo):
    image = to_float(read_image(photo).rgb)
    while min(image.shape[1:]) > MAX_SIDE:
        image = imresize(image, 0.5).clamp(0, 1)
    return image


def degrade(hr, kernel, scale, sigma, seed):
    lr = blur_subsample(hr[None], torch.from_numpy(kernel)[None], scale)[0]
    noise = torch.randn(lr.shape, generator=torch.Generator().manual_seed(seed))
    return quantize(lr + noise * sigma / 255)


def reconstruct(lr, kernel, scale, weight, steps=40):
    """The ``x`` that minimises ``|blur_subsample(x) - lr|^2 + weight |gradient of x|^2``, by conjugate gradients."""
    kernel = torch.from_numpy(kernel).float()[None]

    def slope(x, lr):
        """Half the derivative by ``x``, linear in both."""
        x = x.detach().requires_grad_()
        error = ((blur_subsample(x, kernel, scale) - lr) ** 2).sum()
        rough = sum((x.diff(dim=axis) ** 2).sum() for axis in (2, 3))
        return torch.autograd.grad((error + weight * rough) / 2, x)[0]

    x = imresize(lr, scale)
    residual = direction = -slope(x, lr)
    power = (residual**2).sum()
    for _ in range(steps):
        change = slope(direction, torch.zeros_like(lr))
        step = power / (direction * change).sum()
        x, residual = x + step * direction, residual - step * change
        before, power = power, (residual**2).sum()
        direction = residual + power / before * direction
    return x


def luma_y(image):
    """Luma ``(1, 1, H, W)`` as SR papers measure it, but for its offset."""
    return 219 / 255 * luma(image)[None, None]


def picture_psnr(hr, lr, kernel, scale, sigma):
    """Of what the kernel gives back of the middle of the photo, in gray.

    The weight is a quarter of noise's and rounding's variance over that of the true gradients: best for true kernels.
    """
    top, left = (max(length - CROP, 0) // 2 for length in lr.shape[1:])
    part = luma_y(lr)[..., top : top + CROP, left : left + CROP]
    truth = luma_y(hr)[..., scale * top : scale * (top + CROP), scale * left : scale * (left + CROP)]
    noise = (sigma**2 + 1 / 12) / 255**2 / 3  # of luma, which is a mean of three colours
    gradient = sum((truth.diff(dim=axis) ** 2).mean().item() for axis in (2, 3)) / 2
    found = reconstruct(part, kernel, scale, noise / gradient / 4).clamp(0, 1)
    return peak_signal_noise_ratio(*(shave(x, BORDER * scale) for x in (found, truth)), data_range=1.0).item()


def width(kernel):
    """Geometric mean of the standard deviations along both axes."""
    return max(float(np.linalg.det(kernels.covariance(kernel))), 0.0) ** 0.25


def measure(case, estimators):
    """What comes out, for each estimator."""
    scale, hr = case.scale, crop_to_multiple(read(case.photo), case.scale)
    shape, truth = true_kernel(case.shape, scale, case.number)
    lr = degrade(hr, truth, scale, case.sigma, case.seed)
    bicubic = kernels.bicubic_kernel(scale)
    best, usual = (picture_psnr(hr, lr, kernel, scale, case.sigma) for kernel in (truth, bicubic))
    rows = []
    for name in estimators:
        start = time.process_time()
        estimate = estimate_kernel(lr, scale, make_estimator(name, scale, case.seed), "cpu")
        seconds = time.process_time() - start
        error, of_bicubic = (kernels.kernel_psnr(kernel, truth, FRAMES[scale]) for kernel in (estimate.kernel, bicubic))
        picture = picture_psnr(hr, lr, estimate.kernel, scale, case.sigma)
        row = {
            "estimator": name,
            **case._asdict(),
            "photo": case.photo.name,
            "shape": shape,
            "from": max(low for low in WIDTHS if low <= width(truth) / scale),
            "PSNR": error,
            "ratio": 10 ** ((error - of_bicubic) / 20),  # 0 where bicubic is true
            "MNC": kernels.max_normalised_correlation(estimate.kernel, truth),
            "cov": np.abs(kernels.covariance(estimate.kernel) - kernels.covariance(truth)).sum(),
            "width": width(estimate.kernel) / width(truth) if width(truth) > 0.1 else math.nan,
            "loss": best - picture,
            "gain": picture - usual,
            "confidence": estimate.confidence,
            "reasons": "; ".join(estimate.reasons),
            "seconds": seconds,
        }
        rows.append(row)
    return rows


def grouped(rows, *names):
    """Lists of rows by their values of these names, in order."""
    key = operator.itemgetter(*names)
    return {values: list(members) for values, members in itertools.groupby(sorted(rows, key=key), key)}


def median(rows, name):
    values = [row[name] for row in rows if not math.isnan(row[name])]
    return statistics.median(values) if values else math.nan


def seed_spread(rows):
    """Median over photos of the standard deviation over seeds of the kernel's PSNR."""
    photos = grouped(rows, "estimator", "photo", "scale", "sigma", "shape").values()
    spreads = [statistics.stdev(row["PSNR"] for row in photo) for photo in photos if len(photo) > 1]
    return statistics.median(spreads) if spreads else math.nan


def ratio(rows):
    ratios = [row["ratio"] for row in rows if row["ratio"]]
    return f"{statistics.median(ratios):.1f} (min {min(ratios):.1f}, max {max(ratios):.1f})" if ratios else "none"


def table(title, rows, *names):
    """A line for each group of rows."""
    if rows:
        print(f"\n{title:32}   n{''.join(f'{name:>7} worst' for name in WORST)} seeds width fail pict   s")
    for values, members in grouped(rows, *names).items():
        line = f"{' '.join(f'{value:<5}' for value in values):32}{len(members):4}"
        for name, (digits, worst) in WORST.items():
            line += f"{median(members, name):7.{digits}f}{worst(row[name] for row in members):6.{digits}f}"
        fails = sum(0 < row["ratio"] < 1 for row in members), sum(row["gain"] < 0 < row["ratio"] for row in members)
        line += f"{seed_spread(members):6.1f}{median(members, 'width'):6.2f}{fails[0]:5}{fails[1]:5}"
        print(f"{line}{median(members, 'seconds'):4.0f}")


def report(rows, estimators):
    gauss = [row for row in rows if row["shape"] == "gauss"]
    others = [row for row in rows if row["shape"] != "gauss"]
    print(LEGEND)
    table("Gaussians: scale, sigma", gauss, "estimator", "scale", "sigma")
    table("Gaussians: scale, true width from", gauss, "estimator", "scale", "from")
    table("Other shapes: scale, sigma", others, "estimator", "scale", "sigma")
    table("Other shapes: scale, shape", others, "estimator", "scale", "shape")
    print("\nRank correlation of the confidence with MNC and PSNR; MNC of kernels called doubtful, and of the others")
    for values, members in grouped(rows, "estimator", "scale").items():
        confidence = [row["confidence"] for row in members]
        ranks = [spearmanr(confidence, [row[name] for row in members])[0] for name in ("MNC", "PSNR")]
        doubtful, sure = ([row for row in members if bool(row["reasons"]) == doubt] for doubt in (True, False))
        parts = [f"{median(part, 'MNC'):8.3f} ({len(part)})" for part in (doubtful, sure)]
        print(f"{' '.join(map(str, values)):32}{ranks[0]:7.2f}{ranks[1]:7.2f}{''.join(parts)}")
    print("\nHow many times closer than bicubic's kernel: root mean squared error of aligned kernels; median of all")
    for name in reversed(estimators):
        print(f"{name}\nratio: {ratio([row for row in rows if row['estimator'] == name])}")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two photos, x2, sigma 5, one seed")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="in place of scikit-image's")
    parser.add_argument("--scale", type=int, nargs="+", default=[2, 4], choices=FRAMES)
    parser.add_argument("--sigma", type=float, nargs="+", default=[0, 2, 5, 10], help="of the noise, in 8-bit levels")
    parser.add_argument("--shape", nargs="+", default=["gauss", "other"], choices=("gauss", "other"))
    parser.add_argument("--estimator", nargs="+", default=["patch_matching"], choices=ESTIMATORS)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--workers", type=int, default=default_workers(torch.device("cpu")), help="processes")
    parser.add_argument("--limit", type=int, help="photos at most")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="for every kernel and its measures")
    args = parser.parse_args()
    if args.quick:
        args.scale, args.sigma, args.seeds, args.limit = [2], [5.0], 1, 2
    return args


def main():
    args = arguments()
    samples = [name for name in (*SOURCE, *CLEAN, *TEST) if name != "motorcycle_right.png"]  # there is a left one
    folder = Path(skimage.__file__).parent / "data"
    photos = find_images(args.photos) if args.photos else [folder / name for name in samples]
    cases = []
    for number, photo in enumerate(photos[: args.limit]):
        for scale in args.scale:
            if min(read(photo).shape[1:]) // scale < MIN_SIDE:
                print(f"left out at x{scale}: {photo.name} is too small")
                continue
            options = itertools.product([float(sigma) for sigma in args.sigma], args.shape, range(args.seeds))
            cases += [Case(photo, number, scale, *option) for option in options]
    print(f"{len(photos[: args.limit])} photos, {len(cases)} kernels, {args.workers} at a time", flush=True)
    done = side_by_side(functools.partial(measure, estimators=args.estimator), cases, args.workers)
    rows = [row for _, part in done for row in part]
    if args.csv:
        with args.csv.open("w", newline="") as file:
            csv.writer(file).writerows([rows[0], *(row.values() for row in rows)])
    report(rows, args.estimator)


if __name__ == "__main__":
    main()
