"""Generators of conf/model against each other: size, speed, and quality after the same minutes of one core.

Each is trained from random weights, or from its start if one is given (``--start plksr:FILE``), on crops of clean
photos whose LR any camera makes (degradation=any_camera), L1 alone, and enlarges test photos of the simulated cameras.

python tests/benchmarks/bench_networks.py [--quick] [--minutes 15] [--photos DIR] [--lpips squeezenet1_1.pth]
    [--networks compact span plksr omnisr safmn] [--start NAME:FILE] [--rate 2e-4]
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import camera_measures as measures
import camera_training as training
import hydra
import numpy as np
import torch
from bench_camera import find_scenes, taken
from hydra.utils import instantiate

from realsr.data.cameras import CAMERAS
from realsr.imaging import Photo, write_image
from realsr.networks.initial import pass_through
from realsr.networks.perceptual import load_lpips
from realsr.networks.weights import load_weights
from realsr.runtime.help import conf_dir

warnings.simplefilter("ignore")
NETWORKS = ("compact", "span", "plksr", "omnisr", "safmn")
SIDE = 256  # LR pixels of the picture that speed is measured on


def built(name, scale, file):
    with hydra.initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = hydra.compose("train", [f"model={name}", "degradation=any_camera", f"scale={scale}", "perceptual=none"])
        torch.manual_seed(0)
        network, degradation = instantiate(cfg.model.generator), instantiate(cfg.data.degradation)()
    if cfg.model.initialise == "pass_through":
        pass_through(network)
    if file is not None:
        load_weights(network, file)
    return network, degradation


@torch.inference_mode()
def seconds_a_megapixel(network, runs):
    """CPU seconds for a megapixel of LR, the median of some runs."""
    times = []
    for _ in range(runs + 1):
        began = time.process_time()
        network(torch.rand(1, 3, SIDE, SIDE))
        times.append(time.process_time() - began)
    return float(np.median(times[1:])) / (SIDE**2 / 1e6)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds of two networks")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--photos", type=Path, help="sharp, clean photos; default: scikit-image's")
    parser.add_argument("--count", type=int, default=8, help="of photos of a kind")
    parser.add_argument("--start", action="append", default=[], help="NAME:FILE")
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--lpips", help="a file with torchvision's SqueezeNet 1.1")
    parser.add_argument("--output", type=Path, help="folder for the sheet of pictures")
    args = parser.parse_args()
    if args.quick:
        args.minutes, args.networks = 0.1, args.networks[:2]
    scale, starts = 4, dict(start.split(":", 1) for start in args.start)
    lpips = None if args.lpips is None else load_lpips("squeeze", args.lpips)
    scenes = find_scenes(args.photos, args.count, Path(tempfile.mkdtemp()))
    clean = [measures.read_cut(hr, scale) for kind in ("source", "clean") for hr in scenes[kind]]
    tests = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, camera in CAMERAS.items():
            pairs = taken(camera, scenes["test"], scale, Path(folder) / name, 1)
            tests |= {f"{name}-{p.stem}": pair for p, pair in zip(scenes["test"], pairs, strict=True)}
    tests = training.middles(tests, scale)
    pictures, gains = {"bicubic": training.enlarged(lambda lr: training.bicubic(lr, scale), tests)}, []
    low = training.scores(pictures["bicubic"], tests, scale, lpips)
    print(f"{'network':10} {'M param.':>8} {'s / MP':>8} {'steps':>6}  metrics", flush=True)
    for name in args.networks:
        network, degradation = built(name, scale, starts.get(name))
        draw = training.crops_by(degradation, clean)
        trained, steps = training.adapt(network, draw, minutes=args.minutes, rate=args.rate)
        pictures[name] = training.enlarged(trained, tests)
        found = training.scores(pictures[name], tests, scale, lpips)
        gains.append(found["psnr"] - low["psnr"])
        size, speed = sum(p.numel() for p in network.parameters()) / 1e6, seconds_a_megapixel(trained, 3)
        told = "  ".join(f"{key} {value:.4f}" for key, value in found.items())
        print(f"{name:10} {size:8.2f} {speed:8.2f} {steps:6}  {told}", flush=True)
    print(f"{'bicubic':32}    " + "  ".join(f"{key} {value:.4f}" for key, value in low.items()))
    if args.output:
        sheet = training.sheet([training.sheet_row("", pictures, tests, i) for i in range(0, len(tests), 3)])
        write_image(args.output / "networks.png", Photo(sheet))
    print(f"gain: {max(gains):.2f} dB over bicubic (worst {min(gains):.2f})")


if __name__ == "__main__":
    main()
