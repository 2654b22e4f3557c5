"""All of the method on simulated cameras whose truth is known (realsr/data/cameras.py), against that truth.

Scenes are scikit-image's sharp colour photographs (the quickstart's, the source seen at x2, since they are small), or
sharp, clean photos of a folder, seen at the scale. A third of them each camera photographs, and we learn it from these;
the second third are clean photos to train on; the last are test photos.

python tests/benchmarks/bench_camera.py [--quick] [--photos DIR --count 8] [--cameras phone hand] [--kernelgan]
    [--train 15 --start realesr-general.pth --lpips squeezenet1_1.pth --rival x4plus:RealESRGAN_x4plus.pth]
"""

import argparse
import itertools
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import camera_measures as measures
import camera_training as training
import numpy as np
import torch
from scipy.stats import spearmanr

from realsr.data.cameras import CAMERAS
from realsr.data.samples import CLEAN, SOURCE, TEST, read_scene
from realsr.imaging import Photo, read_image, to_uint, write_image
from realsr.networks.perceptual import load_lpips
from realsr.networks.weights import load_generator
from realsr.runtime.evenly import evenly
from realsr.runtime.files import find_images

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")

KINDS = ("source", "clean", "test")
VARIANTS = ("bicubic", "noise", "kernel", "kernel_noise", "kernel_noise_jpeg", "camera")
SHOTS = 3  # of each clean scene, that the true camera is learnt from


def find_scenes(photos, count, folder):
    """Files of the scenes by kind, at most ``count`` of each."""
    if photos is not None:
        files = find_images(photos)
        by_kind = {kind: files[i::3] for i, kind in enumerate(KINDS)}
    else:
        by_kind = {}
        for kind, names in zip(KINDS, (SOURCE, CLEAN, TEST), strict=True):
            by_kind[kind] = [folder / kind / f"{Path(name).stem}.png" for name in names]
            for path, name in zip(by_kind[kind], names, strict=True):
                write_image(path, Photo(to_uint(read_scene(name))))
    return {kind: [files[i] for i in evenly(count, len(files))] for kind, files in by_kind.items()}


def taken(camera, scenes, scale, folder, shot):
    """Photos of scenes, and the scenes in the camera's tones, each pair ``(H, W, 3)`` uint8."""
    photos = measures.photograph(camera, scenes, scale, folder, shot)
    truth = (np.rint(255 * camera.ideal(measures.read_cut(hr, scale) / 255)).astype(np.uint8) for hr in scenes)
    return [(read_image(lr).rgb, hr) for lr, hr in zip(photos, truth, strict=True)]


def train_row(camera, scenes, pools, scale, args, shot, folder):
    """Metrics of the start, rivals and adapted networks, and what they make of the test photos."""
    lpips = None if args.lpips is None else load_lpips("squeeze", args.lpips)
    pairs = taken(camera, scenes["test"], scale, folder / "test", shot + 1)
    tests = training.middles(dict(zip((p.stem for p in scenes["test"]), pairs, strict=True)), scale)
    clean, shots = [measures.read_cut(hr, scale) for hr in scenes["clean"]], []
    for index in range(SHOTS):
        shots += taken(camera, scenes["clean"], scale, folder / f"clean{index}", shot + 2 + index)
    start = training.start_network(args.start)
    methods = {"bicubic": lambda lr: training.bicubic(lr, scale), "start": start.eval()}
    methods |= {name: load_generator(file) for name, file in (rival.split(":", 1) for rival in args.rival)}
    ways = measures.variants(args.adapt, pools, scale)
    draws = {name: training.crops_by(way, clean) for name, way in ways.items()}
    for name, draw in {**draws, "true camera": training.crops_of(shots, scale)}.items():
        methods[name], steps = training.adapt(start, draw, args.train, args.steps, lpips)
        print(f"  {name}: {steps} steps", flush=True)
    pictures = {name: training.enlarged(method, tests) for name, method in methods.items()}
    return {name: training.scores(made, tests, scale, lpips) for name, made in pictures.items()}, pictures, tests


