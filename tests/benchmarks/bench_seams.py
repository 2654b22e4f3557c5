"""What is left of the seams between tiles, by the overlap, and what that costs: tiles against the image whole.

Real weights look less far than these: every convolution is made to spread what it sees evenly, as far as the network
reaches before its output is noise. A trained checkpoint is measured with --ckpt.
Run alone: python tests/benchmarks/bench_seams.py [--quick] [--ckpt FILE] [--tile 64]
"""

import argparse
import statistics
import time

import torch
from skimage import data
from torch import nn

from realsr.backends.pytorch import TorchNetwork
from realsr.images import to_float
from realsr.networks.rrdb import RRDBNet
from realsr.networks.weights import load_generator
from realsr.tiling import OVERLAP, upscale_tiled


def far_seeing(blocks):
    """An RRDBNet whose output hangs on pixels that lie far, in contrast like a photo's."""
    torch.manual_seed(0)
    network = RRDBNet(64, blocks, 32).eval()
    with torch.no_grad():
        for conv in network.modules():
            if isinstance(conv, nn.Conv2d):
                even = conv.weight.mean((2, 3), keepdim=True)
                conv.weight.copy_(8 * (2 * even + 0.3 * conv.weight))
        sr = network(to_float(data.astronaut())[None, :, 100:148, 200:248])
        network.conv_last.weight.mul_(0.2 / sr.std())
        network.conv_last.bias.copy_(0.5 - 0.2 / sr.std() * sr.mean((0, 2, 3)))
    return network


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ckpt")
    parser.add_argument("--tile", type=int, default=64)
    options = parser.parse_args()
    blocks, side = (6, 128) if options.quick else (23, 224)
    torch.set_num_threads(1)
    generator = load_generator(options.ckpt) if options.ckpt else far_seeing(blocks)
    network = TorchNetwork(generator, torch.device("cpu"))
    lr = to_float(data.astronaut())[None, :, :side, 120 : 120 + side]
    whole = network(lr).clamp(0, 1)
    for overlap in (0, 8, 10, 16, 24, 32, 40):
        difference = (upscale_tiled(network, lr, network.scale, options.tile, overlap) - whole).abs().max()
        print(f"overlap {overlap:2d}: differs by {255 * float(difference):.4f} of 255 levels at most")
    tiled, untiled = [], []
    for _ in range(3):
        for times, tile in ((tiled, options.tile), (untiled, 0)):
            start = time.perf_counter()
            upscale_tiled(network, lr, network.scale, tile, OVERLAP)
            times.append(time.perf_counter() - start)
    ratios = [whole / tiles for whole, tiles in zip(untiled, tiled, strict=True)]
    print(f"overlap {OVERLAP}: {statistics.median(tiled):.1f} s, whole {statistics.median(untiled):.1f} s, one thread")
    print(f"ratio: {statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f})")


if __name__ == "__main__":
    main()
