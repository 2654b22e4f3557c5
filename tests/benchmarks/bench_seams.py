"""What is left of a seam between two tiles, by the overlap, and what that costs: tiles against the photo whole.

Seams are those of trained networks, of files given with --ckpt; without it, the compact network of the package.
Goal: the worst pixel within a level at the overlap that the network is given by default.
Run alone: python tests/benchmarks/bench_seams.py [--quick] [--ckpt FILE ...] [--photos FILE ...] [--overlap 32 64]
"""

import argparse
import re
import time
from pathlib import Path

import torch
from skimage import data

from realsr.imaging import read_image, to_float
from realsr.networks import starts
from realsr.networks.tiling import upscale_tiled
from realsr.runtime.hardware import keep_memory
from realsr.upscaling.backends import load_model

TILE, HEIGHT = 144, 128  # LR pixels: two tiles side by side


def peak():
    """GB that this process took at most since it was last asked."""
    used = int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1e6
    Path("/proc/self/clear_refs").write_text("5")
    return used


def photos(paths):
    """Crops of photos, ``(1, 3, height, width)``, of scikit-image's where no others are given."""
    pictures = [read_image(path).rgb for path in paths] or [data.astronaut(), data.coffee(), data.chelsea()]
    return [to_float(rgb)[None, :, 60 : 60 + HEIGHT, 40 : 40 + 2 * TILE] for rgb in pictures]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one photo")
    parser.add_argument("--ckpt", nargs="+", default=[starts.start_file("compact_x4")])
    parser.add_argument("--photos", nargs="+", default=[])
    parser.add_argument("--overlap", type=int, nargs="+", default=[16, 32, 48, 64])
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    for file in options.ckpt:
        network = load_model(file, accelerator="cpu")
        print(f"{file}: by default an overlap of {network.overlap}")
        found = {overlap: [] for overlap in options.overlap}
        for lr in photos(options.photos)[: 1 if options.quick else None]:
            whole = network(lr).clamp(0, 1)
            for overlap, rows in found.items():
                peak()
                start = time.perf_counter()
                tiled = upscale_tiled(network, lr, network.scale, TILE, overlap)
                seconds = time.perf_counter() - start
                levels = 255 * (tiled - whole).abs()
                seam, near = network.scale * TILE, network.scale * 16
                rows.append((levels.max(), levels[..., seam - near : seam + near].mean(), seconds, peak()))
        for overlap, rows in found.items():
            worst, mean, seconds, memory = (torch.tensor([row[i] for row in rows]) for i in range(4))
            print(
                f"  overlap {overlap:2d}: worst pixel {worst.max():.2f} levels, within 16 pixels of the seam "
                f"{mean.mean():.3f} in the mean, {seconds.mean():.1f} s, {memory.max():.2f} GB",
                flush=True,
            )


if __name__ == "__main__":
    main()