def told(title, headings, rows):
    """A table of Markdown on the screen."""
    print(f"\n{title}\n\n| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for row in rows:
        print("| " + " | ".join(map(written, row)) + " |")


def written(cell):
    if isinstance(cell, str | int):
        return str(cell)
    return "–" if np.isnan(cell) else f"{cell:.3f}"


def kernel_line(name, rows):
    def both(key):
        return f"{np.median([r[key] for r in rows]):.3f} / {min(r[key] for r in rows):.3f}"

    widths, true = (np.median([r[key] for r in rows], axis=0) for key in ("widths", "true_widths"))
    ranks = (
        spearmanr([r["confidence"] for r in rows], [r["alone"] for r in rows]).statistic if len(rows) > 2 else np.nan
    )
    sure = sum(r["alone"] < 0.9 and r["confidence"] >= 0.5 for r in rows)
    shown = ["{:.1f} x {:.1f}".format(*pair) for pair in (widths, true)]
    return [
        name,
        len(rows),
        both("mnc"),
        both("alone"),
        both("psnr"),
        *shown,
        both("round"),
        both("bicubic"),
        ranks,
        sure,
    ]


def report(results):
    for key in [key for key in ("kernels", "kernelgan") if any(key in r for r in results.values())]:
        kernels = {name: r[key] for name, r in results.items()}
        every = {**kernels, "all": [*itertools.chain(*kernels.values())]}
        rows = [kernel_line(name, found) for name, found in every.items() if found]
        told(f"{key}: median / worst; MNC and PSNR in dB against the true ones", [
             "camera", "photos", "MNC", "photo alone", "PSNR",
             "widths", "true", "round", "bicubic", "rank of confidence", "sure under 0.9"], rows)  # fmt: skip
    for key, title in (("noise", "noise: pool / truth of standard deviations, correlation of neighbours"),
                       ("gap", "AUC against the camera's photos")):  # fmt: skip
        columns = list(dict.fromkeys(c for r in results.values() for c in r.get(key, {})))
        if columns:
            rows = [[r.get(key, {}).get(c, np.nan) for c in columns] for r in results.values()]
            rows.append(list(np.nanmean(np.array(rows, float), 0)))
            told(title, ["camera", *columns], [[n, *row] for n, row in zip([*results, "mean"], rows, strict=True)])
    for name, r in results.items():
        if "training" in r:
            keys = list(r["training"]["bicubic"])
            told(f"training, {name}", ["LR", *keys], [[m, *(s[k] for k in keys)] for m, s in r["training"].items()])


def bench(name, scenes, seen, args, folder):
    """All figures of a camera; and the rows of pictures that ``--train`` gives."""
    camera, shot, result = CAMERAS[name], 100 * list(CAMERAS).index(name), {"kernels": []}
    shutil.rmtree(folder, ignore_errors=True)  # pools of a former run, perhaps of other code
    photos, pools = measures.photograph(camera, scenes["source"], seen, folder / "source", shot), folder / "pools"
    failed = measures.learn(photos, pools, args.scale, args.options)
    truth = measures.true_kernels(camera, scenes["source"], args.scale, shot)
    if "kernels" not in failed:
        result["kernels"] = measures.kernel_rows(pools / "kernels", truth, args.scale)
    if args.kernelgan:
        measures.learn(photos, folder / "kernelgan", args.scale, ["estimator=kernelgan", *args.options])
        result["kernelgan"] = measures.kernel_rows(folder / "kernelgan/kernels", truth, args.scale)
    result["noise"] = (
        {} if "noise" in failed else measures.noise_row(camera, pools / "noise", scenes["source"], seen, shot)
    )
    if args.patches:
        again = measures.photograph(camera, scenes["source"], seen, folder / "again", shot + 50)
        ways = measures.variants(VARIANTS, pools, seen)
        result["gap"] = measures.gap_row(photos, again, scenes["source"], ways, seen, args.patches)
    if not (args.train or args.steps):
        return result, []
    result["training"], pictures, tests = train_row(camera, scenes, pools, args.scale, args, shot, folder)
    return result, [training.sheet_row(name, pictures, tests, list(CAMERAS).index(name))]


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of sharp, clean photos")
    parser.add_argument("--cameras", nargs="+", default=list(CAMERAS), choices=CAMERAS)
    parser.add_argument("--count", type=int, default=8, help="scenes of each kind, at most")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--patches", type=int, default=150, help="of each photo for the AUC; 0: none")
    parser.add_argument("--kernelgan", action="store_true")
    parser.add_argument("--options", nargs="*", default=[], help="of realsr.train, such as collector=dped")
    parser.add_argument("--train", type=float, help="minutes of each training")
    parser.add_argument("--steps", type=int, help="of each training, at most")
    parser.add_argument("--adapt", nargs="*", default=["kernel_noise", "camera"], help="degradations trained with")
    parser.add_argument("--start", type=Path, help="weights that trainings start from")
    parser.add_argument("--rival", nargs="*", default=[], metavar="NAME:FILE")
    parser.add_argument("--lpips", help="file of torchvision's squeezenet1_1: LPIPS in the loss and in the table")
    parser.add_argument("--output", type=Path, help="folder for photos, pools, results.json, sheet.png")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.patches, args.train, args.steps = 0, None, None
    return args


def main():
    args = parsed()
    torch.set_num_threads(1)
    results, rows, seen = {}, [], args.scale if args.photos else 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output or Path(temporary)
        scenes = find_scenes(args.photos, args.count, folder / "scenes")
        every = [*scenes["clean"], *scenes["test"], *scenes["source"]]  # of which --quick has one for each camera
        print(f"scenes: {', '.join(f'{len(files)} {kind}' for kind, files in scenes.items())}; source at x{seen}")
        for name in args.cameras:
            began = time.monotonic()
            index = list(CAMERAS).index(name)
            if args.quick:
                used = {"source": [every[index % len(every)]]}
            results[name], more = bench(name, used if args.quick else scenes, seen, args, folder / name)
            rows += more
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
            if args.output:
                (folder / "results.json").write_text(json.dumps(results, indent=1))
            if rows and args.output:
                write_image(folder / "sheet.png", Photo(training.sheet(rows)))
    report(results)
    mnc = [row["mnc"] for r in results.values() for row in r["kernels"]]
    print(f"\nmnc: {np.median(mnc):.3f} (worst {min(mnc, default=np.nan):.3f})")


if __name__ == "__main__":
    main()
