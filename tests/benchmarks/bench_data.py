"""Training pairs a second, on one core: ours against opening PNGs for every sample, stage by stage and the whole path.

The plain ways of the field, for photos of 2040x1356 pixels (DIV2K's size) at x4, HR crops of 128 pixels:
  whole     decode the HR and the LR photo whole, crop both, flip and turn, open a noise PNG, cut it, add it
  480       the same on sub-images of 480 pixels (LR 120), which are cut out of the photos beforehand
Their LR is made beforehand; ours is blurred, subsampled and given noise afresh. All make batches of 16 (lr, hr) as
tensors, from files in the page cache, alternating in one process with one thread. PNGs are decoded by OpenCV.
Run alone: python tests/benchmarks/bench_data.py [--quick]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

from realsr.data.datasets import HRCrops, StepSampler
from realsr.data.store import prepare_hr, stored_hr
from realsr.degradation.paper import PaperDegradation
from realsr.estimation.kernels import gaussian_kernel
from realsr.imaging.resample import blur_subsample
from realsr.pools.pool import KernelPool, NoisePool
from realsr.pools.sampling import NoiseDraw

HEIGHT, WIDTH, SUB, SCALE, CROP, BATCH, TILE = 1356, 2040, 480, 4, 128, 16, 256


def photo(rng):
    """Structure of all sizes, edges, and noise of two levels: its PNG takes as much as one of DIV2K's (4 to 5 MB)."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for octave in range(1, 9):
        coarse = rng.standard_normal((HEIGHT // 2**octave + 2, WIDTH // 2**octave + 2, 3), dtype=np.float32)
        image += 2**octave * 0.35 * cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for _ in range(60):
        y, x, h, w = (int(rng.integers(1, side)) for side in (HEIGHT, WIDTH, HEIGHT // 3, WIDTH // 3))
        image[y : y + h, x : x + w] += rng.normal(0, 40)
    image += 110 + 3 * rng.standard_normal(image.shape, dtype=np.float32)
    return image.clip(0, 255).astype(np.uint8)


def lay_out(folder, count, rng):
    """The files that each way reads: photos and their LR, sub-images of both, noise tiles; gives the noise."""
    for number in range(count):
        hr = photo(rng)
        lr = cv2.resize(hr, None, fx=1 / SCALE, fy=1 / SCALE, interpolation=cv2.INTER_AREA).astype(np.float32)
        lr = (lr + rng.normal(0, 4, lr.shape)).clip(0, 255).astype(np.uint8)
        for name, image, sub in (("hr", hr, SUB), ("lr", lr, SUB // SCALE)):
            for kind in (f"whole_{name}", f"480_{name}"):
                (folder / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"whole_{name}" / f"{number}.png"), image)
            for y in range(0, image.shape[0] - sub + 1, sub):
                for x in range(0, image.shape[1] - sub + 1, sub):
                    part = image[y : y + sub, x : x + sub]
                    cv2.imwrite(str(folder / f"480_{name}" / f"{number}_{y // sub}_{x // sub}.png"), part)
    noise = rng.normal(128, 4, (40, TILE, TILE, 3)).clip(0, 255).astype(np.uint8)
    (folder / "noise").mkdir()
    for number, tile in enumerate(noise):
        cv2.imwrite(str(folder / "noise" / f"{number}.png"), tile)
    return noise


class Plain:
    """PNGs opened for every sample."""

    def __init__(self, folder, kind, rng):
        self.hr, self.lr = (sorted((folder / f"{kind}_{name}").iterdir()) for name in ("hr", "lr"))
        self.noise, self.rng = sorted((folder / "noise").iterdir()), rng

    def decode(self):
        index = self.rng.integers(len(self.hr))
        return cv2.imread(str(self.lr[index])), cv2.imread(str(self.hr[index]))

    def crop(self, lr, hr):
        side = CROP // SCALE
        y, x = (int(self.rng.integers(length - side + 1)) for length in lr.shape[:2])
        hr = hr[y * SCALE : y * SCALE + CROP, x * SCALE : x * SCALE + CROP]
        return lr[y : y + side, x : x + side], hr

    def augment(self, lr, hr):
        turn, flip = int(self.rng.integers(4)), self.rng.random() < 0.5
        lr, hr = (np.rot90(image[:, ::-1] if flip else image, turn) for image in (lr, hr))
        to_rgb = ((image[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255) for image in (lr, hr))
        return [torch.from_numpy(np.ascontiguousarray(image)) for image in to_rgb]

    def add_noise(self, lr):
        tile = cv2.imread(str(self.noise[self.rng.integers(len(self.noise))]))[..., ::-1].astype(np.float32) / 255
        y, x = (int(self.rng.integers(length - lr.shape[1] + 1)) for length in tile.shape[:2])
        patch = tile[y : y + lr.shape[1], x : x + lr.shape[2]].transpose(2, 0, 1)
        return (lr + torch.from_numpy(patch - patch.mean((1, 2), keepdims=True))).clamp(0, 1)

    def batch(self):
        pairs = [self.augment(*self.crop(*self.decode())) for _ in range(BATCH)]
        return default_collate([(self.add_noise(lr), hr) for lr, hr in pairs])


class Ours:
    """The way of :class:`realsr.data.datamodule.RealSRData`, from its store."""

    def __init__(self, images, noise, frame, device):
        kernels = torch.from_numpy(np.stack([gaussian_kernel(frame, (s, s), 0, SCALE) for s in (1.0, 1.5, 2.0, 2.5)]))
        pool = NoisePool(torch.from_numpy(noise).permute(0, 3, 1, 2).contiguous(), [str(i) for i in range(len(noise))])
        self.kernels = KernelPool(kernels.float(), ["a", "b", "c", "d"]).to(device)
        self.degradation = PaperDegradation(SCALE, self.kernels, pool.to(device))
        self.margin, self.device, self.noise = self.degradation.margin, device, pool.to(device)
        self.crops = HRCrops(images, [], 1.0, CROP + 2 * self.margin, 0, A.Compose([A.D4(p=1)]))
        self.generator = torch.Generator().manual_seed(0)
        loader = DataLoader(self.crops, BATCH, sampler=StepSampler(0, 10**6, BATCH), pin_memory=device.type == "cuda")
        self.batches = iter(loader)

    def batch(self):
        hr = next(self.batches)["hr"].to(self.device, non_blocking=True) / 255
        lr = self.degradation(hr, self.generator, self.margin)
        inner = slice(self.margin, self.margin + CROP)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return lr, hr[..., inner, inner]

    def read_cold(self, count=32):
        """Seconds a crop where nothing is in the page cache."""
        for image in self.crops.source:
            handle = os.open(image.path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
        return seconds(lambda i: self.crops[i], count)


def seconds(function, repeats):
    start = time.perf_counter()
    for number in range(repeats):
        function(number)
    return (time.perf_counter() - start) / repeats


def rates(stages, samples=1):
    """``{stage: (function, repeats)}`` as text: samples a second of each."""
    parts = []
    for name, (function, repeats) in stages.items():
        function(0)
        parts.append(f"{name} {samples / statistics.median(seconds(function, repeats) for _ in range(3)):,.0f}")
    return ", ".join(parts)


def plain_stages(plain):
    lr, hr = plain.decode()
    small = plain.crop(lr, hr)
    turned = plain.augment(*small)[0]
    return rates(
        {
            "decode": (lambda _: plain.decode(), 4),
            "crop": (lambda _: plain.crop(lr, hr), 200),
            "augmentation and to float": (lambda _: plain.augment(*small), 100),
            "noise": (lambda _: plain.add_noise(turned), 10),
        }
    )


def our_stages(ours):
    crops, side = ours.crops, ours.crops.crop
    image = crops.source[0]
    region, rng = image[:side, :side], np.random.default_rng(0)
    corners = rng.integers(0, [HEIGHT - side, WIDTH - side], (4096, 2))

    def augment(number):
        crops.augment.set_random_seed(number)
        return np.ascontiguousarray(crops.augment(image=region)["image"].transpose(2, 0, 1))

    def read(number):
        y, x = corners[number % len(corners)]
        return image[y : y + side, x : x + side]

    print("  samples a second:", rates({
        "read of a given place": (read, 500),
        "augmentation": (augment, 500),
        "all of a crop": (lambda number: crops[number], 500),
    }))  # fmt: skip
    batch = default_collate([crops[i] for i in range(BATCH)])["hr"]
    items = [crops[i] for i in range(BATCH)]
    moved = batch.to(ours.device)
    hr = moved / 255
    lr = torch.rand(BATCH, 3, CROP // SCALE, CROP // SCALE, device=ours.device)
    kernels, draw = ours.kernels.sample(BATCH, ours.generator), NoiseDraw()
    settle = torch.cuda.synchronize if ours.device.type == "cuda" else lambda: None
    pinned = batch.pin_memory() if ours.device.type == "cuda" else batch

    def noisy():
        return lr + draw.noise(ours.noise, draw.draw(ours.noise, BATCH, lr.shape[-2:], ours.generator), lr)

    def on_device(function):
        return lambda _: (function(), settle()), 50

    stages = {
        "collate": (lambda _: default_collate(items), 50),
        "transfer": on_device(lambda: pinned.to(ours.device, non_blocking=True)),
        "to float": on_device(lambda: moved / 255),
        "blur and subsample": on_device(lambda: blur_subsample(hr, kernels, SCALE, ours.margin)),
        "noise": on_device(noisy),
        "all of the degradation": on_device(lambda: ours.degradation(hr, ours.generator, ours.margin)),
    }
    if ours.device.type == "cpu":
        del stages["transfer"]
    print("  as batches of 16:", rates(stages, BATCH), "" if ours.device.type == "cuda" else "(no GPU: no transfer)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds, count = (3, 3) if quick else (9, 8)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise = lay_out(folder, count, rng)
        photos = sorted((folder / "whole_hr").iterdir())
        sizes = [sum(p.stat().st_size for p in (folder / k).iterdir()) / 1e6 for k in ("whole_hr", "480_hr")]
        once = seconds(lambda _: prepare_hr([(photos, 1.0)], folder / "store", CROP), 1)
        images = stored_hr(photos, folder / "store", 1.0, CROP)
        held = sum(image.path.stat().st_size for image in images) / 1e6
        print(f"{count} photos: PNGs of {sizes[0]:.0f} MB ({sizes[1]:.0f} MB as sub-images), our store {held:.0f} MB, ")
        print(f"made in {once / count:.2f} s a photo; opening it again takes", end=" ")
        print(f"{seconds(lambda _: stored_hr(photos, folder / 'store', 1.0, CROP), 5) * 1e3 / count:.2f} ms a photo")
        ways = {"whole": Plain(folder, "whole", rng), "480": Plain(folder, "480", rng)}
        frames = {frame: Ours(images, noise, frame, device) for frame in (13, 33)}
        for kind, plain in ways.items():
            print(f"{kind}, samples a second: {plain_stages(plain)}")
        for frame, ours in frames.items():
            print(f"ours with kernels of {frame}x{frame} on {device.type}")
            our_stages(ours)
        if hasattr(os, "posix_fadvise"):
            os.sync()
            cold = [frames[33].read_cold() * 1e3 for _ in range(3)]
            print(f"ours, a crop that is in no page cache: {statistics.median(cold):.2f} ms (max {max(cold):.2f})")
            for image in images:
                image[:, :]
        times = {name: [] for name in ("whole", "480", 13, 33)}
        for _ in range(rounds):
            times["whole"].append(seconds(lambda _: ways["whole"].batch(), 1) / BATCH)
            for frame, ours in frames.items():
                times[frame].append(seconds(lambda _: ours.batch(), 20) / BATCH)  # noqa: B023
            times["480"].append(seconds(lambda _: ways["480"].batch(), 2) / BATCH)
    for name, taken in times.items():
        way = f"ours, {name}x{name} kernels" if name in frames else f"plain, {name}"
        print(f"whole path, {way}: {1 / statistics.median(taken):,.0f} samples a second", end=" ")
        print(f"(min {1 / max(taken):,.0f}, max {1 / min(taken):,.0f})")
    for kind, goal in (("whole", 50), ("480", 10)):
        for frame in (13, 33):
            ratios = [slow / fast for slow, fast in zip(times[kind], times[frame], strict=True)]
            print(f"ratio to plain, {kind} (goal {goal}), {frame}x{frame} kernels:", end=" ")
            print(f"{statistics.median(ratios):.1f} (min {min(ratios):.1f}, max {max(ratios):.1f})")
    print(f"ratio: {statistics.median(ratios):.1f} (min {min(ratios):.1f}, max {max(ratios):.1f})")


if __name__ == "__main__":
    main()
