"""What a network that is adapted on a CPU should see and be told: crops, batch, weight of LPIPS, rate; time for time.

Of each simulated camera the pools are learnt from its photos. Then a start is adapted with degradation=camera for the
same CPU minutes by each setting, and enlarges the camera's test photos. The loss against patterns has the
presets' weight of 4. ``mesh``: a pattern of four pixels, in levels.

python tests/benchmarks/bench_laptop.py [--quick] [--photos DIR] [--minutes 4] [--cameras phone hand]
    [--settings 128:4:0.01:2e-4 64:16:0.01:2e-4] [--lpips squeezenet1_1.pth] [--output DIR]
"""

import argparse
import os
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import camera_measures as measures
import camera_training as training
import numpy as np
from bench_camera import find_scenes, taken

from realsr.data.cameras import CAMERAS
from realsr.imaging import Photo, write_image
from realsr.networks.perceptual import load_lpips
from realsr.networks.starts import start_file

warnings.simplefilter("ignore")
SETTINGS = ("128:4:0.01:2e-4", "64:16:0.01:2e-4", "192:2:0.01:2e-4", "128:8:0.01:2e-4", "128:4:0.03:2e-4",
            "128:4:0:2e-4", "128:4:0.01:5e-5", "128:4:0.01:5e-4")  # fmt: skip


def learnt(name, scenes, seen, folder):
    """Folder of a camera's pools, learnt from its photos where it is not there yet."""
    pools = folder / name / "pools"
    if not pools.is_dir():
        shot = 100 * list(CAMERAS).index(name)
        photos = measures.photograph(CAMERAS[name], scenes["source"], seen, folder / name / "source", shot)
        measures.learn(photos, pools, 4, [])
    return pools


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds of two settings")
    parser.add_argument("--minutes", type=float, default=4, help="of CPU")
    parser.add_argument("--cameras", nargs="+", default=["phone", "hand"], choices=CAMERAS)
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help="side:crops:weight of LPIPS:learning rate")
    parser.add_argument("--start", default="compact_x4", help="a start's name or file")
    parser.add_argument("--photos", type=Path, help="sharp, clean photos; default: scikit-image's")
    parser.add_argument("--count", type=int, default=8, help="of photos of a kind")
    parser.add_argument("--lpips", help="a file with torchvision's SqueezeNet 1.1; without it L1 alone")
    parser.add_argument("--output", type=Path, help="folder for pools, which are kept, and the sheet of pictures")
    args = parser.parse_args()
    if args.quick:
        args.minutes, args.cameras, args.settings, args.count = 0.05, ["phone"], SETTINGS[:2], 2
    lpips = load_lpips("squeeze", args.lpips) if args.lpips else None
    start = training.start_network(start_file(args.start))
    found, rows = {"start": []}, []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output or Path(temporary)
        scenes = find_scenes(args.photos, args.count, folder / "scenes")
        clean = [measures.read_cut(hr, 4) for hr in scenes["clean"]]
        for name in args.cameras:
            pools = learnt(name, scenes, 4 if args.photos else 2, folder)
            pairs = taken(CAMERAS[name], scenes["test"], 4, folder / name / "test", 1)
            tests = training.middles(dict(zip((p.stem for p in scenes["test"]), pairs, strict=True)), 4)
            degradation, pictures = measures.variants(["camera"], pools, 4)["camera"], {}
            for setting in ["start", *args.settings]:
                network, steps = start.eval(), 0
                if setting != "start":
                    side, crops, weight, rate = (float(part) for part in setting.split(":"))
                    draw = training.crops_by(degradation, clean, int(side), int(crops))
                    loss = lpips if weight else None
                    network, steps = training.adapt(
                        start, draw, minutes=args.minutes, lpips=loss, rate=rate, weight=weight, pattern=4
                    )
                pictures[setting] = training.enlarged(network, tests)
                scores = training.scores(pictures[setting], tests, 4, lpips)
                found.setdefault(setting, []).append(scores)
                told = "  ".join(f"{key} {value:.4f}" for key, value in scores.items())
                print(f"{name:8} {setting:18} {steps:6} steps  {told}", flush=True)
            rows += [training.sheet_row(name, pictures, tests, i) for i in range(2)]
            if args.output:
                write_image(folder / "laptop.png", Photo(training.sheet(rows)))
    means = {key: {m: float(np.mean([row[m] for row in each])) for m in each[0]} for key, each in found.items()}
    for setting, scores in means.items():
        print(f"{'mean':8} {setting:18} " + "  ".join(f"{key} {value:.4f}" for key, value in scores.items()))
    gains = [scores["psnr"] - means["start"]["psnr"] for setting, scores in means.items() if setting != "start"]
    print(f"gain: {max(gains):.2f} dB over the start (worst {min(gains):.2f})")


if __name__ == "__main__":
    main()
