"""A photo upscaled our way, ``load_model`` and tiles, against a plain forward of RRDBNet on the whole of it.

Plain is what most programs do: the generator in float32, NCHW, without gradients, on the whole photo, with the C
library's own way with memory. All take turns in one process; the largest difference to plain and the most memory that
a process of its own took (on a GPU: that PyTorch allocated there) stand beside each ratio. A line before the photo's is
of one tile alone, without the surroundings that tiles of a photo also see. The weights are random and keep the size of
what goes through, unless --ckpt gives trained ones.
Goal on a CPU: 1.35 for a tile at a difference under 1e-4, and half the memory for a photo.
Run alone: python tests/benchmarks/bench_upscale.py [--quick] [--backend torch onnxruntime ncnn] [--threads 4]
As on older CPUs: ONEDNN_MAX_CPU_ISA=AVX2 in front.
On a GPU, goal 3: ... --device cuda --precision bf16-true --compile --size 1024 768
The small model: ... --model compact
"""

import argparse
import contextlib
import ctypes
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import hydra
import torch
import torch.nn.functional as F
from hydra.utils import get_class
from torch import nn

from realsr import Tiles, load_model, upscale
from realsr.networks.weights import load_generator
from realsr.runtime.hardware import MMAP_MAX, TRIM_THRESHOLD, keep_memory
from realsr.runtime.help import conf_dir

PLAIN = "plain"
MMAP_THRESHOLD = -3  # of glibc's malloc.h


def random_checkpoint(model, blocks, folder):
    """A file with a generator whose random weights keep the size of what goes through."""
    with hydra.initialize_config_dir(conf_dir(), version_base="1.3"):
        spec = dict(hydra.compose("train", [f"model={model}", "data.source_dir=photos"]).model.generator)
    spec |= {"blocks": blocks} if blocks and "blocks" in spec else {}
    network = get_class(spec["_target_"])(**{key: value for key, value in spec.items() if key != "_target_"})
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = torch.randn(weight.shape, generator=generator) * weight[0].numel() ** -0.5
    last, noise = [m for m in network.modules() if isinstance(m, nn.Conv2d)][-1], torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        last.weight /= 4 * network(noise).std()
        last.bias += 0.5 - network(noise).mean()
    state = {f"generator.{key}": value for key, value in network.state_dict().items()}
    torch.save({"config": {"model": {"generator": spec}}, "state_dict": state}, Path(folder) / "model.ckpt")
    return str(Path(folder) / "model.ckpt")


def build(way, ckpt, args):
    """Of a way: the network, and what upscales a photo ``(3, H, W)`` with it; both end on the CPU."""
    if way == PLAIN:
        generator = load_generator(ckpt).to(args.device)

        @torch.no_grad()
        def plain(lr):
            return generator(lr[None].to(args.device))[0].clamp(0, 1).cpu()

        return plain, plain
    gpu, ours = args.device == "cuda", way == "torch"
    options = {"precision": args.precision, "compile": args.compile} if ours else {}
    model = load_model(ckpt, way, "gpu" if gpu else "cpu", **options)
    tiles = Tiles(args.tile, args.overlap) if args.tile else Tiles()
    return lambda tile: model(tile[None].to(model.device))[0].clamp(0, 1).cpu(), lambda lr: upscale(
        lr, model, tiles=tiles
    )


def give_back():
    """The C library's own way with memory, which keep_memory changes for all in this process."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for setting, value in ((MMAP_MAX, 65536), (MMAP_THRESHOLD, 2**25), (TRIM_THRESHOLD, 2**26)):
            libc.mallopt(setting, value)  # where glibc's thresholds end up by themselves
        libc.malloc_trim(0)


def picture(height, width):
    """Structure of several sizes, ``(3, height, width)`` in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    coarse = [torch.rand(1, 3, height // step + 2, width // step + 2, generator=generator) for step in (2, 8, 32)]
    parts = [F.interpolate(part, (height, width), mode="bilinear") for part in coarse]
    return torch.cat(parts).mean(0)


def take_turns(ways, image, rounds):
    """Seconds of each way by round, and its largest difference to the first; a first round is not timed."""
    reference, difference, seconds = None, {}, {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            give_back() if name == PLAIN else keep_memory()
            start = time.perf_counter()
            result = way(image)
            if number:
                seconds[name].append(time.perf_counter() - start)
            else:
                reference = result if reference is None else reference
                difference[name] = float((result - reference).abs().max())
    return seconds, difference


def peak_memory(way, ckpt):
    """GB that a process of its own took at most for the photo, with the same options."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory", way, "--ckpt", ckpt]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(answer.splitlines()[-1])


def report(title, ways, image, rounds, memory):
    """A line for each way beside plain; gives the ratios of the first."""
    seconds, difference = take_turns(ways, image, rounds)
    plain = seconds[PLAIN]
    took = f", {memory[PLAIN]:.2f} GB" if memory else ""
    megapixels = image.shape[1] * image.shape[2] / 1e6

    def speed(times):
        typical = statistics.median(times)
        return f"{typical:.2f} s, {typical / megapixels:.0f} a megapixel"

    print(f"{title}: plain {speed(plain)}{took}")
    ratios = {
        name: [p / o for p, o in zip(plain, ours, strict=True)] for name, ours in seconds.items() if name != PLAIN
    }
    for name, values in ratios.items():
        line = f"  {name}: {speed(seconds[name])}, ratio {summary(values)}"
        took = f", {memory[name]:.2f} GB, {memory[name] / memory[PLAIN]:.2f} of plain" if memory else ""
        print(f"{line}, difference {difference[name]:.1e}{took}", flush=True)
    return next(iter(ratios.values()))


def summary(values):
    return f"{statistics.median(values):.2f} (min {min(values):.2f}, max {max(values):.2f})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--backend", nargs="+", default=["torch"])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="32-true", help="of backend torch; plain is always float32")
    parser.add_argument("--compile", action="store_true", help="of backend torch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the photo, in LR pixels")
    parser.add_argument("--tile", type=int, default=0, help="in LR pixels; 0: the default")
    parser.add_argument("--overlap", type=int, default=-1)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--model", default="esrgan", help="of conf/model")
    parser.add_argument("--ckpt", help="a file with weights")
    parser.add_argument("--memory", help=argparse.SUPPRESS)  # of this way alone
    args = parser.parse_args()
    height, width = args.size or ((128, 192) if args.quick else (384, 512))
    rounds = args.rounds or (2 if args.quick else 3)
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        ckpt = args.ckpt or random_checkpoint(args.model, 2 if args.quick else None, folder)
        if args.memory:
            if args.memory != PLAIN:
                keep_memory()
            build(args.memory, ckpt, args)[1](picture(height, width))
            status = Path("/proc/self/status").read_text()  # getrusage counts what the parent had when it forked
            resident = 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])
            print((torch.cuda.max_memory_allocated() if args.device == "cuda" else resident) / 1e9)
            return
        names = [PLAIN, *args.backend]
        built = {name: build(name, ckpt, args) for name in names}
        tile = {name: network for name, (network, _) in built.items()}
        report("a tile of 128x128", tile, picture(128, 128), rounds, {})
        memory = {name: peak_memory(name, ckpt) for name in names}
        photo = {name: whole for name, (_, whole) in built.items()}
        ratios = report(f"a photo of {width}x{height}", photo, picture(height, width), rounds, memory)
        print(f"ratio: {summary(ratios)}")


if __name__ == "__main__":
    main()
