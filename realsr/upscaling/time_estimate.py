"""Estimates how long a photo will take, before a person waits for it."""

from __future__ import annotations

import math
import time

import torch

from realsr.networks.tiling import Part, Tiles
from realsr.upscaling.backends import Network

PROBE = 48  # side of the trial in pixels; a second of the full network on a core
LONG = 60  # seconds from which on the estimate is logged
SLOW = 60  # seconds per megapixel from which on a smaller network is advised


def seconds_a_megapixel(network: Network) -> float:
    """Seconds per megapixel of LR of a network on its device, by a trial of a second or less."""
    lr, seconds = torch.rand(1, 3, PROBE, PROBE, device=network.device), 0.0
    for _ in range(2):  # the first call also prepares, and compiles for images of this size
        start = time.perf_counter()
        float(network(lr).sum())  # waits for a GPU to finish
        seconds = time.perf_counter() - start
    return 1e6 * seconds / PROBE**2


def long_wait(pace: float, network: Network, tiles: Tiles, height: int, width: int) -> str:
    """A line about a photo of ``height x width`` that will take more than :data:`LONG` seconds; else nothing.

    ``pace`` is that of :func:`seconds_a_megapixel`; the overlap of tiles is counted.
    """
    fitted = tiles.fitted(network, height, width, network.device)
    parts = fitted.split(Part(0, height, 0, width), 2 * fitted.overlap)
    seconds = pace * sum(math.prod(fitted.seen(part, height, width).shape) for part in parts) / 1e6
    if seconds < LONG:
        return ""
    wait = f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
    line = f"{height * width / 1e6:.1f} megapixels, about {wait} at {pace:.0f} s a megapixel, overlap of tiles counted"
    if pace > SLOW and network.device.type == "cpu":
        line += "; the compact network (experiment=laptop trains it) takes a thirtieth of the full one"
    return line
